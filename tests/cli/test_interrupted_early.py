"""Ctrl-C from the first line of the package on: exit code 130 and no traceback, while the libraries are being imported, too.

bench/interrupts.py does the same with many more moments and with SIGTERM.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from make import WAIT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")

# Every import of another package is a moment: the n-th of them sends the signal.
CHILD = """
import os, signal, sys
moment, seen = int(sys.argv.pop(1)), [0]
class Finder:
    def find_spec(self, name, path=None, target=None):
        seen[0] += 1
        if seen[0] == moment:
            os.kill(os.getpid(), signal.SIGINT)
        return None
from streamtrain.cli import main
sys.meta_path.insert(0, Finder())
main()
"""


@pytest.mark.parametrize("moment", [1, 40, 200, 500])
def test_ctrl_c_in_an_import_ends_the_command(tmp_path: Path, moment: int) -> None:
    (tmp_path / "a.csv").write_text("x,y\n" + "1,0\n2,1\n" * 200)
    command = [sys.executable, "-c", CHILD, str(moment), "fit", str(tmp_path / "a.csv"), "--target", "y"]
    done = subprocess.run([*command, "--epochs", "1000000"], capture_output=True, text=True, timeout=WAIT)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\ninterrupted\n")


def test_an_interrupt_where_nothing_can_be_raised_is_not_lost() -> None:
    code = """
        import os, signal, time
        from streamtrain import cli
        class Deleted:
            def __del__(self): os.kill(os.getpid(), signal.SIGINT)
        def outcome(*_):
            Deleted()
            time.sleep(60)
        import streamtrain.cli.outcome as module
        module.outcome = outcome
        cli.main([])
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT)
    assert (done.returncode, done.stderr) == (130, "\ninterrupted\n")


def test_a_signal_after_the_end_changes_nothing() -> None:
    code = """
        import atexit, os, signal, sys
        atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))
        from streamtrain.cli import main
        main(["--version"])
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT)
    assert (done.returncode, done.stderr) == (0, "")

"""Arrow imports pandas at a known moment, or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pandas")

BEGIN = """
import sys, streamtrain, numpy as np, pyarrow as pa
assert "pandas" not in sys.modules
data = {"x": np.arange(1000.0), "y": np.arange(1000) % 2}
"""
PROGRAM = """
with_pandas = []
from streamtrain.storage.tables import MemoryReader
class Reader(MemoryReader):
    def chunks(self):
        with_pandas.append("pandas" in sys.modules)
        return super().chunks()
reader = Reader(data)
streamtrain.fit(reader, target="y", classes=[0, 1])
print(with_pandas[0])
"""
COMMAND = """
import atexit
from streamtrain.cli import main
atexit.register(lambda: print("pandas" in sys.modules, len(pa.array([1, 2]).to_numpy())))
main(sys.argv[1:])
"""


def shown(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + program, *arguments], capture_output=True, text=True, check=True, timeout=300
    )
    return done.stdout


def test_a_program_has_it_before_there_is_a_plan() -> None:
    assert shown(PROGRAM).split() == ["True"]


def test_the_command_line_leaves_it_out(tmp_path: Path) -> None:
    data = tmp_path / "d.csv"
    data.write_text("x,y\n" + "1,0\n2,1\n" * 50)
    assert shown(COMMAND, "fit", str(data), "--target", "y").splitlines()[-1] == "False 2"

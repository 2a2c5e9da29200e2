"""What tests of several folders share: the command line, in this process and in one of its own, and waiting."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from streamtrain.cli import main
from streamtrain.memory.process import resident_bytes

__all__ = [
    "PROMPT",
    "WAIT",
    "CommandLine",
    "Done",
    "budget_above",
    "command_line",
    "run_python",
    "run_streamtrain",
    "wait_for",
]

WAIT = 300.0
"""Seconds that anything may take on a busy machine: a test that waits longer has failed."""

PROMPT = 15.0
"""Seconds for what takes less than one on an idle machine, where what must not be waited for takes minutes."""


def wait_for(condition: Callable[[], object], what: str, *, seconds: float = WAIT) -> None:
    """Wait until the condition is true, looked at a hundred times a second. Raises AssertionError after ``seconds``.

    what: what is waited for, for the message.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:g} s for {what}"
        time.sleep(0.01)


def budget_above(more_bytes: int) -> str:
    """A budget of so many bytes more than this process takes now: that of many tests takes more than one of its own."""
    return str((resident_bytes() or 0) + more_bytes)


class Done(NamedTuple):
    """What a command ended with."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """stdout, which must be one line of strict JSON."""
        assert self.out.endswith("}\n") and self.out.count("\n") == 1, self.out
        content = json.loads(self.out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
        assert isinstance(content, dict)
        return content


CommandLine = Callable[..., Done]
"""Takes the arguments of ``streamtrain``, of any type."""


def command_line(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """Calls the command line in this process; the signal handlers are those of before. Tests take the fixture ``cli``."""

    def call(*arguments: Any) -> Done:
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        capsys.readouterr()
        try:
            with pytest.raises(SystemExit) as caught:
                main([str(argument) for argument in arguments])
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return Done(int(caught.value.code or 0), *capsys.readouterr())

    return call


def run_streamtrain(*arguments: Any, cwd: Path | None = None, **environment: str) -> Done:
    """Run the command line in a process of its own, where the process is what is tested."""
    return run_python("-m", "streamtrain", *arguments, cwd=cwd, **environment)


def run_python(*arguments: Any, cwd: Path | None = None, **environment: str) -> Done:
    """Run Python in a process of its own; with ``"-c", code`` a program."""
    command = [sys.executable, *map(str, arguments)]
    ended = subprocess.run(
        command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, timeout=WAIT, check=False
    )
    return Done(ended.returncode, ended.stdout, ended.stderr)

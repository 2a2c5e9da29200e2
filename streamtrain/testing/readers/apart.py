"""The checks of a reader in a process of its own: whatever the reader does to it, the checks say so and go on.

A reader may abort, exit, or overrun the stack. Then the check that was under way fails, and a new process goes on with the next
one. The process is ``python -c``; it writes a line of JSON to a pipe for each step. Its SIGINT is ignored, so that a
KeyboardInterrupt in it comes from the reader.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

from streamtrain.errors import BudgetExceeded, BudgetRefused, DataError, StreamtrainError, UsageError
from streamtrain.memory.monitor import within
from streamtrain.storage.checked import code_of
from streamtrain.testing.readers.process import how_it_ended
from streamtrain.testing.readers.running import CHECKS, Result, check_reader, run_checks

__all__ = ["ChecksApart", "check_apart"]

_POLL_SECONDS, _END_SECONDS = 0.2, 10.0
_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from streamtrain.testing.readers.apart import main; main()"
_KINDS: dict[str, type[StreamtrainError]] = {
    kind.__name__: kind for kind in (UsageError, BudgetRefused, BudgetExceeded)
}  # of errors at opening
_OWN = "the reader, or a library that it uses, must raise an error instead"
_OURS = "a library that reads such files ends the process; a file may be damaged"


@dataclass(frozen=True)
class ChecksApart:
    """The checks of a reader, each in a process that the reader may end. Iterate to run them one by one; for the rest see
    `streamtrain.testing.Checks`."""

    target: str
    most_chunks: int
    all: bool
    first: _Child
    chunks: int | None
    chunks_checked: int

    def __iter__(self) -> Generator[Result, None, None]:
        child, number = self.first, 0
        while True:
            with child:
                for message in child:
                    if "result" in message:
                        yield Result(*message["result"])
                    if "result" in message or message.get("done"):
                        number = len(CHECKS) if message.get("done") else number + 1
            if number >= len(CHECKS):
                return
            yield Result(CHECKS[number].__name__, "FAILED", f"the process {child.ended}: {child.blame}")
            number += 1
            child = _Child(self.target, self.most_chunks, self.all, number)
            if number < len(CHECKS) and child.opened() is None:
                with child:
                    yield Result(
                        "opening", "FAILED", f"opening it again failed, so the other checks were not made{child.reason}"
                    )
                return


def check_apart(target: str, *, most_chunks: int = 16, all: bool = False) -> ChecksApart:
    """The checks of `check_reader`, in another process. target: a name, path or URL. Raises UsageError and DataError."""
    child = _Child(target, most_chunks, all, 0)
    try:
        opened = child.opened()
        if opened is None:
            if child.refusal is not None:
                raise _KINDS.get(child.refusal["kind"], DataError)(child.refusal["refused"])
            raise DataError(f"{target}: the process that opened it {child.ended}: {child.blame}")
    except BaseException:
        child.close()
        raise
    return ChecksApart(target, most_chunks, all, child, opened["chunks"], opened["checked"])


class _Child:
    """A process that makes the checks from ``first`` on; a context that ends it."""

    def __init__(self, target: str, most_chunks: int, all: bool, first: int) -> None:
        self._pipe, theirs = os.pipe()
        task = {"pipe": theirs, "target": target, "most_chunks": most_chunks, "all": all, "first": first}
        command = [sys.executable, "-c", _START, json.dumps(sys.path), json.dumps(task)]
        try:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=2, pass_fds=[theirs])
        finally:
            os.close(theirs)
        self._rest, self._is_stuck = b"", False
        self.refusal: dict[str, Any] | None = None
        self.blame = _OWN

    def opened(self) -> dict[str, Any] | None:
        """What the process says once the reader is open; None if it was not opened."""
        message = next(self, None)
        if message is None or "refused" in message:
            self.refusal = message
            return None
        self.blame = _OWN if message["is_own"] else _OURS
        return message

    @property
    def reason(self) -> str:
        return f": {self.refusal['refused']}" if self.refusal is not None else f": the process {self.ended}"

    @property
    def ended(self) -> str:
        """How the process ended, after a verb: ``was ended by SIGABRT``."""
        code = self._code()
        return "closed its pipe and did not end" if self._is_stuck else how_it_ended(code)

    def _code(self) -> int:
        """The exit code. A process that says no more, and does not end either, is ended."""
        try:
            return self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._is_stuck = True
            self._process.kill()
            return self._process.wait()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        while b"\n" not in self._rest:
            gone = self._process.poll() is not None  # a process that the reader has started may keep the pipe open
            data = (
                os.read(self._pipe, 1 << 16)
                if select.select([self._pipe], [], [], 0 if gone else _POLL_SECONDS)[0]
                else None
            )
            if data == b"" or (gone and data is None):
                raise StopIteration
            self._rest += data or b""
        line, _, self._rest = self._rest.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def close(self) -> None:
        """End the process if it is still there."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *_: object) -> None:
        if sys.exc_info()[0] is None:
            self._code()
        self.close()


def main() -> None:
    """Make the checks that the command line names. The process ends here, whatever the reader has left running."""
    task = json.loads(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.set_inheritable(task["pipe"], False)

    def say(**message: Any) -> None:
        try:
            os.write(task["pipe"], json.dumps(message).encode() + b"\n")
        except OSError:  # the other process has ended, or the reader has closed the pipe
            os._exit(1)

    try:
        with within(is_setting=False):
            checks = check_reader(task["target"], most_chunks=task["most_chunks"], all=task["all"])
            say(chunks=checks.chunks, checked=checks.chunks_checked, is_own=bool(code_of(checks.subject.open())))
            for result in run_checks(checks.subject, task["first"]):
                say(result=[result.check, result.outcome, result.detail])
            say(done=True)
            os._exit(0)
    except StreamtrainError as error:
        say(refused=str(error), kind=type(error).__name__)
    except BaseException as error:
        say(refused=f"{task['target']}: opening it raised {type(error).__name__}: {error}", kind="")
    os._exit(0)

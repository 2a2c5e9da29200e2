"""Processes that are stopped, and what is compared of the runs that they leave."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import forks  # imports what every child needs

TIMEOUT_S = 120  # for anything that is waited for
SAME = (
    "rows", "rows_seen", "batches", "epochs", "metrics", "per_class", "best_epoch", "preparation", "classes", "targets",
    "batch_size", "skipped", "fingerprint",
)  # fmt: skip


def start(arguments: Sequence[str], log: Path, *, alone: bool = False) -> int:
    """The id of a process that does ``streamtrain ARGUMENTS``, in a session of its own; what it says goes to ``log``. To be
    called while this process has one thread. alone: a new Python."""
    pid = os.fork()
    if not pid:
        _become(arguments, log, alone)
    return pid


def _become(arguments: Sequence[str], log: Path, alone: bool) -> NoReturn:
    code = 70
    try:
        os.setsid()
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        os.close(handle)
        if alone:
            os.execv(sys.executable, [sys.executable, "-m", "streamtrain", *arguments])
        forks.command(*arguments)()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def ended(pid: int, seconds: float) -> bool:
    """Whether it ends within these."""
    watch = os.pidfd_open(pid)
    try:
        return bool(select.select([watch], [], [], seconds)[0])
    finally:
        os.close(watch)


def stop(pid: int, number: int) -> int:
    """Its exit code, after this signal; of a signal: negative. One that does not end of it is killed."""
    os.kill(pid, number)  # it is not reaped before the next lines, so that the id is its own
    if not ended(pid, TIMEOUT_S):
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def finish(arguments: Sequence[str], log: Path, *, alone: bool = False, seconds: float = TIMEOUT_S) -> str:
    """Let it come to its end, within these seconds; what was wrong, if anything."""
    pid = start(arguments, log, alone=alone)
    hangs = not ended(pid, seconds)
    code = stop(pid, signal.SIGKILL)
    if not hangs and code == 0:
        return ""
    return f"{'a hang' if hangs else f'exit code {code}'}: {log.read_text()[-500:].strip()}"


def being_written(out: Path) -> set[int]:
    """The checkpoints that are, by the numbers of their hidden folders on the disk (inodes)."""
    found = set()
    with suppress(FileNotFoundError), os.scandir(out / "checkpoints") as files:
        found = {file.inode() for file in files if file.name.startswith(".writing-")}
    return found


def differences(expected: Path, found: Path) -> list[str]:
    """What differs between two finished runs, though their processes were stopped or not."""
    wrong = [name for name in ("model.safetensors", "model.json") if differs(expected / name, found / name)]
    reports = [json.loads((run / "report.json").read_text()) for run in (expected, found)]
    wrong += [f"report.json: {name}" for name in SAME if reports[0][name] != reports[1][name]]
    if scores(expected) != scores(found):
        wrong.append("metrics.jsonl")
    names = {path.name for path in found.iterdir()} ^ {path.name for path in expected.iterdir()}
    kept = sorted(path.name for path in (found / "checkpoints").iterdir())
    if names or len(kept) > 2 or not all(name.startswith("checkpoint-") for name in kept):
        wrong.append(f"files left or missing: {sorted(names)}, checkpoints {kept}")
    return wrong


def differs(one: Path, other: Path) -> bool:
    return one.read_bytes() != other.read_bytes()


def scores(run: Path) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl``, without the time."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]

"""Work in children that are forked from a process that has imported everything: thousands of runs of the command line
in minutes, each in a process of its own that may hang, abort or take what it wants."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from typing import NamedTuple, NoReturn

import numpy.random  # what every child needs is imported once, here

import streamtrain.cli
import streamtrain.cli.commands
import streamtrain.storage.parquet.reader
import streamtrain.storage.zarr
from streamtrain.errors import NotFoundError

__all__ = ["Ended", "command", "run"]

with contextlib.suppress(NotFoundError):
    streamtrain.cli.commands.app(args=["inspect", ""], standalone_mode=False)
numpy.random.default_rng(0)


class Ended(NamedTuple):
    """How a child ended: its exit code (of a signal: negative; of one that hung: None), what it wrote, the most memory
    that it took, and how long."""

    code: int | None
    out: str
    err: str
    peak_bytes: int
    seconds: float


def command(*arguments: str) -> Callable[[], None]:
    """``streamtrain ARGUMENTS``."""
    return lambda: streamtrain.cli.main(arguments)


def run(work: Callable[[], None], timeout_s: float = 60) -> Ended:
    """Do it in a child; what it prints is returned. To be called while this process has one thread."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.perf_counter()
        child = os.fork()
        if not child:
            _work(work, out.fileno(), err.fileno())
        watch = os.pidfd_open(child)
        try:
            ended = bool(select.select([watch], [], [], timeout_s)[0])
        finally:
            os.close(watch)
        if not ended:
            os.kill(child, signal.SIGKILL)
        _, status, usage = os.wait4(child, 0)
        seconds = time.perf_counter() - started
        said = [os.pread(file.fileno(), 1 << 20, 0).decode(errors="replace") for file in (out, err)]
    code = os.waitstatus_to_exitcode(status) if ended else None
    return Ended(code, *said, usage.ru_maxrss * 1024, seconds)


def _work(work: Callable[[], None], out: int, err: int) -> NoReturn:
    code = 70
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        try:
            work()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)

"""The list of all checks, and a runner without pytest."""

from __future__ import annotations

import importlib
import os
import re
import signal
import sys
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from streamtrain.errors import DataError, StreamtrainError, UsageError
from streamtrain.storage import open_reader
from streamtrain.storage.reader import Reader
from streamtrain.testing.readers import checks, sizes, written
from streamtrain.testing.readers.subject import CheckFailed, Skipped, Subject

__all__ = ["CHECKS", "Checks", "Result", "check_reader", "run_checks"]

#: all checks, in the order in which they run
CHECKS: tuple[Callable[[Subject], str | None], ...] = (
    checks.members, checks.chunks, checks.rows, checks.types, written.all_rows, written.one_row, written.empty,
    written.nulls, checks.projection, checks.repeated, checks.concurrent, checks.slices, checks.read_together,
    checks.pickling, checks.other_process, sizes.decoded_bytes, sizes.read_peak, sizes.stream_peak, checks.fingerprint,
    written.fingerprint_of_copy, written.fingerprint_of_other, checks.unknown_column, checks.after_failure,
    written.damaged,
)  # fmt: skip

_IN_MODULE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class Result:
    """The result of a check. outcome: ``ok``, ``warning``, ``skipped`` or ``FAILED``. detail: the reason; "" if ok."""

    check: str
    outcome: str
    detail: str


@dataclass(frozen=True)
class Checks:
    """The checks of a reader. Iterate to run them one by one.

    chunks: the number of chunks of the reader; None if ``chunks()`` fails. chunks_checked: how many of them a check reads.
    """

    subject: Subject
    chunks: int | None
    chunks_checked: int

    def __iter__(self) -> Generator[Result, None, None]:
        return run_checks(self.subject)


def check_reader(target: Any, *, most_chunks: int = 16, all: bool = False) -> Checks:
    """Check whether a reader keeps the contract, with all checks that need no other data.

    Parameters
    ----------
    target : Any
        Data as for `open_reader`; or a class or function that makes a reader without arguments, or its name
        ``"module:name"``.
    most_chunks : int
        The number of chunks that a check reads, spread evenly over the data.
    all : bool
        Whether every check reads all chunks.

    Returns
    -------
    Checks
        Iterate to run the checks; each gives a `Result`. ``chunks_checked`` of ``chunks`` are read.

    Raises
    ------
    UsageError
        If the target has no meaning, or ``most_chunks`` is less than 1.
    DataError
        If the reader cannot be opened.

    Examples
    --------
    >>> import numpy as np
    >>> checks = check_reader({"x": np.zeros(10)})
    >>> [r.check for r in checks if r.outcome == "FAILED"], checks.chunks_checked, checks.chunks
    ([], 1, 1)
    """
    if most_chunks < 1:
        raise UsageError(f"--chunks {most_chunks}: must be at least 1")
    open_it = _opener(target)
    reader = open_it()
    try:
        chunks = len(reader.chunks())
    except Exception:  # the check of the chunks will report it
        return Checks(Subject(open_it, most_chunks=most_chunks), None, 0)
    checked = chunks if all else min(chunks, most_chunks)
    return Checks(Subject(open_it, most_chunks=max(1, checked)), chunks, checked)


def run_checks(subject: Subject, first: int = 0) -> Generator[Result, None, None]:
    """Run all checks from the one of this number on, and yield their results one by one."""
    for check in CHECKS[first:]:
        try:
            warning = check(subject)
            yield Result(check.__name__, "warning" if warning else "ok", warning or "")
        except Skipped as error:
            yield Result(check.__name__, "skipped", str(error))
        except CheckFailed as error:
            yield Result(check.__name__, "FAILED", str(error))
        except BaseException as error:  # raised by the reader, which may raise anything
            if isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
                raise
            yield Result(check.__name__, "FAILED", f"{type(error).__name__}: {error}")


def _opener(target: Any) -> Callable[[], Reader]:
    if isinstance(target, str) and _IN_MODULE.fullmatch(target) and not os.path.exists(target):
        return _calling(_imported(target), target)
    if isinstance(target, type) or (callable(target) and not isinstance(target, Reader)):
        return _calling(target, getattr(target, "__qualname__", repr(target)))
    return lambda: open_reader(target)


def _calling(make: Callable[[], Any], name: str) -> Callable[[], Reader]:
    def opened() -> Reader:
        try:
            return make()  # type: ignore[no-any-return]
        except (StreamtrainError, MemoryError):
            raise
        except (Exception, SystemExit) as error:
            raise DataError(
                f"{name}: calling it without arguments raised {type(error).__name__}: {error}: give a class or function "
                "that needs none"
            ) from error

    return opened


def _imported(target: str) -> Callable[[], Any]:
    module, _, name = target.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        target_object = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:
        raise DataError(f"{target}: cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(target_object):
        raise UsageError(
            f"{target}: is of type {type(target_object).__name__}: give a class or function that makes a reader"
        )
    return target_object  # type: ignore[no-any-return]

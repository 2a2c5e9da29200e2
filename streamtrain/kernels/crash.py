"""Crashes in libraries: damaged files make some libraries abort, or access memory that is not theirs.

A signal handler then prints one line on stderr, which names the signal and what was being read, and exits with an exit code
of the command line. (A parent process that watches would take 10 MB, and either of the two could outlive the other.) The
handler is part of the compiled library. Without that library the process dies of its signal, as any process does.
"""

from __future__ import annotations

import ctypes
from types import TracebackType

from streamtrain.errors import printable
from streamtrain.kernels.compiled import COMPILED, FOLDER, open_library

__all__ = ["answer_crashes", "expect_shortage", "reading"]

_library: ctypes.CDLL | None = None  # once crashes are handled
_name_bytes = 0  # the longest name that is noted


def answer_crashes(report_at: str, *, terminal: bool = False) -> None:
    """Handle SIGABRT, SIGSEGV, SIGBUS, SIGFPE and SIGILL from now on: print one line on stderr and end the process, with exit
    code 4 if an allocation failed (see `expect_shortage`), 2 if something was being read, 1 otherwise. Call this from the
    main thread of a program, never from a library.

    report_at: where to report bugs. terminal: whether a live line may have to be cleared.
    """
    global _library, _name_bytes
    if not COMPILED:
        return
    # A separate handle that keeps the GIL: releasing it would cost more than the call.
    _library, numbers = open_library(FOLDER / "_kernels.so", keep_gil=True)
    _name_bytes = numbers["NAME_BYTES"] - 1
    _library.st_answer_crashes(b"\r\x1b[2K\x1b[?25h" if terminal else b"", report_at.encode())


def expect_shortage(code: int) -> None:
    """Let a library that ends the process because an allocation failed end it with this exit code, if crashes are handled. So
    does any that aborts while little room is left under ``RLIMIT_DATA``: few of them say why."""
    if _library is not None:
        _library.st_expect_shortage(code)


class reading:  # noqa: N801  # a context, used as a verb
    """A context that notes what this thread reads, if crashes are handled; otherwise it does nothing.

    own: the code of the user that reads it, or that runs: a crash is its fault, and no file is damaged.

    >>> with reading("part-7.parquet:3"):
    ...     pass
    """

    __slots__ = ("_name", "_number", "_own")

    def __init__(self, name: str, own: str = "") -> None:
        self._name, self._own = f"{own}, reading {name}" if own and name else own or name, bool(own)

    def __enter__(self) -> None:
        if _library is not None:
            shown = _shown(self._name)
            self._number = _library.st_enter_read(shown, len(shown), self._own)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if _library is not None:
            _library.st_leave_read(self._number)


def _shown(name: str) -> bytes:
    """A name in one line; of a long name the end, which says more than the beginning."""
    shown = (name if name.isprintable() else printable(name)).encode()
    return shown if len(shown) <= _name_bytes else b"..." + shown[3 - _name_bytes :].decode(errors="ignore").encode()

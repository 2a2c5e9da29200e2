"""When a library ends the process: damaged files make some of them abort, or write where they must not.

A parent process that watches would take 10 MB, and either could outlive the other. So the signal is answered where it
arrives: one line on stderr that names it and what was being read, and an exit code of the command line's. That needs the
compiled library; without it (there was no C compiler at installation) the process dies of its signal, as others do.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import TracebackType

from streamtrain.errors import printable

__all__ = ["answer_crashes", "reading"]

_NAME_BYTES = 511  # NAME_BYTES in crash.c, less the end

_library: ctypes.PyDLL | None = None  # once crashes are answered


def answer_crashes(report_at: str, *, terminal: bool = False) -> None:
    """From now on SIGABRT, SIGSEGV, SIGBUS, SIGFPE and SIGILL end the process with one line on stderr and exit code 2
    where something was being read, 1 otherwise. To be called by the main thread of a program, not of a library.

    report_at: where to report bugs. terminal: whether a live line may have to be cleared.
    """
    global _library
    try:
        library = ctypes.PyDLL(
            str(Path(__file__).parent / "_kernels.so")
        )  # giving the GIL back would cost more than a call
    except OSError:  # it was not compiled
        return
    library.st_enter_read.argtypes = [ctypes.c_char_p, ctypes.c_int64]
    library.st_leave_read.argtypes = [ctypes.c_int]
    library.st_leave_read.restype = library.st_answer_crashes.restype = None
    library.st_answer_crashes.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    library.st_answer_crashes(b"\r\x1b[2K\x1b[?25h" if terminal else b"", report_at.encode())
    _library = library


class reading:  # noqa: N801  # a context, used as a verb
    """Notes what this thread reads, as a context, for as long as crashes are answered; otherwise does nothing.

    >>> with reading("part-7.parquet:3"):
    ...     pass
    """

    __slots__ = ("_name", "_slot")

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        if _library is not None:
            shown = _shown(self._name)
            self._slot = _library.st_enter_read(shown, len(shown))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if _library is not None:
            _library.st_leave_read(self._slot)


def _shown(name: str) -> bytes:
    """One line; of a name that is too long its end, which tells more."""
    shown = (name if name.isprintable() else printable(name)).encode()
    return shown if len(shown) <= _NAME_BYTES else b"..." + shown[3 - _NAME_BYTES :].decode(errors="ignore").encode()

"""``RLIMIT_DATA`` of this process: lowered while work is within a budget, so that an allocation beyond it fails at once; and
whether an error means that memory ran short.

A library may report a failed allocation in many ways: a MemoryError, an OSError, an error of its own with a message of the
C++ library, a SystemError because an extension did not check what malloc returned. All of them are recognised here.
"""

from __future__ import annotations

import errno
import re
import threading
from collections.abc import Callable, Iterator

from streamtrain.memory.process import mapped_data_bytes, resident_now

__all__ = ["DATA_LIMIT", "STACK_BYTES", "is_shortage"]

STACK_BYTES = 1 << 20  # of each new thread, instead of 8 MiB: the limit counts stacks as soon as they are mapped
_SCARCE_BYTES, _SCARCE_SHARE = 10**9, 0.5  # of the limit: with more room than both, a vague error is no shortage
_SURE = re.compile(
    r"bad_alloc|alloc(ate)? of size|cannot allocate memory(?! in static tls)|can't allocate memory|out of memory|"
    r"(not enough|insufficient) memory|(failed|unable) to allocate|allocation (error|failed)|failed to map segment|"
    r"error -4 while",  # of zlib
    re.IGNORECASE,
)
_VAGUE = re.compile(
    r"without setting an exception|without exception set|can't start new thread|failed to (launch|start) .*thread",
    re.IGNORECASE,
)


class DataLimit:
    """The limit of the process: the lowest of those that are held, until the last of them is released.

    Only Linux counts what a program maps; elsewhere this does nothing.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._most: dict[object, int] = {}  # by holder: mapped memory and pages of files together
        self._before = (-1, -1)
        self._stack_bytes = 0
        self.tell: Callable[[bool], object] = bool  # called with whether the data are only being opened

    def hold(self, holder: object, most_bytes: int, *, is_opening: bool) -> None:
        """Let the process grow to ``most_bytes`` of resident memory."""
        self.tell(is_opening)
        mapped, resident = mapped_data_bytes(), resident_now()
        if mapped is None or resident is None:  # not Linux
            return
        import resource

        total, anonymous = resident
        with self._lock:
            if not self._most:
                self._before = resource.getrlimit(resource.RLIMIT_DATA)
                self._stack_bytes = threading.stack_size(STACK_BYTES)
            self._most[holder] = most_bytes + mapped - anonymous
            self._apply(total - anonymous)

    def follow(self, file_bytes: int) -> None:
        """Take account of the pages of files that are resident now: code of libraries, mapped data."""
        with self._lock:
            if self._most:
                self._apply(file_bytes)

    def release(self, holder: object) -> None:
        """Raise the limit to what the others need, in the end to what it was."""
        with self._lock:
            if self._most.pop(holder, None) is None:
                return
            import resource

            resource.setrlimit(
                resource.RLIMIT_DATA, self._before
            )  # first: what follows takes memory, which may be short
            if not self._most:
                threading.stack_size(self._stack_bytes)
            elif (resident := resident_now()) is not None:
                self._apply(resident[0] - resident[1])

    def _apply(self, file_bytes: int) -> None:
        import resource  # only on Unix

        limits = [size for size in self._before if size != resource.RLIM_INFINITY]
        soft = min([max(1, min(self._most.values()) - file_bytes), *limits])
        resource.setrlimit(resource.RLIMIT_DATA, (soft, self._before[1]))


DATA_LIMIT = DataLimit()


def is_shortage(error: BaseException) -> bool:
    """Whether memory ran short: by the error, by those that it was raised from, and by the room that is left to the process.

    >>> is_shortage(MemoryError()), is_shortage(OSError(12, "mmap")), is_shortage(ValueError("std::bad_alloc"))
    (True, True, True)
    >>> is_shortage(ValueError("no such column"))
    False
    """
    return any(_says_so(each) for each in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and all that it was raised from or together with."""
    waiting, seen = [error], set[int]()
    while waiting:
        each = waiting.pop()
        if id(each) not in seen:
            seen.add(id(each))
            yield each
            waiting += [cause for cause in (each.__cause__, each.__context__) if cause is not None]
            waiting += each.exceptions if isinstance(each, BaseExceptionGroup) else ()


def _says_so(error: BaseException) -> bool:
    from streamtrain.errors import StreamtrainError

    if isinstance(error, MemoryError):
        return True
    if isinstance(error, StreamtrainError):  # its text may be that of a file
        return False
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno == errno.ENOMEM
    text = str(error)
    return bool(_SURE.search(text)) or (bool(_VAGUE.search(text)) and _is_scarce())


def _is_scarce() -> bool:
    """Whether the process has little room under its limits: an allocation may have failed."""
    try:
        import resource
    except ImportError:
        return False
    mapped, limit = mapped_data_bytes(), resource.getrlimit(resource.RLIMIT_DATA)[0]
    if mapped is None or limit == resource.RLIM_INFINITY:
        return False
    return limit - mapped < max(_SCARCE_BYTES, _SCARCE_SHARE * limit)

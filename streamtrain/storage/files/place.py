"""Where files are: a folder of this machine, or of a store elsewhere. Readers of files know no more of it than `FileStore`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import pyarrow as pa

from streamtrain.errors import ChangedError, CorruptError

__all__ = ["FileStore", "LocalFileStore", "Located", "Stat", "ahead", "is_far", "require_unchanged", "traffic"]

_AT_ONCE = 8

S = TypeVar("S")
T = TypeVar("T")


class Stat(NamedTuple):
    """What tells that a file is still the same: its bytes, and the time of its last change or the store's tag for it."""

    nbytes: int
    version: str


class FileStore(Protocol):
    """A folder of files. Names are relative to it and use ``/``. Picklable; used by several threads at once.

    far: whether each read is a request that takes its time, so that few large ones are better than many small ones.
    """

    far: bool

    def shown(self, name: str) -> str:
        """A file as people name it, for messages; without credentials."""

    def stat(self, name: str) -> Stat:
        """Raises NotFoundError where there is no such file."""

    def open(self, name: str, stat: Stat) -> pa.NativeFile:
        """A file for random access. stat: what it was when it was found. A place that learns with every read what the file
        is now raises CorruptError where it has changed."""

    def verify(self, name: str, stat: Stat) -> None:
        """To be called after a file was read, also in vain. Raises CorruptError where it has changed since ``stat`` was
        taken; does nothing where every read has looked at that already."""

    def read(self, name: str, start: int, stop: int) -> bytes:
        """The bytes from ``start`` to ``stop``, fewer where the file ends before."""


class Located:
    """What readers of files have beside the members of a reader. They set where the files are, which, and what they were."""

    _place: FileStore
    _files: list[str]
    _stats: list[Stat]

    @property
    def located(self) -> tuple[FileStore, list[str]]:
        """The data files: where, and which."""
        return self._place, self._files

    @property
    def file_sizes(self) -> dict[str, int]:
        """Bytes of each data file."""
        return {name: stat.nbytes for name, stat in zip(self._files, self._stats, strict=True)}

    @property
    def stored_bytes(self) -> int:
        """Bytes of all files on disk."""
        return sum(stat.nbytes for stat in self._stats)


class LocalFileStore:
    """A folder of this machine."""

    far = False

    def __init__(self, root: Path) -> None:
        self.root = root

    def shown(self, name: str) -> str:
        return str(self.root / name)

    def stat(self, name: str) -> Stat:
        try:
            found = (self.root / name).stat()
        except OSError as error:
            raise CorruptError(f"{self.shown(name)}: the file is gone since it was listed: {error.strerror}") from error
        return Stat(found.st_size, str(found.st_mtime_ns))

    def open(self, name: str, stat: Stat) -> pa.NativeFile:
        # Given a path, pyarrow reads into another pool than the one that was set.
        return pa.OSFile(self.shown(name), memory_pool=pa.default_memory_pool())

    def verify(self, name: str, stat: Stat) -> None:
        require_unchanged(self.shown(name), stat, self.stat(name))

    def read(self, name: str, start: int, stop: int) -> bytes:
        with (self.root / name).open("rb") as file:
            file.seek(start)
            return file.read(max(0, stop - start))


def require_unchanged(shown: str, before: Stat, now: Stat) -> None:
    """Raises CorruptError where a file is not the one that it was."""
    if now != before:
        what = (
            f"{before.nbytes:,} bytes then, {now.nbytes:,} now" if now.nbytes != before.nbytes else "of the same size"
        )
        raise ChangedError(
            f"{shown}: the file has changed since it was opened ({what}): what was read of it does not belong to what is "
            "there now. Start again, with data that nobody writes to meanwhile"
        )


def is_far(reader: Any) -> bool:
    """Whether what a reader reads comes from a server."""
    return traffic(reader) is not None


def traffic(reader: Any) -> dict[str, int] | None:
    """What a reader has asked of a server: requests, those among them that were made again, and bytes; None where there is
    no server, or the reader does not tell.

    >>> traffic("no server")
    """
    counted: Any = getattr(reader.located[0] if isinstance(reader, Located) else reader, "traffic", None)
    return dict(counted.as_dict()) if hasattr(counted, "as_dict") else None


def ahead(work: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """What ``work`` makes of each item, in order, on a few threads, a few ahead of what is taken: of requests most is waiting.

    >>> list(ahead(str, range(3)))
    ['0', '1', '2']
    """
    waiting: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="streamtrain-ahead")
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) == _AT_ONCE:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)

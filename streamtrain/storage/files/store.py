"""Where files are: in a local folder, or on a server. Readers of files use `FileStore` and know nothing else about it."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.errors import ChangedError, CorruptError, listed
from streamtrain.storage.files.columns import FileColumns
from streamtrain.storage.files.partitions import folders_above
from streamtrain.storage.files.sample import sampled
from streamtrain.storage.files.stamps import Stamps, local_stamp, stamp_of

__all__ = [
    "FileBacked",
    "FileStore",
    "LocalFileStore",
    "Stat",
    "ahead",
    "file_sizes",
    "is_remote",
    "require_unchanged",
    "traffic",
]

_AT_ONCE = 8

S = TypeVar("S")
T = TypeVar("T")


class Stat(NamedTuple):
    """The size and version of a file; both are equal as long as the file is unchanged.

    version: the time of the last change of a local file, or the ETag that a server gives it.
    """

    nbytes: int
    version: str


class FileStore(Protocol):
    """A folder of files. Names are relative to it and use ``/``. A store is picklable and thread-safe.

    is_remote: whether each read is a request to a server. Requests are slow, so few large reads beat many small ones.
    again: the names of files that are among the data by another name.
    """

    is_remote: bool
    again: Sequence[str]

    @property
    def folders(self) -> list[str]:
        """The ``key=value`` folders above the files: the end of the path of this folder."""

    def shown(self, name: str) -> str:
        """The path or URL of a file, for messages. It contains no credentials."""

    def stat(self, name: str) -> Stat:
        """The size and version of a file. Raises NotFoundError if there is no such file."""

    def stamp(self, name: str) -> str:
        """What shows that a file was written, replaced or copied (see `streamtrain.storage.files.stamps`)."""

    def open(self, name: str, stat: Stat) -> pa.NativeFile:
        """Open a file for random access. stat: the size and version that the file had when it was found. A store that gets
        the current version with every read raises CorruptError if the file has changed."""

    def verify(self, name: str, stat: Stat) -> None:
        """Call after a read, successful or not. Raises CorruptError if the file has changed since ``stat`` was taken. Does
        nothing in a store that checks this with every read."""

    def read(self, name: str, start: int, stop: int) -> bytes:
        """The bytes from ``start`` to ``stop``; fewer if the file ends earlier."""


@runtime_checkable
class KnowsFiles(Protocol):
    """Optional: a reader that says from which file each chunk is."""

    def chunk_files(self) -> tuple[Sequence[str], NDArray[np.int64]]:
        """The names of the files, and the number of the file of each chunk; shape (chunks,)."""


class FileBacked:
    """What every reader of files offers in addition to the four members of a reader. The subclass sets the attributes.

    _file_of: the number of the file of each chunk. _columns: what the columns of the data are in each file.
    """

    _store: FileStore
    _files: list[str]
    _stats: list[Stat]
    _file_of: NDArray[Any]
    _columns: FileColumns

    @property
    def stored_files(self) -> tuple[FileStore, list[str]]:
        """The store of the data files, and their names in it."""
        return self._store, self._files

    def chunk_files(self) -> tuple[Sequence[str], NDArray[np.int64]]:
        """The names of the files, and the number of the file of each chunk; shape (chunks,)."""
        return self._files, np.asarray(self._file_of, np.int64)

    @property
    def file_sizes(self) -> dict[str, int]:
        """The bytes of each data file, by name."""
        return {name: stat.nbytes for name, stat in zip(self._files, self._stats, strict=True)}

    def warnings(self, columns: Sequence[str]) -> list[str]:
        """What to say of these columns: those that some files do not have; and of the files: those that were found twice."""
        warnings, again = self._columns.warnings(columns), self._store.again
        if again:
            files = "1 file was" if len(again) == 1 else f"{len(again):,} files were"
            warnings.append(
                f"{files} found twice, by a link or by several of the sources, and read once: {listed(again)}"
            )
        return warnings

    def _digest(self, kind: bytes) -> Any:
        """A SHA-256 that begins with the kind of the files, and the ``key=value`` folders above them."""
        return hashlib.sha256(kind + "/".join(self._store.folders).encode(errors="surrogateescape"))

    def _sample(self) -> Iterator[bytes]:
        """Pieces of the data files, for a fingerprint (see `sampled`)."""
        sizes = np.fromiter((stat.nbytes for stat in self._stats), np.int64, len(self._stats))
        for number, start, stop in sampled(sizes):
            yield self._store.read(self._files[number], start, stop)

    def stamps(self) -> Stamps:
        """The stamps of the data files that have chunks, as they are now."""
        used, file_of = np.unique(self._file_of, return_inverse=True)
        names = [self._files[i] for i in used.tolist()]
        values = np.fromiter((stamp_of([self._store.stamp(name)]) for name in names), np.uint64, len(names))
        return Stamps(values, file_of, names.__getitem__)

    @property
    def stored_bytes(self) -> int:
        """The bytes of all data files together, as stored."""
        return sum(stat.nbytes for stat in self._stats)


class LocalFileStore:
    """A folder on this machine."""

    is_remote = False

    def __init__(self, root: Path, again: Sequence[str] = ()) -> None:
        self.root, self.again = root, again
        self._before = "" if str(root) == "." else os.path.join(root, "")  # strings: a Path costs ten times as much

    @property
    def folders(self) -> list[str]:
        return folders_above(os.path.abspath(self.root))

    def shown(self, name: str) -> str:
        return self._before + name

    def stat(self, name: str) -> Stat:
        try:
            status = os.stat(self.shown(name))
        except OSError as error:
            raise CorruptError(
                f"{self.shown(name)}: the file was listed, but cannot be found any more ({error.strerror}): restore it, or "
                "start again without it"
            ) from error
        return Stat(status.st_size, str(status.st_mtime_ns))

    def stamp(self, name: str) -> str:
        return local_stamp(self.root / name)

    def open(self, name: str, stat: Stat) -> pa.NativeFile:
        # Given a path, pyarrow would ignore the memory pool that was set. As bytes, because names need not be UTF-8.
        return pa.OSFile(os.fsencode(self.root / name), memory_pool=pa.default_memory_pool())

    def verify(self, name: str, stat: Stat) -> None:
        require_unchanged(self.shown(name), stat, self.stat(name))

    def read(self, name: str, start: int, stop: int) -> bytes:
        with open(self.shown(name), "rb") as file:
            file.seek(start)
            return file.read(max(0, stop - start))


def require_unchanged(shown: str, before: Stat, now: Stat) -> None:
    """Raise ChangedError, a CorruptError, if the size or version of a file has changed."""
    if now != before:
        sizes = (
            f"from {before.nbytes:,} to {now.nbytes:,} bytes" if now.nbytes != before.nbytes else "its size is the same"
        )
        raise ChangedError(
            f"{shown}: the file has changed since it was opened ({sizes}), so the rows read so far do not match it. Start "
            "again when nothing writes to the data"
        )


def file_sizes(reader: Any) -> dict[str, int] | None:
    """The bytes of each data file of a reader, by name; None if it does not read files.

    >>> file_sizes("no files")
    """
    sizes: dict[str, int] | None = getattr(reader, "file_sizes", None)
    return sizes


def is_remote(reader: Any) -> bool:
    """Whether a reader reads from a server."""
    return traffic(reader) is not None


def traffic(reader: Any) -> dict[str, int] | None:
    """The requests that a reader has made to a server, the retries among them, and the bytes received. None if the reader
    uses no server, or does not count.

    >>> traffic("no server")
    """
    counts: Any = getattr(reader.stored_files[0] if isinstance(reader, FileBacked) else reader, "traffic", None)
    return dict(counts.as_dict()) if hasattr(counts, "as_dict") else None


def ahead(work: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """Apply ``work`` to each item on eight threads, and yield the results in order. Up to eight items are worked on ahead,
    because a request spends most of its time waiting.

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

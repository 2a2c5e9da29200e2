"""A remote file with the interface of a Python file, for `pyarrow.PythonFile`. Each read is one request."""

from __future__ import annotations

import io
from collections.abc import Callable

import pyarrow as pa

__all__ = ["RangeFile"]


class RangeFile:
    """A file whose bytes are fetched when they are read. Not thread-safe.

    nbytes: the size of the file. fetch: returns the bytes between two positions.

    >>> file = RangeFile(5, lambda start, stop: pa.py_buffer(b"hello"[start:stop]))
    >>> file.seek(-2, io.SEEK_END), file.read().to_pybytes(), file.tell()
    (3, b'lo', 5)
    """

    closed = False

    def __init__(self, nbytes: int, fetch: Callable[[int, int], pa.Buffer]) -> None:
        self._nbytes, self._fetch, self._at = nbytes, fetch, 0

    def read(self, count: int | None = -1) -> pa.Buffer:
        stop = self._nbytes if count is None or count < 0 else min(self._nbytes, self._at + count)
        data = self._fetch(self._at, stop)
        self._at += data.size
        return data

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._nbytes}[whence]
        self._at = max(0, base + position)
        return self._at

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def flush(self) -> None:
        """Do nothing: the file is read-only."""

    def close(self) -> None:
        self.closed = True

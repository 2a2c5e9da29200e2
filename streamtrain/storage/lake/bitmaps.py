"""The deleted rows of files, one bit a row; and Roaring bitmaps, in which the logs of tables store them.

The format is that of https://github.com/RoaringBitmap/RoaringFormatSpec with its extension to 64 bits: bits in containers of
65,536 rows, which are written into a plain bitmap here, so that reading takes no memory beside the stored bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from streamtrain.errors import CorruptError

__all__ = ["MAGIC", "Bitmap", "bitmap_bytes"]

#: the first number of a stored deletion vector, in Delta and in Iceberg
MAGIC = 1681511377
_CONTAINER_ROWS, _CONTAINER_BYTES = 1 << 16, 1 << 13
_LARGEST_ARRAY = 4096  # values of a container that is stored as a list
_NO_RUNS, _SOME_RUNS = 12346, 12347  # the first number of a bitmap
_FEWEST_WITH_OFFSETS = 4  # containers of a bitmap with runs
_DELETES_DAMAGED = "the list of its deleted rows is damaged: restore the file with the deletes"


def bitmap_bytes(rows: int) -> int:
    """The memory of a bitmap of so many rows.

    >>> bitmap_bytes(1), bitmap_bytes(65_537)
    (8192, 16384)
    """
    return -(-rows // _CONTAINER_ROWS) * _CONTAINER_BYTES


class Bitmap:
    """Which of the rows of a file are deleted.

    >>> deleted = Bitmap(5, "a.parquet")
    >>> deleted.add(np.array([1, 4]))
    >>> deleted.kept(0, 5).tolist(), deleted.count(2, 5)
    ([True, False, True, True, False], 1)
    """

    def __init__(self, rows: int, shown: str) -> None:
        self.rows, self.shown = rows, shown
        self.bits = np.zeros(bitmap_bytes(rows), np.uint8)

    def add(self, positions: NDArray[np.integer]) -> None:
        """Delete rows, by their numbers in the file. Raises CorruptError for a row that the file does not have."""
        if len(positions) and not 0 <= positions.min() <= positions.max() < self.rows:
            raise self._beyond(int(positions.min() if positions.min() < 0 else positions.max()))
        rows = np.asarray(positions, np.int64)
        np.bitwise_or.at(self.bits, rows >> 3, np.left_shift(1, rows & 7).astype(np.uint8))

    def add_stored(self, data: bytes) -> None:
        """Delete the rows of a stored deletion vector, which begins with `MAGIC`. Raises CorruptError."""
        stored = _Stored(data, self.shown)
        if (magic := stored.number(4)) != MAGIC:
            raise CorruptError(
                f"{self.shown}: its deleted rows are stored in a form with the number {magic}, which is unknown"
            )
        for high in stored.high_bits():
            for low, bits in stored.containers():
                at = (high << 32 | low << 16) >> 3
                if at >= len(self.bits):
                    raise self._beyond(at << 3)
                self.bits[at : at + _CONTAINER_BYTES] |= bits
        tail = np.unpackbits(self.bits[-_CONTAINER_BYTES:], bitorder="little")
        start = len(self.bits) * 8 - len(tail)
        if (beyond := np.flatnonzero(tail[self.rows - start :])).size:
            raise self._beyond(self.rows + int(beyond[0]))

    def require_count(self, expected: int) -> None:
        """Raise CorruptError if another number of rows is deleted than the log says."""
        found = self.count(0, self.rows)
        if found != expected:
            raise CorruptError(
                f"{self.shown}: the log says that {expected:,} of its rows are deleted, but {found:,} are: {_DELETES_DAMAGED}"
            )

    def _beyond(self, row: int) -> CorruptError:
        return CorruptError(
            f"{self.shown}: row {row:,} is deleted, but the file has {self.rows:,} rows: {_DELETES_DAMAGED}"
        )

    def kept(self, start: int, stop: int) -> NDArray[np.bool_]:
        """Whether each row from ``start`` to ``stop`` is kept."""
        first = start >> 3
        bits = np.unpackbits(self.bits[first : -(-stop // 8)], bitorder="little")
        return np.asarray(bits[start - 8 * first : stop - 8 * first] == 0)

    def count(self, start: int, stop: int) -> int:
        """The deleted rows from ``start`` to ``stop``."""
        steps = range(start, stop, _CONTAINER_ROWS)
        return sum(int(np.count_nonzero(~self.kept(at, min(stop, at + _CONTAINER_ROWS)))) for at in steps)


class _Stored:
    """Reads a stored bitmap. Raises CorruptError where it ends too early, or is in the wrong order."""

    def __init__(self, data: bytes, shown: str) -> None:
        self._data, self._at, self._shown = data, 0, shown

    def number(self, nbytes: int) -> int:
        return int.from_bytes(self._take(nbytes), "little")

    def _take(self, nbytes: int) -> memoryview:
        if self._at + nbytes > len(self._data):
            raise CorruptError(f"{self._shown}: {_DELETES_DAMAGED}")
        self._at += nbytes
        return memoryview(self._data)[self._at - nbytes : self._at]

    def _array(self, count: int) -> NDArray[np.uint16]:
        return np.frombuffer(self._take(2 * count), "<u2")

    def high_bits(self) -> Iterator[int]:
        """The upper 32 bits of the rows of each bitmap of 32 bits."""
        before = -1
        for _ in range(self.number(8)):
            key = self.number(4)
            if key <= before:
                raise CorruptError(f"{self._shown}: {_DELETES_DAMAGED}")
            yield key
            before = key

    def containers(self) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """The containers of the next bitmap: bits 16 to 31 of the rows, and a bit for each row; shape (8192,)."""
        cookie = self.number(4)
        if cookie & 0xFFFF == _SOME_RUNS:
            count = (cookie >> 16) + 1
            has_runs = np.unpackbits(np.frombuffer(self._take(-(-count // 8)), np.uint8), bitorder="little")
        elif cookie == _NO_RUNS:
            count = self.number(4)
            has_runs = np.zeros(min(count, _CONTAINER_ROWS), np.uint8)
        else:
            raise CorruptError(f"{self._shown}: {_DELETES_DAMAGED}")
        if count > _CONTAINER_ROWS:
            raise CorruptError(f"{self._shown}: {_DELETES_DAMAGED}")
        header = self._array(2 * count)
        if cookie == _NO_RUNS or count >= _FEWEST_WITH_OFFSETS:
            self._take(4 * count)  # where each container begins, which follows from their sizes
        for i in range(count):
            yield int(header[2 * i]), self._container(int(header[2 * i + 1]) + 1, bool(has_runs[i]))

    def _container(self, count: int, has_runs: bool) -> NDArray[np.uint8]:
        if not has_runs and count > _LARGEST_ARRAY:
            return np.frombuffer(self._take(_CONTAINER_BYTES), np.uint8)
        rows = np.zeros(_CONTAINER_ROWS, np.uint8)
        if not has_runs:
            rows[self._array(count)] = 1
        else:
            for start, more in self._array(2 * self.number(2)).reshape(-1, 2).tolist():
                rows[start : start + more + 1] = 1
        return np.packbits(rows, bitorder="little")

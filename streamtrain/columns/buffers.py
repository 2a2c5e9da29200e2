"""The buffers of a window: numbers, targets, weights, codes of categories, and texts; rows are written to their places."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.batch import Texts
from streamtrain.kernels import scatter_rows

__all__ = ["TextStore", "WindowArrays"]

_MOVED_ROWS = 8192  # at a time, where gaps are closed
_GROWN_BY = 8  # by what part texts grow where they are longer than was thought


class TextStore:
    """The texts of the rows of a window: their bytes one after the other, and for each row and column where they stand.

    The bytes of a chunk are added by any thread, in any order: what a row holds does not depend on it.
    """

    def __init__(self, rows: int, columns: int, nbytes: int) -> None:
        self.starts = np.empty((rows, columns), np.int64)
        self.sizes = np.empty((rows, columns), np.int32)
        self._data, self._used = np.empty(max(1, nbytes), np.uint8), 0
        self._lock = threading.Lock()

    def clear(self) -> None:
        """Forget all bytes: other rows come."""
        self._used = 0

    def add(self, data: NDArray[np.uint8]) -> int:
        """Take over bytes; returns where they begin."""
        with self._lock:
            start, self._used = self._used, self._used + len(data)
            if self._used > len(self._data):
                self._grow(max(self._used, len(self._data) + len(self._data) // _GROWN_BY), start)
            self._data[start : self._used] = data
            return start

    def _grow(self, size: int, used: int) -> None:
        """Make room for so many bytes; those that are used stay."""
        try:
            self._data.resize(size)  # large memory is not copied, its pages are named anew
        except ValueError:  # somebody holds texts of before
            grown = np.empty(size, np.uint8)
            grown[:used] = self._data[:used]
            self._data = grown

    def rows(self, first: int, last: int) -> Texts:
        """The texts of rows ``first`` to ``last``, without a copy."""
        return Texts(self._data[: self._used], self.starts[first:last], self.sizes[first:last])

    def take(self, at: int, texts: Texts) -> None:
        """Copy texts to the rows from ``at`` on."""
        rows = slice(at, at + len(texts))
        self.sizes[rows] = texts.sizes
        pieces = [
            texts.data[start : start + max(0, size)]
            for start, size in zip(texts.starts.ravel().tolist(), texts.sizes.ravel().tolist(), strict=True)
        ]
        base = self.add(np.concatenate(pieces) if pieces else np.empty(0, np.uint8))
        ends = np.cumsum(np.maximum(texts.sizes.ravel(), 0), dtype=np.int64)
        self.starts[rows] = base + (ends - np.maximum(texts.sizes.ravel(), 0)).reshape(texts.sizes.shape)

    @property
    def nbytes(self) -> int:
        return self.starts.nbytes + self.sizes.nbytes + self._data.nbytes


class WindowArrays:
    """Where `Layout.write` writes; `Layout.buffers` makes one. features: shape (rows, width); targets, weights: shape
    (rows,); codes: shape (rows, codes), uint32, or None; texts: None where there are none."""

    def __init__(
        self, features: NDArray[Any], targets: NDArray[Any], *, weighted: bool, codes: int, texts: TextStore | None
    ) -> None:
        rows = len(features)
        self.features, self.targets, self.texts = features, targets, texts
        self.weights = np.empty(rows, np.float32) if weighted else None
        self.codes = np.empty((rows, codes), np.uint32) if codes else None

    def clear(self) -> None:
        """Make ready for other rows."""
        if self.texts is not None:
            self.texts.clear()

    def fields(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """The arrays that hold something for each row, by name."""
        named = {"features": self.features, "targets": self.targets, "weights": self.weights, "codes": self.codes}
        named |= {"starts": self.texts.starts, "sizes": self.texts.sizes} if self.texts is not None else {}
        yield from ((name, array) for name, array in named.items() if array is not None and len(array))

    def scatter_from(self, other: WindowArrays, places: NDArray[np.int64]) -> None:
        """Write each row of ``other`` to its place."""
        sources = dict(other.fields())
        if self.texts is not None and other.texts is not None:
            sources["starts"] = other.texts.starts + self.texts.add(other.texts.rows(0, 0).data)
        for name, array in self.fields():
            if name in sources and array[:1].nbytes:
                scatter_rows(np.ascontiguousarray(_matrix(sources[name])), _matrix(array), 0, places)

    def close_gaps(self, lost: NDArray[np.int32], rows: int) -> None:
        """Move the rows that are not at the places ``lost``, sorted, to the front, in their order. rows: there are."""
        at = int(lost[0])
        for first in range(at, rows, _MOVED_ROWS):
            last = min(first + _MOVED_ROWS, rows)
            gaps = lost[np.searchsorted(lost, first) : np.searchsorted(lost, last)]
            kept = np.delete(np.arange(first, last), gaps - first)
            for _, array in self.fields():
                array[at : at + len(kept)] = array[kept]
            at += len(kept)

    def copy_rows(self, at: int, other: WindowArrays, first: int, last: int) -> None:
        """Copy rows ``first`` to ``last`` of ``other`` to the rows from ``at`` on; numbers may change their type."""
        sources = dict(other.fields())
        for name, array in self.fields():
            if name not in ("starts", "sizes") and name in sources:
                array[at : at + last - first] = sources[name][first:last]
        if self.texts is not None and other.texts is not None:
            self.texts.take(at, other.texts.rows(first, last))

    @property
    def nbytes(self) -> int:
        texts = 0 if self.texts is None else self.texts.nbytes
        return texts + sum(array.nbytes for name, array in self.fields() if name not in ("starts", "sizes"))


def _matrix(array: NDArray[Any]) -> NDArray[Any]:
    """A view of shape (rows, entries)."""
    return array if array.ndim == 2 else array[:, None]

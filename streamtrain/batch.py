"""The rows that the learner sees at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Batch", "Sparse", "Texts"]


@dataclass(frozen=True, slots=True)
class Sparse:
    """What is mostly zero: compressed sparse rows, as scipy's ``csr_matrix((values, indices, indptr))`` has them.

    indptr: shape (rows + 1,), int64: the entries of row r stand from ``indptr[r]`` to ``indptr[r + 1]``; it starts at 0.
    indices: shape (entries,), int32: the column of each entry; one may occur twice in a row, and counts twice then.
    values: shape (entries,), float32, or None where every entry is 1. width: columns.

    >>> sparse = Sparse(np.array([0, 2, 3]), np.array([4, 1, 4], np.int32), None, 5)
    >>> len(sparse), sparse.part(1, 2).indices.tolist(), sparse.nbytes
    (2, [4], 36)
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    values: NDArray[np.float32] | None
    width: int

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def part(self, start: int, stop: int) -> Sparse:
        """Rows ``start`` to ``stop``; of the entries nothing is copied."""
        first, last = self.indptr[start], self.indptr[stop]
        values = None if self.values is None else self.values[first:last]
        return Sparse(self.indptr[start : stop + 1] - first, self.indices[first:last], values, self.width)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return self.indptr.nbytes + self.indices.nbytes + (0 if self.values is None else self.values.nbytes)


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts of several columns, not yet taken apart. data: UTF-8, shape (bytes,), uint8.

    starts: where each text begins in data, shape (rows, columns), int64. sizes: its bytes, shape (rows, columns), int32;
    -1 where it is missing.
    """

    data: NDArray[np.uint8]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.starts)

    def part(self, start: int, stop: int) -> Texts:
        """Rows ``start`` to ``stop``, without a copy."""
        return Texts(self.data, self.starts[start:stop], self.sizes[start:stop])


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows cut from a window. The loader gives features as they are, with NaN for what is missing, codes and texts; the
    preparation makes numbers to learn from of them, features and sparse.

    features: shape (rows, features), float32, C-contiguous.
    targets: shape (rows,): int32 class positions, or float32 values for regression; empty where no target was asked for.
    weights: shape (rows,), float32, or None where every row weighs one.
    positions: the rows' positions in the data, shape (rows,), int64, or a function that finds them (see `rows`).
    held_out: whether these rows are for scoring only.
    sparse: the sparse part of what is learned from, beside the features; None where there is none.
    codes: of the categories of each row, shape (rows, categories), uint32 (see `streamtrain.columns`); None for none.
    texts: None where there are none.

    The arrays belong to the loader and are valid until the next batch is asked for: copy what must be kept.

    >>> batch = Batch(np.zeros((2, 3), np.float32), np.zeros(2, np.int32), None, np.arange(2))
    >>> len(batch), batch.nbytes, batch.rows.tolist()
    (2, 32, [0, 1])
    """

    features: NDArray[np.float32]
    targets: NDArray[np.int32] | NDArray[np.float32]
    weights: NDArray[np.float32] | None
    positions: NDArray[np.int64] | Callable[[], NDArray[np.int64]]
    held_out: bool = False
    sparse: Sparse | None = None
    codes: NDArray[np.uint32] | None = None
    texts: Texts | None = None

    def __len__(self) -> int:
        return len(self.features)

    def part(self, start: int, stop: int) -> Batch:
        """Rows ``start`` to ``stop``, without a copy."""
        weights = None if self.weights is None else self.weights[start:stop]
        features, targets = self.features[start:stop], self.targets[start:stop]
        codes = None if self.codes is None else self.codes[start:stop]
        sparse = None if self.sparse is None else self.sparse.part(start, stop)
        texts = None if self.texts is None else self.texts.part(start, stop)
        return Batch(features, targets, weights, lambda: self.rows[start:stop], self.held_out, sparse, codes, texts)

    def take(self, rows: NDArray[np.int64]) -> Batch:
        """Copies of some rows, none of which is prepared yet. rows: which, shape (rows taken,)."""
        weights = None if self.weights is None else self.weights[rows]
        codes = None if self.codes is None else self.codes[rows]
        texts = None if self.texts is None else Texts(self.texts.data, self.texts.starts[rows], self.texts.sizes[rows])
        features, targets = self.features[rows], self.targets[rows]
        return Batch(features, targets, weights, lambda: self.rows[rows], self.held_out, codes=codes, texts=texts)

    @property
    def rows(self) -> NDArray[np.int64]:
        """The position of each row in the data, shape (rows,); 0 is the first row of the first chunk."""
        return self.positions() if callable(self.positions) else self.positions

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays; of texts not those of the window that they stand in."""
        parts = (self.features, self.targets, self.weights, self.sparse, self.codes)
        return sum(part.nbytes for part in parts if part is not None)

"""The rows that a learner sees at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

__all__ = ["Batch", "Sparse", "Texts"]


@dataclass(frozen=True, slots=True)
class Sparse:
    """A matrix that is mostly zero, in compressed sparse rows, like scipy's ``csr_matrix((values, indices, indptr))``.

    Parameters
    ----------
    indptr
        Shape (rows + 1,), int64. The entries of row r are those from ``indptr[r]`` to ``indptr[r + 1]``; ``indptr[0]`` is 0.
    indices
        Shape (entries,), int32. The column of each entry. A column that occurs twice in a row counts twice.
    values
        Shape (entries,), float32, or None if every entry is 1.
    width
        The number of columns.

    Examples
    --------
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
        """Rows ``start`` to ``stop``; the entries are not copied."""
        first, last = self.indptr[start], self.indptr[stop]
        values = None if self.values is None else self.values[first:last]
        return Sparse(self.indptr[start : stop + 1] - first, self.indices[first:last], values, self.width)

    def copy(self) -> Sparse:
        """The same rows in their own arrays."""
        values = None if self.values is None else self.values.copy()
        return Sparse(self.indptr.copy(), self.indices.copy(), values, self.width)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return self.indptr.nbytes + self.indices.nbytes + (0 if self.values is None else self.values.nbytes)


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts and bags of several columns.

    Parameters
    ----------
    data
        Shape (bytes,), uint8: UTF-8; of a bag its entries, each the 32-bit hash of what it is, uint32, and its value, float32.
        Those of a row start at a multiple of 8 bytes. It may hold the texts of other rows too.
    starts
        Shape (rows, columns), int64. Where each text starts in ``data``.
    sizes
        Shape (rows, columns), int32. The bytes of each text; -1 where it is missing.
    """

    data: NDArray[np.uint8]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.starts)

    def part(self, start: int, stop: int) -> Texts:
        """Rows ``start`` to ``stop``, without a copy."""
        return Texts(self.data, self.starts[start:stop], self.sizes[start:stop])

    def copy(self, align: int = 8) -> Texts:
        """The same texts in their own arrays, without the bytes of other rows. align: bytes, of which each start is a multiple;
        8 for bags."""
        rooms = -(-np.maximum(self.sizes, 0) // align) * align
        ends = np.cumsum(rooms, dtype=np.int64).reshape(rooms.shape)
        starts, data = ends - rooms, np.zeros(int(rooms.sum(dtype=np.int64)), np.uint8)
        texts = zip(starts.ravel().tolist(), self.starts.ravel().tolist(), self.sizes.ravel().tolist(), strict=True)
        for to, start, size in texts:
            if size > 0:
                data[to : to + size] = self.data[start : start + size]
        return Texts(data, starts, self.sizes.copy())


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows cut from a window.

    The loader gives features as they are, with NaN for what is missing, hashes and texts. The preparation turns these into
    what a learner takes: features and ``sparse``.

    Parameters
    ----------
    features
        Shape (rows, features), float32, C-contiguous.
    targets
        Shape (rows,): int32 class positions, or float32 values for regression; shape (rows, targets) for several targets; shape
        (0,) without a target.
    weights
        Shape (rows,), float32, or None if every row weighs one.
    positions
        The positions of the rows in the data, shape (rows,), int64, or a function that computes them (see `rows`).
    held_out
        Whether these rows are for scoring only.
    sparse
        The sparse part of what is learned from, beside the features; None if there is none.
    hashes
        Shape (rows, hashes), uint32: the hashes of the values of categories and of crossed columns; None if there are none.
    texts
        None if there are none.
    tensors
        For each column of numbers: its first feature, and the shape of a value (see `tensor`).

    Notes
    -----
    The arrays belong to the loader and are overwritten when the next batch is requested. To keep a batch, use `copy`, or a
    loader with ``copy=True``.

    Examples
    --------
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
    hashes: NDArray[np.uint32] | None = None
    texts: Texts | None = None
    tensors: Mapping[str, tuple[int, tuple[int, ...]]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.features)

    def tensor(self, name: str) -> NDArray[np.float32]:
        """The numbers of one column, in the shape that they have in the data.

        Returns
        -------
        A view of the features, float32: shape (rows,) for a column of single numbers, (rows, 28, 28) for tensors of
        28 x 28, (rows, 7) for timestamps.

        Raises
        ------
        KeyError
            If no column of this name becomes numbers.
        """
        if name not in self.tensors:
            raise KeyError(f"no column {name!r} becomes numbers: must be one of {', '.join(map(repr, self.tensors))}")
        first, shape = self.tensors[name]
        return self.features[:, first : first + int(np.prod(shape))].reshape(len(self), *shape)

    def part(self, start: int, stop: int) -> Batch:
        """Rows ``start`` to ``stop``, without a copy."""
        rows = slice(start, stop)
        return replace(
            self,
            features=self.features[rows],
            targets=self.targets[rows],
            weights=None if self.weights is None else self.weights[rows],
            positions=lambda: self.rows[rows],
            sparse=None if self.sparse is None else self.sparse.part(start, stop),
            hashes=None if self.hashes is None else self.hashes[rows],
            texts=None if self.texts is None else self.texts.part(start, stop),
        )

    def take(self, rows: NDArray[np.int64]) -> Batch:
        """A batch of copies of the rows with these numbers, shape (rows taken,). Only for a batch that is not prepared yet."""
        texts = self.texts
        return replace(
            self,
            features=self.features[rows],
            targets=self.targets[rows],
            weights=None if self.weights is None else self.weights[rows],
            positions=lambda: self.rows[rows],
            sparse=None,
            hashes=None if self.hashes is None else self.hashes[rows],
            texts=None if texts is None else Texts(texts.data, texts.starts[rows], texts.sizes[rows]),
        )

    def copy(self) -> Batch:
        """The same rows in their own arrays, which outlive the next batch."""
        return replace(
            self,
            features=self.features.copy(),
            targets=self.targets.copy(),
            weights=None if self.weights is None else self.weights.copy(),
            sparse=None if self.sparse is None else self.sparse.copy(),
            hashes=None if self.hashes is None else self.hashes.copy(),
            texts=None if self.texts is None else self.texts.copy(),
        )

    @property
    def rows(self) -> NDArray[np.int64]:
        """The position of each row in the data, shape (rows,), int64; 0 is the first row of the first chunk."""
        return self.positions() if callable(self.positions) else self.positions

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays, except the texts, whose bytes are in an array of the whole window."""
        arrays = (self.features, self.targets, self.weights, self.sparse, self.hashes)
        return sum(array.nbytes for array in arrays if array is not None)

"""A step of a linear model with one output: everything that is done to each row, in one pass; and many steps in one call."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.batch import Sparse
from streamtrain.kernels import affine, few_sums
from streamtrain.kernels.compiled import BatchRows, LinearModel, SparseRows, WeightUpdate, address, library, number

__all__ = ["LinearStep"]

Floats = NDArray[np.float32]

_SCRATCH_WIDTH = 1024  # rows of up to so many numbers are prepared in scratch: a block of 64 fits the cache


class LinearStep:
    """Everything that a step of a linear model with one output does to each row, in one pass over the rows.

    maps: centre, shift and scale, shape (3, width). scoring, learning: two sets of weights, each of shape (width + 1,),
    the intercept last. All are float32 and are read anew at each call: change them in place. logistic: whether a
    prediction is the sigmoid of the margin, or the margin itself.

    >>> maps, zero = np.array([[2, 5], [2, 5], [1, 1]], np.float32), np.zeros(3, np.float32)
    >>> step = LinearStep(maps, zero, zero, logistic=True)
    >>> rows = np.array([[1, 5], [3, 5]], np.float32)
    >>> [array.tolist() for array in step(rows, np.ones(2, np.float32), None)]
    [[0.5, 0.5], [0.0, 0.0, -1.0], [[0.0, 0.0], [2.0, 0.0]]]
    """

    def __init__(self, maps: Floats, scoring: Floats, learning: Floats, *, logistic: bool) -> None:
        self.maps, self.scoring, self.learning, self.logistic = maps, scoring, learning, logistic
        width = maps.shape[1]
        self._gradient, self._sums = np.empty(width + 1, np.float32), np.empty((2, width), np.float32)
        self._room = np.empty(0, np.float32)
        # To find an address costs as much as a small sum, so the addresses of arrays that stay are kept.
        centre, row = address(maps), 4 * width
        self._model = LinearModel(
            width, logistic, centre, centre + row, centre + 2 * row, address(scoring), address(learning), None,
            address(self._gradient), address(self._sums), 0.0,
        )  # fmt: skip
        self._at = ctypes.addressof(self._model)
        if library() is not None and width <= _SCRATCH_WIDTH:
            self._scratch = np.empty((number("BLOCK"), width), np.float32)
            self._model.scratch = address(self._scratch)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy has addresses of its own."""
        return _make, (self.maps, self.scoring, self.learning, self.logistic)

    def __call__(self, rows: Floats, targets: Floats, weights: Floats | None) -> tuple[Floats, Floats, Floats]:
        """Prepare rows, predict, and return what the learner needs of them.

        rows: raw features, shape (rows, width); they **may be prepared in place**, ``(rows - shift) * scale``. targets,
        weights: shape (rows,), float32.

        Returns the predictions of the scoring weights, shape (rows,); the sum over the rows of
        ``weight * (prediction of the learning weights - target) * (row, 1)``, shape (width + 1,); and the sums of the
        raw rows about the centre, shape (2, width), in float32 (see `sums`; meant for a few thousand rows). The last
        two are valid until the next call.
        """
        compiled = library()
        if compiled is None:
            return self._in_numpy(rows, targets, weights)
        scores = np.empty(len(rows), np.float32)
        at = None if weights is None else address(weights)
        batch = BatchRows(address(rows), address(targets), at, address(scores), len(rows))
        compiled.st_linear_step(self._at, ctypes.addressof(batch))
        return scores, self._gradient, self._sums

    @property
    def squared(self) -> float:
        """The sum of the squared slopes of the rows of the last batch."""
        return float(self._model.squared)

    def _in_numpy(self, rows: Floats, targets: Floats, weights: Floats | None) -> tuple[Floats, Floats, Floats]:
        self._sums[:] = few_sums(rows, self.maps[0])
        affine(rows, self.maps[1], self.maps[2])
        scores = np.dot(rows, self.scoring[:-1]) + self.scoring[-1]
        slope = np.dot(rows, self.learning[:-1]) + self.learning[-1]
        for margin in (scores, slope) if self.logistic else ():  # (1 + tanh(m / 2)) / 2 cannot overflow
            np.tanh(np.multiply(margin, np.float32(0.5), out=margin), out=margin)
            np.multiply(np.add(margin, np.float32(1), out=margin), np.float32(0.5), out=margin)
        slope -= targets
        if weights is not None:
            slope *= weights
        self._model.squared = np.vdot(slope, slope)
        np.dot(rows.T, slope, out=self._gradient[:-1])
        self._gradient[-1] = np.add.reduce(slope)
        return scores, self._gradient, self._sums

    def run(
        self, rows: Floats, batch: int, targets: Floats, squares: Floats, clock: NDArray[np.float64],
        block: NDArray[np.float64], *, step: float, l2: float, forget: float, sparse: Sparse | None = None,
        table: Floats | None = None, prior: tuple[float, float] = (0.0, 0.0),
    ) -> tuple[int, Floats, Floats, Floats]:  # fmt: skip
        """Batch after batch: this step, then the update of the weights by the normalised adaptive gradient, and of their
        average; to the same bits as one by one. Only where ``COMPILED``. The scoring weights are the average.

        rows, targets: of all batches, each of ``batch`` rows. squares: of the optimizer, shape (width + 1,). clock: rows,
        batches, rows measured, power, noise; shape (5,). block: the sums of each batch are added to it, shape (2, width).
        sparse: the sparse part of the rows. table: weight, average, squares and steps of each of its columns, shape
        (columns, 4). prior: two factors of the noise, which are added to the squares of dense weights and of the table's.
        All but the sparse part are changed in place.

        Returns how many batches were learned, and the predictions, shape (rows,). Where that is not all batches, the next
        one was predicted, but its gradient or its sums, which are returned too, are not finite.
        """
        compiled = library()
        assert compiled is not None
        scores = np.empty(len(rows), np.float32)
        batches = BatchRows(address(rows), address(targets), None, address(scores), len(rows))
        update = WeightUpdate(step, l2, forget, *prior, address(squares), address(block))
        part = None if sparse is None or table is None else self._sparse_rows(sparse, table, len(rows), batch)
        done = compiled.st_linear_run(
            self._at, ctypes.addressof(batches), batch, None if part is None else ctypes.addressof(part),
            ctypes.addressof(update), address(clock),
        )  # fmt: skip
        return done, scores, self._gradient, self._sums

    def _sparse_rows(self, sparse: Sparse, table: Floats, rows: int, batch: int) -> SparseRows:
        """The sparse part, with room for the entries of the largest batch."""
        ends = sparse.indptr[batch::batch] if rows > batch else sparse.indptr[-1:]
        most = int(np.diff(np.append(ends, sparse.indptr[-1]), prepend=0).max())
        arrays = 2 + number("FIELDS") + 1
        if len(self._room) < arrays * most:
            self._room = np.empty(arrays * (most + most // 8), np.float32)
        values = None if sparse.values is None else address(sparse.values)
        return SparseRows(
            address(sparse.indptr), address(sparse.indices), values, address(table), address(self._room),
            len(self._room) // arrays,
        )  # fmt: skip


def _make(maps: Floats, scoring: Floats, learning: Floats, logistic: bool) -> LinearStep:
    return LinearStep(maps, scoring, learning, logistic=logistic)

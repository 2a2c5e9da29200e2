"""A step of a linear model with one output: everything that is done to each row, in one pass; and many steps at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamtrain import kernels
from streamtrain.batch import Sparse
from streamtrain.kernels import address, affine, few_sums

__all__ = ["LinearStep"]

Floats = NDArray[np.float32]

_SCRATCH_ROWS = 64  # BLOCK in kernels.c
_SCRATCH_WIDTH = 1024  # rows of up to so many numbers are prepared beside the window: a block of 64 fits the cache
_ROOM_ARRAYS = 7  # numbers in struct sparse of kernels.c for each entry of a batch


class LinearStep:
    """Everything that a step of a linear model with one output does to each row, in one pass over the rows.

    maps: centre, shift and scale, shape (3, width). scoring, learning: two sets of weights, each of shape (width + 1,),
    the intercept last. All of them float32, and looked at anew at each call: change them in place. logistic: whether a
    prediction is the sigmoid of its margin, or the margin itself.

    >>> maps, zero = np.array([[2, 5], [2, 5], [1, 1]], np.float32), np.zeros(3, np.float32)
    >>> step = LinearStep(maps, zero, zero, logistic=True)
    >>> rows = np.array([[1, 5], [3, 5]], np.float32)
    >>> [found.tolist() for found in step(rows, np.ones(2, np.float32), None)]
    [[0.5, 0.5], [0.0, 0.0, -1.0], [[0.0, 0.0], [2.0, 0.0]]]
    """

    def __init__(self, maps: Floats, scoring: Floats, learning: Floats, *, logistic: bool) -> None:
        self.maps, self.scoring, self.learning, self.logistic = maps, scoring, learning, logistic
        width = maps.shape[1]
        self._gradient, self._sums = np.empty(width + 1, np.float32), np.empty((2, width), np.float32)
        # An address costs as much as a small sum: those of arrays that stay are looked up once.
        centre, size = address(maps), 4 * width
        self._maps = centre + size, centre + 2 * size, centre
        self._weights = address(scoring), address(learning)
        self._scratch = np.empty((_SCRATCH_ROWS, width) if width <= _SCRATCH_WIDTH else 0, np.float32)
        self._block = address(self._scratch) if self._scratch.size else None
        self._squared = np.zeros(1)
        self._room = np.empty((_ROOM_ARRAYS, 0), np.float32)
        self._found = address(self._gradient), address(self._sums)

    def __call__(self, rows: Floats, targets: Floats, weights: Floats | None) -> tuple[Floats, Floats, Floats]:
        """rows: raw features, shape (rows, width), **may be prepared in place**, ``(rows - shift) * scale``. targets,
        weights: shape (rows,), float32.

        Returns the predictions of the scoring weights, shape (rows,); the sum over the rows of
        ``weight * (prediction of the learning weights - target) * (row, 1)``, shape (width + 1,); and the sums of the
        raw rows about the centre, shape (2, width), in float32 (see `sums`; meant for a few thousand rows). The last
        two are valid until the next call.
        """
        library = kernels.library()
        if library is None:
            return self._in_numpy(rows, targets, weights)
        scores = np.empty(len(rows), np.float32)
        library.st_linear_step(
            address(rows), *rows.shape, *self._maps, address(targets), None if weights is None else address(weights),
            *self._weights, self.logistic, self._block, address(scores), *self._found,
            address(self._squared),
        )  # fmt: skip
        return scores, self._gradient, self._sums

    @property
    def squared(self) -> float:
        """The sum of the squared slopes of the rows of the last batch."""
        return float(self._squared[0])

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
        self._squared[0] = np.vdot(slope, slope)
        np.dot(rows.T, slope, out=self._gradient[:-1])
        self._gradient[-1] = np.add.reduce(slope)
        return scores, self._gradient, self._sums

    def run(
        self, rows: Floats, batch: int, targets: Floats, squares: Floats, clock: NDArray[np.float64],
        block: NDArray[np.float64], *, step: float, l2: float, forget: float, sparse: Sparse | None = None,
        table: Floats | None = None, prior: tuple[float, float] = (0.0, 0.0),
    ) -> tuple[int, Floats, Floats, Floats]:  # fmt: skip
        """Batch after batch: this step, and the update of the normalised adaptive gradient and of the average, to the
        same bits as one by one. Only where ``COMPILED``; the scoring weights are the average.

        rows, targets: of all batches, each of ``batch`` rows. squares: of the optimizer, shape (width + 1,). clock: rows,
        batches, rows measured, power, noise. block: gets the sums of each batch, shape (2, width). sparse: the sparse part
        of the rows. table: weight, average, squares and steps of each of its columns, shape (columns, 4). prior: times the
        noise, is added to the squares of dense weights and of those of the table. All but the sparse part are changed in place.

        Returns the batches learned and their predictions, shape (rows,). Where that is not all of them the next one was
        predicted, but its gradient or its sums, which are returned too, are not finite.
        """
        library = kernels.library()
        assert library is not None
        scores = np.empty(len(rows), np.float32)
        part: tuple[int | None, ...] = (None,) * 5 + (0,)
        if sparse is not None and table is not None:
            ends = sparse.indptr[batch::batch] if len(rows) > batch else sparse.indptr[-1:]
            most = int(np.diff(np.append(ends, sparse.indptr[-1]), prepend=0).max())
            if self._room.shape[1] < most:
                self._room = np.empty((_ROOM_ARRAYS, most + most // 8), np.float32)
            values = None if sparse.values is None else address(sparse.values)
            places = address(sparse.indptr), address(sparse.indices)
            part = *places, values, address(table), address(self._room), self._room.shape[1]
        done = library.st_linear_run(
            address(rows), *rows.shape, batch, *self._maps, address(targets), *self._weights, address(squares),
            self.logistic, step, l2, forget, address(clock), address(block), self._block, address(scores), *self._found,
            *part, *prior, address(self._squared),
        )  # fmt: skip
        return done, scores, self._gradient, self._sums

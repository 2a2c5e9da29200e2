"""Many steps of a linear model with one output in one call; each step makes one pass over the rows."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.batch import Sparse
from streamtrain.kernels.compiled import BatchRows, LinearModel, SparseRows, WeightUpdate, address, library, number

__all__ = ["LinearStep", "move"]

Floats = NDArray[np.float32]

_SCRATCH_WIDTH = 1024  # rows of at most this width are prepared in a scratch array: a block of 64 fits the cache


def move(
    gradient: Floats, weights: Floats, average: Floats, squares: Floats, *, share: float, rate: float, l2: float,
    factor: float, prior: float,
) -> None:  # fmt: skip
    """Move weights by the normalised adaptive gradient and by L2, and their average; all arrays have one shape. L2 leaves the
    last row alone. gradient: a sum; share times it is the mean. factor: of the way, how far the average moves. prior: added
    to the sums of squares. The bits are those of `Update.move`. Only where there is a library."""
    compiled = library()
    assert compiled is not None
    penalised = weights.size - weights.size // len(weights)
    compiled.st_move(
        address(gradient), address(weights), address(average), address(squares), weights.size, penalised, share, rate, l2,
        factor, prior,
    )  # fmt: skip


class LinearStep:
    """The steps of a linear model with one output, by compiled kernels.

    maps: centre, shift and scale, shape (3, width). scoring, learning: two sets of weights, each of shape (width + 1,),
    the intercept last. All are float32 and are read anew at each call: change them in place. logistic: whether a
    prediction is the sigmoid of the margin, or the margin itself.
    """

    def __init__(self, maps: Floats, scoring: Floats, learning: Floats, *, logistic: bool) -> None:
        self.maps, self.scoring, self.learning, self.logistic = maps, scoring, learning, logistic
        width = maps.shape[1]
        self._gradient, self._sums = np.empty(width + 1, np.float32), np.empty((2, width), np.float32)
        self._room = np.empty(0, np.float32)
        # Finding an address takes as long as a small sum, so the addresses of these arrays are kept.
        centre, row = address(maps), 4 * width
        self._model = LinearModel(
            width, logistic, centre, centre + row, centre + 2 * row, address(scoring), address(learning), None,
            address(self._gradient), address(self._sums), 0.0,
        )  # fmt: skip
        self._at = ctypes.addressof(self._model)
        if width <= _SCRATCH_WIDTH:
            self._scratch = np.empty((number("BLOCK"), width), np.float32)
            self._model.scratch = address(self._scratch)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy finds its own addresses."""
        return _make, (self.maps, self.scoring, self.learning, self.logistic)

    @property
    def squared(self) -> float:
        """The sum of the squared slopes, prediction less target, of the last batch."""
        return float(self._model.squared)

    def run(
        self, rows: Floats, batch: int, targets: Floats, squares: Floats, stream: NDArray[np.float64],
        block: NDArray[np.float64], *, learning_rate: float, l2: float, forget: float, sparse: Sparse | None = None,
        sparse_weights: Floats | None = None, prior: tuple[float, float] = (0.0, 0.0),
    ) -> tuple[int, Floats, Floats, Floats]:  # fmt: skip
        """Learn batch after batch: prepare the rows, predict, then move the weights by the normalised adaptive gradient, and
        their average. Many batches in one call give the same bits as one batch a call. Only where ``COMPILED``.

        rows: raw features of all batches, each of ``batch`` rows, shape (rows, width), float32; they **may be prepared in
        place**, ``(rows - shift) * scale``. targets: shape (rows,), float32. squares: of the optimizer, shape (width + 1,).
        stream: rows, batches, rows measured, power, noise; shape (5,). block: the sums of each batch are added to it, shape
        (2, width). sparse: the sparse part of the rows. sparse_weights: weight, average, squares and steps of each of its
        columns, shape (columns, 4). prior: two factors of the noise, which are added to the squares of dense and of sparse
        weights. All but the sparse part are changed in place.

        The scoring weights make the predictions, and are the average of the learning weights; the gradient is that of the
        learning weights.

        Returns how many batches were learned; the predictions, shape (rows,); and, of the last batch, the sum of
        ``(prediction - target) * (row, 1)``, shape (width + 1,), and the sums of the raw rows about the centre, shape
        (2, width), both float32 and valid until the next call. If not all batches were learned, the last one has a
        gradient or sums that are not finite: it was predicted, but not learned.
        """
        compiled = library()
        assert compiled is not None
        scores = np.empty(len(rows), np.float32)
        batches = BatchRows(address(rows), address(targets), address(scores), len(rows))
        update = WeightUpdate(learning_rate, l2, forget, *prior, address(squares), address(block))
        part = (
            None
            if sparse is None or sparse_weights is None
            else self._sparse_rows(sparse, sparse_weights, len(rows), batch)
        )
        done = compiled.st_linear_run(
            self._at, ctypes.addressof(batches), batch, None if part is None else ctypes.addressof(part),
            ctypes.addressof(update), address(stream),
        )  # fmt: skip
        return done, scores, self._gradient, self._sums

    def _sparse_rows(self, sparse: Sparse, sparse_weights: Floats, rows: int, batch: int) -> SparseRows:
        """The sparse part, with room for the entries of the largest batch."""
        ends = sparse.indptr[batch::batch] if rows > batch else sparse.indptr[-1:]
        most = int(np.diff(np.append(ends, sparse.indptr[-1]), prepend=0).max())
        arrays = 2 + number("FIELDS") + 1
        if len(self._room) < arrays * most:
            self._room = np.empty(arrays * (most + most // 8), np.float32)
        values = None if sparse.values is None else address(sparse.values)
        return SparseRows(
            address(sparse.indptr), address(sparse.indices), values, address(sparse_weights), address(self._room),
            len(self._room) // arrays,
        )  # fmt: skip


def _make(maps: Floats, scoring: Floats, learning: Floats, logistic: bool) -> LinearStep:
    return LinearStep(maps, scoring, learning, logistic=logistic)

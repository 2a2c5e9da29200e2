"""Batches cut from windows: a view where all its rows stand in one window, a copy where they do not."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.batch import Batch
from streamtrain.load.layout import Layout
from streamtrain.load.window import Window

__all__ = ["BatchBuffer"]


class BatchBuffer:
    """Cuts batches of ``rows`` rows, and holds the rows of one that began in a window that is used up."""

    def __init__(self, layout: Layout, rows: int) -> None:
        self.rows = rows
        self._features = np.empty((rows, layout.width), np.float32)
        self._targets: NDArray[Any] = np.empty(
            rows if layout.target else 0, layout.target.dtype if layout.target else "f4"
        )
        self._weights = np.empty(rows, np.float32) if layout.weight else None
        self.views = layout.dtype == np.float32
        self._places: list[partial[NDArray[np.int64]]] = []
        self.filled = 0

    def view(self, window: Window, first: int, last: int, *, held_out: bool = False) -> Batch | None:
        """Rows ``first`` to ``last`` of the window as a batch, without a copy; None where a copy is needed."""
        if self.filled or not self.views or (last - first < self.rows and not held_out):
            return None
        arrays, rows = window.arrays, slice(first, last)
        weights = None if arrays.weights is None else arrays.weights[rows]
        return Batch(
            arrays.features[rows],
            arrays.targets[rows],
            weights,
            partial(window.standing.origins, first, last),
            held_out,
        )

    def gather(self, window: Window, first: int, last: int) -> None:
        """Append rows ``first`` to ``last`` of the window."""
        into, rows, arrays = slice(self.filled, self.filled + last - first), slice(first, last), window.arrays
        self._features[into] = arrays.features[rows]
        if len(self._targets):
            self._targets[into] = arrays.targets[rows]
        if self._weights is not None and arrays.weights is not None:
            self._weights[into] = arrays.weights[rows]
        self._places.append(partial(window.standing.origins, first, last))
        self.filled = into.stop

    def batch(self, *, held_out: bool = False) -> Batch:
        """What was gathered, as a batch; the buffer starts again."""
        n, places = self.filled, self._places
        self.filled, self._places = 0, []
        weights = None if self._weights is None else self._weights[:n]
        return Batch(self._features[:n], self._targets[:n], weights, partial(_positions, places), held_out)

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        weights = 0 if self._weights is None else self._weights.nbytes
        return self._features.nbytes + self._targets.nbytes + weights


def _positions(places: list[partial[NDArray[np.int64]]]) -> NDArray[np.int64]:
    return np.concatenate([place() for place in places])

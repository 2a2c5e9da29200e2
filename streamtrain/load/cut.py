"""Batches cut from windows: rows gathered, in their order, into buffers that are used again and again."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.batch import Batch
from streamtrain.load.layout import Layout
from streamtrain.load.window import Window

__all__ = ["BatchBuffer"]


class BatchBuffer:
    """Room for one batch. Rows may come from several windows."""

    def __init__(self, layout: Layout, rows: int) -> None:
        self.rows = rows
        self._features = np.empty((rows, layout.width), np.float32)
        self._raw = None if layout.dtype == np.float32 else np.empty((rows, layout.width), layout.dtype)
        self._targets: NDArray[Any] = np.empty(rows, layout.target.dtype if layout.target else np.float32)
        self._weights = np.empty(rows, np.float32) if layout.weight else None
        self._has_target = layout.target is not None
        self._places: list[Callable[[], NDArray[np.int64]]] = []
        self.filled = 0

    def gather(self, window: Window, taken: NDArray[np.int64], starts: NDArray[np.int64]) -> None:
        """Append the rows at ``taken`` of the window. mode="clip" spares numpy a pass over the indices; they are ours."""
        rows, arrays = slice(self.filled, self.filled + len(taken)), window.arrays
        into = self._features if self._raw is None else self._raw
        np.take(arrays.features, taken, axis=0, out=into[rows], mode="clip")
        if self._raw is not None:
            self._features[rows] = self._raw[rows]
        if self._has_target:
            np.take(arrays.targets, taken, out=self._targets[rows], mode="clip")
        if self._weights is not None and arrays.weights is not None:
            np.take(arrays.weights, taken, out=self._weights[rows], mode="clip")
        self._places.append(partial(window.locator(starts), taken))
        self.filled = rows.stop

    def batch(self, *, held_out: bool = False) -> Batch:
        """What was gathered, as a batch; the buffer starts again."""
        n, places = self.filled, self._places
        self.filled, self._places = 0, []
        targets = self._targets[:n] if self._has_target else self._targets[:0]
        weights = None if self._weights is None else self._weights[:n]
        return Batch(self._features[:n], targets, weights, partial(_positions, places), held_out)

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        arrays = (self._features, self._raw, self._targets, self._weights)
        return sum(a.nbytes for a in arrays if a is not None)


def _positions(places: list[Callable[[], NDArray[np.int64]]]) -> NDArray[np.int64]:
    return np.concatenate([place() for place in places])

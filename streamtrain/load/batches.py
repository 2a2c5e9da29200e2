"""Batches cut from windows: a view where all its rows stand in one window, a copy where they do not."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.batch import Batch
from streamtrain.columns.buffers import WindowArrays
from streamtrain.columns.layout import Layout
from streamtrain.load.window import Window

__all__ = ["BatchBuffer"]


class BatchBuffer:
    """Cuts batches of ``rows`` rows, and holds the rows of one that began in a window that is used up."""

    def __init__(self, layout: Layout, rows: int) -> None:
        self.rows, self._layout = rows, layout
        self._arrays = layout.buffers(rows, np.float32)
        self.views = layout.dtype == np.float32
        self._places: list[partial[NDArray[np.int64]]] = []
        self.filled = 0

    def view(self, window: Window, first: int, last: int, *, held_out: bool = False) -> Batch | None:
        """Rows ``first`` to ``last`` of the window as a batch, without a copy; None where a copy is needed."""
        if self.filled or not self.views or (last - first < self.rows and not held_out):
            return None
        return _batch(self._layout, window.arrays, first, last, partial(window.standing.origins, first, last), held_out)

    def gather(self, window: Window, first: int, last: int) -> None:
        """Append rows ``first`` to ``last`` of the window."""
        if not self.filled:
            self._arrays.clear()
        self._arrays.copy_rows(self.filled, window.arrays, first, last)
        self._places.append(partial(window.standing.origins, first, last))
        self.filled += last - first

    def batch(self, *, held_out: bool = False) -> Batch:
        """What was gathered, as a batch; the buffer starts again."""
        rows, places = self.filled, self._places
        self.filled, self._places = 0, []
        return _batch(self._layout, self._arrays, 0, rows, partial(_positions, places), held_out)

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        return self._arrays.nbytes


def _batch(layout: Layout, arrays: WindowArrays, first: int, last: int, positions: Any, held_out: bool) -> Batch:
    rows = slice(first, last)
    return Batch(
        arrays.features[rows],
        arrays.targets[rows] if len(arrays.targets) else arrays.targets,
        None if arrays.weights is None else arrays.weights[rows],
        positions,
        held_out,
        hashes=None if arrays.hashes is None else arrays.hashes[rows],
        texts=None if arrays.texts is None else arrays.texts.rows(first, last),
        tensors=layout.tensors,
    )


def _positions(places: list[partial[NDArray[np.int64]]]) -> NDArray[np.int64]:
    return np.concatenate([place() for place in places]) if places else np.empty(0, np.int64)

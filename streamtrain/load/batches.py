"""Batches cut from windows: a view if all rows are in one window, otherwise a copy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from streamtrain.batch import Batch
from streamtrain.columns.buffers import WindowArrays
from streamtrain.columns.layout import Layout
from streamtrain.load.holdout import HoldOut
from streamtrain.load.window import Window, WindowOrder
from streamtrain.plan import Plan
from streamtrain.storage.reader import ChunkTable

__all__ = ["BatchBuffer", "count_batches"]

RowNumbers = Callable[[], NDArray[np.int64]]
_NO_ROWS = np.zeros(0, np.int32)


class BatchBuffer:
    """Cuts batches of ``rows`` rows. A batch that begins in one window and ends in the next is gathered in a buffer."""

    def __init__(self, layout: Layout, rows: int) -> None:
        self.rows, self._layout = rows, layout
        self._arrays = layout.buffers(rows, np.float32)
        self.views = layout.dtype == np.float32
        self._row_numbers: list[RowNumbers] = []
        self._skipped: list[tuple[NDArray[np.int32], NDArray[np.int32]]] = []  # positions and chunks, of gathered rows
        self.skipped_chunks = _NO_ROWS  # of each skipped row of the last batch, the number of its chunk
        self.filled = 0

    def view(self, window: Window, first: int, last: int, *, held_out: bool = False) -> Batch | None:
        """Rows ``first`` to ``last`` of the window as a batch, without a copy; None if a copy is needed."""
        if self.filled or not self.views or (last - first < self.rows and not held_out):
            return None
        skipped = window.skipped_between(first, last)
        return self._cut(window.arrays, first, last, _rows_of(window, first, last), held_out, *skipped)

    def gather(self, window: Window, first: int, last: int) -> None:
        """Append rows ``first`` to ``last`` of the window."""
        if not self.filled:
            self._arrays.clear()
        self._arrays.copy_rows(self.filled, window.arrays, first, last)
        self._row_numbers.append(_rows_of(window, first, last))
        positions, chunks = window.skipped_between(first, last)
        self._skipped.append((positions + np.int32(self.filled), chunks))
        self.filled += last - first

    def batch(self, *, held_out: bool = False) -> Batch:
        """The gathered rows as a batch; the buffer starts again."""
        rows, numbers, skipped = self.filled, self._row_numbers, self._skipped
        self.filled, self._row_numbers, self._skipped = 0, [], []
        positions, chunks = (np.concatenate(parts) for parts in zip((_NO_ROWS, _NO_ROWS), *skipped, strict=True))
        return self._cut(self._arrays, 0, rows, partial(_together, numbers), held_out, positions, chunks)

    def _cut(
        self, arrays: WindowArrays, first: int, last: int, row_numbers: RowNumbers, held_out: bool,
        skipped: NDArray[np.int32], chunks: NDArray[np.int32],
    ) -> Batch:  # fmt: skip
        """Some rows as a batch. skipped: which of them have weight 0; where there are weights, these say it already."""
        rows, self.skipped_chunks = slice(first, last), chunks
        weights = None if arrays.weights is None else arrays.weights[rows]
        if weights is None and len(skipped):
            weights = np.ones(last - first, np.float32)
            weights[skipped] = 0
        return Batch(
            arrays.features[rows],
            arrays.targets[rows] if len(arrays.targets) else arrays.targets,
            weights,
            row_numbers,
            held_out,
            hashes=None if arrays.hashes is None else arrays.hashes[rows],
            texts=None if arrays.texts is None else arrays.texts.rows(first, last),
            tensors=self._layout.tensors,
        )

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        return self._arrays.nbytes


def _rows_of(window: Window, first: int, last: int) -> RowNumbers:
    """Computes the rows of the data at positions ``first`` to ``last``; the window may hold others by then."""
    order = window.order
    return lambda: order.data_rows(np.arange(first, last))


def _together(row_numbers: list[RowNumbers]) -> NDArray[np.int64]:
    return np.concatenate([part() for part in row_numbers]) if row_numbers else np.empty(0, np.int64)


def count_batches(table: ChunkTable, plan: Plan, seed: int, epoch: int, holdout: HoldOut) -> int:
    """How many batches an epoch has: of rows to learn, and of the held-out rows of each window."""
    if not holdout:
        return -(-table.total_rows // plan.batch_size)
    training = held_batches = 0
    for order in WindowOrder.of_epoch(table, plan, seed=seed, epoch=epoch, holdout=holdout):
        training += order.training
        held_batches += -(-int(order.held[-1]) // plan.batch_size)
    return -(-training // plan.batch_size) + held_batches

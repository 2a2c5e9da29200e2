"""A window: rows of several chunks in memory together, and the order in which they are handed out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from streamtrain.load.layout import Layout, WindowArrays
from streamtrain.shuffle import Piece, held_out, row_order

__all__ = ["Window"]


class Window:
    """A buffer that is filled again and again: fresh memory for each window would cost as much as the copy into it.

    order: rows to learn, shape (training rows,), int64 positions in the buffer, in the order of learning.
    held: rows to score only, in the order of the data.
    """

    def __init__(self, layout: Layout, rows: int) -> None:
        self.arrays = WindowArrays.empty(layout, rows)
        self.number = -1
        self.epoch = -1
        self.order = self.held = np.empty(0, np.int64)
        self.pieces: list[Piece] = []
        self.offsets: list[int] = []

    def begin(self, pieces: Sequence[Piece], *, epoch: int, number: int) -> int:
        """Lay the pieces out one after the other; the number of rows."""
        self.epoch, self.number, self.pieces = epoch, number, list(pieces)
        ends = np.cumsum([p.rows for p in pieces])
        self.offsets = [0, *ends[:-1].tolist()]
        return int(ends[-1])

    def arrange(self, rows: int, starts: NDArray[np.int64], *, seed: int, shuffle: bool, holdout: float) -> None:
        """Make the order of the rows. ``starts`` is the position in the data of each chunk's first row."""
        order = (
            row_order(rows, seed=seed, epoch=self.epoch, window=self.number)
            if shuffle
            else np.arange(rows, dtype=np.int64)
        )
        self.held = np.empty(0, np.int64)
        if holdout:
            out = held_out(self.positions(np.arange(rows), starts), holdout)
            self.held = np.flatnonzero(out)
            order = order[~out[order]]
        self.order = order

    def positions(self, places: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.int64]:
        """The position in the data of rows of the buffer."""
        return self.locator(starts)(places)

    def locator(self, starts: NDArray[np.int64]) -> Callable[[NDArray[np.int64]], NDArray[np.int64]]:
        """`positions` as it is now: the buffer may hold other rows by the time somebody asks."""
        return partial(_positions, self.pieces, self.offsets, starts)


def _positions(
    pieces: list[Piece], offsets: list[int], starts: NDArray[np.int64], places: NDArray[np.int64]
) -> NDArray[np.int64]:
    base = np.array([starts[p.chunk] + p.start for p in pieces]) - np.asarray(offsets)
    return np.asarray(places + base[np.searchsorted(offsets, places, side="right") - 1])

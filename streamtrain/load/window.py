"""A window: rows of several chunks in memory together, each written to the place at which it will be learned."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from streamtrain.load.layout import Layout, WindowArrays
from streamtrain.shuffle import Piece, held_out, row_places

__all__ = ["Locator", "Window"]


class Window:
    """A buffer that is filled again and again: fresh memory for each window would cost as much as the copy into it.

    Rows stand in the order of learning: first those to learn, ``training`` of them, then those to score only, in the
    order of the data. The permutation costs nothing of its own: it is where each row is written.

    places: of the rows in the order of the data, shape (rows,), int64: where in the buffer each stands.
    """

    def __init__(self, layout: Layout, rows: int) -> None:
        self.arrays = WindowArrays.empty(layout, rows)
        self.number = self.epoch = -1
        self.rows = self.training = 0
        self.places = np.empty(0, np.int64)
        self.pieces: list[Piece] = []
        self.offsets: list[int] = []

    def begin(
        self, pieces: Sequence[Piece], starts: NDArray[np.int64], *, epoch: int, number: int, seed: int, shuffle: bool,
        holdout: float,
    ) -> None:  # fmt: skip
        """Lay out the rows of the pieces. ``starts`` is the position in the data of each chunk's first row."""
        self.epoch, self.number, self.pieces = epoch, number, list(pieces)
        ends = np.cumsum([p.rows for p in pieces])
        self.offsets, self.rows = [0, *ends[:-1].tolist()], int(ends[-1])
        places = row_places(self.rows, seed=seed, epoch=epoch, window=number) if shuffle else np.arange(self.rows)
        self.training = self.rows
        if holdout:
            out = held_out(_positions(self.pieces, self.offsets, starts, np.arange(self.rows)), holdout)
            places, self.training = _held_out_last(places, out)
        self.places = places

    def locator(self, starts: NDArray[np.int64]) -> Locator:
        """Tells where rows come from, as the window is now: it may hold others by the time somebody asks."""
        return partial(_origins, self.pieces, self.offsets, starts, self.places)


#: (first, last) of some rows of a window -> their positions in the data
Locator = partial[NDArray[np.int64]]


def _held_out_last(places: NDArray[np.int64], out: NDArray[np.bool_]) -> tuple[NDArray[np.int64], int]:
    """Close the gaps that the held-out rows leave, and put these behind the others, in the order of the data."""
    taken = np.zeros(len(places), bool)
    taken[places[~out]] = True
    rank = np.cumsum(taken) - 1
    training = int(taken.sum())
    moved = rank[places]
    moved[out] = np.arange(training, len(places))
    return moved, training


def _origins(
    pieces: list[Piece], offsets: list[int], starts: NDArray[np.int64], places: NDArray[np.int64], first: int, last: int
) -> NDArray[np.int64]:
    rows = np.flatnonzero((places >= first) & (places < last))
    return _positions(pieces, offsets, starts, rows[np.argsort(places[rows])])


def _positions(
    pieces: list[Piece], offsets: list[int], starts: NDArray[np.int64], rows: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The position in the data of rows of the window, both in the order of the data within each piece."""
    base = np.array([starts[p.chunk] + p.start for p in pieces]) - np.asarray(offsets)
    return np.asarray(rows + base[np.searchsorted(offsets, rows, side="right") - 1])

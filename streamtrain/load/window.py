"""A window: rows of several chunks in memory together, each written to the place at which it will be learned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamtrain.load.layout import Layout, WindowArrays
from streamtrain.shuffle import Piece, held_out, row_places

__all__ = ["Arrangement", "Window"]


@dataclass(frozen=True)
class Arrangement:
    """Where the rows of a window stand: in the order of learning, first those to learn, ``training`` of them, then those
    to score only, in the order of the data.

    places: of the rows in the order of the pieces, shape (rows,), int64: where in the window each stands.
    offsets: the first row of each piece. starts: the position in the data of each chunk's first row.
    """

    epoch: int
    number: int
    pieces: list[Piece]
    offsets: list[int]
    starts: NDArray[np.int64]
    places: NDArray[np.int64]
    training: int

    @classmethod
    def of(
        cls, pieces: list[Piece], starts: NDArray[np.int64], *, epoch: int, number: int, seed: int, shuffle: bool,
        holdout: float,
    ) -> Arrangement:  # fmt: skip
        ends = [0, *np.cumsum([p.rows for p in pieces]).tolist()]
        rows = ends[-1]
        places = row_places(rows, seed=seed, epoch=epoch, window=number) if shuffle else np.arange(rows)
        training = rows
        if holdout:
            out = held_out(_positions(pieces, ends[:-1], starts, np.arange(rows)), holdout)
            places, training = _held_out_last(places, out)
        return cls(epoch, number, pieces, ends[:-1], starts, places, training)

    @property
    def rows(self) -> int:
        return len(self.places)

    def placed(self) -> list[tuple[Piece, NDArray[np.int64]]]:
        """Each piece with the places of its rows."""
        ends = [*self.offsets[1:], self.rows]
        return [(p, self.places[a:b]) for p, a, b in zip(self.pieces, self.offsets, ends, strict=True)]

    def origins(self, first: int, last: int) -> NDArray[np.int64]:
        """The positions in the data of the rows that stand from ``first`` to ``last``."""
        rows = np.flatnonzero((self.places >= first) & (self.places < last))
        return _positions(self.pieces, self.offsets, self.starts, rows[np.argsort(self.places[rows])])


class Window:
    """A buffer that is filled again and again: fresh memory for each window would cost as much as the copy into it.

    The permutation of the rows costs nothing of its own: it is where each row is written.
    """

    def __init__(self, layout: Layout, rows: int) -> None:
        self.arrays = WindowArrays.empty(layout, rows)
        self.arrangement: Arrangement  # of the rows that it holds now


def _held_out_last(places: NDArray[np.int64], out: NDArray[np.bool_]) -> tuple[NDArray[np.int64], int]:
    """Close the gaps that the held-out rows leave, and put these behind the others, in the order of the data."""
    taken = np.zeros(len(places), bool)
    taken[places[~out]] = True
    rank = np.cumsum(taken) - 1
    training = int(taken.sum())
    moved = rank[places]
    moved[out] = np.arange(training, len(places))
    return moved, training


def _positions(
    pieces: list[Piece], offsets: list[int], starts: NDArray[np.int64], rows: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The position in the data of rows of the window, both in the order of the data within each piece."""
    base = np.array([starts[p.chunk] + p.start for p in pieces]) - np.asarray(offsets)
    return np.asarray(rows + base[np.searchsorted(offsets, rows, side="right") - 1])

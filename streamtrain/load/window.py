"""A window: rows of several chunks in memory together, each written to the place at which it will be learned."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from streamtrain.columns.layout import Layout
from streamtrain.plan.order import Piece, held_out, row_keys, row_positions

__all__ = ["Places", "Window", "WindowOrder", "WindowRows"]

_COUNTED_ROWS = 65_536  # rows hashed at a time


class Places(Protocol):
    """Where rows ``first`` to ``last`` of a piece stand in the window; shape (last - first,), int64."""

    def __call__(self, first: int, last: int, /) -> NDArray[np.int64]: ...


@dataclass(frozen=True)
class WindowOrder:
    """Where the rows of a window stand: in the order of learning, first those to learn, ``training`` of them, then those
    to score only, in the order of the data. It is computed where it is needed, and held nowhere.

    offsets: the first row of each piece, rows counted over the pieces; and of their end. held: likewise, held-out rows.
    bases: the position in the data of each piece's first row. keys: of the permutation; None for the order of the data.
    """

    epoch: int
    number: int
    pieces: list[Piece]
    offsets: list[int]
    held: list[int]
    bases: list[int]
    keys: NDArray[np.uint32] | None
    holdout: float

    @classmethod
    def of(
        cls, pieces: list[Piece], starts: NDArray[np.int64], *, epoch: int, number: int, seed: int, shuffle: bool,
        holdout: float,
    ) -> WindowOrder:  # fmt: skip
        """starts: the position in the data of each chunk's first row."""
        bases = [int(starts[p.chunk]) + p.start for p in pieces]
        held = [_count_held(base, p.rows, holdout) for base, p in zip(bases, pieces, strict=True)]
        keys = row_keys(seed=seed, epoch=epoch, window=number) if shuffle else None
        offsets = [0, *accumulate(p.rows for p in pieces)]
        return cls(epoch, number, pieces, offsets, [0, *accumulate(held)], bases, keys, holdout)

    @property
    def rows(self) -> int:
        return self.offsets[-1]

    @property
    def training(self) -> int:
        return self.rows - self.held[-1]

    def placed(self) -> list[tuple[Piece, Places]]:
        """Each piece with the places of its rows."""
        return [(piece, partial(self.places, i)) for i, piece in enumerate(self.pieces)]

    def places(self, piece: int, first: int, last: int) -> NDArray[np.int64]:
        """Where rows ``first`` to ``last`` of a piece, by number, stand; shape (last - first,)."""
        if not self.holdout:
            return self._learned(self.offsets[piece] + first, self.offsets[piece] + last)
        base = self.bases[piece]
        before = self.held[piece] + _count_held(base, first, self.holdout)
        out = held_out(np.arange(base + first, base + last), self.holdout)
        count = int(np.count_nonzero(out))
        start = self.offsets[piece] + first - before  # rows to learn that stand before, in the order of the data
        places = np.empty(last - first, np.int64)
        places[out] = np.arange(count) + self.training + before
        places[~out] = self._learned(start, start + len(out) - count)
        return places

    def _learned(self, first: int, last: int) -> NDArray[np.int64]:
        return np.arange(first, last) if self.keys is None else row_positions(first, last, self.training, self.keys)

    def origins(self, first: int, last: int) -> NDArray[np.int64]:
        """The positions in the data of the rows that stand from ``first`` to ``last``."""
        found = np.empty(last - first, np.int64)
        for i, piece in enumerate(self.pieces):
            places = self.places(i, 0, piece.rows)
            rows = np.flatnonzero((places >= first) & (places < last))
            found[places[rows] - first] = rows + self.bases[i]
        return found


@dataclass(frozen=True)
class WindowRows:
    """The rows that a full window holds: those of its arrangement, but for those that were lost, in the same order.

    training: rows to learn; rows: all of them. gaps: for each row that was lost, how many of the others stand before it.
    """

    arrangement: WindowOrder
    training: int
    rows: int
    gaps: NDArray[np.int32] | None = None

    def origins(self, first: int, last: int) -> NDArray[np.int64]:
        """The positions in the data of the rows that stand from ``first`` to ``last``."""
        if self.gaps is None or first == last:
            return self.arrangement.origins(first, last)
        now = np.arange(first, last)
        places = now + np.searchsorted(self.gaps, now, side="right")
        low = int(places[0])
        found: NDArray[np.int64] = self.arrangement.origins(low, int(places[-1]) + 1)[places - low]
        return found


class Window:
    """A buffer that is filled again and again: fresh memory for each window would cost as much as the copy into it.

    The permutation of the rows costs nothing of its own: it is where each row is written.
    """

    def __init__(self, layout: Layout, rows: int) -> None:
        self.arrays = layout.buffers(rows)
        self.arrangement: WindowOrder  # of the rows that it is filled with
        self.standing: WindowRows  # once it is full
        self._lost: list[NDArray[np.int32]] = []

    def begin(self, arrangement: WindowOrder) -> None:
        """Make ready to be filled."""
        self.arrangement, self._lost = arrangement, []
        self.arrays.clear()

    def lose(self, places: NDArray[np.int64]) -> None:
        """There is no row at these places, shape (rows,). Called from several threads at once."""
        self._lost.append(places.astype(np.int32))

    def finish(self) -> None:
        """All rows are in their places: close the gaps, so that the others stand as they would without the lost ones."""
        training, rows = self.arrangement.training, self.arrangement.rows
        self.standing = WindowRows(self.arrangement, training, rows)
        if self._lost:
            lost = np.unique(np.concatenate(self._lost))
            self._lost = []
            self.arrays.close_gaps(lost, rows)
            gaps: NDArray[np.int32] = np.subtract(lost, np.arange(len(lost), dtype=np.int32))
            training -= int(np.searchsorted(lost, training))
            self.standing = WindowRows(self.arrangement, training, rows - len(lost), gaps)


def _count_held(base: int, rows: int, holdout: float) -> int:
    """How many rows from position ``base`` on are held out."""
    if not holdout:
        return 0
    return sum(
        int(np.count_nonzero(held_out(np.arange(start, min(start + _COUNTED_ROWS, base + rows)), holdout)))
        for start in range(base, base + rows, _COUNTED_ROWS)
    )

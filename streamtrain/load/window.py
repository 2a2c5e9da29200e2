"""A window: the rows of several chunks in memory, each written to the position at which it will be learned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from streamtrain.columns.layout import Layout
from streamtrain.kernels import permute
from streamtrain.load.holdout import HoldOut
from streamtrain.plan import Plan
from streamtrain.plan.order import Pieces, row_keys, row_positions, rows_at, windows
from streamtrain.storage.reader import ChunkTable

__all__ = ["Window", "WindowOrder"]

_HASHED_ROWS = _BLOCK_ROWS = 65_536  # rows at a time, when rows that are held out, or of weight 0, are searched
_NO_ROWS = np.zeros(0, np.int32)


@dataclass(frozen=True)
class WindowOrder:
    """Says where each row that is read goes in the buffers of a window. The rows to learn come first, in the order in which
    they are learned; the held-out rows follow, in the order of the data. Positions are computed when needed, never stored.

    pieces: what the window is made of, each some consecutive rows of one chunk. starts: how many rows come before each piece,
    and last the rows of the window; shape (pieces + 1,). held: how many held-out rows come before each piece, and last those of
    the window; shape (pieces + 1,). data_starts: the position in the whole data of the first row of each piece; shape
    (pieces,). keys: the numbers that choose the permutation; None keeps the order of the data. table: of the chunks, which
    knows the positions of its rows in the data; None if they are its own."""

    epoch: int
    number: int
    pieces: Pieces
    starts: NDArray[np.int64]
    held: NDArray[np.int64]
    data_starts: NDArray[np.int64]
    keys: NDArray[np.uint32] | None
    holdout: HoldOut
    table: ChunkTable | None = None

    @classmethod
    def of(
        cls, pieces: Pieces, table: ChunkTable, *, epoch: int, number: int, seed: int, shuffle: bool, holdout: HoldOut,
    ) -> WindowOrder:  # fmt: skip
        """The order of the rows of these pieces of the chunks of a table."""
        starts = np.concatenate([[0], np.cumsum(pieces.rows)])
        data_starts = table.starts[pieces.chunks] + pieces.starts
        keys = row_keys(seed=seed, epoch=epoch, window=number) if shuffle else None
        held = _held_before(starts, data_starts, holdout)
        return cls(epoch, number, pieces, starts, held, data_starts, keys, holdout, table)

    @classmethod
    def of_epoch(
        cls, table: ChunkTable, plan: Plan, *, seed: int, epoch: int, holdout: HoldOut, first: int = 0
    ) -> Iterator[WindowOrder]:
        """The order of each window of an epoch, from window number ``first`` on."""
        each = windows(table.rows, plan.window_rows, seed=seed, epoch=epoch, shuffle=plan.shuffle)
        for number, pieces in enumerate(each):
            if number >= first:
                yield cls.of(
                    pieces, table, epoch=epoch, number=number, seed=seed, shuffle=plan.shuffle, holdout=holdout
                )

    @property
    def rows(self) -> int:
        """Rows of the window."""
        return int(self.starts[-1])

    @property
    def training(self) -> int:
        """Rows to learn."""
        return self.rows - int(self.held[-1])

    def positions(self, piece: int, first: int, last: int) -> NDArray[np.int64]:
        """The positions of rows ``first`` to ``last`` of the piece with this number; shape (last - first,)."""
        start, data_start = int(self.starts[piece]), int(self.data_starts[piece])
        if not self.holdout:
            return self._learned(start + first, start + last)
        before = int(self.held[piece]) + _count_held(data_start, first, self.holdout)
        return self._positions(*(np.array([n]) for n in (start + first, data_start + first, before, last - first)))

    def positions_together(self, pieces: NDArray[np.int64]) -> NDArray[np.int64]:
        """The positions of all rows of the pieces with these numbers, those of the first piece first; shape (rows,)."""
        return self._positions(
            self.starts[pieces], self.data_starts[pieces], self.held[pieces], self.pieces.rows[pieces]
        )

    def _positions(
        self,
        starts: NDArray[np.int64],
        data_starts: NDArray[np.int64],
        held: NDArray[np.int64],
        rows: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """The positions of runs of rows; each argument has a number for each run. starts: its first row, counted in the
        order of the pieces. data_starts: the same, counted in the data. held: how many held-out rows come before it."""
        ends = np.cumsum(rows)
        within = np.arange(ends[-1]) - np.repeat(ends - rows, rows)  # the number of each row in its run
        positions: NDArray[np.int64] = within + np.repeat(starts, rows)
        if not self.holdout:
            return self._learned_at(positions)
        out = self.holdout.mask(within + np.repeat(data_starts, rows))
        before: NDArray[np.int64] = np.cumsum(out) - out
        before += np.repeat(held - before[ends - rows], rows)  # held-out rows of the window before each row
        learned = self._learned_at((positions - before)[~out])
        positions[out] = self.training + before[out]
        positions[~out] = learned
        return positions

    def _learned(self, first: int, last: int) -> NDArray[np.int64]:
        return np.arange(first, last) if self.keys is None else row_positions(first, last, self.training, self.keys)

    def _learned_at(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where rows to learn go. numbers: how many rows to learn come before each, in the order of the pieces."""
        if self.keys is not None:
            permute(numbers, self.training, self.keys)
        return numbers

    def data_rows(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows of the data at these positions; same shape. The inverse of `positions`."""
        learned = positions < self.training
        rows, chosen = np.empty(len(positions), np.int64), positions[learned]
        if self.keys is not None:
            chosen = rows_at(chosen, self.training, self.keys)
        if self.holdout:
            chosen = chosen + np.searchsorted(self._before_held, chosen, side="right")
            held = positions[~learned] - self.training
            rows[~learned] = self._before_held[held] + held
        rows[learned] = chosen
        piece = np.searchsorted(self.starts, rows, side="right") - 1
        found = np.asarray(rows - self.starts[piece] + self.data_starts[piece], np.int64)
        return found if self.table is None else self.table.data_rows(found)

    @cached_property
    def _before_held(self) -> NDArray[np.int32]:
        """How many rows to learn come before each held-out row in the order of the data; shape (held-out rows,), ascending.
        Computed only when `data_rows` needs it."""
        held = [np.flatnonzero(out) + first for first, out in _held(self.starts, self.data_starts, self.holdout)]
        rows = np.concatenate(held)
        return (rows - np.arange(len(rows))).astype(np.int32)


class Window:
    """A buffer that is filled again and again: new memory for each window would cost as much as copying the rows into it.

    Shuffling costs nothing extra: each row is written directly to its position. A row that is skipped keeps its position, and
    has weight 0.

    order: of the rows that it is filled with.
    """

    def __init__(self, layout: Layout, rows: int) -> None:
        self.arrays = layout.buffers(rows)
        self.order: WindowOrder
        self._skipped, self._skipped_chunks = _NO_ROWS, _NO_ROWS
        self._lost: list[tuple[int, NDArray[np.int32]]] = []
        self._unusable: list[tuple[int, NDArray[np.int32]]] = []

    def forget(self) -> None:
        """Drop the order of the rows that were in the window."""
        self.__dict__.pop("order", None)

    def begin(self, order: WindowOrder) -> None:
        """Prepare for the rows of this order."""
        self.order, self._lost, self._unusable = order, [], []
        self.arrays.clear()

    def lose(self, chunk: int, positions: NDArray[np.int64]) -> None:
        """Note that the rows at these positions could not be read. Called from several threads at once."""
        self._lost.append((chunk, positions.astype(np.int32)))

    def skip(self, chunk: int, positions: NDArray[np.int64]) -> None:
        """Note that the rows at these positions cannot be used, unless their weight is 0. Called from several threads."""
        self._unusable.append((chunk, positions.astype(np.int32)))

    def finish(self) -> None:
        """Give the skipped rows weight 0, once every other row is written; and make all rows of weight 0 alike, so that nothing
        of what they hold is felt."""
        weights, skipped = self.arrays.weights, list(self._lost)
        for chunk, positions in self._unusable:  # all of them were written, with their weight
            skipped.append((chunk, positions if weights is None else positions[weights[positions] != 0]))
        self._skipped, self._skipped_chunks = _in_order(skipped)
        self._lost, self._unusable = [], []
        if weights is None:
            if len(self._skipped):
                self.arrays.blank(self._skipped)
            return
        weights[self._skipped] = 0
        for first in range(0, self.order.rows, _BLOCK_ROWS):
            unused = weights[first : min(first + _BLOCK_ROWS, self.order.rows)] == 0
            if unused.any():
                self.arrays.blank(np.flatnonzero(unused) + first)

    def skipped_between(self, first: int, last: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """The skipped ones of the rows at positions ``first`` to ``last``: how many rows after ``first``, and their chunks."""
        some = slice(*np.searchsorted(self._skipped, [first, last]).tolist())
        return self._skipped[some] - np.int32(first), self._skipped_chunks[some]


def _in_order(skipped: list[tuple[int, NDArray[np.int32]]]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Positions, ascending and each once, and their chunks. skipped: positions by chunk."""
    if not skipped:
        return _NO_ROWS, _NO_ROWS
    positions, first = np.unique(np.concatenate([rows for _, rows in skipped]), return_index=True)
    chunks = np.repeat([chunk for chunk, _ in skipped], [len(rows) for _, rows in skipped])
    return positions, chunks[first].astype(np.int32)


def _held(
    starts: NDArray[np.int64], data_starts: NDArray[np.int64], holdout: HoldOut
) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Which rows of a window are held out, in the order of its pieces: blocks of at most 65,536 rows, each as the number of
    its first row and a mask, shape (rows,)."""
    for first in range(0, int(starts[-1]), _HASHED_ROWS):
        last = min(first + _HASHED_ROWS, int(starts[-1]))
        a, b = np.searchsorted(starts, first, "right") - 1, np.searchsorted(starts, last)
        ends = np.clip(starts[a : b + 1], first, last)
        shifts = np.repeat(data_starts[a:b] - starts[a:b], ends[1:] - ends[:-1])
        yield first, holdout.mask(np.arange(first, last) + shifts)


def _held_before(starts: NDArray[np.int64], data_starts: NDArray[np.int64], holdout: HoldOut) -> NDArray[np.int64]:
    """How many held-out rows come before each piece, and last how many there are; shape (pieces + 1,)."""
    if not holdout:
        return np.broadcast_to(np.int64(0), len(starts))  # takes no memory
    before, total = np.zeros(len(starts), np.int64), 0
    for first, out in _held(starts, data_starts, holdout):
        sums = np.concatenate([[0], np.cumsum(out)]) + total
        a, b = np.searchsorted(starts, first), np.searchsorted(starts, first + len(out), "right")
        before[a:b] = sums[starts[a:b] - first]
        total = int(sums[-1])
    return before


def _count_held(first: int, rows: int, holdout: HoldOut) -> int:
    """How many of the rows from position ``first`` of the data on are held out."""
    return int(_held_before(np.array([0, rows]), np.array([first]), holdout)[-1])

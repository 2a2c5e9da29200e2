"""A window: the rows of several chunks in memory, each written to the position at which it will be learned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from streamtrain.columns.layout import Layout
from streamtrain.plan import Plan
from streamtrain.plan.order import Piece, held_out, row_keys, row_positions, rows_at, windows
from streamtrain.storage.reader import ChunkTable

__all__ = ["Positions", "Window", "WindowOrder", "WindowRows"]

_HASHED_ROWS = 65_536  # rows at a time, when held-out rows are searched


class Positions(Protocol):
    """The positions in the window of rows ``first`` to ``last`` of a piece; shape (last - first,), int64."""

    def __call__(self, first: int, last: int, /) -> NDArray[np.int64]: ...


@dataclass(frozen=True)
class WindowOrder:
    """Says where each row that is read goes in the buffers of a window. The rows to learn come first, in the order in which
    they are learned; the held-out rows follow, in the order of the data. Positions are computed when needed, never stored.

    pieces: what the window is made of, each some consecutive rows of one chunk. starts: how many rows come before each
    piece, and last the rows of the window; shape (pieces + 1,). held: how many held-out rows come before each piece, and last
    those of the window; shape (pieces + 1,). data_starts: the position in the whole data of the first row of each piece;
    shape (pieces,). keys: the numbers that choose the permutation; None keeps the order of the data.
    """

    epoch: int
    number: int
    pieces: list[Piece]
    starts: NDArray[np.int64]
    held: NDArray[np.int64]
    data_starts: NDArray[np.int64]
    keys: NDArray[np.uint32] | None
    holdout: float

    @classmethod
    def of(
        cls, pieces: list[Piece], chunk_starts: NDArray[np.int64], *, epoch: int, number: int, seed: int, shuffle: bool,
        holdout: float,
    ) -> WindowOrder:  # fmt: skip
        """The order of the rows of these pieces. chunk_starts: the position in the data of each chunk's first row."""
        data_starts = [int(chunk_starts[p.chunk]) + p.start for p in pieces]
        held = [_count_held(start, p.rows, holdout) for start, p in zip(data_starts, pieces, strict=True)]
        keys = row_keys(seed=seed, epoch=epoch, window=number) if shuffle else None
        return cls(
            epoch, number, pieces, _sums([p.rows for p in pieces]), _sums(held), np.array(data_starts, np.int64), keys,
            holdout,
        )  # fmt: skip

    @classmethod
    def of_epoch(
        cls, table: ChunkTable, plan: Plan, *, seed: int, epoch: int, holdout: float, first: int = 0
    ) -> Iterator[WindowOrder]:
        """The order of each window of an epoch, from window number ``first`` on."""
        each = windows(table.rows, plan.window_rows, seed=seed, epoch=epoch, shuffle=plan.shuffle)
        for number, pieces in enumerate(each):
            if number >= first:
                yield cls.of(
                    pieces, table.starts, epoch=epoch, number=number, seed=seed, shuffle=plan.shuffle, holdout=holdout
                )

    @property
    def rows(self) -> int:
        """Rows of the window."""
        return int(self.starts[-1])

    @property
    def training(self) -> int:
        """Rows to learn."""
        return self.rows - int(self.held[-1])

    def placed(self) -> list[tuple[Piece, Positions]]:
        """Each piece with the positions of its rows."""
        return [(piece, partial(self.positions, i)) for i, piece in enumerate(self.pieces)]

    def positions(self, piece: int, first: int, last: int) -> NDArray[np.int64]:
        """The positions of rows ``first`` to ``last`` of the piece with this number; shape (last - first,)."""
        start = int(self.starts[piece])
        if not self.holdout:
            return self._learned(start + first, start + last)
        data_start = int(self.data_starts[piece])
        before = int(self.held[piece]) + _count_held(data_start, first, self.holdout)
        out = held_out(np.arange(data_start + first, data_start + last), self.holdout)
        count = int(np.count_nonzero(out))
        start += first - before  # rows to learn before these, in the order of the data
        positions = np.empty(last - first, np.int64)
        positions[out] = np.arange(count) + self.training + before
        positions[~out] = self._learned(start, start + len(out) - count)
        return positions

    def _learned(self, first: int, last: int) -> NDArray[np.int64]:
        return np.arange(first, last) if self.keys is None else row_positions(first, last, self.training, self.keys)

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
        return np.asarray(rows - self.starts[piece] + self.data_starts[piece], np.int64)

    @cached_property
    def _before_held(self) -> NDArray[np.int32]:
        """How many rows to learn come before each held-out row in the order of the data; shape (held-out rows,), ascending.
        Computed only when `data_rows` needs it."""
        held = [
            np.flatnonzero(held_out(np.arange(first, last), self.holdout)) + (start + first - data_start)
            for start, data_start, piece in zip(
                self.starts.tolist(), self.data_starts.tolist(), self.pieces, strict=False
            )
            for first, last in _blocks(data_start, piece.rows)
        ]
        rows = np.concatenate(held)
        return (rows - np.arange(len(rows))).astype(np.int32)


@dataclass(frozen=True)
class WindowRows:
    """The rows of a filled window: those of its order without the lost ones, in the same order.

    training: rows to learn. count: all rows. gaps: for each lost row, how many of the remaining rows come before it.
    """

    order: WindowOrder
    training: int
    count: int
    gaps: NDArray[np.int32] | None = None

    def data_rows(self, first: int, last: int) -> NDArray[np.int64]:
        """The rows of the data at positions ``first`` to ``last``."""
        positions = np.arange(first, last)
        if self.gaps is not None:
            positions += np.searchsorted(self.gaps, positions, side="right")
        return self.order.data_rows(positions)


class Window:
    """A buffer that is filled again and again: new memory for each window would cost as much as copying the rows into it.

    Shuffling costs nothing extra: each row is written directly to its position.
    """

    def __init__(self, layout: Layout, rows: int) -> None:
        self.arrays = layout.buffers(rows)
        self.order: WindowOrder  # of the rows that it is filled with
        self.rows: WindowRows  # set by `finish`
        self._lost: list[NDArray[np.int32]] = []

    def begin(self, order: WindowOrder) -> None:
        """Prepare for the rows of this order."""
        self.order, self._lost = order, []
        self.arrays.clear()

    def lose(self, positions: NDArray[np.int64]) -> None:
        """Note that there is no row at these positions. Called from several threads at once."""
        self._lost.append(positions.astype(np.int32))

    def finish(self) -> None:
        """Close the gaps that lost rows leave, once every other row is written."""
        training, count = self.order.training, self.order.rows
        self.rows = WindowRows(self.order, training, count)
        if self._lost:
            lost = np.unique(np.concatenate(self._lost))
            self._lost = []
            self.arrays.close_gaps(lost, count)
            gaps: NDArray[np.int32] = np.subtract(lost, np.arange(len(lost), dtype=np.int32))
            training -= int(np.searchsorted(lost, training))
            self.rows = WindowRows(self.order, training, count - len(lost), gaps)


def _sums(counts: list[int]) -> NDArray[np.int64]:
    """0, and the sum of the counts up to each; shape (counts + 1,)."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def _blocks(first: int, rows: int) -> Iterator[tuple[int, int]]:
    """Rows from ``first`` on, in blocks of at most 65,536."""
    for start in range(first, first + rows, _HASHED_ROWS):
        yield start, min(start + _HASHED_ROWS, first + rows)


def _count_held(first: int, rows: int, holdout: float) -> int:
    """How many of the rows from position ``first`` of the data on are held out."""
    if not holdout:
        return 0
    blocks = _blocks(first, rows)
    return sum(int(np.count_nonzero(held_out(np.arange(start, stop), holdout))) for start, stop in blocks)

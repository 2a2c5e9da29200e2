"""The order of the rows: pure functions of seed, epoch, chunk table and window rows, and of nothing else.

Chunks are permuted and gathered into windows of about ``window_rows`` rows; the rows of a window are permuted. A chunk with
more rows than a quarter of a window is *streamed*: up to `most_streams` such chunks are open at once, and every window
takes a piece of each, so that a window never holds the rows of a single chunk. Memory is O(chunks), never O(rows).

All random numbers come from ``numpy.random.PCG64``, seeded with these integers: the order of the chunks, and the keys of
the permutation of a window's rows, which is computed row by row where it is needed. So the order of any window can be
computed anywhere, without the windows before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamtrain.kernels import permuted, unpermuted

__all__ = [
    "VERSION", "Piece", "Pieces", "chunk_order", "held_out", "most_streams", "row_keys", "row_positions", "rows_at",
    "streamed", "windows",
]  # fmt: skip

VERSION = 1  # of the order: a run cannot be resumed with another version

# The purposes of random streams. They are part of the order: never renumber them.
_CHUNKS, _ROWS = 1, 2
_MOST_LANES, _LANE_ROWS = 4, 65_536
_ROUNDS = 8


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows ``start`` to ``stop`` of chunk number ``chunk``."""

    chunk: int
    start: int
    stop: int

    @property
    def rows(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, eq=False, slots=True)
class Pieces:
    """The pieces of a window, as columns: a window may have a million of them.

    chunks: the number of the chunk of each piece. starts, stops: its first row in the chunk, and the row after its last; all
    shape (pieces,), int64.
    """

    chunks: NDArray[np.int64]
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]

    @classmethod
    def of(cls, pieces: Sequence[Piece]) -> Pieces:
        table = np.array([(p.chunk, p.start, p.stop) for p in pieces], np.int64).reshape(-1, 3)
        return cls(*(np.ascontiguousarray(column) for column in table.T))

    @classmethod
    def whole(cls, chunks: NDArray[np.int64], rows: NDArray[np.int64]) -> Pieces:
        """Whole chunks; those without rows are left out. rows: of every chunk of the data."""
        chunks = chunks[rows[chunks] > 0]
        return cls(chunks, np.zeros(len(chunks), np.int64), rows[chunks])

    def __add__(self, other: Pieces) -> Pieces:
        if not len(self) or not len(other):
            return self if len(self) else other
        pairs = (self.chunks, other.chunks), (self.starts, other.starts), (self.stops, other.stops)
        return Pieces(*map(np.concatenate, pairs))

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, i: int) -> Piece:
        return Piece(int(self.chunks[i]), int(self.starts[i]), int(self.stops[i]))

    def __iter__(self) -> Iterator[Piece]:
        return map(self.__getitem__, range(len(self)))

    @property
    def rows(self) -> NDArray[np.int64]:
        """Rows of each piece, shape (pieces,)."""
        return self.stops - self.starts


def _generator(seed: int, purpose: int, *where: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, purpose, *where])))


def chunk_order(chunks: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order in which an epoch visits the chunks; shape (chunks,).

    >>> chunk_order(5, seed=0, epoch=0).tolist() == chunk_order(5, seed=0, epoch=0).tolist()
    True
    """
    return _generator(seed, _CHUNKS, epoch).permutation(chunks)


def row_keys(*, seed: int, epoch: int, window: int) -> NDArray[np.uint32]:
    """Return the keys of the permutation of a window's rows, for `row_positions`; shape (8,)."""
    return _generator(seed, _ROWS, epoch, window).integers(0, 2**32, _ROUNDS, np.uint32)


def row_positions(first: int, last: int, rows: int, keys: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Return the positions of rows ``first`` to ``last`` of a window in the order of learning; shape (last - first,).

    They are part of a permutation of 0 to ``rows - 1``. rows: of the window.

    >>> keys = row_keys(seed=0, epoch=0, window=0)
    >>> sorted(row_positions(0, 6, 6, keys).tolist())
    [0, 1, 2, 3, 4, 5]
    """
    return permuted(first, last, rows, keys)


def rows_at(positions: NDArray[np.int64], rows: int, keys: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Which rows of a window of ``rows`` are at these positions in the order of learning: the inverse of `row_positions`.

    >>> keys = row_keys(seed=0, epoch=0, window=0)
    >>> rows_at(row_positions(0, 4, 6, keys), 6, keys).tolist()
    [0, 1, 2, 3]
    """
    return unpermuted(positions, rows, keys)


def most_streams(window_rows: int) -> int:
    """Return how many streamed chunks are open at once: one for each 65,536 rows of a window, from 1 to 4.

    >>> most_streams(1000), most_streams(200_000), most_streams(10**7)
    (1, 3, 4)
    """
    return max(1, min(_MOST_LANES, window_rows // _LANE_ROWS))


def streamed(rows: NDArray[np.int64], window_rows: int, *, shuffle: bool = True) -> NDArray[np.bool_]:
    """Return which chunks are streamed, in pieces, over several windows; shape (chunks,). rows: of each chunk."""
    if not shuffle:
        return np.asarray(rows > window_rows)
    if int(rows.sum()) <= window_rows:
        return np.zeros(len(rows), bool)
    return np.asarray(rows > window_rows // 4)


def windows(
    rows: NDArray[np.int64], window_rows: int, *, seed: int, epoch: int, shuffle: bool = True
) -> Iterator[Pieces]:
    """Return the windows of one epoch, in order. Each has pieces of at most ``window_rows`` rows together.

    rows: of each chunk, shape (chunks,). Every row is in exactly one piece.

    >>> [[(p.chunk, p.start, p.stop) for p in w] for w in windows(np.array([2, 2, 9]), 4, seed=0, epoch=0, shuffle=False)]
    [[(0, 0, 2), (1, 0, 2)], [(2, 0, 4)], [(2, 4, 8)], [(2, 8, 9)]]
    """
    if not shuffle:
        return _in_file_order(rows, window_rows)
    return _shuffled(rows, window_rows, chunk_order(len(rows), seed=seed, epoch=epoch))


def _in_file_order(rows: NDArray[np.int64], window_rows: int) -> Iterator[Pieces]:
    ends = np.cumsum(rows)  # rows up to the end of each chunk
    at = start = first = 0  # the next chunk, the next row in it, and that row's number in the data
    while at < len(rows):
        stop = int(np.searchsorted(ends, first + window_rows, side="right"))  # the chunks before it fit
        window, last = Pieces.whole(np.arange(at, stop), rows), first
        if stop > at:
            window.starts[0:1] += start  # only a chunk with rows left can have been begun
            last = int(ends[stop - 1])
            start = 0
        room = first + window_rows - last
        at, first = stop, last
        if stop < len(rows) and room and rows[stop] > window_rows:  # a chunk that no window holds is cut
            window += Pieces.of([Piece(stop, start, start + room)])
            start, first = start + room, first + room
        if len(window):
            yield window


def _shuffled(rows: NDArray[np.int64], window_rows: int, order: NDArray[np.int64]) -> Iterator[Pieces]:
    large = streamed(rows, window_rows)
    whole = order[~large[order] & (rows[order] > 0)]
    streams = _Streams(order[large[order]], rows, most_streams(window_rows))
    del order, large
    ends = np.cumsum(rows[whole])  # rows up to the end of each whole chunk
    total = int(ends[-1]) if len(ends) else 0
    at = before = 0  # the next whole chunk, and the rows before it
    while before < total or streams.left:
        # Windows are of even size: the remaining rows are divided among as few windows as can hold them. Streamed and
        # whole chunks enter each window in proportion to their remaining rows, so that neither kind is left for the end.
        left = total - before + streams.left
        target = -(-left // -(-left // window_rows))
        window = streams.take(target * streams.left // left if before < total else target)
        used = int(window.rows.sum())
        if before < total and used < target:
            enough = int(np.searchsorted(ends, before + target - used)) + 1  # with the chunk that reaches the target
            fitting = int(np.searchsorted(ends, before + window_rows - used, side="right"))
            stop = min(enough, max(fitting, at + (not used)))
            window += Pieces.whole(whole[at:stop], rows)
            at, before = stop, int(ends[stop - 1]) if stop else 0
        yield window


class _Streams:
    """The streamed chunks. At most ``most`` are open; each open one gives an equal share of the rows that are taken."""

    def __init__(self, chunks: NDArray[np.int64], rows: NDArray[np.int64], most: int) -> None:
        self._chunks, self._rows, self._most = chunks, rows, most
        self._opened = 0  # how many chunks were opened so far
        self._open: list[list[int]] = []  # [chunk, next row, rows]
        self.left = int(rows[chunks].sum())

    def take(self, rows: int) -> Pieces:
        taken: dict[int, list[int]] = {}
        rows = min(rows, self.left)
        self.left -= rows
        while rows:
            while self._opened < len(self._chunks) and len(self._open) < self._most:
                chunk = int(self._chunks[self._opened])
                self._open.append([chunk, 0, int(self._rows[chunk])])
                self._opened += 1
            share = max(1, rows // len(self._open))
            for stream in self._open:
                step = min(share, stream[2] - stream[1], rows)
                if step:
                    taken.setdefault(stream[0], [stream[1], stream[1]])[1] += step
                stream[1] += step
                rows -= step
            self._open = [stream for stream in self._open if stream[1] < stream[2]]
        return Pieces.of([Piece(chunk, start, stop) for chunk, (start, stop) in taken.items()])


def held_out(positions: NDArray[np.int64], fraction: float) -> NDArray[np.bool_]:
    """Return which rows are held out, by a hash of their positions in the data; bool, of the shape of ``positions``.

    The hash is the finaliser of SplitMix64 (Steele, Lea & Flood 2014), read as a fraction of 2^64.

    >>> bool(abs(held_out(np.arange(100_000), 0.1).mean() - 0.1) < 0.005)
    True
    """
    z = positions.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return np.asarray(z < np.uint64(int(fraction * 2**64)))

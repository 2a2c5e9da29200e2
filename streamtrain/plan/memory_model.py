"""The memory that loading takes, term by term, and the window that fits a budget. Pure arithmetic: numbers in, numbers out.

`planned_terms` is the memory model. `Windows` chooses the default window, by nominal constants alone: the same window on
every machine and in every process, whatever these really take.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from streamtrain.plan.order import most_streams, streamed
from streamtrain.plan.term import Term, baseline_term, with_margin
from streamtrain.plan.together import TOGETHER_BYTES, TOGETHER_ROWS, most_tasks
from streamtrain.storage.reader import ChunkTable

__all__ = [
    "READ_BYTES", "REMOTE_READ_BYTES", "SLICE_ROWS", "TEXT_SLICE_ROWS", "WINDOW_CHUNKS", "WINDOW_SHARE", "Demand",
    "Knobs", "Windows", "default_window_rows", "planned_terms", "sliced",
]  # fmt: skip

MB = 10**6
_WINDOW_BYTES = 256 * MB  # decoded bytes of a default window, at most
WINDOW_CHUNKS, WINDOW_SHARE = 16, 20
_NOMINAL_PROCESS_BYTES = 100 * MB  # nominal: the process before any data
_NOMINAL_WINDOW_SHARE = 0.3  # of what is left, for one window
_NOMINAL_FREE_SHARE = 0.25  # of what is left, kept free for a process that takes more than the nominal bytes
_POSITION_BYTES = 8  # a row of a read: its position in the window, int64
_TARGET_BYTES = 12  # bytes by which target and weight may be larger decoded than in a window
_CHUNK_BYTES = 32  # of each chunk of the data: the order of an epoch, and which chunks are streamed
_PIECE_BYTES, _RUN_BYTES = 48, 16  # of each piece of a window: in its order, and while it is put into runs
_TASK_BYTES = 5_000  # a run of chunks as a task of dask
_TOGETHER_POSITION_BYTES = 40  # a row of several chunks that are read together
READ_BYTES = (32 * MB, 16 * MB, 8 * MB, 4 * MB, 2 * MB, MB)  # bytes that one read may take, best first
REMOTE_READ_BYTES = 128 * MB  # if each read is a request to a server: fewer, larger reads
SLICE_ROWS = (65_536, 16_384, 4_096, 1_024)
TEXT_SLICE_ROWS = (256, 64, 16)  # where rows may be long
_TRIED_STREAMS = 32  # chunks whose streams are compared


@dataclass(frozen=True)
class Demand:
    """The data and the process to plan for. Fields named ``*_row_bytes`` are bytes a row.

    decoded_row_bytes: one row of the columns that are read, as Arrow holds it.
    window_row_bytes, batch_row_bytes: one row in a window, and in a batch.
    baseline_bytes: the process as it is now.
    column_share: the share of the bytes of all columns that the columns read make up. largest_column_share: likewise, of the
    widest of them: one read cannot take less.
    copied_row_bytes: the part of a decoded row that is copied before it is written to the window, even where a window holds
    the row as it is: numbers that may be null, and categories.
    terms: of the parts other than the loader.
    open_bytes: footer and handle of each file that is open, beyond those that are open already.
    package_bytes: nominal: what a package takes in any process that reads these data.
    stream_bytes: (chunk number, rows a slice) -> memory of one open stream; None where the reader has no streams.
    has_text: whether rows may be far longer than others: then chunks are read in slices rather than whole.
    more_text_bytes: (rows of a window) -> bytes by which its texts may be longer than ``window_row_bytes`` says.
    scratch_bytes: (rows of a batch) -> bytes of temporary arrays while they are prepared and learned.
    is_remote: whether each read is a request to a server. reads_together: whether small chunks are read several in a call.
    leaves_out: whether some rows are left out when a chunk is read, so that a chunk of few rows may be long to read.
    """

    table: ChunkTable
    decoded_row_bytes: float
    window_row_bytes: float
    batch_row_bytes: float
    baseline_bytes: int
    column_share: float = 1.0
    largest_column_share: float = 1.0
    copied_row_bytes: float = 0.0
    terms: tuple[Term, ...] = ()
    open_bytes: int = 0
    package_bytes: int = 0
    stream_bytes: Callable[[int, int], int] | None = None
    scratch_bytes: Callable[[int], int] | None = None
    is_remote: bool = False
    reads_together: bool = False
    leaves_out: bool = False
    has_text: bool = False
    more_text_bytes: Callable[[int], int] | None = None

    @cached_property
    def slices(self) -> tuple[int, ...]:
        """Rows of a slice to choose from, best first; fewer where rows are long."""
        is_long = self.has_text and _most_streamed(self, np.ones(len(self.table), bool), SLICE_ROWS[-1]) > READ_BYTES[0]
        return (*SLICE_ROWS, *TEXT_SLICE_ROWS) if is_long else SLICE_ROWS

    @property
    def slices_whole(self) -> bool:
        """Whether a chunk that a window holds may still have to be read in slices."""
        return self.has_text or self.leaves_out

    @property
    def learner_bytes(self) -> int:
        """Bytes of the learner, for which the default window leaves room."""
        return sum(term.bytes for term in self.terms if term.stage == "learner")

    @cached_property
    def read_bytes(self) -> NDArray[np.float64]:
        """Bytes of a read of each chunk and all its columns, shape (chunks,)."""
        read_bytes: NDArray[np.float64] = self.table.read_peak_bytes * np.float64(self.column_share)
        read_bytes += self.table.rows * self.converted_row_bytes
        return read_bytes

    @cached_property
    def decoded_bytes(self) -> int:
        """Decoded bytes of all chunks."""
        return int(self.table.decoded_bytes.sum())

    @property
    def converted_row_bytes(self) -> float:
        """Bytes of the copies that the loader makes of a decoded row before it writes the row to the window.

        These are small if a window holds the columns as they are: then a row takes as much there as decoded, except for
        the target and the weight.
        """
        as_it_is = abs(self.decoded_row_bytes - self.window_row_bytes) <= _TARGET_BYTES
        return self.copied_row_bytes if as_it_is else max(self.copied_row_bytes, self.window_row_bytes)


@dataclass(frozen=True)
class Knobs:
    """The parameters of the order, and the settings that do not affect it.

    batch_rows, window_rows, shuffle: of the order. windows_in_flight: windows in memory at a time, the one that is learned
    included. threads: reads at a time. read_bytes: bytes that one read may take. slice_rows: rows of a slice of a streamed
    chunk.
    """

    batch_rows: int
    window_rows: int
    shuffle: bool
    windows_in_flight: int
    threads: int
    read_bytes: int
    slice_rows: int


def default_window_rows(rows: int, chunks: int, row_bytes: float) -> int:
    """The window if neither a window nor a budget was given. row_bytes: of a decoded row.

    >>> default_window_rows(10**6, 10, 100.0), default_window_rows(10**8, 1000, 100.0), default_window_rows(10**8, 1000, 10.0)
    (1000000, 2560000, 5000000)
    """
    if rows * row_bytes <= _WINDOW_BYTES:
        return max(1, rows)
    most = max(-(-WINDOW_CHUNKS * rows // chunks), -(-rows // WINDOW_SHARE))
    return max(1, min(most, int(_WINDOW_BYTES / row_bytes)))


def planned_terms(demand: Demand, knobs: Knobs, baseline_bytes: int | None = None) -> tuple[tuple[Term, ...], float]:
    """Every term for one setting of the knobs, and the share of the columns that one read takes. baseline_bytes: of another
    process than the one of the demand."""
    table, window = demand.table, knobs.window_rows
    large = streamed(table.rows, window, shuffle=knobs.shuffle)
    read_bytes, share = _one_read(demand, large, knobs)
    held = min(knobs.windows_in_flight, max(1, -(-table.total_rows // window)))
    # In file order one chunk is cut at the border of each window; in shuffled order several streams are open at a time.
    opened = min(int(large.sum()), most_streams(window) if knobs.shuffle else 1)
    files = min(knobs.threads, len(table)) + opened
    batches = int(knobs.batch_rows * demand.batch_row_bytes)
    batches += demand.scratch_bytes(knobs.batch_rows) if demand.scratch_bytes else 0
    held_bytes = window * demand.window_row_bytes + (demand.more_text_bytes(window) if demand.more_text_bytes else 0)
    terms = (
        baseline_term(demand.baseline_bytes if baseline_bytes is None else baseline_bytes),
        *demand.terms,
        Term("footers", demand.open_bytes * files, "reading", for_validation=True),
        Term("order", _order_bytes(demand, knobs, held), "reading", for_validation=True),
        Term("reads", read_bytes * min(knobs.threads, max(1, len(table))), "reading", for_validation=True),
        Term("streams", _one_stream(demand, large, knobs.slice_rows) * opened, "reading", for_validation=True),
        Term("windows", int(held * held_bytes), "windows", for_validation=True),
        Term("batches", batches, "batches", for_validation=True),
    )
    return with_margin(terms), share


def sliced(demand: Demand, window_rows: int, most_bytes: int, *, shuffle: bool) -> NDArray[np.bool_]:
    """Which chunks enter a window as a whole but are read in slices, because a read takes more than ``most_bytes`` even of the
    fewest columns; shape (chunks,). Only where there is text, or rows are left out: other columns are read a few at a time."""
    if not demand.slices_whole or demand.stream_bytes is None:
        return np.broadcast_to(np.zeros(1, np.bool_), len(demand.table))  # takes no memory
    most = most_bytes / _least_share(demand) if _least_share(demand) else math.inf
    return np.asarray((demand.read_bytes > most) & ~streamed(demand.table.rows, window_rows, shuffle=shuffle))


def _least_share(demand: Demand) -> float:
    """The share of the columns that one read takes at least."""
    return demand.largest_column_share / demand.column_share if demand.column_share else 1.0


def _order_bytes(demand: Demand, knobs: Knobs, held: int) -> int:
    """The order of an epoch, that of each window in memory, and the tasks that read a window."""
    table, share = demand.table, min(1.0, knobs.window_rows / max(1, demand.table.total_rows))
    uneven = 1.1 if knobs.shuffle else 2.0  # in file order small chunks may stand together
    pieces = min(len(table), math.ceil(uneven * share * len(table)) + 1)
    tasks = most_tasks(pieces, int(share * demand.decoded_bytes), knobs.threads)
    return len(table) * _CHUNK_BYTES + pieces * (_PIECE_BYTES * held + _RUN_BYTES) + tasks * _TASK_BYTES


def _one_read(demand: Demand, large: NDArray[np.bool_], knobs: Knobs) -> tuple[int, float]:
    """Bytes of one read of a chunk that enters a window as a whole, or of several small ones, and the share of the columns that
    it reads. large: the chunks that do not."""
    table = demand.table
    in_slices = sliced(demand, knobs.window_rows, knobs.read_bytes, shuffle=knobs.shuffle)
    whole = ~(large | in_slices) if demand.slices_whole else ~large
    peak = float(np.max(demand.read_bytes, where=whole, initial=0))
    positions = _POSITION_BYTES * int(np.max(table.rows, where=whole, initial=0))
    if demand.reads_together:
        small = whole & (table.read_peak_bytes <= TOGETHER_BYTES) & (table.rows <= TOGETHER_ROWS)
        if np.count_nonzero(small) > 1:
            rows = min(TOGETHER_ROWS, int(np.sum(table.rows, where=small)))
            declared = min(TOGETHER_BYTES, int(np.sum(table.read_peak_bytes, where=small)))
            peak = max(peak, declared * demand.column_share + rows * demand.converted_row_bytes)
            positions = max(positions, _TOGETHER_POSITION_BYTES * rows)
    share = min(1.0, max(_least_share(demand), knobs.read_bytes / peak if peak else 1.0))
    return max(int(peak * share) + positions, _one_stream(demand, in_slices, knobs.slice_rows)), share


def _one_stream(demand: Demand, large: NDArray[np.bool_], slice_rows: int) -> int:
    """Bytes of the largest stream of these chunks while it is open; 0 if there are none."""
    if not large.any():
        return 0
    one = _most_streamed(demand, large, slice_rows)
    return int(one * demand.column_share) + int((_POSITION_BYTES + demand.converted_row_bytes) * slice_rows)


def _most_streamed(demand: Demand, large: NDArray[np.bool_], slice_rows: int) -> int:
    """Bytes of the largest stream of these chunks, of all columns."""
    table, stream_bytes = demand.table, demand.stream_bytes
    if demand.slices_whole:
        chunks = np.flatnonzero(large)
        tried = chunks[np.argsort(-table.read_peak_bytes[chunks], kind="stable")[:_TRIED_STREAMS]].tolist()
    else:
        most = np.max(table.decoded_bytes, where=large, initial=0)
        tried = [int(np.argmax(large & (table.decoded_bytes == most)))]
    return max(stream_bytes(i, slice_rows) if stream_bytes else int(table.read_peak_bytes[i]) for i in tried)


class Windows:
    """The windows to choose from, and the smallest peak of each. They are the same for any budget, so a larger budget never
    gives a smaller window.

    window_rows: the window that the user set, if any. window_bytes: a limit below that of the default window.
    """

    def __init__(
        self, demand: Demand, batch_rows: int, shuffle: bool, window_rows: int | None, window_bytes: int | None
    ) -> None:
        self._demand, self._process_bytes = demand, _NOMINAL_PROCESS_BYTES + demand.package_bytes
        self._batch_rows, self._shuffle = batch_rows, shuffle
        row_bytes = max(demand.decoded_row_bytes, demand.window_row_bytes)
        total = demand.table.total_rows
        most = window_rows or default_window_rows(total, max(1, len(demand.table)), row_bytes)
        if window_bytes is not None and not window_rows:
            most = max(1, min(most, int(window_bytes / row_bytes)))
        self.rows = [min(total, most)] if window_rows else list(_smaller(most, batch_rows))
        # Not `functools.cache`: of a method it is a cycle, which would keep the reader until garbage is collected.
        self._least: dict[int, int] = {}

    def least_bytes(self, rows: int) -> int:
        """The predicted peak of a process of nominal size, with the knobs that take the least memory."""
        if rows not in self._least:
            knobs = Knobs(self._batch_rows, rows, self._shuffle, 1, 1, READ_BYTES[-1], self._demand.slices[-1])
            terms = planned_terms(self._demand, knobs, self._process_bytes)[0]
            self._least[rows] = sum(term.bytes for term in terms)
        return self._least[rows]

    def within(self, budget_bytes: int) -> int:
        """The largest window for a budget, by nominal constants alone; if none fits, the one with the smallest peak."""
        room = max(0, budget_bytes - self._process_bytes - self._demand.learner_bytes)
        for rows in self.rows:
            small = rows * self._demand.window_row_bytes <= _NOMINAL_WINDOW_SHARE * room
            if small and self.least_bytes(rows) <= budget_bytes - _NOMINAL_FREE_SHARE * room:
                return rows
        return min(self.rows, key=self.least_bytes)

    def smaller(self, window: int) -> Iterator[int]:
        """Windows below one of ``window`` rows, the largest first."""
        return (rows for rows in _smaller(window, self._batch_rows) if rows < window)


def _smaller(window: int, least: int) -> Iterator[int]:
    """Window sizes from the largest down, a tenth at a time, to ``least``."""
    least = min(window, least)
    while window > least:
        yield window
        window = window * 9 // 10
    yield least

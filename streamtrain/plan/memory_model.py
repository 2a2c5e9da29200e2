"""The bytes of every term of a plan, and which window a budget leads to. Pure arithmetic: numbers in, numbers out.

`term_bytes` is the memory model. `Windows` chooses the default window, by nominal constants alone: the same window on
every machine and in every process, whatever they really take.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np

from streamtrain.memory.sizes import predicted_peak
from streamtrain.plan.order import lanes, streamed
from streamtrain.storage.reader import ChunkTable

__all__ = [
    "FAR_READ_BYTES",
    "READ_BYTES",
    "SLICE_ROWS",
    "WINDOW_CHUNKS",
    "WINDOW_SHARE",
    "Demand",
    "Windows",
    "default_window_rows",
    "term_bytes",
]

MB = 10**6
_WINDOW_BYTES = 256 * MB  # the most that a default window decodes to
WINDOW_CHUNKS, WINDOW_SHARE = 16, 20
_NOMINAL_PROCESS_BYTES = 100 * MB  # nominal: what the process takes before any data
_NOMINAL_WINDOW_SHARE = 0.3  # of what is left, for one window
_NOMINAL_FREE_SHARE = 0.25  # of what is left, for a process that takes more than that
_PLACE_BYTES = 8  # a row of a read: where it stands in its window, int64
_TARGET_BYTES = 12  # by how much target and weight may be larger decoded than in a window
_ORDER_BYTES_PER_CHUNK = 200  # the chunk table, an epoch's order, and the pieces of its windows
READ_BYTES = (32 * MB, 16 * MB, 8 * MB, 4 * MB, 2 * MB, MB)  # what one read may take, best first
FAR_READ_BYTES = 128 * MB  # where each read is a request: fewer of them
SLICE_ROWS = (65_536, 16_384, 4_096, 1_024)
_MARGIN_BYTES, _MARGIN_SHARE = 8 * MB, 0.04  # interpreter and allocator noise; a stated guess, measured in bench/


@dataclass(frozen=True)
class Demand:
    """What a plan is made for. Bytes are per row where the name says so.

    decoded_row_bytes: one row of the columns that are read, as Arrow holds it.
    window_row_bytes: one row in a window. batch_row_bytes: one row in a batch. scratch_bytes: rows of a batch -> what they
    take in passing while they are prepared and learned.
    column_share: of the bytes of all columns, how much the columns read make up; largest_column_share likewise, for the
    widest of them, which is the least that one read can take.
    copied_row_bytes: of a row that was decoded, what is copied before it is written to the window, even where a window holds
    it as it is: numbers that may be null, and codes.
    stream_bytes: (chunk number, rows a slice) -> memory of one open stream; None where the reader has no streams.
    open_bytes: footer and handle of each file that is open, beyond those that are already. baseline_bytes: the process
    as it is now.
    """

    table: ChunkTable
    decoded_row_bytes: float
    window_row_bytes: float
    batch_row_bytes: float
    baseline_bytes: int
    column_share: float = 1.0
    largest_column_share: float = 1.0
    copied_row_bytes: float = 0.0
    learner_bytes: int = 0
    preparation_bytes: int = 0
    extra_terms: Mapping[str, int] = field(default_factory=dict)
    open_bytes: int = 0
    stream_bytes: Callable[[int, int], int] | None = None
    scratch_bytes: Callable[[int], int] | None = None
    far: bool = False

    @property
    def converted_row_bytes(self) -> float:
        """What the loader makes of a row that was decoded before it writes it to the window: little of columns that a
        window holds as they are, and then a row takes as much there, but for the target and the weight."""
        as_it_is = abs(self.decoded_row_bytes - self.window_row_bytes) <= _TARGET_BYTES
        return self.copied_row_bytes if as_it_is else max(self.copied_row_bytes, self.window_row_bytes)


def default_window_rows(rows: int, chunks: int, row_bytes: float) -> int:
    """The window when nothing was asked for; ``row_bytes`` decoded.

    >>> default_window_rows(10**6, 10, 100.0), default_window_rows(10**8, 1000, 100.0), default_window_rows(10**8, 1000, 10.0)
    (1000000, 2560000, 5000000)
    """
    if rows * row_bytes <= _WINDOW_BYTES:
        return max(1, rows)
    wanted = max(-(-WINDOW_CHUNKS * rows // chunks), -(-rows // WINDOW_SHARE))
    return max(1, min(wanted, int(_WINDOW_BYTES / row_bytes)))


def term_bytes(
    demand: Demand, batch: int, window: int, in_flight: int, threads: int, read_bytes: int, slice_rows: int,
    shuffle: bool,
) -> tuple[dict[str, int], float]:  # fmt: skip
    """The bytes of every term for one setting of the knobs, and the share of the columns that one read takes."""
    table, share = demand.table, demand.column_share
    large = streamed(table.rows, window, shuffle=shuffle)
    converted = demand.converted_row_bytes
    peaks = table.read_peak_bytes * share + table.rows * converted
    read_peak = float(np.max(peaks, where=~large, initial=0))
    least = demand.largest_column_share / share if share else 1.0
    fraction = min(1.0, max(least, read_bytes / read_peak if read_peak else 1.0))
    held = min(in_flight, max(1, -(-table.total_rows // window)))
    # In file order one chunk is cut at the border of each window; in shuffled order the lanes are open side by side.
    opened = min(int(large.sum()), lanes(window) if shuffle else 1)
    places = _PLACE_BYTES * int(np.max(table.rows, where=~large, initial=0))
    streams = 0
    if opened:
        widest = int(np.argmax(np.where(large, table.decoded_bytes, 0)))
        one = demand.stream_bytes(widest, slice_rows) if demand.stream_bytes else int(table.read_peak_bytes[widest])
        streams = (int(one * share) + int((_PLACE_BYTES + converted) * slice_rows)) * opened
    terms = {
        "baseline": demand.baseline_bytes,
        "learner": demand.learner_bytes,
        "preparation": demand.preparation_bytes,
        **demand.extra_terms,
        "footers": demand.open_bytes * (min(threads, len(table)) + opened),
        "order": len(table) * _ORDER_BYTES_PER_CHUNK,
        "reads": (int(read_peak * fraction) + places) * min(threads, max(1, len(table))),
        "streams": streams,
        "windows": int(held * window * demand.window_row_bytes),
        "batches": int(batch * demand.batch_row_bytes) + (demand.scratch_bytes(batch) if demand.scratch_bytes else 0),
    }
    terms["margin"] = int(_MARGIN_BYTES + _MARGIN_SHARE * predicted_peak(terms))
    return terms, fraction


class Windows:
    """The windows that one is chosen from, and the least that each of them takes. They are the same for any budget, so
    a larger budget never gives a smaller window."""

    def __init__(self, demand: Demand, batch: int, shuffle: bool, asked: int | None, window_bytes: int | None) -> None:
        self._demand = replace(demand, baseline_bytes=_NOMINAL_PROCESS_BYTES)
        self._batch, self._shuffle = batch, shuffle
        row_bytes = max(demand.decoded_row_bytes, demand.window_row_bytes)
        total = demand.table.total_rows
        most = asked or default_window_rows(total, max(1, len(demand.table)), row_bytes)
        if window_bytes is not None and not asked:
            most = max(1, min(most, int(window_bytes / row_bytes)))
        self.rows = [min(total, most)] if asked else list(_smaller(most, batch))
        self.least_bytes = cache(self._least_bytes)

    def _least_bytes(self, rows: int) -> int:
        """The predicted peak of a process of nominal size, with the knobs that take least."""
        least = 1, 1, READ_BYTES[-1], SLICE_ROWS[-1]
        return predicted_peak(term_bytes(self._demand, self._batch, rows, *least, self._shuffle)[0])

    def within(self, budget_bytes: int) -> int:
        """The largest window for a budget, by nominal constants alone; where there is none, the one that takes least."""
        room = max(0, budget_bytes - _NOMINAL_PROCESS_BYTES - self._demand.learner_bytes)
        for rows in self.rows:
            small = rows * self._demand.window_row_bytes <= _NOMINAL_WINDOW_SHARE * room
            if small and self.least_bytes(rows) <= budget_bytes - _NOMINAL_FREE_SHARE * room:
                return rows
        return min(self.rows, key=self.least_bytes)

    def enough_bytes(self, baseline_bytes: int) -> int:
        """A budget that fits a process of this size, in whole MB: a larger one may mean a larger window, which is why
        the peak of a plan that does not fit need not be enough."""
        budget = MB
        while (peak := self._peak(self.within(budget), baseline_bytes + 2 * MB)) > budget:
            budget = MB * -(-peak // MB)
        return budget

    def enough_rows(self, baseline_bytes: int, window: int, budget_bytes: int) -> int | None:
        """A smaller window that fits the budget."""
        fitting = (n for n in _smaller(window, self._batch) if self._peak(n, baseline_bytes) <= budget_bytes)
        return next(fitting, None)

    def _peak(self, rows: int, baseline_bytes: int) -> int:
        more = (1 + _MARGIN_SHARE) * (baseline_bytes - _NOMINAL_PROCESS_BYTES)
        return self.least_bytes(rows) + math.ceil(more) + 1


def _smaller(window: int, least: int) -> Iterator[int]:
    """Window sizes from the largest down, a tenth at a time, to ``least``."""
    least = min(window, least)
    while window > least:
        yield window
        window = window * 9 // 10
    yield least

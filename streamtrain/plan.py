"""What will be read when, and what it will take: chunks, batch size and budget -> windows, knobs and named terms.

Pure arithmetic, no I/O. The *order* (window rows) follows from the chunk table, and from an explicit budget by nominal
constants only. The *knobs* (windows in flight, workers, columns a read, rows a slice) decide who reads and when, never
the order; they are solved for against what the process really takes: the best setting that fits wins.

The default window: the whole set where that decodes to at most 256 MB; otherwise the larger of 16 chunks and 5 % of the
rows, at most 256 MB decoded. An explicit budget makes it smaller, a tenth at a time, until a window takes at most 30 % of
what the budget leaves above 100 MB and the learner, and the knobs that take least leave a quarter of that free.
The default batch: the power of two at or below rows / 1000, between 16 and 1024.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product
from typing import Any

import numpy as np

from streamtrain.errors import BudgetRefused, UsageError
from streamtrain.memory import format_bytes, predicted_peak
from streamtrain.shuffle import lanes, streamed, windows
from streamtrain.storage.reader import ChunkTable

__all__ = ["Demand", "Plan", "default_batch_size", "default_window_rows", "solve"]

MB = 10**6
_WINDOW_BYTES = 256 * MB  # the most that a default window decodes to
_WINDOW_CHUNKS, _WINDOW_SHARE = 16, 20
_NOMINAL_PROCESS_BYTES = 100 * MB  # nominal: what the process takes before any data
_NOMINAL_WINDOW_SHARE = 0.3  # of what is left, for one window
_NOMINAL_FREE_SHARE = 0.25  # of what is left, for a process that takes more than that
_MOST_COUNTED_WINDOWS = 10_000
_ORDER_BYTES_PER_ROW = 8  # a window's permutation, int64
_ORDER_BYTES_PER_CHUNK = 200  # the chunk table, an epoch's order, and the pieces of its windows
_READ_BYTES = (32 * MB, 16 * MB, 8 * MB, 4 * MB, 2 * MB, MB)  # what one read may take, best first
_SLICE_ROWS = (65_536, 16_384, 4_096, 1_024)
_MARGIN_BYTES, _MARGIN_SHARE = 8 * MB, 0.04  # interpreter and allocator noise; a stated guess, measured in bench/


@dataclass(frozen=True)
class Demand:
    """What a plan is made for. Bytes are per row where the name says so.

    decoded_row_bytes: one row of the columns that are read, as Arrow holds it.
    window_row_bytes: one row in a window. batch_row_bytes: one row in a batch, temporaries of the learner included.
    column_share: of the bytes of all columns, how much the columns read make up; largest_column_share likewise, for the
    widest of them, which is the least that one read can take.
    stream_bytes: (chunk number, rows a slice) -> memory of one open stream; None where the reader has no streams.
    open_bytes: footers and handles that are not open yet. baseline_bytes: the process as it is now.
    """

    table: ChunkTable
    decoded_row_bytes: float
    window_row_bytes: float
    batch_row_bytes: float
    baseline_bytes: int
    column_share: float = 1.0
    largest_column_share: float = 1.0
    learner_bytes: int = 0
    preparation_bytes: int = 0
    open_bytes: int = 0
    stream_bytes: Callable[[int, int], int] | None = None


@dataclass(frozen=True)
class Plan:
    """The order's parameters, the knobs, and the bytes of every term.

    read_share: the share of a chunk's columns that one read takes at most (1.0: all at once).
    enough_bytes, enough_window_rows: a budget, and a window for this budget, with which the plan would fit; None where
    it does already, or where no window is small enough.
    """

    rows: int
    chunks: int
    windows: int
    window_rows: int
    batch_size: int
    windows_in_flight: int
    workers: int
    read_share: float
    slice_rows: int
    streamed_chunks: int
    read_bytes: int
    budget_bytes: int
    budget_given: bool
    shuffle: bool
    terms: dict[str, int]
    warnings: list[str] = field(default_factory=list)
    enough_bytes: int | None = None
    enough_window_rows: int | None = None

    @property
    def peak_bytes(self) -> int:
        """The predicted peak of the whole process."""
        return predicted_peak(self.terms)

    @property
    def fits(self) -> bool:
        return self.peak_bytes <= self.budget_bytes

    def as_dict(self) -> dict[str, Any]:
        """The ``plan`` object of the reports."""
        names = ("chunks", "windows", "window_rows", "windows_in_flight", "batch_size", "workers", "streamed_chunks")
        return {name: getattr(self, name) for name in names}

    def require_fits(self) -> None:
        """Raise BudgetRefused, every term listed, largest first, unless the plan fits."""
        if not self.fits:
            raise BudgetRefused(self._refusal())

    def _refusal(self) -> str:
        width = max(map(len, self.terms))
        lines = [f"  {name:<{width}}  {format_bytes(size):>8}" for name, size in sorted_terms(self.terms)]
        source = "the budget" if self.budget_given else "half of the memory that is available now,"
        over = format_bytes(self.peak_bytes - self.budget_bytes)
        return "\n".join(
            [
                f"the plan needs {format_bytes(self.peak_bytes)}, {over} more than {source} "
                f"{format_bytes(self.budget_bytes)}:",
                *lines,
                self._advice(),
            ]
        )

    def _advice(self) -> str:
        advice = [f"--memory {-(-(self.enough_bytes or self.peak_bytes) // MB)}MB or more"]
        if self.enough_window_rows is not None:
            advice.append(f"--window-rows {self.enough_window_rows}")
        if self.terms["reads"] + self.terms["streams"] > 0.3 * self.budget_bytes:
            advice.append("smaller chunks")
        advice.append("fewer columns (--features, --exclude)")
        return f"What would help: {', or '.join(advice)}. Nothing was read."


def sorted_terms(terms: dict[str, int]) -> list[tuple[str, int]]:
    """Terms with their bytes, largest first."""
    return sorted(terms.items(), key=lambda item: -item[1])


def default_batch_size(rows: int) -> int:
    """The power of two at or below rows / 1000, between 16 and 1024.

    >>> [default_batch_size(n) for n in (100, 20_000, 33_000, 10**9)]
    [16, 16, 32, 1024]
    """
    return max(16, min(1024, 1 << max(0, (rows // 1000).bit_length() - 1)))


def default_window_rows(rows: int, chunks: int, row_bytes: float) -> int:
    """The window when nothing was asked for; ``row_bytes`` decoded.

    >>> default_window_rows(10**6, 10, 100.0), default_window_rows(10**8, 1000, 100.0), default_window_rows(10**8, 1000, 10.0)
    (1000000, 2560000, 5000000)
    """
    if rows * row_bytes <= _WINDOW_BYTES:
        return max(1, rows)
    wanted = max(-(-_WINDOW_CHUNKS * rows // chunks), -(-rows // _WINDOW_SHARE))
    return max(1, min(wanted, int(_WINDOW_BYTES / row_bytes)))


def solve(
    demand: Demand,
    *,
    budget_bytes: int,
    budget_given: bool,
    batch_size: int | None = None,
    window_rows: int | None = None,
    workers: int = 2,
    shuffle: bool = True,
    window_bytes: int | None = None,
) -> Plan:
    """The best plan that fits the budget, or the smallest one where none does (see `Plan.fits`).

    window_bytes: another limit than the default window's, for rows in file order, which no window mixes.
    """
    for name, value in (("--batch-size", batch_size), ("--window-rows", window_rows), ("--workers", workers)):
        if value is not None and value < 1:
            raise UsageError(f"{name} {value}: must be at least 1")
    rows = demand.table.total_rows
    batch = batch_size or default_batch_size(rows)
    choice = _Windows(demand, batch, shuffle, window_rows, window_bytes)
    window = choice.within(budget_bytes) if budget_given else choice.rows[0]
    knobs = product((2, 1), _halved(workers), zip(_READ_BYTES, (*_SLICE_ROWS, 1_024, 1_024), strict=True))
    for in_flight, readers, (read_bytes, slice_rows) in knobs:
        terms, share = _terms(demand, batch, window, in_flight, readers, read_bytes, slice_rows, shuffle)
        if predicted_peak(terms) <= budget_bytes:
            break
    large = streamed(demand.table.rows, window, shuffle=shuffle)
    fits = predicted_peak(terms) <= budget_bytes
    return Plan(
        rows=rows,
        chunks=len(demand.table),
        windows=_count_windows(demand.table, window, shuffle),
        window_rows=window,
        batch_size=batch,
        windows_in_flight=in_flight,
        workers=readers,
        read_share=share,
        slice_rows=slice_rows,
        streamed_chunks=int(large.sum()),
        read_bytes=terms["reads"],
        budget_bytes=budget_bytes,
        budget_given=budget_given,
        shuffle=shuffle,
        terms=terms,
        warnings=_warnings(demand, window, int(large.sum())) if shuffle else [],
        enough_bytes=None if fits else choice.enough_bytes(demand.baseline_bytes),
        enough_window_rows=None if fits else choice.enough_rows(demand.baseline_bytes, window, budget_bytes),
    )


def _count_windows(table: ChunkTable, window: int, shuffle: bool) -> int:
    """Of an epoch: counted, or, where there are very many, as many as can hold the rows (they are of even size)."""
    least = -(-table.total_rows // window)
    if least > _MOST_COUNTED_WINDOWS:
        return least
    return sum(1 for _ in windows(table.rows, window, seed=0, epoch=0, shuffle=shuffle))


def _halved(workers: int) -> Iterator[int]:
    while workers > 1:
        yield workers
        workers //= 2
    yield 1


class _Windows:
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
        least = 1, 1, _READ_BYTES[-1], _SLICE_ROWS[-1]
        return predicted_peak(_terms(self._demand, self._batch, rows, *least, self._shuffle)[0])

    def within(self, budget_bytes: int) -> int:
        """The largest window for a budget, by nominal constants alone; where there is none, the one that takes least."""
        room = max(0, budget_bytes - _NOMINAL_PROCESS_BYTES - self._demand.learner_bytes)
        row_bytes = self._demand.window_row_bytes + _ORDER_BYTES_PER_ROW
        for rows in self.rows:
            small = rows * row_bytes <= _NOMINAL_WINDOW_SHARE * room
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


def _terms(
    demand: Demand, batch: int, window: int, in_flight: int, workers: int, read_bytes: int, slice_rows: int,
    shuffle: bool,
) -> tuple[dict[str, int], float]:  # fmt: skip
    """The bytes of every term for one setting of the knobs, and the share of the columns that one read takes."""
    table, share = demand.table, demand.column_share
    large = streamed(table.rows, window, shuffle=shuffle)
    read_peak = float(np.max(table.read_peak_bytes, where=~large, initial=0)) * share
    least = demand.largest_column_share / share if share else 1.0
    fraction = min(1.0, max(least, read_bytes / read_peak if read_peak else 1.0))
    held = min(in_flight, max(1, -(-table.total_rows // window)))
    # In file order one chunk is cut at the border of each window; in shuffled order the lanes are open side by side.
    opened = min(int(large.sum()), lanes(window) if shuffle else 1)
    streams = 0
    if opened:
        widest = int(np.argmax(np.where(large, table.decoded_bytes, 0)))
        one = demand.stream_bytes(widest, slice_rows) if demand.stream_bytes else int(table.read_peak_bytes[widest])
        streams = int(one * share) * opened
    terms = {
        "baseline": demand.baseline_bytes,
        "learner": demand.learner_bytes,
        "preparation": demand.preparation_bytes,
        "footers": demand.open_bytes,
        "order": len(table) * _ORDER_BYTES_PER_CHUNK,
        "reads": int(read_peak * fraction) * min(workers, max(1, len(table))),
        "streams": streams,
        "windows": int(held * window * (demand.window_row_bytes + _ORDER_BYTES_PER_ROW))
        + window * _ORDER_BYTES_PER_ROW,
        "batches": int(batch * demand.batch_row_bytes),
    }
    terms["margin"] = int(_MARGIN_BYTES + _MARGIN_SHARE * predicted_peak(terms))
    return terms, fraction


def _warnings(demand: Demand, window: int, large: int) -> list[str]:
    table, found = demand.table, []
    if large:
        most = lanes(window)
        found.append(
            f"{large} of {len(table)} chunks hold more than a quarter of a window ({window:,} rows) and are read in "
            f"slices: a window mixes the rows of {min(most, large)} of them at a time. Data that is sorted or grouped "
            "across them is mixed no further: give more memory, or rewrite it with smaller chunks"
        )
    elif window < table.total_rows and window * _WINDOW_SHARE < table.total_rows:
        inside = max(1, round(window * len(table) / table.total_rows))
        if inside < _WINDOW_CHUNKS:
            found.append(
                f"a window ({window:,} rows) holds about {inside} of {len(table)} chunks, "
                f"{100 * window / table.total_rows:.2g} % of the rows: data that is sorted or grouped is mixed no "
                "further than that; more memory gives larger windows"
            )
    return found

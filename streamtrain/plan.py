"""What will be read when, and what it will take: chunks, batch size and budget -> windows, knobs and named terms.

Pure arithmetic, no I/O. The *order* (window rows) follows from the chunk table, and from an explicit budget by nominal
constants only. The *knobs* (windows in flight, workers, columns a read, rows a slice) decide who reads and when, never
the order; they are solved for against what the process really takes: the best setting that fits wins.

The default window: the whole set where that decodes to at most 256 MB; otherwise the larger of 16 chunks and 5 % of the
rows, at most 256 MB decoded. An explicit budget caps it at 30 % of what the budget leaves above 100 MB and the learner.
The default batch: the power of two at or below rows / 1000, between 16 and 1024.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
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
        advice = [f"--memory {-(-self.peak_bytes // MB) + 1}MB or more"]
        window = self.terms["windows"]
        if window and self.peak_bytes - window < self.budget_bytes:
            smaller = int(self.window_rows * (self.budget_bytes - self.peak_bytes + window) / window)
            advice.append(f"--window-rows {smaller} or fewer")
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
    window = (
        min(rows, window_rows) if window_rows else _window(demand, budget_bytes if budget_given else None, window_bytes)
    )
    knobs = product((2, 1), _halved(workers), zip(_READ_BYTES, (*_SLICE_ROWS, 1_024, 1_024), strict=True))
    for in_flight, readers, (read_bytes, slice_rows) in knobs:
        terms, share = _terms(demand, batch, window, in_flight, readers, read_bytes, slice_rows, shuffle)
        if predicted_peak(terms) <= budget_bytes:
            break
    large = streamed(demand.table.rows, window) if shuffle else demand.table.rows > window
    return Plan(
        rows=rows,
        chunks=len(demand.table),
        windows=sum(1 for _ in windows(demand.table.rows, window, seed=0, epoch=0, shuffle=shuffle)),
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
    )


def _halved(workers: int) -> Iterator[int]:
    while workers > 1:
        yield workers
        workers //= 2
    yield 1


def _window(demand: Demand, budget_bytes: int | None, window_bytes: int | None) -> int:
    row_bytes = max(demand.decoded_row_bytes, demand.window_row_bytes)
    window = default_window_rows(demand.table.total_rows, max(1, len(demand.table)), row_bytes)
    if window_bytes is not None:
        window = max(1, min(window, int(window_bytes / row_bytes)))
    if budget_bytes is None:
        return window
    room = max(0, budget_bytes - _NOMINAL_PROCESS_BYTES - demand.learner_bytes) * _NOMINAL_WINDOW_SHARE
    return max(1, min(window, int(room / (demand.window_row_bytes + _ORDER_BYTES_PER_ROW))))


def _terms(
    demand: Demand, batch: int, window: int, in_flight: int, workers: int, read_bytes: int, slice_rows: int,
    shuffle: bool,
) -> tuple[dict[str, int], float]:  # fmt: skip
    """The bytes of every term for one setting of the knobs, and the share of the columns that one read takes."""
    table, share = demand.table, demand.column_share
    large = streamed(table.rows, window) if shuffle else table.rows > window
    read_peak = float(np.max(table.read_peak_bytes, where=~large, initial=0)) * share
    least = demand.largest_column_share / share if share else 1.0
    fraction = min(1.0, max(least, read_bytes / read_peak if read_peak else 1.0))
    held = min(in_flight, max(1, -(-table.total_rows // window)))
    # In file order one chunk is cut at the border of each window; in shuffled order the lanes are open side by side.
    opened = min(int(large.sum()), lanes(window)) if shuffle else int(window < table.total_rows)
    streams = 0
    if opened:
        widest = int(np.argmax(table.decoded_bytes))
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
        "windows": int(held * window * (demand.window_row_bytes + _ORDER_BYTES_PER_ROW)),
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

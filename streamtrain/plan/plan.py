"""The plan: chunks, batch size and budget -> windows, knobs and terms. Pure arithmetic, no I/O.

The *order* (window rows) follows from the chunk table, and from an explicit budget by nominal constants only. The *knobs*
(windows in flight, threads, columns a read, rows a slice) decide who reads and when, never the order. They are chosen by what
the process really takes: the best setting that fits wins.

The default window is the whole set if that decodes to at most 256 MB; otherwise the larger of 16 chunks and 5 % of the
rows, at most 256 MB decoded. An explicit budget makes it smaller, a tenth at a time, until a window takes at most 30 % of
what the budget leaves above 100 MB and the learner, and the smallest knobs leave a quarter of that free.
The default batch is the power of two at or below rows / 1000, between 16 and 1024.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.errors import UsageError
from streamtrain.memory.sizes import format_bytes, sorted_terms
from streamtrain.notebook import count, html_table, one_line
from streamtrain.plan.memory_model import WINDOW_CHUNKS, WINDOW_SHARE, Demand, sliced
from streamtrain.plan.order import most_streams, streamed, windows
from streamtrain.plan.search import Search, total_bytes
from streamtrain.plan.term import MemoryPlan, bytes_by_name, fitted, with_peak
from streamtrain.storage.reader import ChunkTable

__all__ = ["GOOD_CHUNK_BYTES", "Plan", "default_batch_size", "good_chunk_rows", "solve"]

MB = 10**6
_MOST_COUNTED_WINDOWS = 10_000
GOOD_CHUNK_BYTES = 10 * MB  # decoded


@dataclass(frozen=True, repr=False)
class Plan(MemoryPlan):
    """What a fit would do, and the memory it would take: the parameters of the order, the knobs, and the terms.

    Made by `make_plan`. It may not fit the budget: see `fits` and `require_fits`.

    Attributes
    ----------
    budget_bytes, budget_given
        The most resident memory that the process may use, and whether the user set it.
    terms
        The memory, as `Term` values; `term_bytes` has their bytes by name, `peak_bytes` the predicted peak.
    rows, chunks
        Of the data.
    windows, window_rows
        The windows of an epoch, and the most rows in one.
    batch_size
        Rows of a batch.
    windows_in_flight, threads
        Windows in memory at a time, and reads at a time.
    read_share
        The share of a chunk's columns that one read takes at most; 1.0 for all columns at once.
    slice_rows, streamed_chunks
        Rows of a slice of a streamed chunk, and how many chunks are read in slices.
    read_bytes
        Bytes that all reads under way may take together.
    sliced
        Which chunks are read in slices although a window holds all of their rows; shape (chunks,).
    shuffle
        Whether rows are learned in shuffled order.
    warnings
        Sentences about rows that the order mixes badly.
    enough_bytes
        The least budget with which the plan would fit; None if it fits. If it is above this budget, sizes and terms are those
        of the plan for it.
    enough_window_rows, enough_batch_size, enough_hash_bits
        For this budget: a window, a batch, and a number of slots for categories and text (as bits), each with which the plan
        would fit; None if it fits, or if nothing would be small enough.
    fits_fewer_columns
        Whether it would fit with a single column.
    is_fixed
        Whether a resumed run has set the window and the columns.
    all_rows, held_rows
        The rows of the data before ``where`` left some out; and how many of the rest are held out, None if nobody has counted.

    Examples
    --------
    >>> import numpy as np
    >>> from streamtrain import make_plan
    >>> plan = make_plan({"x": np.arange(5000.0), "y": np.arange(5000) % 2}, target="y", memory="1GB")
    >>> plan.fits, plan.window_rows, plan.peak_bytes == sum(plan.term_bytes.values())
    (True, 5000, True)
    """

    rows: int
    chunks: int
    windows: int
    window_rows: int
    batch_size: int
    windows_in_flight: int
    threads: int
    read_share: float
    slice_rows: int
    streamed_chunks: int
    read_bytes: int
    shuffle: bool
    sliced: NDArray[np.bool_] = field(compare=False)
    warnings: list[str] = field(default_factory=list)
    enough_bytes: int | None = None
    read_so_far: str = "Nothing was read."
    enough_window_rows: int | None = None
    enough_batch_size: int | None = None
    enough_hash_bits: int | None = None
    fits_fewer_columns: bool = False
    is_fixed: bool = False
    all_rows: int | None = None
    held_rows: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """The ``plan`` object of the reports."""
        names = (
            "rows",
            "all_rows",
            "held_rows",
            "chunks",
            "windows",
            "window_rows",
            "windows_in_flight",
            "batch_size",
            "streamed_chunks",
        )
        return {name: getattr(self, name) for name in names} | {"workers": self.threads}

    @property
    def chunk_bytes(self) -> int:
        """Bytes of reads and streams, which smaller chunks would reduce."""
        return self.term_bytes["reads"] + self.term_bytes["streams"]

    def __repr__(self) -> str:
        return one_line(
            self,
            f"{count(self.rows, 'row')} in {count(self.chunks, 'chunk')}",
            f"{count(self.windows, 'window')} of at most {count(self.window_rows, 'row')}",
            f"batches of {self.batch_size}",
            f"{format_bytes(self.peak_bytes)} of {format_bytes(self.budget_bytes)}"
            + ("" if self.fits else " (too much)"),
        )

    def _repr_html_(self) -> str:
        rows = [(name, format_bytes(size)) for name, size in sorted_terms(self.term_bytes) if size]
        rows += [("peak", format_bytes(self.peak_bytes)), ("budget", format_bytes(self.budget_bytes))]
        return html_table(repr(self)[1:-1], ("memory", "planned"), rows)

    def advice(self) -> str:
        """What would make the plan fit the budget, and what was read so far, in words."""
        helps = [f"--memory {(self.enough_bytes or self.peak_bytes) // MB}MB or more"]
        if self.is_fixed:
            window = f"the run has windows of {self.window_rows:,} rows, which belong to its order"
            return f"{helps[0]}: {window}. {self.read_so_far}"
        options = {
            "--window-rows": self.enough_window_rows,
            "--batch-size": self.enough_batch_size,
            "--hash-bits": self.enough_hash_bits,
        }
        helps += [f"{flag} {value}" for flag, value in options.items() if value is not None]
        if self.fits_fewer_columns:
            helps.append("fewer columns (--features, --exclude)")
        return f"{', or '.join(helps)}. {self.read_so_far}"


def good_chunk_rows(row_bytes: float) -> int:
    """Rows of a chunk that is neither small nor large: the largest power of two that decodes to at most about 10 MB.

    row_bytes: of a decoded row.

    >>> good_chunk_rows(160.0), good_chunk_rows(50_000.0)
    (32768, 128)
    """
    return 1 << max(0, int(GOOD_CHUNK_BYTES / max(1.0, row_bytes)).bit_length() - 1) if row_bytes else 1 << 16


def default_batch_size(rows: int) -> int:
    """The power of two at or below rows / 1000, between 16 and 1024.

    >>> [default_batch_size(n) for n in (100, 20_000, 33_000, 10**9)]
    [16, 16, 32, 1024]
    """
    return max(16, min(1024, 1 << max(0, (rows // 1000).bit_length() - 1)))


def solve(
    demand: Demand,
    *,
    budget_bytes: int,
    budget_given: bool,
    batch_size: int | None = None,
    window_rows: int | None = None,
    threads: int = 2,
    shuffle: bool = True,
    window_bytes: int | None = None,
    read_so_far: str = "Nothing was read.",
) -> Plan:
    """The best plan that fits the budget, or the smallest plan if none fits (see `Plan.fits`).

    batch_size, window_rows: None for the default. threads: the most reads at a time. window_bytes: a limit below that
    of the default window, for rows in file order, which no window mixes. read_so_far: what was read, for the refusal.
    """
    for name, value in (("--batch-size", batch_size), ("--window-rows", window_rows), ("--threads", threads)):
        if value is not None and value < 1:
            raise UsageError(f"{name} {value}: must be at least 1")
    rows = demand.table.total_rows
    batch = batch_size or default_batch_size(rows)
    search = Search(demand, batch, shuffle, threads, window_rows, window_bytes)
    enough, fewer_rows, smaller_batch = None, None, None
    window, knobs, (terms, share) = search.best(budget_bytes, given=budget_given)
    terms = fitted(terms, budget_bytes)
    if total_bytes(terms) > budget_bytes:
        fewer_rows, smaller_batch = search.smaller(
            window, budget_bytes, bytes_by_name(terms)["batches"], given=budget_given
        )
        enough = search.enough_bytes(budget_bytes if budget_given else MB)
        if enough > budget_bytes:  # otherwise it is the default window that does not fit: --memory makes it smaller
            window, knobs, (terms, share) = search.best(enough, given=True)
            terms = with_peak(terms, enough)
    large = streamed(demand.table.rows, window, shuffle=shuffle)
    return Plan(
        rows=rows,
        chunks=len(demand.table),
        windows=_count_windows(demand.table, window, shuffle),
        window_rows=window,
        batch_size=batch,
        windows_in_flight=knobs.windows_in_flight,
        threads=knobs.threads,
        read_share=share,
        slice_rows=knobs.slice_rows,
        streamed_chunks=int(large.sum()),
        read_bytes=bytes_by_name(terms)["reads"],
        sliced=sliced(demand, window, knobs.read_bytes, shuffle=shuffle),
        budget_bytes=budget_bytes,
        budget_given=budget_given,
        shuffle=shuffle,
        terms=terms,
        warnings=_warnings(demand, window, int(large.sum())) if shuffle else [],
        read_so_far=read_so_far,
        enough_bytes=enough,
        enough_window_rows=fewer_rows,
        enough_batch_size=smaller_batch,
    )


def _count_windows(table: ChunkTable, window: int, shuffle: bool) -> int:
    """The number of windows of an epoch: counted, or, if there are very many, the fewest that can hold the rows."""
    least = -(-table.total_rows // window)
    if least > _MOST_COUNTED_WINDOWS:  # windows are of even size, so a few are enough
        return least
    return sum(1 for _ in windows(table.rows, window, seed=0, epoch=0, shuffle=shuffle))


def _whole_chunk_rows(demand: Demand, window: int) -> int:
    """Rows of a good chunk of which a window of this many rows holds 16 or more: a power of two."""
    return min(good_chunk_rows(demand.decoded_row_bytes), 1 << max(0, (window // WINDOW_CHUNKS).bit_length() - 1))


def _warnings(demand: Demand, window: int, large: int) -> list[str]:
    """Warnings about windows that mix too little. large: how many chunks are streamed."""
    table = demand.table
    if large:
        most = most_streams(window)
        return [
            f"{large} of {len(table)} chunks hold more than a quarter of a window ({window:,} rows) and are read in "
            f"slices: a window mixes the rows of {min(most, large)} of them at a time. Rows that are sorted or grouped "
            "across chunks are not mixed further: give more memory, or rewrite the data in smaller chunks, with "
            f"`streamtrain rechunk --chunk-rows {_whole_chunk_rows(demand, window)}`"
        ]
    if window * WINDOW_SHARE < table.total_rows:
        inside = max(1, round(window * len(table) / table.total_rows))
        if inside < WINDOW_CHUNKS:
            return [
                f"a window ({window:,} rows) holds about {inside} of {len(table)} chunks, "
                f"{100 * window / table.total_rows:.2g} % of the rows: rows that are sorted or grouped are not mixed "
                "further than that; more memory gives larger windows"
            ]
    return []

"""The memory plan of a copy: pure arithmetic on the chunk table and the needs of the output, before anything is read.

One chunk is read at a time, whole or as a stream of slices, while the rows of one output chunk are collected::

    peak = baseline + footers + reads + chunk + writes + margin

The plan chooses ``reads``, the limit of one read. A chunk whose read takes more is streamed in slices that are as large as
possible. Chunks whose rows may be far larger than metadata say (binary, lists) are streamed in small slices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from streamtrain.errors import BudgetExceeded
from streamtrain.memory.sizes import format_bytes, readable_above
from streamtrain.plan.term import MemoryPlan, Term, baseline_term, fitted, with_margin
from streamtrain.storage.reader import Chunk, ChunkTable

__all__ = ["CopyPlan", "Demand", "most_bytes", "solve"]

MB = 10**6
#: bytes that reading a whole chunk may take, and rows in a slice of larger chunks; best first
_READ_BYTES = (64 * MB, 32 * MB, 16 * MB, 8 * MB, 4 * MB)
_SLICE_ROWS = (65_536, 16_384, 4_096, 1_024, 256)
_LOOSE_ROWS = 1_024  # in a slice, where rows may be far larger than metadata say
_SLACK = 1.02  # many small slices take long and save little
_LONGER, _LONGER_COPIES = 1.25, 2  # where rows are longer than planned: room for still longer ones, and to write them
_COUNTED_CHUNKS = 2_000  # up to this many streams are measured one by one


@dataclass(frozen=True)
class Demand:
    """The data and the process for which a copy is planned.

    baseline_bytes: the process at present. opened_bytes: what opening the data took beyond that, and will take again.
    open_bytes: what the reader declares for open files. stream_bytes: (chunk, rows in a slice) -> memory of the open stream;
    None where the reader has no streams. loose: whether rows may be larger than metadata say. output: rows in an output chunk
    -> the terms of the output: ``chunk``, ``writes`` and others.
    """

    table: ChunkTable
    baseline_bytes: int
    output: Callable[[int], Iterable[Term]]
    opened_bytes: int = 0
    open_bytes: int = 0
    stream_bytes: Callable[[Chunk, int], int] | None = None
    loose: bool = False


@dataclass(frozen=True)
class CopyPlan(MemoryPlan):
    """The memory of a copy, and how its chunks are read.

    enough_chunk_rows: a smaller ``chunk_rows`` with which the plan would fit; None if there is none.
    """

    stream_bytes: Callable[[Chunk, int], int] | None
    loose: bool = False
    enough_chunk_rows: int | None = None

    def require_chunk(self, held_bytes: int, share: float) -> None:
        """Raise BudgetExceeded if an output chunk takes more than was planned and more than the budget leaves free. Metadata do
        not tell how long text is. share: the part of its rows that are held."""
        allowed = self.term_bytes["chunk"] + max(0, self.budget_bytes - self.peak_bytes)
        if held_bytes > allowed:
            whole = int(_LONGER * held_bytes / share)
            enough = readable_above(self.peak_bytes + _LONGER_COPIES * (whole - self.term_bytes["chunk"]))
            raise BudgetExceeded(
                f"{share:.0%} of the rows of one chunk take {format_bytes(held_bytes)}, more than the {format_bytes(allowed)} "
                "left for a chunk: text is longer than metadata tell: give a smaller --chunk-rows, or, if the other rows are "
                f"no longer, --memory {enough // MB}MB"
            )

    def slice_rows(self, chunk: Chunk) -> int | None:
        """Return the rows in a slice of a chunk; None where it is read whole. Raises BudgetExceeded where neither fits, which
        happens only if the data changed after planning."""
        limit, most = self.term_bytes["reads"], _LOOSE_ROWS if self.loose else _SLICE_ROWS[0]
        whole = chunk.read_peak_bytes <= limit
        if whole and not (self.loose and chunk.rows > most):
            return None
        for rows in _SLICE_ROWS:
            if self.stream_bytes is not None and rows <= most and self.stream_bytes(chunk, rows) <= limit:
                return rows
        if whole:
            return None
        raise BudgetExceeded(
            f"{chunk.key}: reading it takes more than the planned {format_bytes(limit)}: give more --memory"
        )

    def advice(self) -> str:
        helps = [f"--memory {self.peak_bytes // MB}MB or more"]
        if self.enough_chunk_rows is not None:
            helps.append(f"--chunk-rows {self.enough_chunk_rows}")
        return f"{', or '.join(helps)}. Nothing was read."


def solve(demand: Demand, *, chunk_rows: int, budget_bytes: int, budget_given: bool) -> CopyPlan:
    """Return the plan with the largest reads that fit, or with the smallest reads if none fit."""
    reads = _reads(demand)
    terms = fitted(_best(demand, chunk_rows, reads, budget_bytes), budget_bytes)
    enough = None
    if _bytes(terms) > budget_bytes:
        smaller = (chunk_rows >> power for power in range(1, chunk_rows.bit_length()))
        fitting = (n for n in smaller if _bytes(_best(demand, n, reads, budget_bytes)) <= budget_bytes)
        enough = next(fitting, None)
    return CopyPlan(budget_bytes, budget_given, terms, demand.stream_bytes, demand.loose, enough)


def _best(demand: Demand, chunk_rows: int, reads: list[int], budget_bytes: int) -> tuple[Term, ...]:
    output = tuple(demand.output(min(chunk_rows, demand.table.total_rows)))
    footers = Term("footers", max(demand.opened_bytes, demand.open_bytes), "reading")
    for read_bytes in reads:
        read = Term("reads", read_bytes, "reading")
        terms = with_margin((baseline_term(demand.baseline_bytes), footers, read, *output))
        if _bytes(fitted(terms, budget_bytes)) <= budget_bytes:
            break
    return terms


def _bytes(terms: Iterable[Term]) -> int:
    return sum(term.bytes for term in terms)


def _reads(demand: Demand) -> list[int]:
    """Return limits for one read, from large reads and slices to small ones."""
    peaks = demand.table.read_peak_bytes
    if demand.stream_bytes is None or peaks.max(initial=0) <= _READ_BYTES[-1]:
        return [int(peaks.max(initial=0))]
    return [_most(demand, whole, rows) for whole, rows in zip(_READ_BYTES, _SLICE_ROWS, strict=True)]


def _most(demand: Demand, whole_bytes: int, slice_rows: int) -> int:
    peaks = demand.table.read_peak_bytes
    most = int(np.max(peaks, where=peaks <= whole_bytes, initial=0))
    for i in np.argsort(-peaks, kind="stable")[:_COUNTED_CHUNKS]:
        chunk = demand.table[int(i)]
        if chunk.read_peak_bytes > whole_bytes and demand.stream_bytes is not None:
            most = max(most, min(chunk.read_peak_bytes, demand.stream_bytes(chunk, slice_rows)))
    return int(most * _SLACK)


def most_bytes(table: ChunkTable, rows: int, row_bytes: float) -> int:
    """Return the most that ``rows`` successive rows decode to beyond ``row_bytes`` each, if the rows of a chunk have equal
    sizes. This is what text and other values without a fixed width take.

    >>> table = ChunkTable(str, rows=[10, 10, 10], decoded_bytes=[40, 240, 140], read_peak_bytes=[0, 0, 0])
    >>> most_bytes(table, 10, 4.0), most_bytes(table, 15, 4.0), most_bytes(table, 100, 4.0)
    (200, 250, 300)
    """
    more = np.maximum(0, table.decoded_bytes - table.rows * row_bytes)
    total = np.concatenate([[0], np.cumsum(more)])
    starts = np.concatenate(
        [table.starts, np.maximum(0, table.starts - rows)]
    )  # the maximum is at the border of a chunk
    between = np.interp(starts + rows, table.starts, total) - np.interp(starts, table.starts, total)
    return int(between.max(initial=0))

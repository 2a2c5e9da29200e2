"""The `Demand` of a plan: what the planner needs to know about the data and this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from streamtrain.columns.bags import ENTRY_BYTES
from streamtrain.columns.conversion import CONVERTED_TEXT_BYTES
from streamtrain.columns.groups import has_width
from streamtrain.columns.layout import Layout
from streamtrain.columns.types import is_list
from streamtrain.load.holdout import HoldOut
from streamtrain.memory.process import release_freed_memory, resident_bytes
from streamtrain.plan.memory_model import Demand
from streamtrain.plan.scratch import Scratch
from streamtrain.plan.term import Term
from streamtrain.storage.arrow import bytes_per_row
from streamtrain.storage.files.partitions import named_by_folders
from streamtrain.storage.files.store import file_sizes, is_remote
from streamtrain.storage.kept import KeptChunk, KeptTable, whole
from streamtrain.storage.nested import columns_of, read_units, stored_columns
from streamtrain.storage.reader import Chunk, ChunkTable, Reader, ReadsTogether, Streams, Warns

__all__ = [
    "column_shares",
    "data_warnings",
    "demand_of",
    "longest_layout",
    "opened_term",
    "read_so_far",
    "rows_term",
    "stream_bytes",
]

_ASSUMED_BASELINE_BYTES = 120 * 10**6  # if the process cannot be measured
_TEXT_COPIES = 3  # how much more memory a read of text takes than its bytes, because dictionaries are made from it
_OPENED_CHUNK_BYTES, _OPENED_FILE_BYTES = (
    100,
    1_000,
)  # measured: tables, names and sizes, and a second table for digests
_SURVEY_BYTES = 6 * 10**6  # that the pass over the target leaves in memory: libraries, fragments
_LONG_ROW_BYTES, _LONG_SURVEY_BYTES = 1_000, 16 * 10**6  # of text in a row; and what the first rows leave then


def demand_of(
    reader: Reader, table: ChunkTable, layout: Layout, *, is_surveyed: bool, terms: Sequence[Term],
    scratch_bytes: Callable[[int], int] | None, least_baseline_bytes: int = 0, held: HoldOut | None = None,
) -> Demand:  # fmt: skip
    """What to plan for, in this process as it is now. See `Source.plan`."""
    survey_bytes = _SURVEY_BYTES
    if _text_row_bytes(reader, table, layout).max(initial=0) > _LONG_ROW_BYTES:
        survey_bytes += _LONG_SURVEY_BYTES
    release_freed_memory()  # what parsing a footer took for a moment is no part of the process as it will train
    choice = rows_term(table, held)  # it is in memory already
    baseline = (resident_bytes() or _ASSUMED_BASELINE_BYTES) - choice.bytes + (0 if is_surveyed else survey_bytes)
    row_bytes, share, smallest = column_shares(reader, table, layout)
    longest = longest_layout(reader, table, layout)
    streams = reader if isinstance(reader, Streams) else None
    return Demand(
        table=table,
        decoded_row_bytes=row_bytes,
        window_row_bytes=layout.row_bytes,
        batch_row_bytes=longest.row_bytes + layout.width * (4 - layout.dtype.itemsize),
        scratch_bytes=scratch_bytes or (lambda rows: Scratch.of(longest).learning(rows, 0)),
        baseline_bytes=max(baseline, least_baseline_bytes),
        column_share=share,
        largest_column_share=smallest,
        copied_row_bytes=_copied_row_bytes(reader, layout),
        terms=(*terms, choice) if choice.bytes else tuple(terms),
        open_bytes=getattr(reader, "open_bytes", 0),
        package_bytes=getattr(reader, "package_bytes", 0),
        is_remote=is_remote(reader),
        stream_bytes=None if streams is None else cache(lambda i, rows: stream_bytes(streams, table[i], rows)),
        has_text=any(not has_width(column.type) for column in layout.columns),
        more_text_bytes=_more_text_bytes(reader, table, layout) if layout.texts else None,
        reads_together=isinstance(reader, ReadsTogether),
        leaves_out=isinstance(table, KeptTable),
    )


def data_warnings(reader: Reader, layout: Layout, *, is_surveyed: bool) -> list[str]:
    """What to say of the columns that are read. is_surveyed: to learn from them; a model that is used knows its columns."""
    own = reader.warnings(stored_columns(reader.schema, layout.read)) if isinstance(reader, Warns) else []
    if not is_surveyed:
        return own
    return [*own, *named_by_folders(reader.schema, layout.read), *(layout.target.warnings if layout.target else ())]


def stream_bytes(reader: Streams, chunk: Chunk, rows: int) -> int:
    """Bytes of a stream of a chunk, with the kept rows of a slice beside all of them."""
    copied = rows * (chunk.decoded_bytes // max(1, chunk.rows)) if isinstance(chunk, KeptChunk) else 0
    return reader.stream_peak_bytes(whole(chunk), rows) + copied


def rows_term(table: ChunkTable, held: HoldOut | None) -> Term:
    """What it takes to know which rows are left out and which are held out: a bit a row, and their counts."""
    size = table.nbytes - table.unfiltered.nbytes if isinstance(table, KeptTable) else 0
    return Term("row choice", size + (0 if held is None or held.bits is None else held.bits.data.nbytes), "reading")


def opened_term(reader: Reader, table: ChunkTable) -> Term:
    """What open data take before a row is read: for data that are opened again while a model trains. The data that it learns
    from are open already, and part of the baseline."""
    files = len(file_sizes(reader) or ())
    footers = getattr(reader, "footers_bytes", 0)
    return Term("opened", footers + _OPENED_CHUNK_BYTES * len(table) + _OPENED_FILE_BYTES * files, "reading")


def read_so_far(table: ChunkTable, held: HoldOut | None, *, is_surveyed: bool) -> str:
    """What was read before a plan, in words."""
    if table.unfiltered is table and held is None:
        return "Only the target was read." if is_surveyed else "Nothing was read."
    return f"Only the columns that choose rows {'and the target ' if is_surveyed else ''}were read."


def column_shares(reader: Reader, table: ChunkTable, layout: Layout) -> tuple[float, float, float]:
    """Bytes of a row of the columns that are read; their share of all columns; and the share of the smallest group of columns
    that can be read at a time: the widest column, targets and weight, or all columns without a width."""
    sizes, units = _row_sizes(reader, layout), read_units(reader.schema, layout.read)
    stored = {
        unit: nbytes if unit != name else sizes[name] for name, (unit, nbytes) in units.items()
    }  # structs are read whole
    row_bytes = sum(stored.values())
    if getattr(reader, "row_oriented", False):  # reading some columns costs as much as reading all
        return row_bytes, 1.0, 1.0
    # Metadata do not tell how long text is. All decoded bytes beyond the columns with a width may be in columns that are
    # read.
    loose = {units[column.name][0] for column in layout.columns if not has_width(column.type)}
    decoded = float(table.decoded_bytes.sum()) / max(1, table.total_rows)
    text = _TEXT_COPIES * max(0.0, decoded - sum(sizes.values())) if loose else 0.0
    everything = max(sum(sizes.values()) + text, 1e-9)
    together = sum(stored[unit] for unit in loose) + text
    weighted = {units[name][0] for name in (*layout.targets, layout.weight)} if layout.weight else set()
    widest = max(together, sum(stored[unit] for unit in weighted), *stored.values())
    return row_bytes, (row_bytes + text) / everything, widest / everything


def longest_layout(reader: Reader, table: ChunkTable, layout: Layout) -> Layout:
    """The layout with texts as long as in the chunk where they are longest: the first rows may have shorter ones."""
    known = sum(column.text_bytes for column in layout.columns if column.becomes.has_text)
    if not known:
        return layout
    longer = max(1.0, float(_text_row_bytes(reader, table, layout).max(initial=0)) / known)
    columns = (replace(c, text_bytes=longer * c.text_bytes, entries=longer * c.entries) for c in layout.columns)
    return layout.with_columns(list(columns))


def _row_sizes(reader: Reader, layout: Layout) -> dict[str, float]:
    """Decoded bytes of a row of each column: of lists that turned out to have one length, those of as many numbers."""
    known = {column.name: column.type for column in layout.columns if is_list(column.cast_from)}
    return {field.name: bytes_per_row(known.get(field.name, field.type)) for field in columns_of(reader.schema)}


def _text_row_bytes(reader: Reader, table: ChunkTable, layout: Layout) -> NDArray[np.float64]:
    """Decoded bytes of text in a row of each chunk, as far as the reader tells; shape (chunks,)."""
    fixed = sum(_row_sizes(reader, layout).values())
    rows: NDArray[np.float64] = np.maximum(0.0, table.decoded_bytes / np.maximum(1, table.rows) - fixed)
    return rows


def _more_text_bytes(reader: Reader, table: ChunkTable, layout: Layout) -> Callable[[int], int]:
    """(rows) -> bytes by which the texts of so many rows, of the chunks where they are longest, are longer than planned."""
    decoded = sum(column.text_bytes for column in layout.columns if column.becomes.has_text)
    held = sum(ENTRY_BYTES * c.entries if c.entries else c.text_bytes for c in layout.columns if c.becomes.has_text)
    texts = _text_row_bytes(reader, table, layout) * (
        held / decoded if decoded else 1.0
    )  # bags are decoded to other bytes
    order = np.argsort(-texts, kind="stable")
    rows, texts = np.cumsum(table.rows[order]), np.cumsum(table.rows[order] * texts[order])

    def more(window: int) -> int:
        return max(0, int(np.interp(window, np.append(0, rows), np.append(0.0, texts)) - window * layout.text_bytes))

    return cache(more)


def _copied_row_bytes(reader: Reader, layout: Layout) -> float:
    """Bytes of a row that are copied before they are written to the window (see `Demand`)."""
    schema = columns_of(reader.schema)
    numbers = sum(column.numbers for column in layout.columns if schema.field(column.name).nullable)
    entries = sum(column.entries for column in layout.columns)
    converted = sum(
        bytes_per_row(column.type) if is_list(column.cast_from) else CONVERTED_TEXT_BYTES
        for column in layout.columns
        if column.cast_from is not None
    )
    return 4.0 * (numbers + len(layout.hashes)) + 2 * ENTRY_BYTES * entries + converted

"""The pass before everything else: which rows match. Only the columns that decide are read, slice by slice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, cast

import pyarrow as pa

from streamtrain.errors import ChangedError, CorruptError, DataError, SchemaError
from streamtrain.memory.monitor import require_room
from streamtrain.storage.checked import counted, open_stream, read_columns, read_together
from streamtrain.storage.kept import Bits
from streamtrain.storage.reader import ChunkTable, Reader, ReadsTogether
from streamtrain.storage.together import together

__all__ = ["RowTest", "scan"]

_SLICE_ROWS = 65_536  # longer chunks are read in slices


class RowTest(Protocol):
    """Says of each row whether it passes. columns: those that it needs."""

    @property
    def columns(self) -> Sequence[str]: ...

    def matches(self, batch: pa.RecordBatch, /) -> pa.BooleanArray:
        """A value for each row of a batch that has the columns; no nulls."""


def scan(
    reader: Reader, table: ChunkTable, tests: Sequence[RowTest], *, skips: bool = False
) -> tuple[list[Bits], dict[int, DataError]]:
    """For each test the rows that pass, as bits; and the errors of chunks that cannot be read, by their number: all of their
    rows count as passed. Without ``skips`` the first error is raised. The bits are held afterwards: that they fit is checked
    before."""
    nbytes = len(tests) * Bits.bytes_of(table.total_rows)
    require_room(
        nbytes, f"a bit for each of {table.total_rows:,} rows, which --where, --holdout-by and --holdout-after need,"
    )
    found, errors = [Bits(table.total_rows) for _ in tests], dict[int, DataError]()
    columns = list(dict.fromkeys(name for test in tests for name in test.columns))
    for run in _runs(reader, table):
        if run.stop - run.start > 1 and _scan_together(reader, table, run, columns, tests, found):
            continue
        for number in range(run.start, run.stop):
            try:
                _put(_batches(reader, table, number, columns), int(table.starts[number]), tests, found)
            except (CorruptError, SchemaError) as error:
                if not skips or isinstance(error, ChangedError):
                    raise
                errors[number] = error
                for bits in found:
                    bits.fill(int(table.starts[number]), int(table.starts[number + 1]))
    return found, errors


def _runs(reader: Reader, table: ChunkTable) -> Iterator[slice]:
    """Runs of neighbouring chunks that are read in one call: several small ones, or one."""
    if isinstance(reader, ReadsTogether):
        return together(table.rows, table.read_peak_bytes)
    return (slice(i, i + 1) for i in range(len(table)))


def _scan_together(
    reader: Reader,
    table: ChunkTable,
    run: slice,
    columns: Sequence[str],
    tests: Sequence[RowTest],
    found: Sequence[Bits],
) -> bool:
    """Test the rows of several small chunks. False if one of them cannot be read: they are read one by one, so that the error
    names it."""
    try:
        batches = read_together(cast("ReadsTogether", reader), table[run], columns)
        _put(batches, int(table.starts[run.start]), tests, found)
    except DataError:
        return False
    return True


def _batches(reader: Reader, table: ChunkTable, number: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    chunk = table[number]
    if not chunk.rows:
        return iter(())
    if chunk.rows <= _SLICE_ROWS:
        return read_columns(reader, chunk, columns)
    return counted(open_stream(reader, chunk, columns, _SLICE_ROWS), chunk)


def _put(batches: Iterator[pa.RecordBatch], row: int, tests: Sequence[RowTest], found: Sequence[Bits]) -> None:
    for batch in batches:
        for start in range(0, batch.num_rows, _SLICE_ROWS):
            part = batch.slice(start, _SLICE_ROWS)
            for test, bits in zip(tests, found, strict=True):
                bits.put(row, test.matches(part))
            row += part.num_rows

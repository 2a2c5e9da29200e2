"""Open data with the rows that ``--where`` leaves: the chunk table of these, and a reader of them for other programs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa

from streamtrain.errors import ColumnError, DataError, NotFoundError, data_name
from streamtrain.storage.checked import open_stream, read_columns, read_together
from streamtrain.storage.kept import Bits, KeptTable, whole
from streamtrain.storage.nested import columns_of
from streamtrain.storage.opening import open_data
from streamtrain.storage.reader import Chunk, ChunkTable, Reader, ReadsTogether, Streams
from streamtrain.storage.settings import ReadSettings
from streamtrain.storage.where.grammar import AllOf, Condition, parse, shortened
from streamtrain.storage.where.masks import Where
from streamtrain.storage.where.scan import RowTest, scan

__all__ = ["FilteredReader", "OpenData", "filtered_reader", "open_rows", "rows_of", "unfiltered", "where_fingerprint"]

_WHERE = "-where-"  # between the fingerprint of the data and that of the rows that are kept


@dataclass(frozen=True)
class OpenData:
    """A reader, and the table of the rows that are read from it.

    test, passed: a further test, which the caller gave, and the rows that pass it: a bit for each row of the data. unread: the
    errors of chunks that could not be read when rows were tested, by number: the caller has to skip them."""

    reader: Reader
    table: ChunkTable
    test: RowTest | None = None
    passed: Bits | None = None
    unread: Mapping[int, DataError] = field(default_factory=dict)


def open_rows(
    target: Any, settings: ReadSettings, test: Callable[[pa.Schema], RowTest] | None = None, *, skips: bool = False,
    kept: KeptTable | None = None,
) -> OpenData:  # fmt: skip
    """Open data and find the rows that match ``--where``. Reads the columns that decide, and only these.

    test: makes of the schema another test, whose result is ``passed``. skips: whether chunks that cannot be read are for the
    caller to skip. kept: the table of the same data, if they were opened before: then nothing is read. Raises DataError if
    there are no rows, and if none matches.
    """
    name = data_name(target) if isinstance(target, (str, Path)) else "the data"
    reader = open_data(target, settings)
    if kept is not None and test is None:
        own = reader.reader if isinstance(reader, FilteredReader) else reader
        if np.array_equal(ChunkTable.of(own.chunks()).rows, kept.unfiltered.rows):
            return OpenData(own, kept)
    return rows_of(reader, settings, test, name, skips=skips)


def rows_of(
    reader: Reader, settings: ReadSettings, test: Callable[[pa.Schema], RowTest] | None = None, name: str = "the data", *,
    skips: bool = False,
) -> OpenData:  # fmt: skip
    """As `open_rows`, of a reader that is open. name: of the data."""
    own, expressions, conditions = reader, list[str](), list[Condition]()
    if isinstance(reader, FilteredReader):
        own, expressions, conditions = reader.reader, [reader.table.expression], [reader.condition]
    if settings.where is not None:
        expressions.append(settings.where)
        conditions.append(parse(settings.where))
    table = ChunkTable.of(own.chunks())
    if not table.total_rows:
        raise NotFoundError(f"{name}: has no rows")
    tests: list[RowTest] = []
    try:
        if test is not None:
            tests.append(test(columns_of(own.schema)))
        if conditions:
            tests.append(
                Where(conditions[0] if len(conditions) == 1 else AllOf(tuple(conditions)), columns_of(own.schema))
            )
    except ColumnError as error:  # there may be other data, for validation
        raise ColumnError(f"{name}: {error}") from None
    if not tests:
        return OpenData(own, table)
    found, unread = scan(own, table, tests, skips=skips)
    passed = None if test is None else found[0]
    if conditions:
        expression = expressions[0] if len(expressions) == 1 else " and ".join(f"({each})" for each in expressions)
        table = KeptTable(table, found[-1], expression)
        if not table.total_rows:
            raise DataError(
                f"{name}: none of the {table.unfiltered.total_rows:,} rows matches --where {shortened(expression)}: give a "
                "wider condition; `streamtrain inspect` shows the columns and their types"
            )
    return OpenData(own, table, None if test is None else tests[0], passed, unread)


def where_fingerprint(fingerprint: str | None, table: ChunkTable) -> str | None:
    """The fingerprint of the data with that of the rows that are kept, if some are left out.

    >>> where_fingerprint("a", ChunkTable(str, [1], [1], [1]))
    'a'
    """
    if fingerprint is None or not isinstance(table, KeptTable):
        return fingerprint
    digest = hashlib.sha256(table.expression.encode())
    digest.update(table.kept.data.data)
    return f"{fingerprint}{_WHERE}{digest.hexdigest()[:16]}"


def unfiltered(fingerprint: str) -> str:
    """The fingerprint of all rows, from one of the rows that are kept.

    >>> unfiltered("a"), unfiltered("a-where-0123456789abcdef")
    ('a', 'a')
    """
    return fingerprint.partition(_WHERE)[0]


class FilteredReader:
    """A reader of the rows of another one that match a condition. Where it is opened for training, its own reader and table
    take its place."""

    def __init__(self, reader: Reader, table: KeptTable, condition: Condition) -> None:
        self.reader, self.table, self.condition = reader, table, condition

    @property
    def schema(self) -> pa.Schema:
        return self.reader.schema

    def chunks(self) -> ChunkTable:
        """The chunks of the reader, with the rows that match."""
        return self.table

    def read(self, chunk: Chunk, columns: Sequence[str]) -> Any:
        """The rows of a chunk that match."""
        return self._table(read_columns(self.reader, chunk, columns), columns)

    def fingerprint(self) -> str | None:
        return where_fingerprint(self.reader.fingerprint(), self.table)

    def _table(self, batches: Iterator[pa.RecordBatch], columns: Sequence[str]) -> pa.Table:
        found = list(batches)
        return pa.Table.from_batches(found, None if found else pa.schema([self.schema.field(name) for name in columns]))

    def __getattr__(self, name: str) -> Any:
        """What else the reader offers: its bytes, its files."""
        if name.startswith("_") or name in ("reader", "stream", "stream_peak_bytes", "read_together"):
            raise AttributeError(name)
        return getattr(self.reader, name)


class _Streaming(FilteredReader):
    def stream(self, chunk: Chunk, columns: Sequence[str], rows: int) -> Iterator[Any]:
        """The rows of a chunk that match, slice by slice."""
        return open_stream(self.reader, chunk, columns, rows)

    def stream_peak_bytes(self, chunk: Chunk, rows: int) -> int:
        """Twice that of the reader: a slice, and the rows of it that match."""
        return 2 * cast("Streams", self.reader).stream_peak_bytes(whole(chunk), rows)


class _Together(FilteredReader):
    def read_together(self, chunks: Sequence[Chunk], columns: Sequence[str]) -> Any:
        """The rows of several chunks that match."""
        return self._table(read_together(cast("ReadsTogether", self.reader), chunks, columns), columns)


class _StreamingTogether(_Streaming, _Together):
    """Both."""


def filtered_reader(reader: Reader, settings: ReadSettings, name: str) -> Reader:
    """The reader itself, or one of its rows that match ``--where``."""
    if settings.where is None:
        return reader
    opened = rows_of(reader, settings, name=name)
    assert isinstance(opened.table, KeptTable)
    streams, together = isinstance(opened.reader, Streams), isinstance(opened.reader, ReadsTogether)
    kind = {(True, True): _StreamingTogether, (True, False): _Streaming, (False, True): _Together}
    return kind.get((streams, together), FilteredReader)(opened.reader, opened.table, parse(opened.table.expression))

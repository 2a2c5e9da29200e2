"""A table of an SQLite database, in chunks of rows that follow each other by rowid."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from streamtrain import Chunk, ChunkTable, DataError, UsageError
from streamtrain_sqlite.types import arrow_type

__all__ = ["SqliteReader"]

_CHUNK_ROWS = 65_536
_BLOCK_VALUES = 20_000  # Python objects, about ten times what they become, exist for so many values at a time
_VALUE_BYTES = 100  # of a value as a Python object, its place in a tuple and in a list
_TEXT_BYTES = 32  # of text and blobs, whose length nothing tells: an estimate
_CONNECTION_BYTES = 3_000_000  # the page cache is 2 MB by default
_SAMPLES = 64


class SqliteReader:
    """Reads a table that has rowids.

    Each read opens a connection of its own, read-only: connections are not for several threads, and a reader that holds
    none can be pickled. Chunks are ranges of rowids, not OFFSETs: SQLite finds a rowid at once, but counts to an OFFSET.
    """

    def __init__(self, path: str, table: str | None = None) -> None:
        self.path = path
        if not Path(path).is_file():
            raise DataError(f"{path}: no such file")
        with closing(self._connect()) as database:
            try:
                self.table = self._find(database, table)
                self._rowid, self.schema = self._columns(database)
                self._starts, self._rows, self._last = self._ranges(database)
                self._block_rows = max(1, _BLOCK_VALUES // len(self.schema))
            except sqlite3.DatabaseError as error:
                raise DataError(f"{path}: {error}") from error

    def _connect(self) -> sqlite3.Connection:
        # a stream may be opened by one thread and read on by another, one at a time
        uri = f"{Path(self.path).absolute().as_uri()}?mode=ro"
        return sqlite3.connect(uri, uri=True, check_same_thread=False)

    def _find(self, database: sqlite3.Connection, table: str | None) -> str:
        query = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite~_%' ESCAPE '~'"
        names = [name for (name,) in database.execute(query)]
        if table is None and len(names) != 1:
            raise UsageError(f"{self.path}: has {len(names)} tables ({', '.join(names)}): choose with ?table=name")
        if table is not None and table not in names:
            raise UsageError(f"{self.path}: no table {table!r}: there are {', '.join(names) or 'none'}")
        return table or names[0]

    def _columns(self, database: sqlite3.Connection) -> tuple[str, pa.Schema]:
        found = database.execute(f"PRAGMA table_info({_quoted(self.table)})").fetchall()
        fields = [pa.field(name, arrow_type(declared)) for _, name, declared, *_ in found]
        taken = {field.name.lower() for field in fields}
        rowid = next((name for name in ("rowid", "_rowid_", "oid") if name not in taken), "none")
        try:
            database.execute(f"SELECT {rowid} FROM {_quoted(self.table)} LIMIT 1")
        except sqlite3.OperationalError as error:
            raise UsageError(f"{self.path}: table {self.table!r} has no rowids (WITHOUT ROWID): copy it") from error
        return rowid, pa.schema(fields)

    def _ranges(self, database: sqlite3.Connection) -> tuple[list[int], list[int], int]:
        """The first rowid of each chunk, its rows, and the last rowid; one pass over the rowids."""
        table = _quoted(self.table)
        numbered = f"SELECT {self._rowid} AS id, row_number() OVER (ORDER BY {self._rowid}) - 1 AS n FROM {table}"
        starts = [i for (i,) in database.execute(f"SELECT id FROM ({numbered}) WHERE n % {_CHUNK_ROWS} = 0")]
        ((total, last),) = database.execute(f"SELECT count(*), max({self._rowid}) FROM {table}")
        return starts, [min(_CHUNK_ROWS, total - n) for n in range(0, total, _CHUNK_ROWS)], last or 0

    def chunks(self) -> ChunkTable:
        rows = np.array(self._rows, np.int64)
        width = sum(_width(field.type) for field in self.schema)
        decoded = rows * width + rows * len(self.schema) // 8
        return ChunkTable(self._key, rows, decoded, 2 * decoded + _BLOCK_VALUES * _VALUE_BYTES + _CONNECTION_BYTES)

    def _key(self, i: int) -> str:
        stop = self._starts[i + 1] if i + 1 < len(self._starts) else self._last + 1
        return f"{self.table}[{self._starts[i]}:{stop}]"

    def read(self, chunk: Chunk, columns: Sequence[str]) -> pa.Table:
        fields = pa.schema([self.schema.field(name) for name in columns])  # KeyError for one that is not there
        return pa.Table.from_batches(self.stream(chunk, columns, self._block_rows), fields)

    def stream(self, chunk: Chunk, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        start, stop = chunk.key.removeprefix(f"{self.table}[").removesuffix("]").split(":")
        fields = pa.schema([self.schema.field(name) for name in columns])
        names = ", ".join(map(_quoted, columns))
        query = (
            f"SELECT {names} FROM {_quoted(self.table)} WHERE {self._rowid} >= {int(start)} AND {self._rowid} < {int(stop)} "
            f"ORDER BY {self._rowid}"
        )
        with closing(self._connect()) as database:
            try:
                cursor = database.execute(query)
                while block := cursor.fetchmany(min(rows, self._block_rows)):
                    arrays = [
                        _array(values, field) for values, field in zip(zip(*block, strict=True), fields, strict=True)
                    ]
                    yield pa.record_batch(arrays, schema=fields)
            except (sqlite3.DatabaseError, _WrongTypeError) as error:
                raise DataError(f"{self.path}: {chunk.key}: {error}") from error

    def stream_peak_bytes(self, chunk: Chunk, rows: int) -> int:
        return min(rows, self._block_rows) * len(self.schema) * (_VALUE_BYTES + _TEXT_BYTES) + _CONNECTION_BYTES

    def fingerprint(self) -> str:
        """Of the table's columns, its number of rows, rows spread over it, the size of the file, and the counter in the
        file's header that every change increases. A copy of the file has the same. (In WAL mode the counter increases at a
        checkpoint only.)"""
        with closing(self._connect()) as database:
            step = max(1, len(self._starts) // _SAMPLES)
            ids = ", ".join(map(str, [*self._starts[::step], self._last]))
            sample = f"SELECT * FROM {_quoted(self.table)} WHERE {self._rowid} IN ({ids}) ORDER BY {self._rowid}"
            rows = database.execute(sample).fetchall()
        with open(self.path, "rb") as file:
            header = file.read(100)
        counter, size = header[24:28], Path(self.path).stat().st_size
        facts = (self.table, str(self.schema), sum(self._rows), self._last, rows, counter, size)
        return hashlib.sha256(repr(facts).encode()).hexdigest()


class _WrongTypeError(Exception):
    """A value of another type than its column was declared with."""


def _array(values: Sequence[Any], field: pa.Field) -> pa.Array:
    try:
        return pa.array(values, field.type)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise _WrongTypeError(f"column {field.name!r} is not {field.type} throughout, as declared: {error}") from error


def _width(kind: pa.DataType) -> int:
    return _TEXT_BYTES if kind in (pa.string(), pa.binary()) else 8


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'

"""A reader from plain functions, for storage that needs no class."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from streamtrain.errors import CorruptError, SchemaError, StreamtrainError, UsageError
from streamtrain.storage.arrow import as_batches, bytes_per_row, pick
from streamtrain.storage.reader import Chunk, ChunkTable, Reader

__all__ = ["FunctionReader", "reader_from"]

_COPIES = 3  # of the rows while they are read: the function's own, Arrow's, one on the way between them
_READ_FLOOR_BYTES = 65_536  # Python objects of one read


def reader_from(
    keys: Sequence[Hashable], read: Callable[[Any, list[str]], Any], *, schema: pa.Schema,
    rows: Sequence[int] | Callable[[Any], int] | None = None, fingerprint: str | Callable[[], str] | None = None,
) -> Reader:  # fmt: skip
    """A reader whose chunks are ``keys``, each read by ``read(key, columns)``.

    keys: what tells the chunks apart, in the order of the data: names, paths, numbers. Their ``str`` must be unique;
        errors name it.
    read: the named columns of one key, in the order named, as a ``pyarrow.RecordBatch`` or anything with an Arrow C
        interface. Called from several threads at once; the same key always gives the same rows.
    schema: names and types of all columns. The bytes that the plan is made from follow from it: exactly where types have a
        fixed width, an estimate for text; a read is taken to need three times what it returns. A reader that needs more,
        through Python lists for one, is a class that declares it.
    rows: of each key, or a function of a key. Without it the narrowest column of every key is read once, one key at a
        time, when the chunks are first asked for.
    fingerprint: a string that changes when the content does and is the same for a copy elsewhere, or a function that
        gives it. Without it the reader's is None: what a run has read cannot be recognised again.

    To travel to other processes, ``read`` must be picklable: a function of a module, not a lambda.
    Raises UsageError for keys, rows or a schema that cannot be.

    >>> days = {"mon": [1.0, 2.0], "tue": [3.0]}
    >>> reader = reader_from(
    ...     list(days), lambda key, columns: pa.record_batch({"x": days[key]}), schema=pa.schema([("x", pa.float64())])
    ... )
    >>> [(chunk.key, chunk.rows) for chunk in reader.chunks()]
    [('mon', 2), ('tue', 1)]
    """
    return FunctionReader(keys, read, schema, rows, fingerprint)


class FunctionReader:
    """See `reader_from`."""

    def __init__(
        self, keys: Sequence[Hashable], read: Callable[[Any, list[str]], Any], schema: pa.Schema,
        rows: Sequence[int] | Callable[[Any], int] | None, fingerprint: str | Callable[[], str] | None,
    ) -> None:  # fmt: skip
        if not isinstance(schema, pa.Schema) or not schema.names or len(set(schema.names)) < len(schema.names):
            raise UsageError(f"schema={schema!r}: must be a pyarrow.Schema of at least one column, each named once")
        if not hasattr(keys, "__len__") or not callable(read):
            raise UsageError("reader_from: keys must be a sequence, and read a function of a key and columns")
        if not (rows is None or callable(rows) or hasattr(rows, "__len__")):
            raise UsageError(f"rows={rows!r}: must be a sequence of numbers, or a function of a key")
        if not (fingerprint is None or callable(fingerprint) or isinstance(fingerprint, str)):
            raise UsageError(f"fingerprint={fingerprint!r}: must be a string, or a function that returns one")
        self._keys = {str(key): key for key in keys}
        if len(self._keys) < len(keys):
            raise UsageError(f"keys: {len(keys):,} were given, but only {len(self._keys):,} are different")
        if rows is not None and not callable(rows) and len(rows) != len(keys):
            raise UsageError(f"rows: {len(rows):,} were given for {len(keys):,} keys: give one for each")
        self.schema = schema
        self._read, self._rows, self._fingerprint = read, rows, fingerprint
        self._table: ChunkTable | None = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def chunks(self) -> ChunkTable:
        """One for each key. Raises CorruptError where the rows of a key cannot be counted."""
        with self._lock:
            if self._table is None:
                rows = np.fromiter(self._counts(), np.int64, len(self._keys))
                bits = rows * len(self.schema) // 8 + 1  # which values are null
                decoded = (rows * sum(bytes_per_row(field.type) for field in self.schema)).astype(np.int64) + bits
                names = list(self._keys)
                self._table = ChunkTable(names.__getitem__, rows, decoded, _COPIES * decoded + _READ_FLOOR_BYTES)
            return self._table

    def _counts(self) -> Iterator[int]:
        if self._rows is not None and not callable(self._rows):
            given: Iterator[Any] = iter(self._rows)
        else:
            given = map(self._told if self._rows else self._counted, self._keys.values())
        for name, count in zip(self._keys, given, strict=True):
            if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or not 0 <= count < 2**62:
                raise UsageError(f"rows: {count!r} for key {name!r}: must be a number of rows")
            yield int(count)

    def _told(self, key: Any) -> Any:
        assert callable(self._rows)
        try:
            return self._rows(key)
        except Exception as error:
            raise CorruptError(f"{key}: its rows cannot be told: {type(error).__name__}: {error}") from error

    def _counted(self, key: Any) -> int:
        narrowest = min(self.schema, key=lambda field: bytes_per_row(field.type)).name
        try:
            return sum(batch.num_rows for batch in as_batches(self._read(key, [narrowest])))
        except (StreamtrainError, MemoryError):
            raise
        except Exception as error:
            raise CorruptError(f"{key}: its rows cannot be counted: {type(error).__name__}: {error}") from error

    def read(self, chunk: Chunk, columns: Sequence[str]) -> Any:
        """What the function gives for the chunk's key. Raises ColumnError for a column that is not in the schema,
        SchemaError for a type that is not the schema's."""
        fields = [pick(self.schema, name, "read") for name in columns]
        if chunk.key not in self._keys:
            raise UsageError(f"chunk {chunk.key!r} is not one of this reader's; take chunks from chunks()")
        batches = []
        for batch in as_batches(self._read(self._keys[chunk.key], list(columns))):
            for field, found in zip(fields, batch.schema, strict=False):
                if found.name == field.name and found.type != field.type:
                    raise SchemaError(
                        f"{chunk.key}: column {field.name!r} is {found.type}, but the schema says {field.type}"
                    )
            batches.append(batch)
        return pa.Table.from_batches(batches, None if batches else pa.schema(fields))

    def fingerprint(self) -> str | None:
        """As it was given; None where none was."""
        if not callable(self._fingerprint):
            return self._fingerprint
        try:
            return self._fingerprint()
        except Exception as error:
            raise CorruptError(f"fingerprint: cannot be told: {type(error).__name__}: {error}") from error

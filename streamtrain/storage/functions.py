"""Make a reader of plain functions, for storage that needs no class of its own."""

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

_COPIES = 3  # of the rows during a read: in the function, in Arrow, and one in between
_READ_FLOOR_BYTES = 65_536  # the Python objects of one read


def reader_from(
    keys: Sequence[Hashable], read: Callable[[Any, list[str]], Any], *, schema: pa.Schema,
    rows: Sequence[int] | Callable[[Any], int] | None = None, fingerprint: str | Callable[[], str] | None = None,
) -> Reader:  # fmt: skip
    """Make a reader whose chunks are ``keys``; each is read by ``read(key, columns)``.

    Parameters
    ----------
    keys : Sequence[Hashable]
        One key for each chunk, in the order of the data: names, paths or numbers. The ``str`` of a key must be unique;
        errors show it.
    read : Callable[[Any, list[str]], Any]
        Returns the given columns of one key, in the given order, as a ``pyarrow.RecordBatch`` or an object with the Arrow C
        interface. It is called from several threads at once, and must return the same rows every time. To be sent to other
        processes it must be picklable: a function of a module, not a lambda.
    schema : pyarrow.Schema
        Names and types of all columns. The plan computes bytes from it: exactly for types of fixed width, as an estimate for
        text. A read is assumed to need three times the memory of its result. If it needs more, for example because it makes
        Python lists, write a class that declares it.
    rows : Sequence[int] or Callable[[Any], int], optional
        The number of rows of each key, or a function of a key. Without it, the narrowest column of every key is read once,
        one key at a time, when the chunks are first needed.
    fingerprint : str or Callable[[], str], optional
        A string, or a function that returns one. It must change when the content changes, and be the same for a copy
        elsewhere. Without it the fingerprint is None, and a run cannot tell whether the data are still the same.

    Returns
    -------
    Reader
        A reader with one chunk for each key.

    Raises
    ------
    UsageError
        If ``keys`` are not unique, ``rows`` do not match them, or ``schema`` has no columns.

    Examples
    --------
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
            raise UsageError(f"schema={schema!r}: must be a pyarrow.Schema with at least one column and no name twice")
        if not hasattr(keys, "__len__") or not callable(read):
            raise UsageError(
                "reader_from: keys must be a sequence, and read must be a function of a key and a list of columns"
            )
        if not (rows is None or callable(rows) or hasattr(rows, "__len__")):
            raise UsageError(f"rows={rows!r}: must be a sequence of numbers, or a function of a key")
        if not (fingerprint is None or callable(fingerprint) or isinstance(fingerprint, str)):
            raise UsageError(f"fingerprint={fingerprint!r}: must be a string, or a function that returns one")
        self._keys = {str(key): key for key in keys}
        if len(self._keys) < len(keys):
            raise UsageError(
                f"keys: {len(keys):,} were given, but only {len(self._keys):,} of them differ: each must be unique as a string"
            )
        if rows is not None and not callable(rows) and len(rows) != len(keys):
            raise UsageError(f"rows: {len(rows):,} were given for {len(keys):,} keys: give one for each")
        self.schema = schema
        self._read, self._rows, self._fingerprint = read, rows, fingerprint
        self._table: ChunkTable | None = None
        self._lock = threading.Lock()

    @property
    def read_function(self) -> Callable[[Any, list[str]], Any]:
        """The function that reads, which is code of the user."""
        return self._read

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def chunks(self) -> ChunkTable:
        """One chunk for each key. Raises CorruptError if the rows of a key cannot be counted."""
        with self._lock:
            if self._table is None:
                rows = np.fromiter(self._counts(), np.int64, len(self._keys))
                bits = rows * len(self.schema) // 8 + 1  # the bits that mark nulls
                decoded = (rows * sum(bytes_per_row(field.type) for field in self.schema)).astype(np.int64) + bits
                names = list(self._keys)
                self._table = ChunkTable(names.__getitem__, rows, decoded, _COPIES * decoded + _READ_FLOOR_BYTES)
            return self._table

    def _counts(self) -> Iterator[int]:
        if self._rows is not None and not callable(self._rows):
            given: Iterator[Any] = iter(self._rows)
        else:
            given = map(self._declared_rows if self._rows else self._count_rows, self._keys.values())
        for name, count in zip(self._keys, given, strict=True):
            if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or not 0 <= count < 2**62:
                raise UsageError(f"rows: {count!r} for key {name!r}: must be an integer of at least 0")
            yield int(count)

    def _declared_rows(self, key: Any) -> Any:
        assert callable(self._rows)
        try:
            return self._rows(key)
        except Exception as error:
            raise CorruptError(f"{key}: rows(key) failed: {type(error).__name__}: {error}") from error

    def _count_rows(self, key: Any) -> int:
        narrowest = min(self.schema, key=lambda field: bytes_per_row(field.type)).name
        try:
            return sum(batch.num_rows for batch in as_batches(self._read(key, [narrowest])))
        except (StreamtrainError, MemoryError):
            raise
        except Exception as error:
            raise CorruptError(
                f"{key}: the rows cannot be counted, because read(key, columns) failed: {type(error).__name__}: {error}"
            ) from error

    def read(self, chunk: Chunk, columns: Sequence[str]) -> Any:
        """The result of the function for the key of a chunk. Raises ColumnError for a column that is not in the schema, and
        SchemaError if a column has another type than in the schema."""
        fields = [pick(self.schema, name, "read") for name in columns]
        if chunk.key not in self._keys:
            raise UsageError(f"chunk {chunk.key!r} does not belong to this reader: use chunks from its chunks()")
        batches = []
        for batch in as_batches(self._read(self._keys[chunk.key], list(columns))):
            for field, actual in zip(fields, batch.schema, strict=False):
                if actual.name == field.name and actual.type != field.type:
                    raise SchemaError(
                        f"{chunk.key}: column {field.name!r} is {actual.type}, but the schema says {field.type}"
                    )
            batches.append(batch)
        return pa.Table.from_batches(batches, None if batches else pa.schema(fields))

    def fingerprint(self) -> str | None:
        """The given fingerprint, or the result of the given function; None if there is neither."""
        if not callable(self._fingerprint):
            return self._fingerprint
        try:
            return self._fingerprint()
        except Exception as error:
            raise CorruptError(f"fingerprint() failed: {type(error).__name__}: {error}") from error

"""Read data in memory: numpy arrays, Arrow tables, and any object with the Arrow C interface."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.errors import ColumnError, DataError, NotFoundError, SchemaError, UsageError
from streamtrain.storage.arrow import pick
from streamtrain.storage.from_numpy import to_arrow
from streamtrain.storage.pandas_index import with_index
from streamtrain.storage.reader import Chunk, ChunkTable

__all__ = ["MemoryReader", "array_of", "columns_of", "hash_batch", "to_column"]

CHUNK_ROWS = 65_536


class MemoryReader:
    """A reader of data in memory. A chunk is a slice of 65,536 rows, which is not copied if the data are in one piece.

    data: one of

    - a mapping of names to numpy arrays that share axis 0; multi-dimensional rows become fixed-shape tensors;
    - one numpy array, which becomes column ``X``, or a pair ``(X, y)``, which becomes the columns ``X`` and ``y``;
    - a structured numpy array: each field is a column;
    - a pyarrow Table or RecordBatch, or anything with ``__arrow_c_array__`` or ``__arrow_c_stream__`` (a pandas or
      polars frame); a stream is consumed here, once.

    The data are not copied, so changes to them are seen by later reads. Pickling copies them.
    Raises SchemaError if lengths differ, ColumnError for a type that cannot be used, NotFoundError if there are no rows.

    >>> reader = MemoryReader((np.zeros((70_000, 3), np.float32), np.arange(70_000)))
    >>> [chunk.rows for chunk in reader.chunks()], reader.schema.names
    ([65536, 4464], ['X', 'y'])
    """

    def __init__(self, data: Any) -> None:
        self._table = _table(data)
        if self._table.num_columns == 0 or self._table.num_rows == 0:
            raise NotFoundError(
                f"the data in memory have {self._table.num_rows} rows and {self._table.num_columns} columns: "
                f"give at least one of each"
            )
        _no_twins(self._table.column_names)
        schema = with_index(self._table.schema)
        if not schema.equals(self._table.schema, check_metadata=True):
            self._table = pa.Table.from_arrays(self._table.columns, schema=schema)

    @property
    def schema(self) -> pa.Schema:
        return self._table.schema

    def chunks(self) -> ChunkTable:
        """Slices of 65,536 rows; the last one may be shorter."""
        starts = np.arange(0, self._table.num_rows, CHUNK_ROWS, dtype=np.int64)
        rows = np.minimum(CHUNK_ROWS, self._table.num_rows - starts)
        sizes = [self._slice(int(a), int(n)) for a, n in zip(starts, rows, strict=True)]
        decoded = [piece.nbytes for piece in sizes]
        # a slice within one piece is a view; a slice across pieces is copied, column by column
        copied = [piece.nbytes if any(c.num_chunks > 1 for c in piece.columns) else 0 for piece in sizes]
        return ChunkTable(_key, rows, decoded, np.asarray(copied, np.int64) + _READ_FLOOR_BYTES)

    def read(self, chunk: Chunk, columns: Sequence[str]) -> Any:
        """The given columns of one chunk, in the given order, as a ``pyarrow.RecordBatch``."""
        start = _start(chunk, self._table.num_rows)
        fields = [pick(self._table.schema, name, "read") for name in columns]
        piece = self._slice(start, chunk.rows)
        arrays = [_one(piece.column(name)) for name in columns]
        return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))

    def fingerprint(self) -> str:
        """A hash of the names, types and all values. It takes one pass over the data."""
        digest = hashlib.sha256(str(self._table.schema).encode())
        for chunk in self.chunks():
            hash_batch(digest, self.read(chunk, self._table.column_names))
        return f"memory-{digest.hexdigest()}"

    def _slice(self, start: int, rows: int) -> Any:
        return self._table.slice(start, rows)


_READ_FLOOR_BYTES = 65_536  # the Python objects of one read


def _key(i: int) -> str:
    return f"rows[{i * CHUNK_ROWS}:]"


def _start(chunk: Chunk, rows: int) -> int:
    digits = chunk.key.removeprefix("rows[").removesuffix(":]")
    start = int(digits) if digits.isdecimal() else -1
    if start % CHUNK_ROWS or not 0 <= start < rows or chunk.rows != min(CHUNK_ROWS, rows - start):
        raise UsageError(
            f"chunk {chunk.key!r} of {chunk.rows} rows does not belong to this reader: use chunks from its chunks()"
        )
    return start


def _one(column: Any) -> Any:
    """A column as one array. A column in one piece is not copied."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


class _Sink:
    """A file for the IPC writer that passes all bytes on to a digest and stores none."""

    closed = False

    def __init__(self, digest: Any) -> None:
        self._digest = digest

    def write(self, data: Any) -> int:
        self._digest.update(data)
        return len(data)

    def flush(self) -> None: ...

    def close(self) -> None: ...


def hash_batch(digest: Any, batch: Any) -> None:
    # IPC writes the rows of a slice only, not the rest of its buffers
    with pa.PythonFile(_Sink(digest), mode="w") as sink, pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)


def _table(data: Any) -> Any:
    if isinstance(data, pa.Table):
        return data
    if hasattr(data, "__arrow_c_stream__") or hasattr(data, "__arrow_c_array__"):
        return _from_interface(data)
    return _from_arrays(columns_of(data))


def _from_interface(data: Any) -> Any:
    try:
        return pa.table(data) if hasattr(data, "__arrow_c_stream__") else pa.Table.from_batches([pa.record_batch(data)])
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DataError(
            f"the {type(data).__name__} cannot be read as an Arrow table ({_brief(error)}): give a table or record batches, "
            f"not a single column"
        ) from None


def columns_of(data: Any) -> Mapping[str, Any]:
    if isinstance(data, Mapping):
        return data
    if isinstance(data, np.ndarray):
        if data.dtype.names and data.ndim:
            return {name: data[name] for name in data.dtype.names}
        return {"X": data}
    if isinstance(data, tuple) and len(data) == 2:
        return {"X": data[0], "y": data[1]}
    raise UsageError(
        f"data of type {type(data).__name__} cannot be read: give a path or URL, a dict of numpy arrays, an array, a pair "
        f"(X, y), or an object with __arrow_c_array__ or __arrow_c_stream__"
    )


def _from_arrays(columns: Mapping[str, Any]) -> Any:
    arrays = {str(name): array_of(str(name), values) for name, values in columns.items()}
    first = next(iter(arrays), "")
    for name, values in arrays.items():
        if len(values) != len(arrays[first]):
            raise SchemaError(
                f"columns {first!r} and {name!r} have {len(arrays[first])} and {len(values)} rows: "
                f"give arrays of the same length"
            )
    return pa.table({name: to_column(name, values) for name, values in arrays.items()})


def array_of(name: str, values: Any) -> Any:
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return values
    array = np.ma.getdata(values) if isinstance(values, np.ma.MaskedArray) and not values.mask.any() else values
    if isinstance(array, np.ma.MaskedArray):
        raise ColumnError(
            f"column {name!r} is a masked array: give an Arrow array with nulls, or fill the masked entries"
        )
    array = np.asarray(array)
    if array.ndim == 0:
        raise ColumnError(f"column {name!r} has no dimension: give an array whose first axis is the rows")
    return array


def to_column(name: str, values: Any) -> Any:
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return values
    return _strings(name, values) if values.dtype.kind == "O" else to_arrow(name, values)


def _strings(name: str, values: NDArray[Any]) -> Any:
    other = next((v for v in values.ravel().tolist() if not (v is None or isinstance(v, str))), None)
    if other is not None or values.ndim != 1:
        what = f"a {type(other).__name__}" if other is not None else f"{values.ndim} dimensions"
        raise ColumnError(
            f"column {name!r} is an object array with {what}, but may only contain strings and None: convert it"
        )
    return pa.array(values, pa.string())


def _no_twins(names: list[str]) -> None:
    twins = sorted(name for name, count in Counter(names).items() if count > 1)
    if twins:
        raise SchemaError(f"{names.count(twins[0])} columns are named {twins[0]!r}: rename all but one")


def _brief(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]

"""The columns that Hive partitions add to what files hold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from streamtrain.storage.files.listing import partition_columns

__all__ = ["Partitions"]


class Partitions:
    """``key=value`` folders as columns; where a file has a column of that name, it is the file's.

    >>> parts = Partitions(["k=1/a.csv", "k=2/a.csv"])
    >>> schema = parts.added_to(pa.schema([("x", pa.int8())]))
    >>> batch = pa.record_batch({"x": pa.array([7, 8], pa.int8())})
    >>> parts.assembled(batch, 2, ["k", "x"], schema, file=1).to_pydict()
    {'k': [2, 2], 'x': [7, 8]}
    """

    def __init__(self, files: Sequence[str]) -> None:
        self._values = partition_columns(files)

    def added_to(self, schema: pa.Schema) -> pa.Schema:
        for key, values in self._values.items():
            if key not in schema.names:
                schema = schema.append(pa.field(key, values.type))
        return schema

    def assembled(
        self, batch: pa.RecordBatch | None, rows: int, columns: Sequence[str], schema: pa.Schema, file: int
    ) -> pa.RecordBatch:
        """The columns of ``rows`` rows in the order asked for, those of the folders added. batch: what the file gave; None
        where it has none of the columns. file: its number."""
        wanted = pa.schema([schema.field(name) for name in columns])
        if batch is not None and batch.schema.equals(wanted):
            return batch
        held = batch.schema.names if batch is not None else []
        arrays = [
            batch.column(name) if name in held else _constant(self._values[name], file, rows)  # type: ignore[union-attr]
            for name in columns
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=wanted)


def _constant(values: pa.Array, file: int, rows: int) -> pa.Array:
    """A column that has one value throughout a file."""
    if isinstance(values, pa.DictionaryArray):
        index = values.indices[file].as_py()
        indices = pa.nulls(rows, pa.int32()) if index is None else pa.array(np.full(rows, index, np.int32))
        return pa.DictionaryArray.from_arrays(indices, values.dictionary)
    value = values[file]
    return pa.nulls(rows, values.type) if not value.is_valid else pa.array(np.full(rows, value.as_py(), np.int64))

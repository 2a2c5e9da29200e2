"""The columns that Hive partitions add to those in the files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from streamtrain.storage.files.listing import partition_columns

__all__ = ["Partitions"]


class Partitions:
    """``key=value`` folders as columns. If a file has a column of the same name, the column in the file is used.

    >>> parts = Partitions(["k=1/a.csv", "k=2/a.csv"])
    >>> schema = parts.added_to(pa.schema([("x", pa.int8())]))
    >>> batch = pa.record_batch({"x": pa.array([7, 8], pa.int8())})
    >>> parts.assembled(batch, 2, ["k", "x"], schema, file=1).to_pydict()
    {'k': [2, 2], 'x': [7, 8]}
    """

    def __init__(self, files: Sequence[str]) -> None:
        self._values = partition_columns(files)

    def added_to(self, schema: pa.Schema) -> pa.Schema:
        """The schema of the files, followed by the partition columns that it does not have."""
        for key, values in self._values.items():
            if key not in schema.names:
                schema = schema.append(pa.field(key, values.type))
        return schema

    def assembled(
        self, batch: pa.RecordBatch | None, rows: int, columns: Sequence[str], schema: pa.Schema, file: int
    ) -> pa.RecordBatch:
        """The requested columns in the requested order, partition columns included.

        batch: ``rows`` rows of the columns that are in the file; None if none of them is. file: the number of the file.
        """
        requested = pa.schema([schema.field(name) for name in columns])
        if batch is not None and batch.schema.equals(requested):
            return batch
        stored = batch.schema.names if batch is not None else []
        arrays = [
            batch.column(name) if name in stored else _constant(self._values[name], file, rows)  # type: ignore[union-attr]
            for name in columns
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=requested)


def _constant(values: pa.Array, file: int, rows: int) -> pa.Array:
    """A column with one value in all rows: the value for this file."""
    if isinstance(values, pa.DictionaryArray):
        index = values.indices[file].as_py()
        indices = pa.nulls(rows, pa.int32()) if index is None else pa.array(np.full(rows, index, np.int32))
        return pa.DictionaryArray.from_arrays(indices, values.dictionary)
    value = values[file]
    return pa.nulls(rows, values.type) if not value.is_valid else pa.array(np.full(rows, value.as_py(), np.int64))

"""Compare the rows of two tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from streamtrain.storage.arrow import as_batches
from streamtrain.storage.reader import Chunk, Reader

__all__ = ["difference", "plain", "read_raw", "table_of"]


def table_of(data: Any) -> pa.Table:
    """The data that a reader returned, as a table, without any check. It has no columns if there was no batch."""
    batches = list(as_batches(data))
    return pa.Table.from_batches(batches, None if batches else pa.schema([]))


def read_raw(reader: Reader, chunk: Chunk, columns: list[str] | None = None) -> pa.Table:
    """Read a chunk without any check. columns: all by default."""
    return table_of(reader.read(chunk, reader.schema.names if columns is None else columns))


def plain(table: pa.Table) -> dict[str, list[Any]]:
    """The values of each column as Python lists, columns sorted by name.

    >>> plain(pa.table({"b": [1, None], "a": pa.array(["x", "y"]).dictionary_encode()}))
    {'a': ['x', 'y'], 'b': [1, None]}
    """
    return {name: table.column(name).to_pylist() for name in sorted(table.column_names)}


def difference(actual: pa.Table, expected: pa.Table) -> str | None:
    """Describe the first difference in columns and values between two tables; None if there is none. Batches and dictionaries
    may differ, and all NaNs are equal.

    >>> difference(pa.table({"x": [1.0, 2.0]}), pa.table({"x": [1.0, 3.0]}))
    "column 'x', row 1: 2.0 instead of 3.0"
    """
    if actual.column_names != expected.column_names:
        return f"columns {actual.column_names} instead of {expected.column_names}"
    if actual.num_rows != expected.num_rows:
        return f"{actual.num_rows:,} rows instead of {expected.num_rows:,}"
    for name in actual.column_names:
        a, b = (_decoded(table.column(name)) for table in (actual, expected))
        if a.type != b.type:
            return f"column {name!r}: type {a.type} instead of {b.type}"
        if not a.equals(b) and (row := _first_difference(a, b)) is not None:
            return f"column {name!r}, row {row:,}: {a[row].as_py()!r} instead of {b[row].as_py()!r}"
    return None


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if isinstance(column.type, pa.DictionaryType) else column


def _first_difference(a: pa.ChunkedArray, b: pa.ChunkedArray) -> int | None:
    """The first row in which two columns differ. Arrow itself takes a NaN for unequal to another."""
    for row, (x, y) in enumerate(zip(a.to_pylist(), b.to_pylist(), strict=True)):
        if x != y and not _nan_alike(x, y):
            return row
    return None


def _nan_alike(x: Any, y: Any) -> bool:
    try:
        return bool(np.array_equal(np.asarray(x, np.float64), np.asarray(y, np.float64), equal_nan=True))
    except (TypeError, ValueError):
        return False

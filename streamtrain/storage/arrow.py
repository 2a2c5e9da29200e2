"""Helpers for Arrow data: the sizes of types, and the batches of anything that a reader may return."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.errors import ColumnError, DataError, near_names

__all__ = ["HINT", "as_batches", "bytes_per_row", "is_number", "pick", "value_type", "width"]

#: metadata of a schema: what to say to who asks for a column that is not there
HINT = b"streamtrain.hint"
_STRING_BYTES = 32  # nominal: a Parquet footer does not tell how long strings are


def is_number(kind: pa.DataType) -> bool:
    """Whether the values of a type are integers, floats, booleans or decimals; also inside a dictionary or tensor."""
    kind = value_type(kind)
    t = pa.types
    return bool(t.is_integer(kind) or t.is_floating(kind) or t.is_boolean(kind) or t.is_decimal(kind))


def value_type(kind: pa.DataType) -> pa.DataType:
    """The type of a single value; for a dictionary, tensor, fixed-size list or run-length encoding, of the values in it."""
    if isinstance(kind, (pa.DictionaryType, pa.FixedShapeTensorType, pa.FixedSizeListType, pa.RunEndEncodedType)):
        return value_type(kind.value_type)
    return kind


def width(kind: pa.DataType) -> int:
    """How many numbers a row of a column has: the size of a tensor or fixed-size list, otherwise 1.

    >>> width(pa.fixed_shape_tensor(pa.uint8(), [28, 28])), width(pa.int64())
    (784, 1)
    """
    if isinstance(kind, pa.FixedSizeListType):
        return int(kind.list_size) * width(kind.value_type)
    return math.prod(kind.shape) if isinstance(kind, pa.FixedShapeTensorType) else 1


def bytes_per_row(kind: pa.DataType) -> float:
    """The bytes of one decoded row; a nominal 32 for strings and binary, whose length is not in the metadata.

    >>> bytes_per_row(pa.float32()), bytes_per_row(pa.bool_()), bytes_per_row(pa.fixed_shape_tensor(pa.uint8(), [8, 8]))
    (4.0, 0.125, 64.0)
    """
    if isinstance(kind, pa.FixedShapeTensorType):
        return width(kind) * bytes_per_row(kind.value_type)
    if isinstance(kind, pa.DictionaryType):
        return bytes_per_row(kind.index_type)
    if isinstance(kind, pa.FixedSizeListType):
        return float(kind.list_size * bytes_per_row(kind.value_type))
    if isinstance(kind, pa.StructType):
        return sum(bytes_per_row(field.type) for field in kind)
    try:
        return float(kind.bit_width / 8)
    except ValueError:
        return float(_STRING_BYTES)


def as_batches(data: Any) -> Iterable[pa.RecordBatch]:
    """The record batches of the object that a reader returned, without a copy. Raises DataError if it is not Arrow data."""
    if isinstance(data, pa.RecordBatch):
        return [data]
    if isinstance(data, pa.Table):
        return list(data.to_batches())
    if hasattr(data, "__arrow_c_array__"):
        return [pa.record_batch(data)]
    if hasattr(data, "__arrow_c_stream__"):
        reader: Iterable[pa.RecordBatch] = pa.RecordBatchReader.from_stream(data)
        return reader
    raise DataError(
        f"a reader returned {type(data).__name__}: return a pyarrow.RecordBatch, or an object with the Arrow C interface"
    )


def pick(schema: pa.Schema, name: str, what: str) -> pa.Field:
    """The field with that name. Raises ColumnError, which suggests similar names, if there is none."""
    if schema.get_field_index(name) < 0 and name not in schema.names:  # only then: the list of names is slow to make
        hint = (schema.metadata or {}).get(HINT, b"").decode()
        raise ColumnError(
            f"no column {name!r} for the {what}: {near_names(name, schema.names)}" + (f" ({hint})" if hint else "")
        )
    return schema.field(name)


def valid(values: Any) -> NDArray[np.bool_]:
    """A mask of the values that are not null, shape (rows,)."""
    bits = values.buffers()[0]
    if bits is None or not values.null_count:
        return np.ones(len(values), np.bool_)
    return unpacked_bits(bits, values.offset, len(values))


def unpacked_bits(buffer: Any, start: int, rows: int) -> NDArray[np.bool_]:
    """The bits of an Arrow buffer from bit ``start`` on, one for each row, shape (rows,)."""
    raw = np.frombuffer(buffer, np.uint8)[start // 8 : -(-(start + rows) // 8)]
    return np.unpackbits(raw, bitorder="little")[start % 8 : start % 8 + rows].view(np.bool_)

"""Small facts about Arrow data that every stage needs: sizes of types, and batches of whatever a reader returned."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.errors import ColumnError, DataError, near_names

__all__ = ["as_batches", "bytes_per_row", "is_number", "pick", "value_type", "width"]

_STRING_BYTES = 32  # nominal: a footer does not say how long strings are


def is_number(kind: pa.DataType) -> bool:
    """Whether values of this type are numbers: integers, floats, booleans, decimals (in a dictionary or tensor too)."""
    kind = value_type(kind)
    t = pa.types
    return bool(t.is_integer(kind) or t.is_floating(kind) or t.is_boolean(kind) or t.is_decimal(kind))


def value_type(kind: pa.DataType) -> pa.DataType:
    """The type of one value: what a dictionary, a tensor, a list of fixed size or a run-length encoding holds."""
    if isinstance(kind, (pa.DictionaryType, pa.FixedShapeTensorType, pa.FixedSizeListType, pa.RunEndEncodedType)):
        return value_type(kind.value_type)
    return kind


def width(kind: pa.DataType) -> int:
    """How many numbers one row of a column holds: the entries of a tensor or a list of fixed size, otherwise 1.

    >>> width(pa.fixed_shape_tensor(pa.uint8(), [28, 28])), width(pa.int64())
    (784, 1)
    """
    if isinstance(kind, pa.FixedSizeListType):
        return int(kind.list_size) * width(kind.value_type)
    return math.prod(kind.shape) if isinstance(kind, pa.FixedShapeTensorType) else 1


def bytes_per_row(kind: pa.DataType) -> float:
    """Bytes of one decoded row; nominal for strings and binary, whose length no metadata tells.

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
    """Record batches of whatever a reader returned, without a copy."""
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
        f"a reader returned {type(data).__name__}: return a pyarrow.RecordBatch, or anything with an Arrow C interface"
    )


def pick(schema: pa.Schema, name: str, what: str) -> pa.Field:
    """The field of that name; ColumnError with the near names where there is none."""
    if schema.get_field_index(name) < 0 and name not in schema.names:  # the list of names takes long to make
        raise ColumnError(f"no column {name!r} for the {what}: {near_names(name, schema.names)}")
    return schema.field(name)


def valid(values: Any) -> NDArray[np.bool_]:
    """Which values are not null, shape (rows,)."""
    bits = values.buffers()[0]
    if bits is None or not values.null_count:
        return np.ones(len(values), np.bool_)
    return unpacked_bits(bits, values.offset, len(values))


def unpacked_bits(buffer: Any, start: int, rows: int) -> NDArray[np.bool_]:
    """Bits of an Arrow buffer from ``start`` on, one a row, shape (rows,)."""
    raw = np.frombuffer(buffer, np.uint8)[start // 8 : -(-(start + rows) // 8)]
    return np.unpackbits(raw, bitorder="little")[start % 8 : start % 8 + rows].view(np.bool_)

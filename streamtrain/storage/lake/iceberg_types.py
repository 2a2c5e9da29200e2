"""The types of Iceberg as those of Arrow."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from pyiceberg import types as iceberg

__all__ = ["arrow_type"]

_PLAIN: dict[type, pa.DataType] = {
    iceberg.BooleanType: pa.bool_(),
    iceberg.IntegerType: pa.int32(),
    iceberg.LongType: pa.int64(),
    iceberg.FloatType: pa.float32(),
    iceberg.DoubleType: pa.float64(),
    iceberg.DateType: pa.date32(),
    iceberg.TimeType: pa.time64("us"),
    iceberg.TimestampType: pa.timestamp("us"),
    iceberg.TimestamptzType: pa.timestamp("us", "UTC"),
    iceberg.TimestampNanoType: pa.timestamp("ns"),
    iceberg.TimestamptzNanoType: pa.timestamp("ns", "UTC"),
    iceberg.StringType: pa.string(),
    iceberg.BinaryType: pa.binary(),
    iceberg.UUIDType: pa.uuid(),
    iceberg.UnknownType: pa.null(),
}


def arrow_type(kind: Any) -> pa.DataType | None:
    """The type of Arrow that a column of a type is read as; None for one that is not known.

    >>> arrow_type(iceberg.DecimalType(9, 2)), arrow_type(iceberg.UUIDType())
    (Decimal128Type(decimal128(9, 2)), UuidType(extension<arrow.uuid>))
    """
    if type(kind) in _PLAIN:
        return _PLAIN[type(kind)]
    if isinstance(kind, iceberg.DecimalType):
        return pa.decimal128(kind.precision, kind.scale)
    if isinstance(kind, iceberg.FixedType):
        return pa.binary(len(kind))
    if isinstance(kind, iceberg.ListType):
        value = arrow_type(kind.element_type)
        return None if value is None else pa.list_(pa.field("element", value, not kind.element_required))
    if isinstance(kind, iceberg.MapType):
        key, value = arrow_type(kind.key_type), arrow_type(kind.value_type)
        return None if key is None or value is None else pa.map_(key, value)
    if isinstance(kind, iceberg.StructType):
        inner = [(each.name, arrow_type(each.field_type), not each.required) for each in kind.fields]
        return None if any(each is None for _, each, _ in inner) else pa.struct([pa.field(*each) for each in inner])
    return None

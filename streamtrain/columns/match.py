"""The columns of a model in other data: the same, or named for what they are."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from streamtrain.columns.roles import Column, choose_role
from streamtrain.columns.times import is_time
from streamtrain.errors import ColumnError

__all__ = ["family", "same_column"]


def same_column(own: Column, field: pa.Field) -> Column:
    """A column of other data, as one of the model's. Raises ColumnError where it is something else."""
    found = choose_role(field, None if own.role == "time" else own.role)
    told = (found.numbers, family(found.type)) if own.role != "number" else (found.numbers, "")
    known = (own.numbers, family(own.type)) if own.role != "number" else (own.numbers, "")
    if found.role != own.role or told != known:
        if own.role == "number" or found.role == "number":
            raise ColumnError(f"feature {own.name!r} has {found.numbers} numbers a row; the model knows {own.numbers}")
        raise ColumnError(f"feature {own.name!r} is {field.type}; the model knows it as {own.type}")
    origin = own.origin
    if own.role == "time" and found.type != own.type:  # in the unit of these data
        origin = own.origin * _UNITS[_unit(found.type)] / _UNITS[_unit(own.type)]
    return replace(found, origin=origin, why=own.why, text_bytes=own.text_bytes)


_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9, "day": 1 / 86_400}


def _unit(kind: pa.DataType) -> str:
    if pa.types.is_date32(kind):
        return "day"
    return "ms" if pa.types.is_date64(kind) else str(kind.unit)


def family(kind: pa.DataType) -> str:
    """What values of a type are told apart by: their text, a whole number, a number, or a time in a zone."""
    if isinstance(kind, (pa.DictionaryType, pa.RunEndEncodedType)):
        return family(kind.value_type)
    if is_time(kind):
        return f"{type(kind).__name__} {getattr(kind, 'tz', None)}".replace("Time64", "Time32").replace("Date64", "Date32")
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return "integer"
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "number"
    return str(kind) if pa.types.is_duration(kind) or pa.types.is_null(kind) else "text"

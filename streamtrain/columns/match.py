"""The columns of a model in other data: the same, or named for what they are."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from streamtrain.columns.roles import Column, choose_role, kind_name
from streamtrain.columns.times import is_time
from streamtrain.errors import ColumnError
from streamtrain.storage.arrow import value_type

__all__ = ["family", "same_column"]


def same_column(own: Column, field: pa.Field, *, crossed: bool = False) -> Column:
    """A column of other data, as one of the model's. Raises ColumnError where it is something else.

    crossed: whether its values are told apart one by one, as those of a category are, beside what it becomes. A column of
    the null type is the same as any: all of it is missing.
    """
    if pa.types.is_null(value_type(field.type)):
        return replace(own, type=field.type, known=own.type)
    try:
        if own.role == "time":
            found = replace(choose_role(field.with_type(value_type(field.type))), type=field.type)
        else:
            found = choose_role(field, own.role)
    except ColumnError:
        found = None
    if found is not None and found.role == own.role == "number" and found.numbers != own.numbers:
        raise ColumnError(f"feature {own.name!r} has {found.numbers} numbers a row; the model knows {own.numbers}")
    if found is None or found.role != own.role or _told(found, crossed) != _told(own, crossed):
        raise ColumnError(
            f"feature {own.name!r} is {kind_name(field)}; the model knows it as {own.type}: cast it first"
        )
    origin = own.origin
    if own.role == "time":  # in the unit of these data
        there, here = _UNITS[_unit(value_type(found.type))], _UNITS[_unit(value_type(own.type))]
        origin = own.origin if there == here else own.origin * there / here
    return replace(found, origin=origin, why=own.why, text_bytes=own.text_bytes)


def _told(column: Column, crossed: bool) -> str:
    """What a column's values mean, so that those of another column that says the same mean it too."""
    kind = value_type(column.type)
    unit = f" in {_unit(kind)}" if is_time(kind) else ""
    if column.role == "category" or crossed:
        return family(kind) + unit
    if column.role == "number" and not unit:  # any type of number will do; durations are in seconds
        return "duration" if pa.types.is_duration(kind) else "number"
    return family(kind) + (unit if column.role == "number" else "")


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
        return f"{type(kind).__name__.replace('64', '32')} {getattr(kind, 'tz', None)}"
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return "integer"
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "number"
    return str(kind) if pa.types.is_duration(kind) or pa.types.is_null(kind) else "text"

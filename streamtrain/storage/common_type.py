"""The type that holds all values of two types exactly, for a column that is not stored alike in every file."""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile

import pyarrow as pa

__all__ = ["CODES", "common_type", "is_readable_as_text"]

CODES = pa.dictionary(pa.int32(), pa.string())  # text is read as dictionaries
_DIGITS = {1: 1, 8: 3, 16: 5, 32: 10, 64: 20}  # of an integer with so many bits
_MOST_DIGITS, _MORE_DIGITS = 38, 76  # of decimals of 128 and of 256 bits
_UTC = frozenset(("UTC", "utc", "Z", "Etc/UTC", "Etc/UCT", "UCT", "Zulu", "Etc/Zulu", "Universal", "+00:00", "+0000"))
_UNITS = ("s", "ms", "us", "ns")


def common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The narrowest type that holds the values of both types; None if there is none. Integers become floats where the other
    type is one; an integer that a float does not hold is an error when it is read.

    >>> str(common_type(pa.int32(), pa.uint32())), str(common_type(pa.int64(), pa.float32()))
    ('int64', 'double')
    >>> str(common_type(pa.timestamp("us"), pa.timestamp("ns"))), common_type(pa.string(), pa.int64())
    ('timestamp[ns]', None)
    """
    if one == other:
        return one
    null = pa.types.is_null
    if null(one) or null(other):
        return other if null(one) else one
    plain = _values(*map(_decoded, (one, other)))
    if plain is None or not (_is_dictionary(one) or _is_dictionary(other) or _is_text(plain)):
        return plain
    return CODES if _is_text(plain) else pa.dictionary(pa.int32(), plain)


def is_readable_as_text(kind: pa.DataType) -> bool:
    """Whether every value of a type has one form as text."""
    kind, t = _decoded(kind), pa.types
    number = t.is_integer(kind) or t.is_floating(kind) or t.is_boolean(kind) or t.is_decimal(kind)
    return bool(number or t.is_null(kind) or t.is_date32(kind) or _is_text(kind))


def _is_dictionary(kind: pa.DataType) -> bool:
    return isinstance(kind, pa.DictionaryType)


def _decoded(kind: pa.DataType) -> pa.DataType:
    return _decoded(kind.value_type) if isinstance(kind, (pa.DictionaryType, pa.RunEndEncodedType)) else kind


def _values(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The common type of values that are not encoded."""
    if one == other:
        return one
    if pa.types.is_null(one) or pa.types.is_null(other):
        return other if pa.types.is_null(one) else one
    if isinstance(one, pa.FixedShapeTensorType) and isinstance(other, pa.FixedShapeTensorType):
        return _tensor(one, other)
    if isinstance(one, pa.BaseExtensionType) or isinstance(other, pa.BaseExtensionType):
        return None
    for joined in _JOINED:
        kind = joined(one, other)
        if kind is not None:
            return kind
    return None


def _tensor(one: pa.FixedShapeTensorType, other: pa.FixedShapeTensorType) -> pa.DataType | None:
    value = _values(one.value_type, other.value_type)
    same = (one.shape, one.permutation) == (other.shape, other.permutation)
    return pa.fixed_shape_tensor(value, one.shape, one.dim_names, one.permutation) if same and value else None


def _number(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    if not (_is_number(one) and _is_number(other)):
        return None
    for kind, rest in ((one, other), (other, one)):
        if pa.types.is_boolean(kind) and not pa.types.is_boolean(rest):
            return rest  # as 0 and 1
    floats = [kind for kind in (one, other) if pa.types.is_floating(kind)]
    if len(floats) == 2:
        return max(floats, key=lambda kind: kind.bit_width)
    if floats:
        return pa.float64()
    if pa.types.is_decimal(one) or pa.types.is_decimal(other):
        return _decimal(*_digits(one), *_digits(other))
    return _integer(one, other)


def _integer(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    wider = max(one, other, key=lambda kind: kind.bit_width)
    signed = pa.types.is_signed_integer
    if signed(one) == signed(other):
        return wider
    unsigned = other if signed(one) else one
    bits = max(wider.bit_width, 2 * unsigned.bit_width)
    return {16: pa.int16(), 32: pa.int32(), 64: pa.int64()}.get(bits, pa.decimal128(_DIGITS[64], 0))


def _digits(kind: pa.DataType) -> tuple[int, int]:
    """The digits before and after the point."""
    return (kind.precision - kind.scale, kind.scale) if pa.types.is_decimal(kind) else (_DIGITS[kind.bit_width], 0)


def _decimal(before: int, after: int, other_before: int, other_after: int) -> pa.DataType | None:
    scale = max(after, other_after)
    digits = max(1, max(before, other_before) + scale)
    if digits > _MORE_DIGITS:
        return None
    return pa.decimal128(digits, scale) if digits <= _MOST_DIGITS else pa.decimal256(digits, scale)


def _time(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    t = pa.types
    if t.is_date(one) and t.is_date(other):
        return pa.date64()
    for kind, rest in ((one, other), (other, one)):
        if t.is_date(kind) and t.is_timestamp(rest) and rest.tz is None:
            return rest if t.is_date32(kind) else pa.timestamp(_finer("ms", rest.unit))  # midnight
    if t.is_timestamp(one) and t.is_timestamp(other):
        same = one.tz == other.tz or {one.tz, other.tz} <= _UTC
        return pa.timestamp(_finer(one.unit, other.unit), one.tz) if same else None
    if t.is_duration(one) and t.is_duration(other):
        return pa.duration(_finer(one.unit, other.unit))
    if t.is_time(one) and t.is_time(other):
        unit = _finer(one.unit, other.unit)
        return pa.time32(unit) if unit in ("s", "ms") else pa.time64(unit)
    return None


def _finer(unit: str, other: str) -> str:
    return max(unit, other, key=_UNITS.index)


def _text(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    large = any(pa.types.is_large_string(kind) or pa.types.is_large_binary(kind) for kind in (one, other))
    if _is_text(one) and _is_text(other):
        return pa.large_string() if large else pa.string()
    if all(_is_text(kind) or _is_binary(kind) for kind in (one, other)):
        return pa.large_binary() if large else pa.binary()
    return None


def _nested(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    t = pa.types
    if t.is_struct(one) and t.is_struct(other):
        return _struct(one, other)
    if t.is_map(one) and t.is_map(other):
        key, item = _values(one.key_type, other.key_type), _values(one.item_type, other.item_type)
        return pa.map_(key, item) if key and item else None
    if t.is_map(one) or t.is_map(other) or not (hasattr(one, "value_field") and hasattr(other, "value_field")):
        return None
    value = _values(one.value_type, other.value_type)
    if value is None:
        return None
    if t.is_fixed_size_list(one) and t.is_fixed_size_list(other) and one.list_size == other.list_size:
        return pa.list_(value, one.list_size)
    return pa.large_list(value) if t.is_large_list(one) or t.is_large_list(other) else pa.list_(value)


def _struct(one: pa.StructType, other: pa.StructType) -> pa.DataType | None:
    names = list(dict.fromkeys(field.name for kind in (one, other) for field in kind))
    if any(len({field.name for field in kind}) < kind.num_fields for kind in (one, other)):
        return None  # two fields of one name
    kinds = [_values(*(_field_type(kind, name) for kind in (one, other))) for name in names]
    found = list(takewhile(lambda kind: kind is not None, kinds))
    return pa.struct(list(zip(names, found, strict=True))) if len(found) == len(names) else None


def _field_type(kind: pa.StructType, name: str) -> pa.DataType:
    index = kind.get_field_index(name)
    return pa.null() if index < 0 else kind.field(index).type


_JOINED: tuple[Callable[[pa.DataType, pa.DataType], pa.DataType | None], ...] = (_number, _time, _text, _nested)


def _is_number(kind: pa.DataType) -> bool:
    t = pa.types
    return bool(t.is_integer(kind) or t.is_floating(kind) or t.is_boolean(kind) or t.is_decimal(kind))


def _is_text(kind: pa.DataType) -> bool:
    t = pa.types
    return bool(t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind))


def _is_binary(kind: pa.DataType) -> bool:
    t = pa.types
    return bool(t.is_binary(kind) or t.is_large_binary(kind) or t.is_binary_view(kind) or t.is_fixed_size_binary(kind))

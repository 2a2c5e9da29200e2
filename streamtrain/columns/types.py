"""The Arrow types of columns: their shapes and units, the meaning of their values, and their names in model files."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

import pyarrow as pa

from streamtrain.columns.times import is_time
from streamtrain.storage.arrow import is_number, value_type
from streamtrain.storage.sparse import SparseRows

__all__ = [
    "TICKS_PER_SECOND",
    "family",
    "is_binary",
    "is_list",
    "is_list_of_numbers",
    "is_single",
    "is_text",
    "shape_of",
    "type_name",
    "type_named",
    "unit_of",
    "value_meaning",
]

#: how many units of a time type are in a second, by the unit's name
TICKS_PER_SECOND: dict[str, int | Fraction] = {
    "s": 1,
    "ms": 10**3,
    "us": 10**6,
    "ns": 10**9,
    "day": Fraction(1, 86_400),
}

_TIMESTAMP = re.compile(r"timestamp\[(s|ms|us|ns)(?:, tz=(.+))?\]")
_SPARSE, _MAP, _LIST = re.compile(r"sparse rows of ([1-9][0-9]{0,9})"), re.compile(r"map of (.+) to (.+)"), "list of "


def shape_of(kind: pa.DataType) -> tuple[int, ...] | None:
    """The shape of one value of a tensor or fixed-size list; None for a single value.

    >>> shape_of(pa.list_(pa.float32(), 3)), shape_of(pa.float32())
    ((3,), None)
    """
    if isinstance(kind, pa.FixedShapeTensorType):
        return tuple(kind.shape)
    if isinstance(kind, pa.FixedSizeListType):
        return (kind.list_size, *(shape_of(kind.value_type) or ()))
    return None


def is_text(kind: pa.DataType) -> bool:
    """Whether this is a type of strings."""
    t = pa.types
    return bool(t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind))


def is_binary(kind: pa.DataType) -> bool:
    """Whether this is a type of byte strings."""
    t = pa.types
    return bool(t.is_binary(kind) or t.is_large_binary(kind) or t.is_binary_view(kind) or t.is_fixed_size_binary(kind))


def is_list(kind: pa.DataType) -> bool:
    """Whether this is a type of lists whose length is not fixed. Maps are not lists."""
    return isinstance(kind, (pa.ListType, pa.LargeListType, pa.ListViewType, pa.LargeListViewType))


def is_list_of_numbers(kind: pa.DataType) -> bool:
    """Whether this is a type of lists of single numbers whose length is not fixed."""
    return is_list(kind) and is_single(kind.value_type) and is_number(kind.value_type)


def is_single(kind: pa.DataType) -> bool:
    """Whether a value of this type is one number, time, string or byte string, or null: nothing nested.

    >>> is_single(pa.dictionary(pa.int8(), pa.string())), is_single(pa.list_(pa.int8(), 2))
    (True, False)
    """
    t, value = pa.types, value_type(kind)
    number = t.is_integer(value) or t.is_floating(value) or t.is_boolean(value) or t.is_decimal(value)
    other = t.is_duration(value) or is_time(value) or is_text(value) or is_binary(value) or t.is_null(value)
    return shape_of(kind) is None and bool(number or other)


def family(kind: pa.DataType) -> str:
    """What distinguishes the values of a type: text, whole numbers, numbers, or times of one zone."""
    if isinstance(kind, (pa.DictionaryType, pa.RunEndEncodedType)):
        return family(kind.value_type)
    if is_time(kind):
        return f"{type(kind).__name__.replace('64', '32')} {getattr(kind, 'tz', None)}"
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return "integer"
    if pa.types.is_decimal(kind):
        return "number" if kind.scale > 0 else "integer"
    if pa.types.is_floating(kind):
        return "number"
    return str(kind) if pa.types.is_duration(kind) or pa.types.is_null(kind) else "text"


def unit_of(kind: pa.DataType) -> str:
    """The unit in which a type of times counts: a key of `TICKS_PER_SECOND`."""
    if pa.types.is_date32(kind):
        return "day"
    return "ms" if pa.types.is_date64(kind) else str(kind.unit)


def value_meaning(kind: pa.DataType) -> str:
    """What a single value of this type means. Equal values of two types with the same meaning have the same hash."""
    kind = value_type(kind)
    return f"{family(kind)} in {unit_of(kind)}" if is_time(kind) else family(kind)


def type_name(kind: pa.DataType) -> str:
    """The name of a type in a model file. All types of numbers share one name: a model reads any of them."""
    if isinstance(kind, (pa.DictionaryType, pa.RunEndEncodedType)):
        return type_name(kind.value_type)
    if isinstance(kind, SparseRows):
        return f"sparse rows of {kind.width}"
    if pa.types.is_map(kind):
        return f"map of {type_name(kind.key_type)} to {type_name(kind.item_type)}"
    if is_list(kind):
        return f"list of {type_name(kind.value_type)}"
    if is_time(kind) or pa.types.is_duration(kind):
        return str(kind)
    return family(kind) if shape_of(kind) is None else "number"


_NAMED: dict[str, Any] = {
    "integer": pa.int64, "number": pa.float64, "text": pa.string, "null": pa.null, "date32[day]": pa.date32,
    "date64[ms]": pa.date64,
}  # fmt: skip


def type_named(name: str, shape: list[int] | None) -> pa.DataType:
    """The type that `type_name` gave this name, of values of this shape. Raises ValueError for any other name."""
    if shape is not None:
        return pa.fixed_shape_tensor(pa.float32(), shape)
    if name in _NAMED:
        return _NAMED[name]()
    if sparse := _SPARSE.fullmatch(name):
        return SparseRows(int(sparse[1]))
    if mapping := _MAP.fullmatch(name):
        return pa.map_(_single_named(mapping[1]), _single_named(mapping[2]))
    if name.startswith(_LIST):
        return pa.list_(_single_named(name.removeprefix(_LIST)))
    if stamp := _TIMESTAMP.fullmatch(name):
        return pa.timestamp(stamp[1], stamp[2])
    for make, units in ((pa.time32, ("s", "ms")), (pa.time64, ("us", "ns")), (pa.duration, ("s", "ms", "us", "ns"))):
        for unit in units:
            if name == str(make(unit)):
                return make(unit)
    raise ValueError(f"{name!r} is not the type of a feature")


def _single_named(name: str) -> pa.DataType:
    """The type of single values with this name."""
    if _SPARSE.fullmatch(name) or name.startswith(("map of ", _LIST)):
        raise ValueError(f"{name!r} is not the type of a single value")
    return type_named(name, None)

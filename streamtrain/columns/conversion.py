"""Values as the type that a model knows, without loss: codes as text or as integers, dates or timestamps, text as numbers."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pyarrow as pa

from streamtrain.columns.times import is_time
from streamtrain.columns.types import is_single, is_text
from streamtrain.storage.arrow import value_type
from streamtrain.storage.casting import cast_exactly, checked_cast, through_codes

__all__ = ["CONVERTED_TEXT_BYTES", "convert", "converted_type"]

CONVERTED_TEXT_BYTES = 40  # of a value that is converted to text: its bytes, and those of an entry
_WHOLE = 2.0**53  # floats hold all integers below


def converted_type(stored: pa.DataType, role: str, known: pa.DataType) -> pa.DataType | None:
    """The type to which values are converted for a column of this role that a model knows as ``known``; None if that could
    lose something, or has no meaning.

    >>> str(converted_type(pa.int32(), "category", pa.string())), str(converted_type(pa.string(), "number", pa.int64()))
    ('string', 'double')
    """
    if not (is_single(stored) and is_single(known)):
        return None
    into = _converted_type(value_type(stored), role, value_type(known))
    if into is not None:
        import_module("pyarrow.compute")  # which casts: its memory is taken before there is a plan
    return into


def _converted_type(stored: pa.DataType, role: str, known: pa.DataType) -> pa.DataType | None:
    t = pa.types
    is_integer = t.is_integer(stored) or (t.is_decimal(stored) and stored.scale <= 0)
    if is_text(known):
        return pa.string() if is_integer or t.is_floating(stored) or t.is_date32(stored) else None
    if is_time(known):
        return known if (is_text(stored) and getattr(known, "tz", None) is None) or _is_like(stored, known) else None
    if role == "number":
        return pa.float64() if is_text(stored) and not t.is_duration(known) else None
    if t.is_integer(known):
        return pa.int64() if t.is_floating(stored) or is_text(stored) else None
    return pa.float64() if t.is_floating(known) and is_integer else None


def _is_like(stored: pa.DataType, known: pa.DataType) -> bool:
    """Whether times of one type can be those of another: in another unit, or dates at midnight."""
    t = pa.types
    if t.is_time(known):
        return bool(t.is_time(stored))
    return bool(is_time(stored) and not t.is_time(stored) and getattr(stored, "tz", None) == getattr(known, "tz", None))


def convert(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """The values as a type that `converted_type` gave. Raises NotHeldError for a value that it does not hold.

    >>> convert(pa.array([7.0, None]), pa.string()).to_pylist(), convert(pa.array(["7"]), pa.int64()).to_pylist()
    (['7', None], [7])
    """
    return through_codes(values, lambda plain: _converted(plain, kind))


def _converted(values: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_floating(values.type) and not pa.types.is_floating(
        kind
    ):  # whole numbers with missing ones among them
        numbers = values.to_numpy(zero_copy_only=False)
        return cast_exactly(cast_exactly(pa.array(numbers, from_pandas=True), pa.int64()), kind)
    if is_text(values.type) and pa.types.is_integer(kind):
        return checked_cast(values, lambda some: _same_written(some, some.cast(kind)))
    if is_text(values.type) and pa.types.is_floating(kind):
        return checked_cast(values, lambda some: _all_held(some.cast(kind)))
    return cast_exactly(values, kind)


def _same_written(texts: pa.Array, numbers: pa.Array) -> pa.Array:
    """The numbers, which must be written as the texts are: 07 is not 7."""
    if not numbers.cast(pa.string()).equals(texts.cast(pa.string())):
        raise pa.ArrowInvalid("a number is written in another way")
    return numbers


def _all_held(numbers: pa.Array) -> pa.Array:
    """The numbers, which must be so small that floats hold all integers."""
    if (np.abs(numbers.drop_null().to_numpy()) >= _WHOLE).any():
        raise pa.ArrowInvalid("an integer is too large")
    return numbers

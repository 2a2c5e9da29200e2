"""Values as another type, without loss: what the other type does not hold is an error that names the first such value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from streamtrain.storage.arrow import valid

__all__ = ["NotHeldError", "cast_exactly", "checked_cast", "require_exact", "through_codes"]

_WHOLE = 2.0**53  # floats hold all integers below
Cast = Callable[[pa.Array], pa.Array]


class NotHeldError(ValueError):
    """A value that a type does not hold. value: the first of them, as a Python object."""

    def __init__(self, value: Any) -> None:
        super().__init__(f"{value!r}")
        self.value = value


def cast_exactly(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """The values as ``kind``, null where they are null. Raises NotHeldError for a value that the type does not hold exactly
    (a decimal as a float is rounded to the nearest).

    >>> cast_exactly(pa.array([1, None]), pa.float64()).to_pylist(), cast_exactly(pa.array([7]), pa.string()).to_pylist()
    ([1.0, None], ['7'])
    """
    if values.type == kind:
        return values
    if pa.types.is_null(values.type):
        return pa.nulls(len(values), kind)
    if isinstance(values, pa.RunEndEncodedArray):
        from pyarrow import compute  # imported on demand: it costs 20 MB

        return cast_exactly(compute.run_end_decode(values), kind)
    if isinstance(values, pa.DictionaryArray):
        return _of_codes(values, kind)
    if isinstance(kind, pa.DictionaryType):
        encoded: pa.Array = cast_exactly(values, kind.value_type).dictionary_encode()
        return encoded if encoded.type == kind else encoded.cast(kind)
    if isinstance(values.type, pa.BaseExtensionType) or isinstance(kind, pa.BaseExtensionType):
        return _extension(values, kind)
    if pa.types.is_struct(values.type) and pa.types.is_struct(kind):
        return _struct(values, kind)
    return checked_cast(values, _cast_to(values.type, kind))


def _of_codes(values: pa.DictionaryArray, kind: pa.DataType) -> pa.Array:
    """Values of a dictionary. Entries that no value uses need not be held."""
    value = kind.value_type if isinstance(kind, pa.DictionaryType) else kind
    try:
        entries = cast_exactly(values.dictionary, value)
    except NotHeldError:
        return cast_exactly(values.dictionary_decode(), kind)
    coded = pa.DictionaryArray.from_arrays(values.indices, entries)
    if not isinstance(kind, pa.DictionaryType):
        return coded.dictionary_decode()
    indices = coded.indices
    indices = (
        indices if indices.type == kind.index_type else checked_cast(indices, lambda some: some.cast(kind.index_type))
    )
    return pa.DictionaryArray.from_arrays(indices, entries, ordered=kind.ordered)


def through_codes(values: pa.Array, convert: Cast) -> pa.Array:
    """The result of a conversion; of a dictionary, each of its entries is converted once. Entries that no value uses need not
    be held."""
    if not isinstance(values, pa.DictionaryArray):
        return convert(values)
    try:
        entries = convert(values.dictionary)
    except NotHeldError:
        return convert(values.dictionary_decode())
    coded = pa.DictionaryArray.from_arrays(values.indices, entries)
    return coded if pa.types.is_string(entries.type) else coded.dictionary_decode()


def _extension(values: pa.Array, kind: pa.DataType) -> pa.Array:
    storage = values.storage if isinstance(values, pa.ExtensionArray) else values
    if not isinstance(kind, pa.BaseExtensionType):
        return cast_exactly(storage, kind)
    return pa.ExtensionArray.from_storage(kind, cast_exactly(storage, kind.storage_type))


def _struct(values: pa.StructArray, kind: pa.StructType) -> pa.Array:
    inner = [
        pa.nulls(len(values), field.type) if index < 0 else cast_exactly(values.field(index), field.type)
        for field, index in ((field, values.type.get_field_index(field.name)) for field in kind)
    ]
    mask = None if not values.null_count else pa.array(~valid(values))
    return pa.StructArray.from_arrays(inner, fields=list(kind), mask=mask)


def _cast_to(stored: pa.DataType, kind: pa.DataType) -> Cast:
    """How values of one plain type become another."""
    t = pa.types
    if t.is_integer(stored) and t.is_floating(kind):
        return lambda some: _floats(some, kind)
    if t.is_decimal(stored) and t.is_floating(kind):
        return lambda some: some.cast(pa.string()).cast(kind)  # of decimals, pyarrow makes a float that is near
    if t.is_boolean(stored) and t.is_decimal(kind):
        return lambda some: some.cast(pa.int8()).cast(kind)
    if t.is_temporal(stored) and t.is_date32(kind):
        return lambda some: _days(some)
    return lambda some: some.cast(kind)


def _floats(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Integers as floats, each exactly."""
    try:
        return values.cast(kind)
    except pa.ArrowInvalid:  # integers beyond 2^53 may be exact too
        floats = values.cast(kind, safe=False)
        exact = all(f is None or int(f) == i for f, i in zip(floats.to_pylist(), values.to_pylist(), strict=True))
        if not exact:
            raise
        return floats


def require_exact(numbers: pa.Array) -> None:
    """Raise NotHeldError for a float that may be another integer than the one that was written.

    >>> require_exact(pa.array([1.0, 2.5, None]))
    """
    found = numbers.to_numpy(zero_copy_only=False)
    large = found[np.abs(found) >= _WHOLE]
    if len(large):
        raise NotHeldError(int(large[0]) if np.isfinite(large[0]) else float(large[0]))


def _days(values: pa.Array) -> pa.Array:
    """Times at midnight as dates."""
    days = values.cast(pa.date32())
    if not days.cast(values.type).equals(values):
        raise pa.ArrowInvalid("a time of day is no date")
    return days


def checked_cast(values: pa.Array, cast: Cast) -> pa.Array:
    """The result of a cast, which raises an error of pyarrow where a value does not fit. Raises NotHeldError, which names the
    first such value."""
    try:
        return cast(values)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        first, end = 0, len(values)  # the first value that fails is in values[first:end]
        while end - first > 1:
            middle = (first + end) // 2
            try:
                cast(values.slice(first, middle - first))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                end = middle
            else:
                first = middle
        raise NotHeldError(values[first].as_py()) from None

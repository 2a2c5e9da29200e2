"""From Arrow columns of numbers to numpy: every type of number, nulls as NaN, no copy where none is needed.

Each row is converted by itself, so the result does not depend on how a column is cut into record batches. Only numpy is used:
`pyarrow.compute` costs 20 MB, and `to_numpy` converts integers with nulls to float64, which rounds large ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.columns.decimals import minus, scaled, to_float64, words_of
from streamtrain.columns.differences import Shift, difference, simple
from streamtrain.errors import ColumnError
from streamtrain.kernels.hashing import floats

__all__ = ["as_numbers", "first_number", "less", "numbers_in", "offset_of", "to_float32", "unpacked"]

PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}

_LEAST_FAR = 65_536  # numbers up to this one are kept well enough by float32, but for those of many digits
_FEW_DIGITS = 8_192  # a median of this many spreads leaves differences fewer than 11 of the 24 bits of float32

Valid = NDArray[np.bool_] | None  # True where a number is not null; None if no number is null


def numbers_in(kind: pa.DataType) -> int:
    """How many numbers one row of a column holds: the entries of a tensor or of nested lists of fixed size, otherwise 1.

    >>> numbers_in(pa.fixed_shape_tensor(pa.uint8(), [28, 28])), numbers_in(pa.list_(pa.float32(), 3)), numbers_in(pa.int64())
    (784, 3, 1)
    """
    if isinstance(kind, pa.BaseExtensionType):
        return numbers_in(kind.storage_type)
    if isinstance(kind, pa.FixedSizeListType):
        return int(kind.list_size) * numbers_in(kind.value_type)
    if isinstance(kind, (pa.DictionaryType, pa.RunEndEncodedType)):
        return numbers_in(kind.value_type)
    return 1


def to_float32(values: pa.Array, offset: Shift | tuple[Shift, ...] = 0) -> NDArray[np.float32]:
    """An Arrow array of numbers as float32; shape (rows,), or (rows, entries) for tensors and lists of fixed size.

    Takes integers, floats, booleans, decimals, durations (in seconds) and the null type; also in a dictionary, run-end encoded,
    in fixed-shape tensors and in nested lists of fixed size (entries in stored order). Dates, times and timestamps give the
    integers that Arrow holds; `streamtrain.columns.times` turns these into ages and times of day.
    offset: subtracted before rounding to float32, exactly for integers, decimals and durations; one for each entry, or one for
    all. Nulls are NaN; a null list is a row of NaN. A number too large for float32 is infinite.
    float32 without nulls is the Arrow array's own memory, read-only. Raises ColumnError for types that are not numbers.

    >>> to_float32(pa.array([2**60 + 1, None, 2**60 - 3]), 2**60).tolist()
    [1.0, nan, -3.0]
    >>> to_float32(pa.array([[1, None], None], pa.list_(pa.int8(), 2))).tolist()
    [[1.0, nan], [nan, nan]]
    """
    if not offset and values.null_count and isinstance(values, pa.NumericArray):
        converted = floats(_plain(values), np.frombuffer(values.buffers()[0], np.uint8), values.offset)
        if converted is not None:
            return converted
    if not isinstance(offset, tuple):
        return _with_nan(*less(values, offset))
    numbers, valid = unpacked(values)
    rows = difference(numbers, 0)
    rows = rows if rows.flags.writeable else rows.copy()
    for entry in [entry for entry, its in enumerate(offset) if its]:
        rows[:, entry] = difference(np.ascontiguousarray(numbers[:, entry]), offset[entry])
    return _with_nan(rows, valid)


def less(values: pa.Array, offset: Shift, dtype: Any = np.float32) -> tuple[NDArray[Any], Valid]:
    """The numbers of an Arrow array minus an offset, and which of them are not null; otherwise as `unpacked`."""
    if not offset:
        numbers, valid = unpacked(values)
        return difference(numbers, 0, dtype), valid
    return unpacked(values, lambda plain: _less(plain, offset, dtype))


def _less(values: pa.Array, offset: Shift, dtype: Any) -> NDArray[Any]:
    if pa.types.is_decimal(values.type):
        with np.errstate(all="ignore"):
            return minus(words_of(values), values.type.scale, Fraction(offset)).astype(dtype)
    if pa.types.is_duration(values.type):
        a_second = PER_SECOND[values.type.unit]
        ticks = difference(_stored(values, np.int64), simple(Fraction(offset) * a_second), np.float64)
        return (ticks / a_second).astype(dtype)
    return difference(_plain(values), offset, dtype)


def as_numbers(values: pa.Array) -> NDArray[Any]:
    """An Arrow array of numbers in its own dtype, float64 for decimals and durations; the shape is that of `to_float32`.

    If possible this is a read-only view. Nulls are NaN; integers and booleans with nulls become float64.

    >>> as_numbers(pa.array([1, 2**63], pa.uint64())).tolist()
    [1, 9223372036854775808]
    """
    numbers, valid = unpacked(values)
    return _with_nan(numbers if valid is None or numbers.dtype.kind == "f" else numbers.astype(np.float64), valid)


def offset_of(values: pa.Array) -> Shift | tuple[Shift, ...]:
    """The offset to subtract from numbers like these before they become float32: their median if it is far larger than their
    spread (dates as numbers, large ids, measurements of many digits), otherwise 0. An int for integers and whole decimals, a
    Decimal for others. One for each entry of tensors and lists, if one of these is not 0.

    >>> offset_of(pa.array([10**12, 10**12 + 5, 10**12 + 9])), offset_of(pa.array([1, 10**12]))
    (1000000000005, 0.0)
    """
    entries = numbers_in(values.type)
    numbers, valid = unpacked(values, _exact) if entries == 1 else unpacked(values)
    if entries == 1:
        return _offset_of(numbers if valid is None else numbers[valid])
    each = [
        _offset_of(column if valid is None else column[valid[:, entry]])
        for entry, column in enumerate(np.ascontiguousarray(numbers.T))
    ]
    return tuple(each) if any(each) else 0.0


def first_number(values: pa.Array) -> int | float:
    """The first number of an array that is not empty and has no nulls; whole for a decimal or a duration.

    >>> first_number(pa.array([2**60 + 1]))
    1152921504606846977
    """
    number = unpacked(values.slice(0, 1), _exact)[0][0]
    return math.floor(number) if isinstance(number, Fraction) else number.item()


def _exact(values: pa.Array) -> NDArray[Any]:
    """As `_plain`, but decimals and durations are objects: the numbers themselves, and seconds."""
    if pa.types.is_decimal(values.type):
        return np.array([*map(Fraction, scaled(values)), None], object)[:-1]
    if pa.types.is_duration(values.type):
        a_second = PER_SECOND[values.type.unit]
        return np.array([*(Fraction(n, a_second) for n in _stored(values, np.int64).tolist()), None], object)[:-1]
    return _plain(values)


def _offset_of(numbers: NDArray[Any]) -> Shift:
    is_exact = numbers.dtype.kind == "O"
    ordered = np.sort(numbers if is_exact else numbers[np.isfinite(numbers)])
    if not len(ordered):
        return 0.0
    # as numbers of Python, so that integers stay exact
    picked = [ordered[0], *(ordered[len(ordered) * part // 10] for part in (1, 5, 9)), ordered[-1]]
    first, low, middle, high, last = picked if is_exact else [number.item() for number in picked]
    spread = high - low or last - first
    is_far = abs(middle) > max(16 * (high - low), _LEAST_FAR)
    if not is_far and numbers.dtype.kind not in "iub":
        with np.errstate(over="ignore"):  # too large for float32: --infinities answers that
            rounded = ordered.astype(np.float64).astype(np.float32)
        is_far = 0 < _FEW_DIGITS * spread < abs(middle) and bool((rounded != ordered).any())
    return float(0) if not is_far else simple(middle)


def unpacked(values: pa.Array, read: Callable[[pa.Array], NDArray[Any]] | None = None) -> tuple[NDArray[Any], Valid]:
    """The numbers of an Arrow array, and which of them are not null (None if all are); each of shape (rows,) or (rows,
    entries). The number at a null is arbitrary. Durations are in seconds, dates and timestamps Arrow's integers. read: turns
    an array that is neither encoded nor nested into numbers. Raises ColumnError for types that are not numbers."""
    read = _plain if read is None else read
    if isinstance(values, pa.ExtensionArray):
        return unpacked(values.storage, read)
    if isinstance(values, pa.FixedSizeListArray):
        size, shape = values.type.list_size, (len(values), numbers_in(values.type))
        numbers, valid = unpacked(values.values.slice(values.offset * size, len(values) * size), read)
        given = _validity(values)
        spread = None if given is None else np.broadcast_to(given[:, None], shape)
        return numbers.reshape(shape), _both(None if valid is None else valid.reshape(shape), spread)
    if isinstance(values, pa.DictionaryArray):
        return _from_dictionary(values, read)
    if isinstance(values, pa.RunEndEncodedArray):
        return _from_runs(values, read)
    return read(values), _validity(values)


def _from_dictionary(
    values: pa.DictionaryArray, read: Callable[[pa.Array], NDArray[Any]]
) -> tuple[NDArray[Any], Valid]:
    numbers, valid = unpacked(values.dictionary, read)
    indices, given = unpacked(values.indices)
    if not len(numbers):  # every row is null
        numbers = np.zeros((1, *numbers.shape[1:]), numbers.dtype)
        valid = None
    if given is not None:
        indices = np.where(given, indices, 0)
        given = given.reshape(-1, *[1] * (numbers.ndim - 1))
    taken = numbers[indices]
    spread = None if given is None else np.broadcast_to(given, taken.shape)
    return taken, _both(None if valid is None else valid[indices], spread)


def _from_runs(values: pa.RunEndEncodedArray, read: Callable[[pa.Array], NDArray[Any]]) -> tuple[NDArray[Any], Valid]:
    start, end = values.offset, values.offset + len(values)
    ends, _ = unpacked(values.run_ends)
    first, last = np.searchsorted(ends, [start, end - 1], "right").tolist() if len(values) else (0, -1)
    rows = np.diff(np.minimum(ends[first : last + 1].astype(np.int64), end), prepend=start)
    numbers, valid = unpacked(values.values.slice(first, last + 1 - first), read)
    return np.repeat(numbers, rows, 0), None if valid is None else np.repeat(valid, rows, 0)


def _plain(values: pa.Array) -> NDArray[Any]:
    kind, t = values.type, pa.types
    if t.is_null(kind):
        return np.zeros(len(values), np.float32)
    if t.is_boolean(kind):
        return _bits(values.buffers()[1], values.offset, len(values))
    if t.is_decimal(kind):
        return to_float64(words_of(values), kind.scale)
    if t.is_duration(kind):
        return _stored(values, np.int64) / PER_SECOND[kind.unit]
    if t.is_date(kind) or t.is_time(kind) or t.is_timestamp(kind):
        return _stored(values, np.int32 if kind.bit_width == 32 else np.int64)
    if t.is_integer(kind) or t.is_floating(kind):
        return _stored(values, kind.to_pandas_dtype())
    raise ColumnError(f"{kind} is not a type of numbers: use integers, floats, booleans, decimals or durations")


def _stored(values: pa.Array, dtype: Any) -> NDArray[Any]:
    """The contents of the values' buffer, read-only; shape (rows,)."""
    data = values.buffers()[1]
    if not len(values) or data is None:
        return np.zeros(len(values), dtype)
    numbers: NDArray[Any] = np.frombuffer(data, dtype, len(values), values.offset * np.dtype(dtype).itemsize)
    numbers.flags.writeable = False
    return numbers


def _validity(values: pa.Array) -> Valid:
    if not values.null_count:
        return None
    if pa.types.is_null(values.type):
        return np.zeros(len(values), np.bool_)
    return _bits(values.buffers()[0], values.offset, len(values))


def _bits(buffer: pa.Buffer, offset: int, rows: int) -> NDArray[np.bool_]:
    if not rows:
        return np.zeros(0, np.bool_)
    start, ahead = divmod(offset, 8)
    used = np.frombuffer(buffer, np.uint8, (ahead + rows + 7) // 8, start)
    return np.unpackbits(used, count=ahead + rows, bitorder="little")[ahead:].view(np.bool_)


def _both(one: Valid, other: Valid) -> Valid:
    return other if one is None else one if other is None else one & other


def _with_nan(numbers: NDArray[Any], valid: Valid) -> NDArray[Any]:
    if valid is None:
        return numbers
    if not numbers.flags.writeable:
        numbers = numbers.copy()
    np.copyto(numbers, np.nan, where=~valid)
    return numbers

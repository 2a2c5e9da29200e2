"""From Arrow columns of numbers to numpy: every type of number, nulls as NaN, no copy where none is needed.

Each row is converted by itself, so the result does not depend on how a column is cut into record batches. Only numpy is used:
`pyarrow.compute` costs 20 MB, and `to_numpy` converts integers with nulls to float64, which rounds large ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.errors import ColumnError
from streamtrain.kernels.hashing import floats

__all__ = ["as_numbers", "difference", "numbers_in", "offset_of", "to_float32", "unpacked"]

PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}

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


def to_float32(values: pa.Array, offset: float = 0) -> NDArray[np.float32]:
    """An Arrow array of numbers as float32; shape (rows,), or (rows, entries) for tensors and lists of fixed size.

    Takes integers, floats, booleans, decimals, durations (in seconds) and the null type; also in a dictionary, run-end encoded,
    in fixed-shape tensors and in nested lists of fixed size (entries in stored order). Dates, times and timestamps give the
    integers that Arrow holds; `streamtrain.columns.times` turns these into ages and times of day.
    offset: subtracted before rounding to float32. For 64-bit integers the difference is exact if it is an int.
    Nulls are NaN; a null list is a row of NaN. A number too large for float32 is infinite.
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
    numbers, valid = unpacked(values)
    return _with_nan(difference(numbers, offset), valid)


def as_numbers(values: pa.Array) -> NDArray[Any]:
    """An Arrow array of numbers in its own dtype, float64 for decimals and durations; the shape is that of `to_float32`.

    If possible this is a read-only view. Nulls are NaN; integers and booleans with nulls become float64.

    >>> as_numbers(pa.array([1, 2**63], pa.uint64())).tolist()
    [1, 9223372036854775808]
    """
    numbers, valid = unpacked(values)
    return _with_nan(numbers if valid is None or numbers.dtype.kind == "f" else numbers.astype(np.float64), valid)


def offset_of(numbers: NDArray[Any]) -> float:
    """The offset to subtract from numbers like these before they become float32: their median if it is far larger than their
    spread (dates as numbers, large ids), otherwise 0. An int for integers. numbers: shape (rows,).

    >>> offset_of(np.array([10**12, 10**12 + 5, 10**12 + 9])), offset_of(np.array([1, 10**12]))
    (1000000000005, 0.0)
    """
    ordered = np.sort(numbers[np.isfinite(numbers)])
    if not len(ordered):
        return 0.0
    # as numbers of Python, so that integers stay exact
    low, middle, high = (ordered[len(ordered) * part // 10].item() for part in (1, 5, 9))
    return float(0) if abs(middle) <= max(16 * (high - low), 65_536) else middle


def difference(numbers: NDArray[Any], offset: float, dtype: Any = np.float32) -> NDArray[Any]:
    """``numbers - offset``, rounded to ``dtype``; same shape. The difference is exact for 64-bit integers and an int offset in
    their range; otherwise it is computed in float64.

    >>> difference(np.array([-(2**63), 2**63 - 1]), 2**63 - 1, np.float64).tolist()
    [-1.8446744073709552e+19, 0.0]
    """
    with np.errstate(all="ignore"):  # too large becomes infinite, which is noticed later
        if not offset or not numbers.size:
            return numbers.astype(dtype, copy=False)
        if not (isinstance(offset, int) and numbers.dtype in (np.int64, np.uint64) and _holds(numbers.dtype, offset)):
            return (numbers.astype(np.float64) - float(offset)).astype(dtype, copy=False)
        wide = numbers.view(np.uint64) - np.uint64(offset % 2**64)  # modulo 2^64: correct if int64 can hold it
        if _holds(np.int64, int(numbers.min()) - offset) and _holds(np.int64, int(numbers.max()) - offset):
            return wide.view(np.int64).astype(dtype)
        below = numbers < offset
        size = np.where(below, np.uint64(0) - wide, wide).astype(dtype)
        return np.where(below, -size, size)


def unpacked(values: pa.Array) -> tuple[NDArray[Any], Valid]:
    """The numbers of an Arrow array, and which of them are not null (None if all are); each of shape (rows,) or (rows,
    entries). The number at a null is arbitrary. Durations are in seconds, dates and timestamps Arrow's integers. Raises
    ColumnError for types that are not numbers."""
    if isinstance(values, pa.ExtensionArray):
        return unpacked(values.storage)
    if isinstance(values, pa.FixedSizeListArray):
        size, shape = values.type.list_size, (len(values), numbers_in(values.type))
        numbers, valid = unpacked(values.values.slice(values.offset * size, len(values) * size))
        given = _validity(values)
        spread = None if given is None else np.broadcast_to(given[:, None], shape)
        return numbers.reshape(shape), _both(None if valid is None else valid.reshape(shape), spread)
    if isinstance(values, pa.DictionaryArray):
        return _from_dictionary(values)
    if isinstance(values, pa.RunEndEncodedArray):
        return _from_runs(values)
    return _plain(values), _validity(values)


def _from_dictionary(values: pa.DictionaryArray) -> tuple[NDArray[Any], Valid]:
    numbers, valid = unpacked(values.dictionary)
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


def _from_runs(values: pa.RunEndEncodedArray) -> tuple[NDArray[Any], Valid]:
    start, end = values.offset, values.offset + len(values)
    ends, _ = unpacked(values.run_ends)
    first, last = np.searchsorted(ends, [start, end - 1], "right").tolist() if len(values) else (0, -1)
    rows = np.diff(np.minimum(ends[first : last + 1].astype(np.int64), end), prepend=start)
    numbers, valid = unpacked(values.values.slice(first, last + 1 - first))
    return np.repeat(numbers, rows, 0), None if valid is None else np.repeat(valid, rows, 0)


def _plain(values: pa.Array) -> NDArray[Any]:
    kind, t = values.type, pa.types
    if t.is_null(kind):
        return np.zeros(len(values), np.float32)
    if t.is_boolean(kind):
        return _bits(values.buffers()[1], values.offset, len(values))
    if t.is_decimal(kind):
        return _decimals(values)
    if t.is_duration(kind):
        return _stored(values, np.int64) / PER_SECOND[kind.unit]
    if t.is_date(kind) or t.is_time(kind) or t.is_timestamp(kind):
        return _stored(values, np.int32 if kind.bit_width == 32 else np.int64)
    if t.is_integer(kind) or t.is_floating(kind):
        return _stored(values, kind.to_pandas_dtype())
    raise ColumnError(f"{kind} is not a type of numbers: use integers, floats, booleans, decimals or durations")


def _decimals(values: pa.Array) -> NDArray[np.float64]:
    """Decimals are stored as integers of 32 bits or of 1, 2 or 4 words of 64 bits, in units of 10^-scale."""
    kind = values.type
    if kind.bit_width <= 64:
        numbers = _stored(values, np.int32 if kind.bit_width == 32 else np.int64).astype(np.float64)
    else:
        shape = (len(values), kind.bit_width // 64)
        words = _stored(values, np.uint64, shape[1]).reshape(shape)
        below = words[:, -1] >= np.uint64(2**63)
        # -n is the complement of n plus 1: computed this way, nothing cancels out in float64
        sizes = words ^ np.where(below, np.uint64(2**64 - 1), np.uint64(0))[:, None]
        numbers = sizes[:, -1].astype(np.float64)
        for word in range(sizes.shape[1] - 2, -1, -1):
            numbers = numbers * 2.0**64 + sizes[:, word]
        numbers = np.where(below, -(numbers + 1), numbers)
    with np.errstate(all="ignore"):
        return numbers / float(f"1e{kind.scale}")


def _stored(values: pa.Array, dtype: Any, each: int = 1) -> NDArray[Any]:
    """The contents of the values' buffer, read-only; shape (rows * each,)."""
    size, data = np.dtype(dtype).itemsize * each, values.buffers()[1]
    if not len(values) or data is None:
        return np.zeros(len(values) * each, dtype)
    numbers: NDArray[Any] = np.frombuffer(data, dtype, len(values) * each, values.offset * size)
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


def _holds(dtype: Any, number: int) -> bool:
    limits = np.iinfo(dtype)
    return bool(limits.min <= number <= limits.max)

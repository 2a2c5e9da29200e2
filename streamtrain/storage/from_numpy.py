"""numpy arrays as Arrow columns: one dimension becomes a plain array, more a fixed-shape tensor, without a copy where
the bytes allow it. Shared by the readers whose data are arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.errors import ColumnError

__all__ = ["arrow_type", "row_bits", "to_arrow"]

_ARROW_UNITS = ("s", "ms", "us", "ns")
#: a variable-length string in Arrow is its text and a 4-byte offset: nobody knows the text before it is read
_GUESSED_TEXT_BYTES = 28


def arrow_type(name: str, dtype: np.dtype[Any], row_shape: tuple[int, ...]) -> Any:
    """The ``pyarrow.DataType`` of column ``name`` whose rows have ``row_shape``; ColumnError if there is none.

    Booleans with more than one dimension become uint8 tensors: Arrow packs bits, and tensors of bits cannot be viewed.

    >>> arrow_type("y", np.dtype(">i4"), ()), arrow_type("X", np.dtype("f4"), (40,)).shape
    (DataType(int32), [40])
    """
    kind = dtype.kind
    if row_shape and (kind not in "biuf" or dtype.itemsize > 8 or 0 in row_shape):
        raise ColumnError(_unusable(name, dtype, row_shape))
    if kind == "b":
        return pa.fixed_shape_tensor(pa.uint8(), row_shape) if row_shape else pa.bool_()
    if kind in "iuf" and dtype.itemsize <= 8:
        value = pa.from_numpy_dtype(dtype.newbyteorder("="))
        return pa.fixed_shape_tensor(value, row_shape) if row_shape else value
    if kind in "UST":
        return pa.string()
    if kind in "Mm" and np.datetime_data(dtype)[0] in (
        "h",
        "m",
        "D",
        "W",
        *_ARROW_UNITS,
        *("YM" if kind == "M" else ""),
    ):
        return pa.timestamp(_time_unit(dtype)) if kind == "M" else pa.duration(_time_unit(dtype))
    raise ColumnError(_unusable(name, dtype, row_shape))


def _unusable(name: str, dtype: np.dtype[Any], row_shape: tuple[int, ...]) -> str:
    rows = f"rows of shape {row_shape} and " if row_shape else ""
    return (
        f"column {name!r} has {rows}type {dtype}, which cannot be read: numbers and booleans can in any shape, "
        f"strings and times in one dimension; leave the column out, or convert it"
    )


def _time_unit(dtype: np.dtype[Any]) -> str:
    """Arrow has no days, hours or multiples such as 10 ms: seconds hold the coarse ones exactly."""
    unit = np.datetime_data(dtype)[0]
    return unit if unit in _ARROW_UNITS else "s"


def row_bits(dtype: np.dtype[Any], row_shape: tuple[int, ...]) -> int:
    """Bits of one row once it is Arrow; a guess for strings."""
    if dtype.kind == "b" and not row_shape:
        return 1
    if dtype.kind == "T":
        return 8 * (4 + _GUESSED_TEXT_BYTES)
    if dtype.kind in "US":
        return 8 * (4 + dtype.itemsize // (4 if dtype.kind == "U" else 1))
    return 8 * dtype.itemsize * int(np.prod(row_shape, dtype=np.int64))


def to_arrow(name: str, values: NDArray[Any]) -> Any:
    """``values``, shape (rows, ...), as a ``pyarrow.Array``; no copy where contiguous and of native byte order.

    >>> to_arrow("X", np.zeros((3, 2), np.float32)).to_numpy_ndarray().shape
    (3, 2)
    """
    kind, row_shape = values.dtype.kind, values.shape[1:]
    column = arrow_type(name, values.dtype, row_shape)
    if kind in "ST":
        return _text(name, values)
    if kind in "Mm":
        values = values.astype(f"{kind}8[{_time_unit(values.dtype)}]", copy=False)
    elif kind == "b" and row_shape:
        values = values.view(np.uint8)
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    values = np.require(values, requirements=["C", "A"])  # a view into a shard may stand at an odd address
    if not row_shape:
        return pa.array(values, column)
    flat = pa.array(values.reshape(-1), column.value_type)
    entries = int(np.prod(row_shape, dtype=np.int64))
    return pa.ExtensionArray.from_storage(column, pa.FixedSizeListArray.from_arrays(flat, entries))


def _text(name: str, values: NDArray[Any]) -> Any:
    if values.dtype.kind == "T":
        return pa.array(values.tolist(), pa.string())
    # bytes are text if they are UTF-8; `cast` would check that too, but imports 30 MB of compute kernels
    text = pa.array(values, pa.binary()).view(pa.string())
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        raise ColumnError(f"column {name!r} holds bytes that are not UTF-8 text; leave it out, or convert it") from None
    return text

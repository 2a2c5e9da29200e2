"""Convert numpy arrays to Arrow columns, without a copy where possible. An array of one dimension becomes a plain column, one
of more dimensions a column of fixed-shape tensors. Used by the readers of Zarr and of data in memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.errors import ColumnError

__all__ = ["arrow_type", "row_bits", "to_arrow"]

_ARROW_UNITS = ("s", "ms", "us", "ns")
#: the guessed length of a string of variable length; Arrow adds a 4-byte offset
_GUESSED_TEXT_BYTES = 28


def arrow_type(name: str, dtype: np.dtype[Any], row_shape: tuple[int, ...]) -> Any:
    """The Arrow type of a column of numpy ``dtype`` whose rows have ``row_shape``. Raises ColumnError if there is none.

    Boolean tensors become uint8 tensors, because Arrow packs booleans into bits, which numpy cannot view.

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
        f"column {name!r} has {rows}type {dtype}, which cannot be read: give numbers or booleans of any shape, strings or "
        f"times in one dimension, or leave the column out"
    )


def _time_unit(dtype: np.dtype[Any]) -> str:
    """The Arrow unit of a numpy time: seconds for days, hours and other units that Arrow does not have."""
    unit = np.datetime_data(dtype)[0]
    return unit if unit in _ARROW_UNITS else "s"


def row_bits(dtype: np.dtype[Any], row_shape: tuple[int, ...]) -> int:
    """The bits of one row in Arrow; a guess for strings of variable length."""
    if dtype.kind == "b" and not row_shape:
        return 1
    if dtype.kind == "T":
        return 8 * (4 + _GUESSED_TEXT_BYTES)
    if dtype.kind in "US":
        return 8 * (4 + dtype.itemsize // (4 if dtype.kind == "U" else 1))
    return 8 * dtype.itemsize * int(np.prod(row_shape, dtype=np.int64))


def to_arrow(name: str, values: NDArray[Any]) -> Any:
    """Convert ``values``, shape (rows, ...), to a ``pyarrow.Array``. Contiguous values of native byte order are not copied.

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
    values = np.require(values, requirements=["C", "A"])  # a view into a shard may be unaligned
    if not row_shape:
        return pa.array(values, column)
    flat = pa.array(values.reshape(-1), column.value_type)
    entries = int(np.prod(row_shape, dtype=np.int64))
    return pa.ExtensionArray.from_storage(column, pa.FixedSizeListArray.from_arrays(flat, entries))


def _text(name: str, values: NDArray[Any]) -> Any:
    if values.dtype.kind == "T":
        return pa.array(values.tolist(), pa.string())
    # `cast` would check the UTF-8 as well, but imports 30 MB of compute kernels
    text = pa.array(values, pa.binary()).view(pa.string())
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        raise ColumnError(
            f"column {name!r} contains bytes that are not UTF-8 text: convert it, or leave it out"
        ) from None
    return text

"""From Arrow to the arrays of a Zarr store: which columns can be arrays, and their values as numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import zarr
from numpy.typing import NDArray

from streamtrain.errors import BadValueError, ColumnError
from streamtrain.storage.arrow import valid
from streamtrain.storage.zarr.opening import open_store
from streamtrain.storage.zarr.writer import Notes
from streamtrain.tools.rechunk.dictionaries import integers, occurring

__all__ = ["array_of", "as_numpy", "existing"]

_TEXT = np.dtypes.StringDType()
_REMEDY = "write Parquet (--format parquet), or convert it"


def array_of(field: pa.Field) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape of a row and type of the array that holds a column; ColumnError where there is none.

    >>> array_of(pa.field("X", pa.fixed_shape_tensor(pa.float32(), [2, 3]))), array_of(pa.field("y", pa.date32()))
    (((2, 3), dtype('float32')), ((), dtype('<M8[D]')))
    """
    kind, shape = field.type, _shape(field.type)
    dtype = _dtype(kind if shape is None else kind.value_type)
    if dtype is None or (shape is not None and (dtype.kind not in "biuf" or 0 in shape)):
        raise ColumnError(f"column {field.name!r} is {kind}, which Zarr cannot hold: {_REMEDY}")
    return shape or (), dtype


def _shape(kind: pa.DataType) -> tuple[int, ...] | None:
    """Of a row that holds several values."""
    if isinstance(kind, pa.FixedShapeTensorType) and list(kind.permutation or []) == sorted(kind.permutation or []):
        return tuple(kind.shape)
    return (int(kind.list_size),) if isinstance(kind, pa.FixedSizeListType) else None


def _dtype(kind: pa.DataType) -> np.dtype[Any] | None:
    t = pa.types
    text = kind.value_type if isinstance(kind, pa.DictionaryType) else kind
    found: Any = None
    if t.is_integer(kind) or t.is_floating(kind) or t.is_boolean(kind):
        found = kind.to_pandas_dtype()
    elif (t.is_timestamp(kind) and kind.tz is None) or t.is_duration(kind):
        found = f"{'M' if t.is_timestamp(kind) else 'm'}8[{kind.unit}]"
    elif t.is_date32(kind):
        found = "M8[D]"
    elif t.is_string(text) or t.is_large_string(text):
        found = _TEXT
    return None if found is None else np.dtype(found)


def existing(path: Path) -> tuple[dict[str, tuple[tuple[int, ...], np.dtype[Any]]], dict[str, Notes]]:
    """The arrays of a store as they are, which Arrow does not tell of all (text of fixed length, days), and what is
    noted with them and with their groups."""
    opened = open_store(path)
    columns = {name: (column.shape[1:], column.dtype) for name, column in opened.columns.items()}
    notes = {name: _notes(array) for name, array in opened.arrays.items()}
    for name, column in opened.columns.items():
        parts = column.path.split("/")[:-1] if column.path else None  # a store that is one array has no group
        for at in [] if parts is None else ["/".join(parts[:i]) for i in range(len(parts) + 1)]:
            if at not in notes:
                group = zarr.open_group(opened.arrays[name].store, path=at, mode="r")
                notes[at] = Notes(dict(group.attrs))
    return columns, notes


def _notes(array: Any) -> Notes:
    attributes = dict(array.attrs)
    names = getattr(array.metadata, "dimension_names", None) or attributes.get("_ARRAY_DIMENSIONS")
    return Notes(attributes, tuple(names) if names and len(names) == array.ndim else None, array.fill_value)


def as_numpy(name: str, values: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """A column as an array of shape (rows, *shape). A null is NaT among times; elsewhere it is a BadValueError."""
    coded = isinstance(values, pa.DictionaryArray)
    if dtype.kind not in "Mm" and (values.null_count or (coded and values.dictionary.null_count)):
        raise BadValueError(f"column {name!r} holds a null, which Zarr cannot: fill it first, or write Parquet")
    if coded:  # by a dictionary that may hold far more than occurs in these rows
        codes, occurring_texts = occurring(integers(values.indices), valid(values), values.dictionary)
        return np.asarray(_texts(occurring_texts, dtype)[codes])
    if dtype.kind in "UST":
        return _texts(values, dtype)
    if shape:
        stored = values.storage if isinstance(values, pa.ExtensionArray) else values
        return as_numpy(name, stored.flatten(), (), dtype).reshape(len(values), *shape)
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype)


def _texts(values: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    texts = values.to_pylist()
    return np.array([text.encode() for text in texts] if dtype.kind == "S" else texts, dtype)

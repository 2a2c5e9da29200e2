"""From Arrow to the arrays of a Zarr store: which columns can be arrays, and their values as numpy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.errors import BadValueError, ColumnError
from streamtrain.storage.arrow import valid
from streamtrain.storage.zarr import ZarrReader
from streamtrain.storage.zarr.cf import CfDecoder
from streamtrain.storage.zarr.files import node_at
from streamtrain.storage.zarr.writer import Notes
from streamtrain.tools.rechunk.dictionaries import integers, occurring

__all__ = ["array_of", "as_numpy", "existing"]

_TEXT = np.dtypes.StringDType()
#: what makes a group a data frame or AnnData; a copy as plain arrays is neither
_FRAME_ATTRIBUTES = frozenset(("encoding-type", "encoding-version", "column-order", "_index"))
_REMEDY = "write Parquet (--format parquet), or convert it"


def array_of(field: pa.Field) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return the shape of a row and the dtype of the array for a column. Raises ColumnError where there is none.

    >>> array_of(pa.field("X", pa.fixed_shape_tensor(pa.float32(), [2, 3]))), array_of(pa.field("y", pa.date32()))
    (((2, 3), dtype('float32')), ((), dtype('<M8[D]')))
    """
    kind, shape = field.type, _shape(field.type)
    dtype = _dtype(kind if shape is None else kind.value_type)
    if dtype is None or (shape is not None and (dtype.kind not in "biuf" or 0 in shape)):
        raise ColumnError(f"column {field.name!r} is {kind}, which Zarr cannot hold: {_REMEDY}")
    return shape or (), dtype


def _shape(kind: pa.DataType) -> tuple[int, ...] | None:
    """The shape of a row that has several values; None for other types."""
    if isinstance(kind, pa.FixedShapeTensorType) and list(kind.permutation or []) == sorted(kind.permutation or []):
        return tuple(kind.shape)
    return (int(kind.list_size),) if isinstance(kind, pa.FixedSizeListType) else None


def _dtype(kind: pa.DataType) -> np.dtype[Any] | None:
    t = pa.types
    text = kind.value_type if isinstance(kind, pa.DictionaryType) else kind
    dtype: Any = None
    if t.is_integer(kind) or t.is_floating(kind) or t.is_boolean(kind):
        dtype = kind.to_pandas_dtype()
    elif (t.is_timestamp(kind) and kind.tz is None) or t.is_duration(kind):
        dtype = f"{'M' if t.is_timestamp(kind) else 'm'}8[{kind.unit}]"
    elif t.is_date32(kind):
        dtype = "M8[D]"
    elif t.is_string(text) or t.is_large_string(text):
        dtype = _TEXT
    return None if dtype is None else np.dtype(dtype)


def existing(reader: ZarrReader) -> tuple[dict[str, tuple[tuple[int, ...], np.dtype[Any]]], dict[str, Notes]]:
    """Return the shapes and dtypes of the columns of a store, some of which Arrow cannot express (text of fixed length, days),
    and the attributes of arrays and groups. Packed values are written as they are read, without what says how they are packed.
    """
    opened, columns, notes = reader.opened, {}, {}
    for field in reader.schema:
        name, column = field.name, opened.columns[field.name]
        array = None if column.csr is not None else opened.values.arrays[column.arrays[0].path]
        if column.decoder is None and column.csr is None:
            columns[name] = (column.arrays[0].shape[1:], column.arrays[0].dtype)
            notes[name] = _notes(array)
        elif isinstance(column.decoder, CfDecoder):
            columns[name] = (column.decoder.row_shape, column.decoder.written_dtype)
            notes[name] = _unpacked(_notes(array), column.decoder)
        else:
            columns[name] = array_of(field)
        if not column.stored[0].path:
            continue  # a store of a single array has no group
        parts = name.split("/")[:-1]
        for at in ["/".join(parts[:i]) for i in range(len(parts) + 1)]:
            if at not in notes:
                attributes = node_at(opened.files, at).attributes
                notes[at] = Notes({key: value for key, value in attributes.items() if key not in _FRAME_ATTRIBUTES})
    return columns, notes


def _notes(array: Any) -> Notes:
    attributes = dict(array.attrs)
    names = getattr(array.metadata, "dimension_names", None) or attributes.get("_ARRAY_DIMENSIONS")
    return Notes(attributes, tuple(names) if names and len(names) == array.ndim else None, array.fill_value)


def _unpacked(notes: Notes, decoder: CfDecoder) -> Notes:
    """Metadata without what says how values are packed."""
    gone = {"scale_factor", "add_offset", "_FillValue", "missing_value", "_Unsigned", "_Encoding"}
    gone |= {"dtype"} if decoder.is_bool or decoder.times is not None else set()
    gone |= {"units", "calendar"} if decoder.times is not None else set()
    names = notes.dimension_names
    return Notes(
        {key: value for key, value in notes.attributes.items() if key not in gone},
        names[:-1] if names and decoder.joined else names,
    )


def as_numpy(
    name: str, values: Any, shape: tuple[int, ...], dtype: np.dtype[Any], *, has_nan: bool = False
) -> NDArray[Any]:
    """Return a column as an array of shape (rows, *shape). A null becomes NaT in times; elsewhere it raises BadValueError.

    has_nan: whether a null is NaN, because the column was read from an array of floats."""
    coded = isinstance(values, pa.DictionaryArray)
    if dtype.kind not in "Mm" and not has_nan and (values.null_count or (coded and values.dictionary.null_count)):
        raise BadValueError(
            f"column {name!r} contains a null, which Zarr cannot hold: fill it first, or give --format parquet"
        )
    if coded:  # the dictionary may have far more values than occur in these rows
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

"""Describe the columns of a store, from the metadata of their arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.errors import ColumnError
from streamtrain.storage.from_numpy import arrow_type, row_bits, to_arrow
from streamtrain.storage.sparse import SparseRows
from streamtrain.storage.zarr.cf import cf_decoder, with_nulls
from streamtrain.storage.zarr.codecs import codec_names, copies_of
from streamtrain.storage.zarr.columns import Column, StoredArray
from streamtrain.storage.zarr.csr import csr_rows
from streamtrain.storage.zarr.elements import Element
from streamtrain.storage.zarr.values import Values

__all__ = ["column_of", "dimensions", "dimensions_of"]


def _stored_array(name: str, path: str, array: Any) -> StoredArray:
    """The metadata of an array that zarr has opened."""
    unit = tuple(array.chunks)
    file = tuple(array.shards or unit)
    blosc = file == unit and codec_names(array)[-1:] == ["blosc"]
    dtype = array.dtype.newbyteorder("=") if array.dtype.kind not in "OVT" else array.dtype
    return StoredArray(name, path, tuple(array.shape), dtype, unit, file, copies_of(array), blosc)


def dimensions_of(attributes: Mapping[str, Any], names: Any, ndim: int) -> tuple[str | None, ...] | None:
    """The names of the dimensions of an array, from its metadata in version 3 or from its attributes; None if it has none."""
    found = names if names and any(names) else attributes.get("_ARRAY_DIMENSIONS")
    if (
        not isinstance(found, (list, tuple))
        or len(found) != ndim
        or not all(n is None or isinstance(n, str) for n in found)
    ):
        return None
    return tuple(found)


class _Categorical:
    """Codes of categories, -1 where a value is missing. The categories are read when they are first needed, and kept.

    codes: their type in Arrow. values: the type of the categories; read: reads them.
    """

    note = ""

    def __init__(self, codes: pa.DataType, values: pa.DataType, ordered: bool, read: Callable[[], pa.Array]) -> None:
        self.codes, self.ordered, self._values, self._read = codes, ordered, values, read

    @cached_property
    def categories(self) -> pa.Array:
        """All categories."""
        return self._read()

    @property
    def type(self) -> pa.DataType:
        return pa.dictionary(self.codes, self._values, self.ordered)

    @property
    def row_bits(self) -> int:
        return int(self.codes.bit_width) + 1

    @property
    def scratch_row_bytes(self) -> int:
        return int(self.codes.bit_width) // 8 + 1

    @property
    def kept_bytes(self) -> int:
        return int(self.categories.nbytes)

    def __call__(self, values: list[NDArray[Any]]) -> pa.Array:
        codes = values[0]
        missing = codes < 0
        indices = with_nulls(pa.array(np.where(missing, codes.dtype.type(0), codes), self.codes), missing)
        return pa.DictionaryArray.from_arrays(indices, self.categories, ordered=self.ordered)


@dataclass(frozen=True)
class _Masked:
    """Values, and a mask of those that are missing."""

    name: str
    dtype: np.dtype[Any]
    note: str = ""
    kept_bytes: int = 0

    @property
    def type(self) -> pa.DataType:
        return arrow_type(self.name, self.dtype, ())

    @property
    def row_bits(self) -> int:
        return row_bits(self.dtype, ()) + 1

    @property
    def scratch_row_bytes(self) -> int:
        return 1 + (self.dtype.itemsize if self.dtype.kind in "bUST" else 0)

    def __call__(self, values: list[NDArray[Any]]) -> pa.Array:
        return with_nulls(to_arrow(self.name, values[0]), values[1].astype(np.bool_, copy=False))


def column_of(element: Element, values: Values, *, joins: bool, is_wanted: bool) -> Column:
    """A column of a store whose arrays zarr has opened. joins: whether the last dimension are the characters of texts.
    is_wanted: whether its values will be read, so that what is in memory all the time is read now."""
    name, left_out = element.name, element.left_out
    arrays = {
        role: _stored_array(f"{name}/{role}" if role else name, path, values.arrays[path])
        for role, path in element.arrays.items()
        if not element.problem  # then they may not be open
    }
    try:
        if element.problem:
            raise ColumnError(element.problem)
        if any(0 in array.unit for array in arrays.values()):
            bad = next(array for array in arrays.values() if 0 in array.unit)
            raise ColumnError(f"array {bad.name!r} has chunks of shape {bad.unit}, without any values: leave it out")
        if element.kind == "csr":
            return _sparse(element, arrays, values, is_wanted)
        if element.kind == "categorical":
            return _categorical(element, arrays, values, is_wanted)
        if element.kind == "masked":
            stored, mask = arrays["values"], arrays["mask"]
            if stored.shape != mask.shape or len(stored.shape) != 1:
                raise ColumnError(
                    f"{name!r} has values of shape {stored.shape} and a mask of {mask.shape}: leave it out"
                )
            decoder = _Masked(name, stored.dtype)
            return Column(name, decoder.type, (stored, mask), decoder, left_out=left_out)
        (stored,) = arrays.values()
        array = values.arrays[stored.path]
        attributes = dict(array.attrs)
        cf = cf_decoder(
            name, stored.dtype, stored.shape[1:], attributes, fill_value=array.fill_value,
            version=element.version, has_dimensions=dimensions(array) is not None, joins=joins,
        )  # fmt: skip
        kind = arrow_type(name, stored.dtype, stored.shape[1:]) if cf is None else cf.type
        return Column(name, kind, (stored,), cf, left_out=left_out)
    except ColumnError as error:
        return Column(name, pa.null(), tuple(arrays.values()), problem=str(error), left_out=left_out)


def dimensions(array: Any) -> tuple[str | None, ...] | None:
    """The names of the dimensions of an array that zarr has opened."""
    return dimensions_of(array.attrs, getattr(array.metadata, "dimension_names", None), array.ndim)


def _sparse(element: Element, arrays: Mapping[str, StoredArray], values: Values, is_wanted: bool) -> Column:
    indptr, indices, data = arrays["indptr"], arrays["indices"], arrays["data"]
    shape = element.attributes.get("shape")
    if not isinstance(shape, (list, tuple)) or len(shape) != 2 or shape[0] != indptr.shape[0] - 1 or shape[1] >= 2**31:
        raise ColumnError(
            f"{element.name!r} is a csr_matrix of shape {shape}, but {indptr.path} has {indptr.shape[0]} offsets: leave it out"
        )
    if data.dtype.kind not in "biuf" or indices.dtype.kind not in "iu" or indptr.dtype.kind not in "iu":
        raise ColumnError(f"{element.name!r} is a csr_matrix of type {data.dtype}, which cannot be read: leave it out")
    rows = csr_rows(element.name, int(shape[1]), indptr, indices, data)
    rows = rows.surveyed(values) if is_wanted else rows
    return Column(element.name, SparseRows(int(shape[1])), csr=rows, left_out=element.left_out)


def _categorical(element: Element, arrays: Mapping[str, StoredArray], values: Values, is_wanted: bool) -> Column:
    codes, stored = arrays["codes"], arrays["categories"]
    if codes.dtype.kind not in "iu" or len(codes.shape) != 1 or len(stored.shape) != 1:
        raise ColumnError(f"{element.name!r} has codes of type {codes.dtype} and shape {codes.shape}: leave it out")
    value = arrow_type(stored.name, stored.dtype, ())

    def read() -> pa.Array:
        count = stored.shape[0]
        return to_arrow(stored.name, values(stored, 0, count)) if count else pa.array([], value)

    decoder = _Categorical(pa.from_numpy_dtype(codes.dtype), value, bool(element.attributes.get("ordered")), read)
    if is_wanted and decoder.categories.null_count:
        raise ColumnError(f"{element.name!r} has a category that is missing: leave it out")
    return Column(element.name, decoder.type, (codes,), decoder, left_out=element.left_out)

"""Bags: any number of entries a row, each a hash and a value. Sparse rows, lists of categories and maps become bags."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.columns.categories import hash_values
from streamtrain.columns.lists import unnested
from streamtrain.columns.numbers import unpacked
from streamtrain.columns.types import is_list, is_single
from streamtrain.errors import BadValueError
from streamtrain.kernels.hashing import mixed
from streamtrain.storage.arrow import valid, value_type
from streamtrain.storage.sparse import SparseRows

__all__ = ["ENTRY_BYTES", "bag_entries", "has_values", "is_bag"]

ENTRY_BYTES = 8  # of a row of a window: the hash of an entry, and its value
_TABLE_WIDTH = 1 << 18  # of sparse rows whose columns' hashes are kept: 1 MB

Words = NDArray[np.uint32]


def is_bag(kind: pa.DataType) -> bool:
    """Whether values of a type can be bags: sparse rows, lists of whole numbers, text or other single values, and maps.

    >>> is_bag(pa.list_(pa.string())), is_bag(pa.map_(pa.string(), pa.int8())), is_bag(pa.list_(pa.float32()))
    (True, True, False)
    """
    if isinstance(kind, SparseRows):
        return True
    if pa.types.is_map(kind):
        return is_single(kind.key_type) and is_single(kind.item_type)
    entry = value_type(kind.value_type) if is_list(kind) or isinstance(kind, pa.FixedSizeListType) else None
    other = pa.types.is_floating, pa.types.is_decimal, pa.types.is_null
    return entry is not None and is_single(entry) and not any(is_kind(entry) for is_kind in other)


def has_values(kind: pa.DataType) -> bool:
    """Whether the entries of bags of a type have values: sparse rows, and maps to fractions.

    >>> has_values(pa.map_(pa.string(), pa.float32())), has_values(pa.map_(pa.string(), pa.int8()))
    (True, False)
    """
    return isinstance(kind, SparseRows) or bool(
        pa.types.is_map(kind) and pa.types.is_floating(value_type(kind.item_type))
    )


def bag_entries(values: Any, seed: int) -> tuple[Words, NDArray[np.int64]]:
    """The entries of each row, shape (entries, 2), uint32: the hash, and the bits of the float32 value; and where those of each
    row begin, and last where they end, shape (rows + 1,). A null row, and a null in a list, has none.

    The value is that of sparse rows, and of maps to fractions; otherwise 1. What occurs twice has two entries.

    >>> entries, offsets = bag_entries(pa.array([["a", "b"], None, ["a"]]), 1)
    >>> entries[0].tolist() == entries[2].tolist(), offsets.tolist(), entries[:, 1].view(np.float32).tolist()
    (True, [0, 2, 2, 3], [1.0, 1.0, 1.0])
    """
    child, offsets = unnested(values)
    numbers = None
    if isinstance(values.type, SparseRows):
        hashes, numbers = _sparse_hashes(child.field(0), values.type.width, seed), _floats(child.field(1))
    elif pa.types.is_map(values.type):
        hashes = hash_values(child.field(0), seed)
        if has_values(values.type):
            numbers = _floats(child.field(1))
        else:
            hashes = np.maximum(mixed(hashes ^ hash_values(child.field(1), seed)), np.uint32(1))
    else:
        if child.null_count:
            given = valid(child) if not isinstance(child, pa.DictionaryArray) else valid(child.indices)
            before = np.concatenate([[0], np.cumsum(given)])
            child, offsets = child.filter(pa.array(given)), before[offsets]
        hashes = hash_values(child, seed)
    entries = np.empty((len(hashes), 2), np.uint32)
    entries[:, 0] = hashes
    entries[:, 1].view(np.float32)[:] = 1 if numbers is None else numbers
    return entries, offsets


@lru_cache(maxsize=4)
def _hashes_of_columns(width: int, seed: int) -> Words:
    return hash_values(pa.array(np.arange(width, dtype=np.int32)), seed)


def _sparse_hashes(indices: Any, width: int, seed: int) -> Words:
    """The hash of the column of each entry of sparse rows. Raises BadValueError for a column that the rows do not have."""
    columns, given = unpacked(indices)
    if len(columns) and (given is not None or columns.min() < 0 or columns.max() >= width):
        odd = "missing" if given is not None else columns.min() if columns.min() < 0 else columns.max()
        raise BadValueError(f"sparse rows of {width:,} columns have an entry whose column is {odd}: correct the data")
    return _hashes_of_columns(width, seed)[columns] if width <= _TABLE_WIDTH else hash_values(indices, seed)


def _floats(values: Any) -> NDArray[np.float32]:
    """Numbers as float32, NaN where they are missing."""
    numbers, given = unpacked(values)
    with np.errstate(over="ignore"):
        floats = numbers.astype(np.float32)
    return floats if given is None else np.where(given, floats, np.float32(np.nan))

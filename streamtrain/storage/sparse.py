"""The Arrow type of sparse rows: of each row only the entries that are not 0."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["SparseRows", "sparse_rows"]

_ENTRIES = pa.list_(pa.struct([("index", pa.int32()), ("value", pa.float32())]))


class SparseRows(pa.ExtensionType):  # type: ignore[misc]
    """Rows of ``width`` numbers, stored as lists of the entries that are not 0: their index and their value.

    >>> SparseRows(20_000).width
    20000
    """

    def __init__(self, width: int) -> None:
        self.width = width
        super().__init__(_ENTRIES, "streamtrain.sparse_rows")

    def __arrow_ext_serialize__(self) -> bytes:
        return str(self.width).encode()

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> SparseRows:
        return cls(int(serialized))

    def __reduce__(self) -> Any:
        return SparseRows, (self.width,)


def sparse_rows(starts: NDArray[np.integer[Any]], indices: NDArray[Any], values: NDArray[Any], width: int) -> pa.Array:
    """Rows from the arrays of a compressed sparse row (CSR) matrix, copied only where their types differ.

    starts: where the entries of each row begin, and last where they end; shape (rows + 1,). indices, values: the column and the
    value of each entry; shape (entries,).

    >>> sparse_rows(np.array([0, 2, 2]), np.array([0, 4]), np.array([1.0, 2.0]), width=5).to_pylist()
    [[{'index': 0, 'value': 1.0}, {'index': 4, 'value': 2.0}], []]
    """
    fields = [pa.array(indices.astype(np.int32, copy=False)), pa.array(values.astype(np.float32, copy=False))]
    entries = pa.StructArray.from_arrays(fields, fields=list(_ENTRIES.value_type))
    rows = pa.ListArray.from_arrays(pa.array(starts.astype(np.int32, copy=False)), entries, type=_ENTRIES)
    return pa.ExtensionArray.from_storage(SparseRows(width), rows)

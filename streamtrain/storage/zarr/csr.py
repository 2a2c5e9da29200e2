"""Sparse rows as AnnData stores them: the arrays of a compressed sparse row (CSR) matrix."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.errors import CorruptError
from streamtrain.storage.sparse import sparse_rows

if TYPE_CHECKING:
    from streamtrain.storage.zarr.columns import StoredArray

__all__ = ["CsrRows", "csr_rows"]

_UNIT_BYTES, _UNIT_ROWS = 1_000_000, 65_536
_ENTRY_BYTES, _OFFSET_BYTES = 8, 4  # in Arrow
_READ_ROWS = 262_144  # offsets that are read at once when a matrix is opened, at least

Values = Callable[["StoredArray", int, int], NDArray[Any]]


@dataclass(frozen=True, eq=False)
class CsrRows:
    """A CSR matrix of ``width`` columns, see `csr_rows`. borders: the number of entries before each unit of ``unit_rows`` rows,
    and last of all; None as long as the matrix is not `surveyed`. The offsets of the rows stay on disk."""

    name: str
    width: int
    indptr: StoredArray
    indices: StoredArray
    data: StoredArray
    unit_rows: int
    borders: NDArray[np.int64] | None = None

    @property
    def arrays(self) -> tuple[StoredArray, ...]:
        return self.indptr, self.indices, self.data

    @property
    def rows(self) -> int:
        return self.indptr.shape[0] - 1

    @property
    def row_entries(self) -> float:
        """The mean number of entries of a row."""
        return self.data.shape[0] / max(1, self.rows)

    @property
    def row_bytes(self) -> float:
        """The mean bytes of a row in Arrow."""
        return _OFFSET_BYTES + _ENTRY_BYTES * self.row_entries

    def entries(self, start: int, stop: int) -> int:
        """The entries of the units with rows ``start`` to ``stop``; of a matrix that is not surveyed, a guess."""
        if self.borders is None:
            return math.ceil(self.row_entries * (stop - start))
        first, last = start // self.unit_rows, -(-stop // self.unit_rows)
        return int(self.borders[last] - self.borders[first])

    def decoded_bytes(self, start: int, stop: int) -> int:
        """The bytes of rows in Arrow; of whole units exactly, otherwise at most."""
        return _OFFSET_BYTES * (stop - start + 1) + _ENTRY_BYTES * self.entries(start, stop)

    def surveyed(self, values: Values) -> CsrRows:
        """The same rows, with the number of entries of each unit: the offsets are read once. Raises CorruptError if the arrays
        do not fit each other."""
        rows, entries, unit = self.rows, self.data.shape[0], self.unit_rows
        if self.indices.shape[0] != entries:
            raise self._corrupt(
                f"{self.indices.path} has {self.indices.shape[0]} entries, but {self.data.path} has {entries}"
            )
        borders = np.zeros(-(-rows // unit) + 1, np.int64)
        length = self.indptr.unit[0]
        step, before = max(1, _READ_ROWS // length) * length, 0
        for start in range(0, rows + 1, step):
            offsets = values(self.indptr, start, min(rows + 1, start + step))
            if int(offsets[0]) < before or np.any(offsets[1:] < offsets[:-1]):
                raise self._corrupt(f"the offsets in {self.indptr.path} do not ascend")
            before, first = int(offsets[-1]), -(-start // unit)
            own = offsets[first * unit - start :: unit]
            borders[first : first + len(own)] = own
        borders[-1] = before
        if borders[0] != 0 or before != entries:
            raise self._corrupt(
                f"the offsets in {self.indptr.path} go from {borders[0]} to {before}, but there are {entries} entries"
            )
        return replace(self, borders=borders)

    def read(self, values: Values, start: int, stop: int) -> pa.Array:
        """Rows ``start`` to ``stop``. values: reads a range of an array. Raises CorruptError for offsets or indices that are
        none."""
        offsets = values(self.indptr, start, stop + 1).astype(np.int64)
        first, last = int(offsets[0]), int(offsets[-1])
        if first < 0 or last > self.data.shape[0] or np.any(offsets[1:] < offsets[:-1]):
            raise self._corrupt(f"the offsets of rows {start} to {stop} in {self.indptr.path} do not ascend")
        if first == last:
            return sparse_rows(offsets - first, np.zeros(0, np.int32), np.zeros(0, np.float32), self.width)
        indices, data = values(self.indices, first, last), values(self.data, first, last)
        least, most = int(indices.min()), int(indices.max())
        if least < 0 or most >= self.width:
            raise self._corrupt(
                f"{self.indices.path} has the column {least if least < 0 else most} in rows {start} to {stop}, but the matrix "
                f"has {self.width} columns"
            )
        return sparse_rows(offsets - first, indices, data, self.width)

    def _corrupt(self, what: str) -> CorruptError:
        return CorruptError(f"column {self.name!r}: {what}: restore it from a copy")


def csr_rows(name: str, width: int, indptr: StoredArray, indices: StoredArray, data: StoredArray) -> CsrRows:
    """The rows of a matrix, from the metadata of its arrays."""
    rows = indptr.shape[0] - 1
    row_bytes = _OFFSET_BYTES + _ENTRY_BYTES * data.shape[0] / max(1, rows)
    return CsrRows(name, width, indptr, indices, data, max(1, min(_UNIT_ROWS, rows, int(_UNIT_BYTES / row_bytes))))

"""Columns that are read in slices of rows: memory maps, arrays in chunks (zarr, h5py, xarray), sparse matrices, and arrays in
memory beside them."""

from __future__ import annotations

import mmap
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.errors import ColumnError, UsageError
from streamtrain.storage.arrow import bytes_per_row
from streamtrain.storage.from_numpy import arrow_type, to_arrow
from streamtrain.storage.reader import Reader
from streamtrain.storage.sparse import SparseRows, sparse_rows

__all__ = ["ArrayColumn", "Chunked", "InMemory", "Mapped", "Sparse", "ThroughReader", "Xarray", "is_mapped"]

_COPIED_MAP_BYTES = 64_000_000
_GUESSED_TEXT_BYTES = 64
_FAULT_BYTES = 65_536  # that the system maps around a page that is touched


class ArrayColumn(Protocol):
    """A column. chunk_rows: the rows that are best read together; 0 if any are. row_bytes: of a row in Arrow. peak_bytes: the
    most memory that reading so many rows takes, the result included."""

    type: pa.DataType
    rows: int
    chunk_rows: int
    row_bytes: float

    def slice(self, start: int, stop: int) -> pa.Array:
        """The rows from ``start`` to ``stop``."""

    def peak_bytes(self, rows: int) -> int: ...

    def fingerprint(self) -> str | None:
        """That of the reader behind the column; None if there is none."""


class _Column:
    chunk_rows = 0

    def __init__(self, name: str, kind: pa.DataType, rows: int) -> None:
        self.name, self.type, self.rows = name, kind, rows
        self.row_bytes = bytes_per_row(kind)

    def peak_bytes(self, rows: int) -> int:
        return int(2 * rows * self.row_bytes)

    def fingerprint(self) -> str | None:
        return None


class InMemory(_Column):
    """An Arrow array in memory."""

    def __init__(self, name: str, values: Any) -> None:
        super().__init__(name, values.type, len(values))
        self._values = values

    def slice(self, start: int, stop: int) -> pa.Array:
        part = self._values.slice(start, stop - start)
        if isinstance(part, pa.ChunkedArray):
            return part.chunk(0) if part.num_chunks == 1 else part.combine_chunks()
        return part


def is_mapped(values: Any) -> bool:
    """Whether an array is a map of a file, or a view of one."""
    return _map_of(values)[0] is not None


def _map_of(values: Any) -> tuple[np.memmap[Any, Any] | None, mmap.mmap | None]:
    """The memory map behind an array, and the mapping of the operating system."""
    found: np.memmap[Any, Any] | None = None
    while isinstance(values, np.ndarray):
        found = values if isinstance(values, np.memmap) else found
        values = values.base
    return (found, values) if found is not None and isinstance(values, mmap.mmap) else (None, None)


class Mapped(_Column):
    """A memory map of a file: rows are copied, and the pages that were read are given back to the system."""

    def __init__(self, name: str, values: NDArray[Any]) -> None:
        super().__init__(name, arrow_type(name, values.dtype, values.shape[1:]), len(values))
        owner, self._map = _map_of(values)
        if owner is None or self._map is None or owner.mode == "c":
            raise UsageError(
                f"column {name!r} is a memory map in mode 'c', whose pages cannot be given back without losing what was "
                "written to it: open it in mode 'r', or save it and open it again"
            )
        self._values = np.asarray(values)
        self._address = np.frombuffer(self._map, np.uint8).__array_interface__["data"][0]
        self._spread = (
            1 if values.ndim == 0 or values.flags.c_contiguous else int(np.prod(values.shape[1:], dtype=np.int64))
        )

    def slice(self, start: int, stop: int) -> pa.Array:
        part = self._values[start:stop]
        copied = np.array(part, order="C")
        self._give_back(part)
        return to_arrow(self.name, copied)

    def _give_back(self, part: NDArray[Any]) -> None:
        if not part.size or not hasattr(mmap, "MADV_DONTNEED"):
            return
        assert self._map is not None
        low, high = np.lib.array_utils.byte_bounds(part)
        first = (low - self._address) // mmap.PAGESIZE * mmap.PAGESIZE
        # the map is shared with the file, so what was written to it stays in the page cache
        self._map.madvise(mmap.MADV_DONTNEED, first, min(high - self._address, len(self._map)) - first)

    def peak_bytes(self, rows: int) -> int:
        return int(3 * rows * self.row_bytes) + _FAULT_BYTES * (1 + self._spread)


class Chunked(_Column):
    """An array that is stored in chunks, as of zarr or h5py: it has ``shape``, ``dtype`` and slices."""

    def __init__(self, name: str, values: Any) -> None:
        self._values = values
        self._dtype = np.dtype(values.dtype)
        is_text = self._dtype.kind in "OT"
        kind = (
            pa.string()
            if is_text and len(values.shape) == 1
            else arrow_type(name, self._dtype, tuple(values.shape[1:]))
        )
        super().__init__(name, kind, int(values.shape[0]))
        chunks = getattr(values, "chunks", None)
        self.chunk_rows = int(chunks[0]) if isinstance(chunks, tuple) and chunks and isinstance(chunks[0], int) else 0
        self.row_bytes = _GUESSED_TEXT_BYTES if is_text else self.row_bytes

    def slice(self, start: int, stop: int) -> pa.Array:
        return _to_arrow(self.name, self._get(start, stop), self.type)

    def _get(self, start: int, stop: int) -> Any:
        return self._values[start:stop]

    def peak_bytes(self, rows: int) -> int:
        blocks = 0 if not self.chunk_rows else -(-rows // self.chunk_rows) + 1
        return int((2 * rows + 2 * min(2, blocks) * self.chunk_rows) * self.row_bytes) + _FAULT_BYTES


class Xarray(Chunked):
    """A variable of xarray: values are as xarray gives them, decoded and scaled."""

    def __init__(self, name: str, values: Any, dimension: str) -> None:
        super().__init__(name, values.transpose(dimension, ...))
        self._dimension = dimension
        known = values.chunksizes or {}
        stored = values.encoding.get("preferred_chunks") or {}
        rows = max(known[dimension]) if dimension in known else stored.get(dimension, 0)
        self.chunk_rows = int(rows) if isinstance(rows, (int, np.integer)) else 0

    def _get(self, start: int, stop: int) -> Any:
        part = self._values.isel({self._dimension: slice(start, stop)})
        # one thread: the loader reads with several already
        return part.compute(scheduler="synchronous").values if part.chunks is not None else part.values


def _to_arrow(name: str, values: Any, kind: pa.DataType) -> pa.Array:
    """A slice as Arrow. Masked values are null."""
    if isinstance(values, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(values)
        if mask.any() and values.ndim > 1:
            raise ColumnError(f"column {name!r} has masked entries in rows of several numbers: fill them")
        plain = to_arrow(name, np.asarray(np.ma.getdata(values)))
        return plain if not mask.any() else pa.array(np.ma.getdata(values), kind, mask=mask)
    values = np.asarray(values)
    if values.dtype.kind != "O":
        return to_arrow(name, values)
    texts = [value.decode() if isinstance(value, bytes) else value for value in values.tolist()]
    other = next((value for value in texts if not (value is None or isinstance(value, str))), None)
    if other is not None:
        raise ColumnError(
            f"column {name!r} has objects such as a {type(other).__name__}, which cannot be read: leave it out"
        )
    return pa.array(texts, pa.string())


class ThroughReader(_Column):
    """The only column of a reader: a Zarr array on disk, whose chunks are checked as those of every store."""

    def __init__(self, name: str, reader: Reader) -> None:
        from streamtrain.storage.reader import ChunkTable

        self._reader, self._table = reader, ChunkTable.of(reader.chunks())
        (field,) = reader.schema
        if pa.types.is_null(field.type) and b"problem" in (field.metadata or {}):
            raise ColumnError(field.metadata[b"problem"].decode())
        super().__init__(name, field.type, self._table.total_rows)
        self._own_name, self.chunk_rows = field.name, int(self._table.rows.max())

    def slice(self, start: int, stop: int) -> pa.Array:
        starts = self._table.starts
        first, last = np.searchsorted(starts, start, "right") - 1, np.searchsorted(starts, stop, "left")
        parts = []
        for i in range(int(first), int(last)):
            batch = self._reader.read(self._table[i], [self._own_name])
            low, high = max(start - int(starts[i]), 0), min(stop, int(starts[i + 1])) - int(starts[i])
            parts.append(batch.column(0).slice(low, high - low))
        return parts[0] if len(parts) == 1 else pa.concat_arrays(parts)

    def peak_bytes(self, rows: int) -> int:
        return int(2 * rows * self.row_bytes) + int(self._table.read_peak_bytes.max())

    def fingerprint(self) -> str | None:
        return self._reader.fingerprint()


class Sparse(_Column):
    """A sparse matrix of scipy: each row has the entries that are not 0. Other forms than CSR are converted, which takes the
    memory of the matrix again."""

    def __init__(self, name: str, matrix: Any) -> None:
        if len(matrix.shape) != 2 or np.dtype(matrix.dtype).kind not in "biuf":
            raise ColumnError(
                f"column {name!r} is a sparse matrix of shape {matrix.shape} and type {matrix.dtype}, but must have two "
                "dimensions and numbers"
            )
        super().__init__(name, SparseRows(int(matrix.shape[1])), int(matrix.shape[0]))
        rows = matrix.tocsr()
        if not rows.has_canonical_format:
            rows = rows.copy()  # the caller's stays as it is
            rows.sum_duplicates()
        self._starts, self._indices, self._entries = rows.indptr, rows.indices, rows.data
        self.row_bytes = 4 + 8 * rows.nnz / max(1, self.rows)

    def slice(self, start: int, stop: int) -> pa.Array:
        first, last = int(self._starts[start]), int(self._starts[stop])
        starts = self._starts[start : stop + 1] - first
        return sparse_rows(starts, self._indices[first:last], self._entries[first:last], self.type.width)

    def peak_bytes(self, rows: int) -> int:
        counts = np.diff(self._starts)
        most = int(counts.max(initial=0)) * rows
        return int(2 * (4 * rows + 8 * min(most, int(self._starts[-1]))))

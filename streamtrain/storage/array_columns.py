"""Columns that are read in slices of rows: arrays in chunks (zarr, h5py, xarray), sparse matrices, and arrays in
memory beside them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from streamtrain.errors import ColumnError
from streamtrain.storage.arrow import bytes_per_row
from streamtrain.storage.from_numpy import arrow_type, to_arrow
from streamtrain.storage.reader import Reader, Streams
from streamtrain.storage.sparse import SparseRows, sparse_rows

__all__ = ["ArrayColumn", "Chunked", "Column", "InMemory", "Sparse", "ThroughReader", "Xarray"]

_GUESSED_TEXT_BYTES = 64
_FLOOR_BYTES = 65_536


class ArrayColumn(Protocol):
    """A column. chunk_rows: the rows that are best read together; 0 if any are. row_bytes: of a row in Arrow. peak_bytes: the
    most memory that reading so many rows takes, the result included. passing_bytes: what it takes beside that, for any
    number of rows, until they have been read."""

    type: pa.DataType
    rows: int
    chunk_rows: int
    row_bytes: float
    passing_bytes: int

    def slice(self, start: int, stop: int) -> pa.Array:
        """The rows from ``start`` to ``stop``."""

    def peak_bytes(self, rows: int) -> int: ...

    def pieces(self, start: int, stop: int, rows: int) -> Iterator[pa.Array]:
        """The rows from ``start`` to ``stop``, one piece after the other: of about ``rows`` rows, or more where that many are
        stored together. Nothing is read twice."""

    def stream_bytes(self, rows: int) -> int:
        """The most memory that such pieces take, with the last one still held."""

    def fingerprint(self) -> str | None:
        """That of the reader behind the column; None if there is none."""


class Column:
    """What most columns have in common."""

    chunk_rows = passing_bytes = 0

    def __init__(self, name: str, kind: pa.DataType, rows: int) -> None:
        self.name, self.type, self.rows = name, kind, rows
        self.row_bytes = bytes_per_row(kind)

    def slice(self, start: int, stop: int) -> pa.Array:
        raise NotImplementedError

    def peak_bytes(self, rows: int) -> int:
        return int(2 * rows * self.row_bytes)

    def pieces(self, start: int, stop: int, rows: int) -> Iterator[pa.Array]:
        block = self._block(rows)
        while start < stop:
            end = min(stop, (start // block + 1) * block) if self.chunk_rows else min(stop, start + rows)
            yield self.slice(start, end)
            start = end

    def stream_bytes(self, rows: int) -> int:
        block = self._block(rows)
        return self.peak_bytes(block) + int(block * self.row_bytes)

    def _block(self, rows: int) -> int:
        """The rows that are read together: whole chunks, as they are stored."""
        return self.chunk_rows * max(1, rows // self.chunk_rows) if self.chunk_rows else rows

    def fingerprint(self) -> str | None:
        return None


class InMemory(Column):
    """An Arrow array in memory."""

    def __init__(self, name: str, values: Any) -> None:
        super().__init__(name, values.type, len(values))
        self._values = values

    def slice(self, start: int, stop: int) -> pa.Array:
        part = self._values.slice(start, stop - start)
        if isinstance(part, pa.ChunkedArray):
            return part.chunk(0) if part.num_chunks == 1 else part.combine_chunks()
        return part


class Chunked(Column):
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
        return int((2 * rows + 2 * min(2, blocks) * self.chunk_rows) * self.row_bytes) + _FLOOR_BYTES


class Xarray(Chunked):
    """A variable of xarray: values are as xarray gives them, decoded and scaled."""

    def __init__(self, name: str, values: Any, dimension: str) -> None:
        values = values.variable  # without its coordinates, which may be chunked otherwise
        super().__init__(name, values.transpose(dimension, ...))
        self._dimension = dimension
        known = values.chunksizes
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


class ThroughReader(Column):
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

    def pieces(self, start: int, stop: int, rows: int) -> Iterator[pa.Array]:
        if not isinstance(self._reader, Streams):
            yield from super().pieces(start, stop, rows)
            return
        starts = self._table.starts
        first, last = np.searchsorted(starts, start, "right") - 1, np.searchsorted(starts, stop, "left")
        for i in range(int(first), int(last)):
            at = int(starts[i])
            for batch in self._reader.stream(self._table[i], [self._own_name], rows):
                low, high = max(start - at, 0), min(stop - at, batch.num_rows)
                at += batch.num_rows
                if low < high:
                    yield batch.column(0).slice(low, high - low)

    def stream_bytes(self, rows: int) -> int:
        if not isinstance(self._reader, Streams):
            return super().stream_bytes(rows)
        largest = self._table[int(self._table.read_peak_bytes.argmax())]
        return int(2 * rows * self.row_bytes) + self._reader.stream_peak_bytes(largest, rows)

    def fingerprint(self) -> str | None:
        return self._reader.fingerprint()


class Sparse(Column):
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

"""The arrays of a store, and the columns that they make: metadata only, and how much memory it takes to read them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.storage.from_numpy import row_bits
from streamtrain.storage.zarr.csr import CsrRows

__all__ = ["CALL_CHUNKS", "Column", "Decoder", "StoredArray"]

#: chunks in one call to zarr at most, because it makes a task for each of them at once; measured: 1 to 2.6 kB
CALL_CHUNKS, _TASK_BYTES = 256, 3_000
#: zarr decodes on up to a dozen threads. Their malloc arenas keep part of the freed memory, so scratch buffers of successive
#: calls add up. Measured: twice the live memory; three times for shards, which are assembled twice
_ARENAS, _ARENAS_SHARDED = 2, 3
#: decoded bytes in one call to zarr, which decodes up to ten chunks at once; at least one chunk
READ_BYTES = 2_000_000


@dataclass(frozen=True, slots=True)
class StoredArray:
    """The metadata of one array.

    name: for messages; path: in the store. unit: the shape that zarr decodes at once: the inner chunk of a sharded array,
    otherwise the chunk. file: the shape in one file: the shard, otherwise the chunk.
    blosc: whether a chunk file is a plain Blosc buffer.
    copies: the decoded copies that codecs make beside the result (a gzip buffer, a transposition, a byte swap).
    """

    name: str
    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    unit: tuple[int, ...]
    file: tuple[int, ...]
    copies: int = 0
    blosc: bool = False

    @property
    def sharded(self) -> bool:
        """Whether a file holds several inner chunks."""
        return self.unit != self.file

    @property
    def whole_rows(self) -> bool:
        """Whether a chunk contains whole rows: the array is chunked along axis 0 only."""
        return all(u >= s for u, s in zip(self.unit[1:], self.shape[1:], strict=True))

    @property
    def unit_bytes(self) -> int:
        """The bytes of a unit in numpy."""
        return math.prod(self.unit) * self.item_bytes

    @property
    def item_bytes(self) -> int:
        """The bytes of a value in numpy."""
        # A string of variable length takes 16 bytes and its text; as a Python object, before it is Arrow, about 100.
        return 120 if self.dtype.kind == "T" else self.dtype.itemsize

    @property
    def box(self) -> tuple[int, ...]:
        """The shape that one call to zarr reads: as many chunks as fit `READ_BYTES` and `CALL_CHUNKS`, at least one, along the
        last axis first."""
        most = max(1, min(CALL_CHUNKS, READ_BYTES // max(1, self.unit_bytes)))
        box: list[int] = []
        for size, unit in zip(reversed(self.shape), reversed(self.unit), strict=True):
            chunks = max(1, min(most, -(-size // unit)))
            most //= chunks
            box.insert(0, chunks * unit)
        return tuple(box)

    def numpy_bytes(self, rows: int) -> int:
        """The bytes of so many rows in numpy."""
        return rows * math.prod(self.shape[1:]) * self.item_bytes

    def keeps(self, run_rows: float) -> bool:
        """Whether the last decoded block is kept. It is if the Zarr chunks are longer than a run, because each of them would
        otherwise be decoded again for every run."""
        return self.unit[0] > run_rows and self.whole_rows

    def scratch_bytes(self, rows: int, run_rows: float) -> int:
        """Memory of a read beside the result: stored bytes (at most as many as decoded ones), decoded blocks, copies of
        codecs."""
        if self.keeps(run_rows):
            return self.unit_bytes * (1 + self.copies)
        block = max(self.unit_bytes, min(READ_BYTES, self.numpy_bytes(rows)))
        taken = self.whole_rows and self.copies == 0 and self.unit[0] == rows  # decoded straight into the result
        scratch = block * (1 + self.copies) + (0 if taken else block)
        if self.sharded:  # a shard is assembled from inner chunks in a separate buffer
            scratch += min(block, 2 * self.unit_bytes)
        if self.box[0] < rows or any(b < n for b, n in zip(self.box[1:], self.shape[1:], strict=True)):
            scratch *= _ARENAS_SHARDED if self.sharded else _ARENAS
        return scratch + math.prod(self.box) // math.prod(self.unit) * _TASK_BYTES


class Decoder(Protocol):
    """How the values of a column's arrays become Arrow, where more than a conversion is needed.

    row_bits: of a row in Arrow. scratch_row_bytes: of a row, beside the values of the arrays and the result. kept_bytes: of
    what it holds. note: what a user should know of it, or "".
    """

    @property
    def type(self) -> pa.DataType: ...
    @property
    def row_bits(self) -> int: ...
    @property
    def scratch_row_bytes(self) -> int: ...
    @property
    def kept_bytes(self) -> int: ...
    @property
    def note(self) -> str: ...

    def __call__(self, values: list[NDArray[Any]]) -> pa.Array:
        """The column, from rows of each of its arrays."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column. arrays: those whose axis 0 are its rows: one, or values and their mask. csr: its arrays, if its rows are
    sparse. problem: why the column cannot be read, or "". left_out: why it is no feature unless it is named, or "".
    """

    name: str
    type: pa.DataType
    arrays: tuple[StoredArray, ...] = ()
    decoder: Decoder | None = None
    csr: CsrRows | None = None
    problem: str = ""
    left_out: str = ""

    @property
    def stored(self) -> tuple[StoredArray, ...]:
        """Every array that is read."""
        return self.arrays if self.csr is None else self.csr.arrays

    @property
    def rows(self) -> int:
        """The rows of a column that can be read."""
        return self.arrays[0].shape[0] if self.csr is None else self.csr.rows

    @property
    def unit_rows(self) -> int:
        """The rows that are decoded at once."""
        return self.arrays[0].unit[0] if self.csr is None else self.csr.unit_rows

    @property
    def row_bits(self) -> float:
        """The bits of a row in Arrow, of sparse rows on average; 0 if the column cannot be read."""
        if self.problem:
            return 0
        if self.csr is not None:
            return 8 * self.csr.row_bytes
        if self.decoder is not None:
            return self.decoder.row_bits
        return row_bits(self.arrays[0].dtype, self.arrays[0].shape[1:])

    def decoded_bytes(self, start: int, stop: int) -> int:
        """The bytes of rows ``start`` to ``stop`` in Arrow."""
        if self.csr is not None:
            return self.csr.decoded_bytes(start, stop)
        return -(-int(self.row_bits) * (stop - start) // 8)

    def kept_bytes(self, run_rows: int) -> int:
        """The bytes of decoded blocks that are kept."""
        return sum(a.unit_bytes for a in self.stored if a.keeps(self.run_of(a, run_rows)))

    def run_of(self, array: StoredArray, run_rows: int) -> float:
        """How much of an array belongs to a run of so many rows."""
        return run_rows if self.csr is None or array is self.csr.indptr else run_rows * self.csr.row_entries

    def scratch_bytes(self, start: int, stop: int, run_rows: int) -> int:
        """Memory of a read beside the result."""
        rows = stop - start
        if self.csr is not None:
            entries = self.csr.entries(start, stop)
            each = [(self.csr.indptr, rows + 1), (self.csr.indices, entries), (self.csr.data, entries)]
            most = max(a.scratch_bytes(n, self.run_of(a, run_rows)) for a, n in each)
            return most + sum(a.numpy_bytes(n) for a, n in each if a.dtype not in (np.int32, np.float32))
        scratch = max(a.scratch_bytes(rows, run_rows) for a in self.arrays)
        if self.decoder is None:
            return scratch + (self.arrays[0].numpy_bytes(rows) if self.arrays[0].dtype.kind in "bUSTMm" else 0)
        return scratch + sum(a.numpy_bytes(rows) for a in self.arrays) + rows * self.decoder.scratch_row_bytes

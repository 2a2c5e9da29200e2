"""Which rows are read at once, and how much memory that takes. Pure arithmetic with the metadata of the arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from streamtrain.storage.from_numpy import row_bits

__all__ = ["READ_BYTES", "RUN_BYTES", "RUN_ROWS", "Column", "Grid", "make_grid"]

RUN_ROWS = 65_536
RUN_BYTES = 8_000_000
#: decoded bytes in one call to zarr, which decodes up to ten chunks at once; at least one chunk
READ_BYTES = 2_000_000
#: chunks in one call to zarr at most, because it makes a task for each of them at once; measured: 1 to 2.6 kB
CALL_CHUNKS, _TASK_BYTES = 256, 3_000
#: event loop, threads, state of decoders and Python objects of one read; measured: 3 to 5 MB
_FLOOR_BYTES = 4_500_000
#: zarr decodes on up to a dozen threads. Their malloc arenas keep part of the freed memory, so scratch buffers of successive
#: calls add up. Measured: twice the live memory; three times for shards, which are assembled twice
_ARENAS, _ARENAS_SHARDED = 2, 3


@dataclass(frozen=True, slots=True)
class Column:
    """The metadata of one array.

    unit: the shape that zarr decodes at once: the inner chunk of a sharded array, otherwise the chunk.
    file: the shape in one file: the shard, otherwise the chunk.
    blosc: whether a chunk file is a plain Blosc buffer.
    copies: the decoded copies that codecs make beside the result (a gzip buffer, a transposition, a byte swap).
    problem: why the column cannot be read, or "".
    """

    name: str
    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    unit: tuple[int, ...]
    file: tuple[int, ...]
    copies: int
    type: pa.DataType
    problem: str = ""
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
    def row_bits(self) -> int:
        """The bits of a row in Arrow; 0 if the column cannot be read."""
        return 0 if self.problem else row_bits(self.dtype, self.shape[1:])

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


@dataclass(frozen=True, slots=True)
class Grid:
    """How the rows are cut into chunks.

    rows: of the data. run_rows: of a chunk, except the last. unit_rows: rows that a stream decodes at least.
    """

    columns: tuple[Column, ...]
    rows: int
    run_rows: int
    unit_rows: int
    readable: tuple[Column, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "readable", tuple(c for c in self.columns if not c.problem))

    def __len__(self) -> int:
        return -(-self.rows // self.run_rows)

    def rows_of(self, i: int) -> int:
        """The rows of chunk ``i``."""
        return min(self.run_rows, self.rows - i * self.run_rows)

    def keeps(self, column: Column) -> bool:
        """Whether the last decoded block of a column is kept. It is if its Zarr chunks are longer than a run, because each
        of them would otherwise be decoded again for every run."""
        return column.unit[0] > self.run_rows and column.whole_rows

    def decoded_bytes(self, rows: int) -> int:
        """The bytes of so many rows of all columns in Arrow."""
        return sum(-(-c.row_bits * rows // 8) for c in self.readable)

    def read_peak_bytes(self, rows: int) -> int:
        """The most memory of a read: all results, the kept blocks, and the scratch memory of the largest column, because
        columns are read one after the other."""
        kept = sum(c.unit_bytes for c in self.readable if self.keeps(c))
        scratch = max(self._scratch_bytes(c, rows) for c in self.readable)
        return self.decoded_bytes(rows) + kept + scratch + _FLOOR_BYTES

    def _scratch_bytes(self, c: Column, rows: int) -> int:
        """Memory beside the result: stored bytes (at most as many as decoded ones), decoded blocks, copies of codecs."""
        converted = c.numpy_bytes(rows) if c.dtype.kind in "bUSTMm" else 0
        if self.keeps(c):
            return c.unit_bytes * (1 + c.copies) + converted
        block = max(c.unit_bytes, min(READ_BYTES, c.numpy_bytes(rows)))
        taken = c.whole_rows and c.copies == 0 and c.unit[0] == rows  # decoded straight into the result
        scratch = block * (1 + c.copies) + (0 if taken else block)
        if c.sharded:  # a shard is assembled from inner chunks in a separate buffer
            scratch += min(block, 2 * c.unit_bytes)
        if c.box[0] < rows or any(b < n for b, n in zip(c.box[1:], c.shape[1:], strict=True)):
            scratch *= _ARENAS_SHARDED if c.sharded else _ARENAS
        tasks = math.prod(c.box) // math.prod(c.unit)
        return scratch + converted + tasks * _TASK_BYTES

    def block_rows(self, rows: int) -> int:
        """The rows that a stream with slices of ``rows`` rows decodes at once."""
        return min(self.run_rows, self.unit_rows * max(1, rows // self.unit_rows))

    def stream_peak_bytes(self, chunk_rows: int, rows: int) -> int:
        """The most memory of a stream: one block, and the previous one if there are several, because its last slice may still
        be in use."""
        block = min(chunk_rows, self.block_rows(rows))
        before = self.decoded_bytes(block) + 2 * _FLOOR_BYTES if block < chunk_rows else 0
        return self.read_peak_bytes(block) + before


def make_grid(columns: Sequence[Column]) -> Grid:
    """Cut the rows into runs of whole Zarr chunks of the widest readable array (most bytes a row). A run has 65,536 rows, or
    8 MB of all columns decoded, whichever is less, but at least one Zarr chunk."""
    readable = [c for c in columns if not c.problem]
    widest = max(readable, key=lambda c: c.row_bits)  # of several, the first by name
    rows, unit = widest.shape[0], min(widest.unit[0], widest.shape[0])
    unit_bytes = max(1, sum(c.row_bits for c in readable) * unit // 8)
    units = max(1, min(RUN_ROWS // unit, RUN_BYTES // unit_bytes))
    return Grid(tuple(columns), rows, min(rows, units * unit), unit)

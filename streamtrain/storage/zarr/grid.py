"""Which rows are read at once, and how much memory that takes: pure arithmetic on the arrays' metadata."""

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
#: decoded bytes that one call to zarr may have in flight (it works on up to ten chunks at once), one chunk at least
READ_BYTES = 2_000_000
#: event loop, its threads, decoder state and Python objects of one read; measured 3 to 5 MB
_FLOOR_BYTES = 4_500_000
#: zarr decodes on up to a dozen threads, whose malloc arenas keep part of what they freed: passing buffers of
#: successive calls add up. Measured: twice what is alive at once, three times in shards, which are put together twice
_ARENAS, _ARENAS_SHARDED = 2, 3


@dataclass(frozen=True, slots=True)
class Column:
    """What the metadata say of one array.

    unit: shape that zarr decodes at once: the inner chunk of a sharded array, otherwise the chunk.
    file: shape that one file holds: the shard, or the chunk again.
    blosc: whether a chunk file is a bare Blosc buffer.
    copies: whole decoded copies that the codecs make beside the result (a gzip buffer, a transposition, a byte swap).
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
        return self.unit != self.file

    @property
    def whole_rows(self) -> bool:
        """Whether a chunk holds its rows entirely: not chunked along another axis."""
        return all(u >= s for u, s in zip(self.unit[1:], self.shape[1:], strict=True))

    @property
    def row_bits(self) -> int:
        return 0 if self.problem else row_bits(self.dtype, self.shape[1:])

    @property
    def unit_bytes(self) -> int:
        return math.prod(self.unit) * self.item_bytes

    @property
    def item_bytes(self) -> int:
        # a numpy string of variable length is 16 bytes and its text; as Python objects, on the way to Arrow, about 100
        return 120 if self.dtype.kind == "T" else self.dtype.itemsize

    @property
    def box_rows(self) -> int:
        """Rows that zarr is asked for at a time: whole chunks of `READ_BYTES` together, one at least."""
        return self.unit[0] * max(1, READ_BYTES // max(1, self.numpy_bytes(self.unit[0])))

    @property
    def box_is_chunk(self) -> bool:
        """Whether zarr is asked for one chunk at a time along the other axes too: a slab of them would be too much."""
        return not self.whole_rows and self.numpy_bytes(self.unit[0]) > READ_BYTES

    def numpy_bytes(self, rows: int) -> int:
        return rows * math.prod(self.shape[1:]) * self.item_bytes


@dataclass(frozen=True, slots=True)
class Grid:
    """rows: of the data; run_rows: of a chunk, the last excepted; unit_rows: what a slice of a stream is cut from."""

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
        return min(self.run_rows, self.rows - i * self.run_rows)

    def keeps(self, column: Column) -> bool:
        """Whether the last decoded block of a column is kept: its chunks are longer than a run, so that each would be
        decoded again for every run."""
        return column.unit[0] > self.run_rows and column.whole_rows

    def decoded_bytes(self, rows: int) -> int:
        return sum(-(-c.row_bits * rows // 8) for c in self.readable)

    def read_peak_bytes(self, rows: int) -> int:
        """Columns are read one after the other: all results, the kept blocks, and the worst column's passing needs."""
        kept = sum(c.unit_bytes for c in self.readable if self.keeps(c))
        passing = max(self._passing_bytes(c, rows) for c in self.readable)
        return self.decoded_bytes(rows) + kept + passing + _FLOOR_BYTES

    def _passing_bytes(self, c: Column, rows: int) -> int:
        """Beside the result: stored bytes (at worst as many as decoded ones), decoded blocks, copies of codecs."""
        converted = c.numpy_bytes(rows) if c.dtype.kind in "bUSTMm" else 0
        if self.keeps(c):
            return c.unit_bytes * (1 + c.copies) + converted
        block = max(c.unit_bytes, min(READ_BYTES, c.numpy_bytes(rows)))
        taken = c.whole_rows and c.copies == 0 and c.unit[0] == rows  # decoded straight into the result
        passing = block * (1 + c.copies) + (0 if taken else block)
        if c.sharded:  # a shard is put together in a buffer of its own from inner chunks
            passing += min(block, 2 * c.unit_bytes)
        if c.box_rows < rows or c.box_is_chunk:
            passing *= _ARENAS_SHARDED if c.sharded else _ARENAS
        return passing + converted

    def block_rows(self, rows: int) -> int:
        """Rows that a stream with slices of ``rows`` rows decodes at once."""
        return min(self.run_rows, self.unit_rows * max(1, rows // self.unit_rows))

    def stream_peak_bytes(self, chunk_rows: int, rows: int) -> int:
        """One block, and the block before it where there are several: the last slice of it may still be held."""
        block = min(chunk_rows, self.block_rows(rows))
        before = self.decoded_bytes(block) + 2 * _FLOOR_BYTES if block < chunk_rows else 0
        return self.read_peak_bytes(block) + before


def make_grid(columns: Sequence[Column]) -> Grid:
    """Runs of whole chunks of the widest readable array (most bytes a row): as many as make 65,536 rows or 8 MB decoded
    of all columns together, whichever is first, and one at least."""
    readable = [c for c in columns if not c.problem]
    widest = max(readable, key=lambda c: c.row_bits)  # the first of several: columns are sorted by name
    rows, unit = widest.shape[0], min(widest.unit[0], widest.shape[0])
    unit_bytes = max(1, sum(c.row_bits for c in readable) * unit // 8)
    units = max(1, min(RUN_ROWS // unit, RUN_BYTES // unit_bytes))
    return Grid(tuple(columns), rows, min(rows, units * unit), unit)

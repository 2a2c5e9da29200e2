"""The rows that are kept of a reader's rows: one bit for each, and a chunk table of what is left.

The reader stays as it is. The chunks of the table say which of their rows are kept, and `streamtrain.storage.checked` leaves
out the others when it reads. So everything that a reader is able to do works with fewer rows, too. Chunks without a kept row
stay in the table, with 0 rows, and are not read: the numbers of the chunks are those of the reader."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.storage.reader import Chunk, ChunkTable

__all__ = ["Bits", "KeptChunk", "KeptTable", "kept_batches", "mask_of", "whole"]

_BLOCK_BITS = 8_192


class Bits:
    """One bit for each row of the data, all 0 at first. data: the bits, the lowest of each byte first; shape (rows / 8,).

    >>> bits = Bits(10)
    >>> bits.put(8, pa.array([True, False]))
    >>> bits.ranks().tolist(), bits.of(np.array([7, 8, 9])).tolist()
    ([0, 1], [False, True, False])
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.data = np.zeros(-(-rows // 8), np.uint8)

    @staticmethod
    def bytes_of(rows: int) -> int:
        """The memory that so many rows take."""
        return -(-rows // 8)

    def put(self, first: int, values: pa.BooleanArray) -> None:
        """Set the bits of the rows from ``first`` on."""
        start, stop = first // 8, -(-(first + len(values)) // 8)
        bits = np.unpackbits(self.data[start:stop], bitorder="little")
        bits[first - 8 * start : first - 8 * start + len(values)] = np.asarray(values.to_numpy(zero_copy_only=False))
        self.data[start:stop] = np.packbits(bits, bitorder="little")

    def fill(self, first: int, last: int) -> None:
        """Set the bits of rows ``first`` to ``last`` to 1."""
        for start in range(first, last, 8 * _BLOCK_BITS):
            stop = min(last, start + 8 * _BLOCK_BITS)
            self.put(start, pa.array(np.ones(stop - start, np.bool_)))

    def unpacked(self, first: int, last: int) -> NDArray[np.uint8]:
        """The bits of rows ``first`` to ``last``, a byte each, shape (last - first,)."""
        start = first // 8
        bits = np.unpackbits(self.data[start : -(-last // 8)], bitorder="little")
        return bits[first - 8 * start : last - 8 * start]

    def of(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """The bits of some rows, same shape."""
        return np.asarray((self.data[rows >> 3] >> (rows & 7).astype(np.uint8)) & 1, np.bool_)

    def ranks(self) -> NDArray[np.int64]:
        """How many rows before each block of 8,192 have a 1, and last how many there are; shape (blocks + 1,)."""
        size = _BLOCK_BITS // 8
        starts = range(0, len(self.data), size)
        ones = (int(np.bitwise_count(self.data[at : at + size]).sum(dtype=np.int64)) for at in starts)
        return np.concatenate([[0], np.cumsum(np.fromiter(ones, np.int64, len(starts)))]).astype(np.int64)

    def before(self, rows: NDArray[np.int64], ranks: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many rows before each of these, which ascend, have a 1; same shape. ranks: of these bits."""
        blocks, counts = rows // _BLOCK_BITS, np.empty(len(rows), np.int64)
        for first, last in _runs(blocks):
            start = int(blocks[first]) * _BLOCK_BITS
            ones = np.cumsum(self.unpacked(start, min(self.rows, start + _BLOCK_BITS)), dtype=np.int64)
            counts[first:last] = ranks[blocks[first]] + np.concatenate([[0], ones])[rows[first:last] - start]
        return counts


def _runs(values: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Where runs of equal values begin and end."""
    edges = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    return (pair for pair in pairwise(edges) if pair[0] < pair[1])


@dataclass(frozen=True, slots=True)
class KeptChunk(Chunk):
    """A chunk of which some rows are kept. whole: the chunk of the reader. bits: of its rows, from bit ``first`` of the first
    byte on."""

    whole: Chunk = field(kw_only=True)
    bits: NDArray[np.uint8] = field(kw_only=True, compare=False, repr=False)
    first: int = field(kw_only=True)

    def mask(self, start: int, stop: int) -> pa.BooleanArray:
        """Whether each row from ``start`` to ``stop`` of the whole chunk is kept; without a copy."""
        return pa.BooleanArray.from_buffers(
            pa.bool_(), stop - start, [None, pa.py_buffer(self.bits)], offset=self.first + start
        )


class KeptTable(ChunkTable):
    """The chunk table of the rows that are kept. unfiltered: the table of the reader. kept: a bit for each of its rows.
    expression: what says which rows are kept."""

    def __init__(self, unfiltered: ChunkTable, kept: Bits, expression: str) -> None:
        self.kept, self.expression = kept, expression
        self._ranks = kept.ranks()
        rows = np.diff(kept.before(unfiltered.starts, self._ranks))
        share = rows / np.maximum(1, unfiltered.rows)
        decoded = np.ceil(unfiltered.decoded_bytes * share).astype(np.int64)
        copied = np.where(rows < unfiltered.rows, decoded, 0)  # the kept rows, beside all rows
        read_peak = np.where(rows > 0, unfiltered.read_peak_bytes + copied, 0)
        super().__init__(unfiltered.key, rows, decoded, read_peak)
        self._unfiltered = unfiltered

    @property
    def unfiltered(self) -> ChunkTable:
        return self._unfiltered

    @property
    def nbytes(self) -> int:
        """The memory that the table itself takes, with the table of the reader."""
        return super().nbytes + self._unfiltered.nbytes + self.kept.data.nbytes + self._ranks.nbytes

    def data_rows(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The positions in the data of rows of this table; same shape."""
        if len(rows) == 0:
            return rows
        order = None if np.all(rows[1:] >= rows[:-1]) else np.argsort(rows, kind="stable")
        ascending = rows if order is None else rows[order]
        blocks = np.searchsorted(self._ranks, ascending, side="right") - 1
        found = np.empty(len(rows), np.int64)
        for first, last in _runs(blocks):
            block = int(blocks[first])
            start = block * _BLOCK_BITS
            kept = np.flatnonzero(self.kept.unpacked(start, min(self.kept.rows, start + _BLOCK_BITS)))
            found[first:last] = start + kept[ascending[first:last] - self._ranks[block]]
        if order is None:
            return found
        positions = np.empty(len(rows), np.int64)
        positions[order] = found
        return positions

    def _chunk(self, i: int) -> Chunk:
        chunk, first = self._unfiltered[i], int(self._unfiltered.starts[i])
        rows, own = int(self.rows[i]), super()._chunk(i)
        if rows == chunk.rows:
            return chunk
        bits = self.kept.data[first // 8 : -(-(first + chunk.rows) // 8)]
        return KeptChunk(own.key, rows, own.decoded_bytes, own.read_peak_bytes, whole=chunk, bits=bits, first=first % 8)


def mask_of(chunks: Sequence[Chunk]) -> pa.BooleanArray:
    """Whether each row of the whole chunks is kept; of one chunk without a copy."""
    masks = [
        chunk.mask(0, chunk.whole.rows) if isinstance(chunk, KeptChunk) else pa.array(np.ones(chunk.rows, np.bool_))
        for chunk in chunks
    ]
    return masks[0] if len(masks) == 1 else pa.concat_arrays(masks)


def whole(chunk: Chunk) -> Chunk:
    """The chunk of the reader."""
    return chunk.whole if isinstance(chunk, KeptChunk) else chunk


def kept_batches(batches: Iterator[pa.RecordBatch], mask: pa.BooleanArray) -> Iterator[pa.RecordBatch]:
    """The rows of some batches for which the mask is true; it has a value for each row of all of them."""
    row = 0
    for batch in batches:
        part = mask.slice(row, batch.num_rows)
        row += batch.num_rows
        kept = part.true_count
        if kept == batch.num_rows:
            yield batch
        elif kept:
            yield _filtered(batch, part)


def _filtered(batch: pa.RecordBatch, mask: pa.BooleanArray) -> pa.RecordBatch:
    columns = [_filter(values, mask) for values in batch.columns]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _filter(values: pa.Array, mask: pa.BooleanArray) -> pa.Array:
    try:
        return values.filter(mask)
    except pa.ArrowNotImplementedError:  # views of text, run-end encoded values: runs of kept rows are joined
        bits = np.concatenate([[0], np.asarray(mask.to_numpy(zero_copy_only=False), np.int8), [0]])
        first, last = np.flatnonzero(np.diff(bits) == 1), np.flatnonzero(np.diff(bits) == -1)
        return pa.concat_arrays([values.slice(a, b - a) for a, b in zip(first.tolist(), last.tolist(), strict=True)])

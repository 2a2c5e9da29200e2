"""Read arrays that are not in memory as a whole, beside arrays that are: a reader of columns that give slices of rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from streamtrain.errors import NotFoundError, SchemaError, UsageError
from streamtrain.storage.array_columns import ArrayColumn, InMemory
from streamtrain.storage.arrow import pick
from streamtrain.storage.files.sample import sampled
from streamtrain.storage.reader import Chunk, ChunkTable
from streamtrain.storage.tables import hash_batch

__all__ = ["ArraysReader"]

_CHUNK_ROWS, _CHUNK_BYTES = 65_536, 8_000_000
_FLOOR_BYTES = 65_536  # the Python objects of one read
_FEWER = 8  # pieces of a sample, where each may take the decoding of a chunk


class ArraysReader:
    """Reads columns that share their first axis, slice by slice.

    A chunk is 65,536 rows or 8 MB; where columns are stored in chunks, whole chunks of the widest of them. columns: by name.
    Raises SchemaError if lengths differ, NotFoundError if there are no rows.
    """

    def __init__(self, columns: Mapping[str, ArrayColumn]) -> None:
        self._columns = dict(columns)
        lengths = {name: column.rows for name, column in self._columns.items()}
        first = next(iter(lengths), "")
        for name, rows in lengths.items():
            if rows != lengths[first]:
                raise SchemaError(
                    f"columns {first!r} and {name!r} have {lengths[first]} and {rows} rows: give arrays of the same length"
                )
        if not lengths or not lengths[first]:
            raise NotFoundError("the arrays have no rows: give at least one")
        self.schema = pa.schema([(name, column.type) for name, column in self._columns.items()])
        self._rows = lengths[first]
        self._passing_bytes = max(column.passing_bytes for column in self._columns.values()) + _FLOOR_BYTES
        row_bytes = sum(column.row_bytes for column in self._columns.values())
        step = max(1, min(_CHUNK_ROWS, int(_CHUNK_BYTES / max(row_bytes, 1e-9))))
        stored = [column for column in self._columns.values() if column.chunk_rows]
        if stored:
            own = max(stored, key=lambda column: column.row_bytes).chunk_rows
            step = own * max(1, step // own)
        self._step = min(step, self._rows)

    def chunks(self) -> ChunkTable:
        """Runs of rows; the last one may be shorter."""
        starts = np.arange(0, self._rows, self._step, dtype=np.int64)
        rows = np.minimum(self._step, self._rows - starts)
        columns = self._columns.values()
        sizes = {int(n): self._sizes(int(n)) for n in {int(rows[0]), int(rows[-1])}}
        decoded = np.array([sizes[int(n)][0] for n in rows], np.int64)
        peak = np.array([sizes[int(n)][1] for n in rows], np.int64)
        assert columns
        return ChunkTable(self._key, rows, decoded, peak)

    def _sizes(self, rows: int) -> tuple[int, int]:
        columns = self._columns.values()
        decoded = int(np.ceil(rows * sum(column.row_bytes for column in columns)))
        return decoded, sum(column.peak_bytes(rows) for column in columns) + self._passing_bytes

    def _key(self, i: int) -> str:
        return f"rows[{i * self._step}:{min(self._rows, (i + 1) * self._step)}]"

    def read(self, chunk: Chunk, columns: Sequence[str]) -> Any:
        """The given columns of one chunk, in the given order, as a ``pyarrow.RecordBatch``."""
        start = self._start(chunk)
        fields = [pick(self.schema, name, "read") for name in columns]
        arrays = [self._columns[name].slice(start, start + chunk.rows) for name in columns]
        return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))

    def stream(self, chunk: Chunk, columns: Sequence[str], rows: int) -> Iterator[Any]:
        """The chunk in slices of at most ``rows`` rows. What is stored together is read once, and held."""
        start = self._start(chunk)
        stop, schema = start + chunk.rows, pa.schema([pick(self.schema, name, "read") for name in columns])
        each = [_cut(self._columns[name].pieces(start, stop, rows), chunk.rows, rows) for name in columns]
        for arrays in zip(*each, strict=True):
            yield pa.RecordBatch.from_arrays(list(arrays), schema=schema)
            del arrays

    def stream_peak_bytes(self, chunk: Chunk, rows: int) -> int:
        """The pieces of all columns, and the slices that are made of them."""
        rows = min(rows, chunk.rows)
        each = (column.stream_bytes(rows) + int(rows * column.row_bytes) for column in self._columns.values())
        return sum(each) + self._passing_bytes

    def _start(self, chunk: Chunk) -> int:
        """The first row of a chunk. Raises UsageError for one of another reader."""
        digits = chunk.key.removeprefix("rows[").partition(":")[0]
        start = int(digits) if digits.isdecimal() else -1
        if start % self._step or not 0 <= start < self._rows or chunk.key != self._key(start // self._step):
            raise UsageError(f"chunk {chunk.key!r} does not belong to this reader: use chunks from its chunks()")
        return start

    def fingerprint(self) -> str:
        """A hash of names and types, of what is in memory, and of a sample of what is not (see `sampled`)."""
        digest = hashlib.sha256(f"{self.schema} {self._rows}".encode())
        for name, column in self._columns.items():
            own = column.fingerprint()
            if own is not None:
                digest.update(own.encode())
                continue
            schema = pa.schema([self.schema.field(name)])
            for start, stop in self._pieces(column):
                hash_batch(digest, pa.RecordBatch.from_arrays([column.slice(start, stop)], schema=schema))
        return f"arrays-{digest.hexdigest()}"

    def _pieces(self, column: ArrayColumn) -> list[tuple[int, int]]:
        if isinstance(column, InMemory):
            return [(start, min(self._rows, start + self._step)) for start in range(0, self._rows, self._step)]
        size = max(1e-9, column.row_bytes)
        pieces = list(sampled([int(self._rows * size)]))
        rows = [(int(start / size), min(self._rows, int(np.ceil(stop / size)))) for _, start, stop in pieces]
        rows = rows[::_FEWER] if column.chunk_rows else rows
        return [(a, min(b, a + self._step)) for a, end in rows for a in range(a, end, self._step) for b in [end]]


def _cut(pieces: Iterator[pa.Array], total: int, rows: int) -> Iterator[pa.Array]:
    """``total`` rows in pieces of any size, cut anew into slices of ``rows`` rows."""
    piece, at = next(pieces), 0
    while total:
        parts, wanted = [], min(rows, total)
        total -= wanted
        while wanted:
            if at == len(piece):
                piece, at = None, 0  # it is given up before the next one is read
                piece = next(pieces)
            part = piece.slice(at, wanted)
            parts.append(part)
            at, wanted = at + len(part), wanted - len(part)
        yield parts[0] if len(parts) == 1 else pa.concat_arrays(parts)

"""From chunks to rows in a window: whole chunks, a few columns at a time, and streamed chunks, slice by slice."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from streamtrain.errors import CorruptError, SchemaError, StreamtrainError
from streamtrain.load.layout import Layout, WindowArrays
from streamtrain.memory import ByteGate
from streamtrain.shuffle import Piece
from streamtrain.storage.arrow import as_batches
from streamtrain.storage.reader import Chunk, ChunkTable, Reader

__all__ = ["PieceReader", "Stopped", "load_chunk", "read_columns"]


class Stopped(Exception):
    """The loader was closed while a read was under way."""


def read_columns(reader: Reader, chunk: Chunk, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The named columns of a chunk, checked: the names asked for, the rows declared. Raises CorruptError, SchemaError."""
    rows = 0
    for batch in as_batches(reader.read(chunk, columns)):
        rows += batch.num_rows
        if rows <= chunk.rows:
            yield _named(batch, chunk, columns)
    if rows != chunk.rows:
        raise CorruptError(f"{chunk.key}: gave {rows:,} rows, but {chunk.rows:,} were declared: the data has changed")


def _named(batch: pa.RecordBatch, chunk: Chunk, columns: Sequence[str]) -> pa.RecordBatch:
    if batch.schema.names != list(columns):
        raise SchemaError(f"{chunk.key}: gave columns {batch.schema.names}, but {list(columns)} were asked for")
    return batch


def load_chunk(reader: Reader, layout: Layout, chunk: Chunk, groups: Sequence[Sequence[str]]) -> WindowArrays:
    """A whole chunk as arrays of its own: what a worker of a cluster returns."""
    arrays = WindowArrays.empty(layout, chunk.rows)
    _write_chunk(reader, layout, chunk, groups, arrays, 0)
    return arrays


def _write_chunk(
    reader: Reader, layout: Layout, chunk: Chunk, groups: Sequence[Sequence[str]], into: WindowArrays, at: int
) -> None:
    for columns in groups:
        row = at
        for batch in read_columns(reader, chunk, columns):
            layout.write(batch, into, row, chunk.key)
            row += batch.num_rows


class PieceReader:
    """Reads pieces into windows, inside the byte gate. Streams stay open between the windows that draw from them."""

    def __init__(
        self, reader: Reader, table: ChunkTable, layout: Layout, *, share: float, slice_rows: int, gate: ByteGate,
        read_bytes: int,
    ) -> None:  # fmt: skip
        self._reader, self._table, self._layout = reader, table, layout
        self.groups = layout.groups(share)
        self._slice_rows, self._gate, self._read_bytes = slice_rows, gate, read_bytes
        self._streams: dict[int, _Stream] = {}
        self._lock = threading.Lock()
        self.seconds = 0.0
        self.stopped = False

    def is_whole(self, piece: Piece) -> bool:
        return piece.rows == int(self._table.rows[piece.chunk])

    def read(self, piece: Piece, into: WindowArrays, at: int) -> None:
        """Write the rows of a piece to the window from row ``at`` on."""
        started = time.perf_counter()
        chunk = self._table[piece.chunk]
        try:
            if self.is_whole(piece) and piece.chunk not in self._streams:
                with self._gate.hold(self._read_bytes):
                    self._read_whole(chunk, into, at)
            else:
                self._read_slices(piece, chunk, into, at)
        except (StreamtrainError, Stopped):
            raise
        except MemoryError:
            raise
        except Exception as error:  # a reader of somebody else's: the chunk must be named
            raise CorruptError(f"{chunk.key}: cannot be read: {type(error).__name__}: {error}") from error
        with self._lock:
            self.seconds += time.perf_counter() - started

    def _read_whole(self, chunk: Chunk, into: WindowArrays, at: int) -> None:
        for columns in self.groups:
            self._check_stopped()
            _write_chunk(self._reader, self._layout, chunk, [columns], into, at)

    def _read_slices(self, piece: Piece, chunk: Chunk, into: WindowArrays, at: int) -> None:
        stream = self._streams.pop(piece.chunk, None)
        if stream is None or stream.position > piece.start:
            stream = _Stream(self._open(chunk), chunk)
        while stream.position < piece.stop:
            self._check_stopped()
            batch = stream.take(max(piece.start, stream.position), piece.stop)
            if batch is not None:
                self._layout.write(batch, into, at, chunk.key)
                at += batch.num_rows
        if piece.stop < chunk.rows:
            self._streams[piece.chunk] = stream
        else:
            stream.finish()

    def _open(self, chunk: Chunk) -> Iterator[Any]:
        stream = getattr(self._reader, "stream", None)
        if stream is not None:
            return iter(stream(chunk, self._layout.columns, self._slice_rows))
        return iter([self._reader.read(chunk, self._layout.columns)])

    def _check_stopped(self) -> None:
        if self.stopped:
            raise Stopped


class _Stream:
    """One open stream of slices: where it stands, and the rest of the slice that a piece did not need."""

    def __init__(self, slices: Iterator[Any], chunk: Chunk) -> None:
        self._batches = (_named_batch for part in slices for _named_batch in as_batches(part))
        self._chunk = chunk
        self._held: pa.RecordBatch | None = None
        self.position = 0  # of the first row that was not handed out

    def take(self, start: int, stop: int) -> pa.RecordBatch | None:
        """Rows from ``start`` (what stands before it is skipped) to at most ``stop``; None while still before it."""
        batch = self._held if self._held is not None else next(self._batches, None)
        if batch is None:
            raise CorruptError(
                f"{self._chunk.key}: ended after {self.position:,} rows, but {self._chunk.rows:,} were declared"
            )
        first, self._held = self.position, None
        skipped = min(batch.num_rows, start - first)
        taken = batch.slice(skipped, min(batch.num_rows - skipped, max(0, stop - first - skipped)))
        self.position += skipped + taken.num_rows
        rest = skipped + taken.num_rows
        self._held = batch.slice(rest) if rest < batch.num_rows else None
        return taken if taken.num_rows else None

    def finish(self) -> None:
        """Read to the end, so that the rows are counted."""
        left = next(self._batches, None)
        if self._held is not None or (left is not None and left.num_rows):
            raise CorruptError(f"{self._chunk.key}: gave more than the {self._chunk.rows:,} rows that were declared")

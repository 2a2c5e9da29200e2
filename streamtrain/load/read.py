"""From chunks to rows in a window: whole chunks a few columns at a time, streamed chunks slice by slice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.columns.buffers import WindowArrays
from streamtrain.columns.layout import Layout
from streamtrain.errors import ChangedError, CorruptError, DataError, SchemaError
from streamtrain.load.ledger import Ledger
from streamtrain.load.window import Positions, Window
from streamtrain.memory.gate import ByteGate
from streamtrain.plan.order import Piece
from streamtrain.storage.checked import open_stream, read_columns
from streamtrain.storage.reader import Chunk, ChunkTable, Reader

__all__ = ["PieceReader", "Placed", "Stopped", "load_chunk"]

#: a piece, and a function that gives the positions of its rows in the window
Placed = tuple[Piece, Positions]
#: takes the positions of lost rows, shape (rows,)
Lose = Callable[[NDArray[np.int64]], None]


class Stopped(Exception):
    """The loader was closed while a read was under way."""


def load_chunk(
    reader: Reader, layout: Layout, chunk: Chunk, groups: Sequence[Sequence[str]], skips: bool = False
) -> tuple[WindowArrays, list[NDArray[np.int64]]]:
    """A whole chunk in its own arrays, and the numbers of its rows without a usable target, as a worker of a cluster returns
    them. Without ``skips`` such a row is an error."""
    arrays = layout.buffers(chunk.rows)
    lost: list[NDArray[np.int64]] = []
    for columns in groups:
        write_columns(reader, layout, chunk, columns, arrays, np.arange, lost.append if skips else None)
    return arrays, lost


def write_columns(
    reader: Reader, layout: Layout, chunk: Chunk, columns: Sequence[str], into: WindowArrays, positions: Positions,
    lose: Lose | None = None,
) -> None:  # fmt: skip
    """Read some columns of a whole chunk and write each row to its position. lose: takes the positions of rows without a usable
    target; without it such a row is an error."""
    row = 0
    for batch in read_columns(reader, chunk, columns):
        _write(layout, batch, into, positions(row, row + batch.num_rows), chunk, lose)
        row += batch.num_rows


def _write(
    layout: Layout,
    batch: pa.RecordBatch,
    into: WindowArrays,
    positions: NDArray[np.int64],
    chunk: Chunk,
    lose: Lose | None,
) -> None:
    lost = layout.write(batch, into, positions, chunk.key, skips=lose is not None)
    if lose is not None and lost is not None:
        lose(lost)


class PieceReader:
    """Reads pieces into windows, inside the byte gate. Streams stay open between the windows that take rows from them.

    streamed: which chunks are read in slices over several windows, shape (chunks,). sliced: likewise, for one window: the plan
    has no memory for the whole of them. ledger:
    chunks that cannot be read are entered here, and rows without a usable target are skipped; without it they are errors.
    """

    def __init__(
        self, reader: Reader, table: ChunkTable, layout: Layout, *, streamed: NDArray[np.bool_],
        sliced: NDArray[np.bool_], share: float, slice_rows: int, gate: ByteGate, read_bytes: int, ledger: Ledger | None = None,
    ) -> None:  # fmt: skip
        self._reader, self._table, self._layout, self._streamed = reader, table, layout, streamed
        self._sliced = sliced
        self.groups = layout.groups(share)
        self._slice_rows, self._gate, self._read_bytes = slice_rows, gate, read_bytes
        self._ledger = ledger
        self._streams: dict[int, _Stream] = {}
        self._lock = threading.Lock()
        self.seconds = 0.0
        self.stopped = False

    def is_whole(self, piece: Piece) -> bool:
        return not self._streamed[piece.chunk]

    def sequences(self, placed: Iterable[Placed]) -> list[list[Placed]]:
        """Sequences of pieces: those of one sequence are read one after the other. A stream opens after an earlier one has
        ended, so no more streams are open at a time than the plan has memory for."""
        sequences: list[list[Placed]] = []
        ended: list[list[Placed]] = []
        for piece, positions in placed:
            follows = bool(ended) and piece.start == 0 and not self.is_whole(piece)
            sequence = ended.pop() if follows else []
            sequence.append((piece, positions))
            if not follows:
                sequences.append(sequence)
            if not self.is_whole(piece) and piece.stop == int(self._table.rows[piece.chunk]):
                ended.append(sequence)
        return sequences

    def read_sequence(self, pieces: Sequence[Placed], window: Window) -> None:
        """`read` each piece, in order."""
        for piece, positions in pieces:
            self.read(piece, window, positions)

    def read(self, piece: Piece, window: Window, positions: Positions) -> None:
        """Write each row of a piece to its position in the window. If the chunk cannot be read, mark the rows as lost and
        enter it in the ledger."""
        started = time.perf_counter()
        try:
            if not self.is_lost(piece, window, positions):
                self._read(piece, window, positions)
        except (CorruptError, SchemaError) as error:
            self.lose(piece, window, positions, error)
        with self._lock:
            self.seconds += time.perf_counter() - started

    def is_lost(self, piece: Piece, window: Window, positions: Positions) -> bool:
        """Whether the piece belongs to a skipped chunk. If so, its rows are marked as lost."""
        if self._ledger is None or not self._ledger.is_lost(piece.chunk):
            return False
        window.lose(positions(0, piece.rows))
        return True

    def lose(self, piece: Piece, window: Window, positions: Positions, error: DataError) -> None:
        """Skip the chunk of a piece if there is a ledger; otherwise raise the error."""
        if self._ledger is None or isinstance(error, ChangedError):
            raise error
        chunk = self._table[piece.chunk]
        self._ledger.skip_chunk(piece.chunk, chunk.key, chunk.rows, error)
        window.lose(positions(0, piece.rows))

    def _read(self, piece: Piece, window: Window, positions: Positions) -> None:
        chunk, lose = self._table[piece.chunk], window.lose if self._ledger is not None else None
        if not self.is_whole(piece):
            self._read_slices(piece, chunk, window, positions, lose)
            return
        with self._gate.hold(self._read_bytes):
            if self._sliced[piece.chunk]:
                self._read_whole_in_slices(chunk, window, positions, lose)
                return
            for columns in self.groups:
                self._check_stopped()
                write_columns(self._reader, self._layout, chunk, columns, window.arrays, positions, lose)

    def _read_whole_in_slices(self, chunk: Chunk, window: Window, positions: Positions, lose: Lose | None) -> None:
        stream = self._open(chunk)
        while stream.position < chunk.rows:
            self._check_stopped()
            batch = stream.take(stream.position, chunk.rows)
            if batch is not None:
                last = stream.position
                _write(self._layout, batch, window.arrays, positions(last - batch.num_rows, last), chunk, lose)
        stream.finish()

    def _read_slices(self, piece: Piece, chunk: Chunk, window: Window, positions: Positions, lose: Lose | None) -> None:
        stream = self._streams.pop(piece.chunk, None)
        if stream is None or stream.position > piece.start:
            if self._ledger is not None:
                self._require_readable(chunk)
            stream = self._open(chunk)
        while stream.position < piece.stop:
            self._check_stopped()
            batch = stream.take(max(piece.start, stream.position), piece.stop)
            if batch is not None:
                last = stream.position - piece.start
                _write(self._layout, batch, window.arrays, positions(last - batch.num_rows, last), chunk, lose)
        if piece.stop < chunk.rows:
            self._streams[piece.chunk] = stream
        else:
            stream.finish()

    def _open(self, chunk: Chunk) -> _Stream:
        return _Stream(open_stream(self._reader, chunk, self._layout.read, self._slice_rows), chunk)

    def _require_readable(self, chunk: Chunk) -> None:
        """Read a chunk to its end only to find errors: what was learned from its first rows could not be undone."""
        stream = self._open(chunk)
        while stream.position < chunk.rows:
            self._check_stopped()
            stream.take(stream.position, chunk.rows)
        stream.finish()

    def _check_stopped(self) -> None:
        if self.stopped:
            raise Stopped


class _Stream:
    """One open stream of slices: its position, and the rest of a slice that a piece did not need."""

    def __init__(self, batches: Iterator[pa.RecordBatch], chunk: Chunk) -> None:
        self._batches = batches
        self._chunk = chunk
        self._held: pa.RecordBatch | None = None
        self.position = 0  # of the next row to hand out

    def take(self, start: int, stop: int) -> pa.RecordBatch | None:
        """Rows from ``start`` to at most ``stop``; None if the next slice ends before ``start``."""
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
        """Read to the end, so that all rows are counted."""
        if self._held is not None or any(batch.num_rows for batch in self._batches):
            raise CorruptError(f"{self._chunk.key}: gave more than the {self._chunk.rows:,} rows that were declared")

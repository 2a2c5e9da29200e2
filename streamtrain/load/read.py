"""From chunks to rows in a window: small chunks several at once, larger ones a few columns at a time, streamed chunks slice by
slice."""

from __future__ import annotations

import threading
import time
from functools import partial

import numpy as np
from numpy.typing import NDArray

from streamtrain.columns.groups import groups
from streamtrain.columns.layout import Layout
from streamtrain.columns.weights import Skips
from streamtrain.errors import ChangedError, CorruptError, DataError, SchemaError
from streamtrain.load.chunks import Skip, refuse, write_chunks, write_rows
from streamtrain.load.digests import ChunkDigest, Digests, RunDigest
from streamtrain.load.ledger import Ledger
from streamtrain.load.stream import Stream
from streamtrain.load.window import Window
from streamtrain.memory.gate import ByteGate
from streamtrain.plan.order import Pieces
from streamtrain.plan.together import tasks, together
from streamtrain.storage.checked import open_stream
from streamtrain.storage.nested import read_units
from streamtrain.storage.reader import ChunkTable, Reader, ReadsTogether

__all__ = ["PieceReader", "Stopped"]


class Stopped(Exception):
    """The loader was closed while a read was under way."""


class PieceReader:
    """Reads pieces into windows, inside the byte gate. Streams stay open between the windows that take rows from them.

    Pieces are named by their number in the order of the window. streamed: which chunks are read in slices over several
    windows, shape (chunks,). sliced: likewise, for one window: the plan has no memory for the whole of them. ledger: chunks
    that cannot be read, and rows that cannot be used, are skipped, and entered here; without it they are errors. digests:
    what is read is compared with these, and noted there.
    """

    def __init__(
        self, reader: Reader, table: ChunkTable, layout: Layout, *, streamed: NDArray[np.bool_],
        sliced: NDArray[np.bool_], share: float, slice_rows: int, gate: ByteGate, read_bytes: int, threads: int,
        ledger: Ledger | None = None, digests: Digests | None = None,
    ) -> None:  # fmt: skip
        self._reader, self._table, self._layout, self._streamed = reader, table, layout, streamed
        self._sliced = sliced
        self.groups = groups(layout, share, read_units(reader.schema, layout.read))
        self._slice_rows, self._gate, self._read_bytes, self._threads = slice_rows, gate, read_bytes, threads
        self._ledger, self.digests = ledger, digests
        self._streams: dict[int, Stream] = {}
        self._lock = threading.Lock()
        self.seconds = 0.0
        self.stopped = False

    def runs(self, pieces: Pieces) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]:
        """The numbers of all pieces of a window, in runs that are read one piece after the other: runs of whole chunks, in
        the order of the data, and runs of pieces of streamed chunks.

        A stream opens after an earlier one has ended, so no more streams are open at a time than the plan has memory for.
        """
        streamed = self._streamed[pieces.chunks]
        whole = np.flatnonzero(~streamed)
        whole = whole[np.argsort(pieces.chunks[whole], kind="stable")]  # neighbours can be read together
        runs: list[list[int]] = []
        ended: list[list[int]] = []
        for number in np.flatnonzero(streamed).tolist():
            piece = pieces[number]
            follows = bool(ended) and piece.start == 0
            run = ended.pop() if follows else []
            run.append(number)
            if not follows:
                runs.append(run)
            if piece.stop == int(self._table.rows[piece.chunk]):
                ended.append(run)
        sizes = self._table.decoded_bytes[pieces.chunks[whole]]
        return [whole[run] for run in tasks(sizes, self._threads)], [np.array(run) for run in runs]

    def read_run(self, numbers: NDArray[np.int64], window: Window) -> None:
        """Write each row of some pieces to its position: all of whole chunks, or all of streamed ones. If a chunk cannot be
        read, mark its rows as lost and enter it in the ledger."""
        chunks = window.order.pieces.chunks[numbers]
        if not isinstance(self._reader, ReadsTogether) or self._streamed[chunks[0]]:
            calls = [slice(i, i + 1) for i in range(len(numbers))]
        else:
            calls = list(together(self._table.rows[chunks], self._table.read_peak_bytes[chunks]))
        for call in calls:
            started = time.perf_counter()
            some = numbers[call]
            if len(some) == 1 or not self._read_together(some, window):
                for number in some.tolist():
                    self._read(number, window)
            with self._lock:
                self.seconds += time.perf_counter() - started

    def _read_together(self, numbers: NDArray[np.int64], window: Window) -> bool:
        """Read whole chunks in one call. False if they must be read one by one, because one of them is skipped or damaged."""
        chunks = window.order.pieces.chunks[numbers].tolist()
        if self._sliced[chunks].any() or (self._ledger is not None and any(map(self._ledger.is_lost, chunks))):
            return False
        try:
            self._write_chunks(chunks, window.order.positions_together(numbers), window)
        except DataError:
            return False
        return True

    def _write_chunks(self, chunks: list[int], positions: NDArray[np.int64], window: Window) -> None:
        named, digest = [self._table[chunk] for chunk in chunks], None
        skip = self._skip_in(chunks[0], window) if len(chunks) == 1 else refuse
        if self.digests is not None:
            firsts = list(map(self.digests.first, chunks))
            digest = RunDigest(self._layout.targets, [chunk.rows for chunk in named], firsts)
        with self._gate.hold(self._read_bytes):
            write_chunks(
                self._reader, self._layout, named, self.groups, window.arrays, positions, digest, self.skips, skip,
                self._check_stopped,
            )  # fmt: skip
        if self.digests is not None and digest is not None:
            for number, each in zip(chunks, digest.chunks, strict=True):
                self.digests.check(number, each.value(), each.part)

    @property
    def skips(self) -> Skips | None:
        """Which rows are skipped; None if such a row is an error."""
        return None if self._ledger is None else self._ledger.skips

    def _skip_in(self, chunk: int, window: Window) -> Skip:
        return partial(self.skip, chunk, window)

    def skip(self, chunk: int, window: Window, positions: NDArray[np.int64], why: str) -> None:
        """Skip rows of a chunk."""
        assert self._ledger is not None
        self._ledger.note(chunk, why)
        window.skip(chunk, positions)

    def _read(self, number: int, window: Window) -> None:
        """Write each row of a piece to its position."""
        try:
            if self.is_lost(number, window):
                return
            if self._streamed[window.order.pieces.chunks[number]]:
                self._read_slices(number, window)
                return
            piece = window.order.pieces[number]
            if self._sliced[piece.chunk]:
                self._read_all_slices(number, window)
                return
            self._write_chunks([piece.chunk], window.order.positions(number, 0, piece.rows), window)
        except (CorruptError, SchemaError) as error:
            self.lose(number, window, error)

    def is_lost(self, number: int, window: Window) -> bool:
        """Whether a piece belongs to a skipped chunk. If so, its rows are marked as lost."""
        piece = window.order.pieces[number]
        if self._ledger is None or not self._ledger.is_lost(piece.chunk):
            return False
        window.lose(piece.chunk, window.order.positions(number, 0, piece.rows))
        return True

    def lose(self, number: int, window: Window, error: DataError) -> None:
        """Skip the chunk of a piece if there is a ledger; otherwise raise the error."""
        if self._ledger is None or isinstance(error, ChangedError):
            raise error
        piece = window.order.pieces[number]
        self._ledger.skip_chunk(piece.chunk, error)
        window.lose(piece.chunk, window.order.positions(number, 0, piece.rows))

    def _read_all_slices(self, number: int, window: Window) -> None:
        """Write all rows of a chunk to their positions, slice by slice."""
        with self._gate.hold(self._read_bytes):
            self._read_slices(number, window)

    def _read_slices(self, number: int, window: Window) -> None:
        piece = window.order.pieces[number]
        chunk = self._table[piece.chunk]
        stream = self._streams.pop(piece.chunk, None)
        if stream is None or stream.position > piece.start:
            if self._ledger is not None:
                self._require_readable(piece.chunk)
            stream = self._open(piece.chunk)
        while stream.position < piece.stop:
            self._check_stopped()
            batch = stream.take(max(piece.start, stream.position), piece.stop)
            if batch is not None:
                last = stream.position - piece.start
                first = stream.position - batch.num_rows
                positions = window.order.positions(number, last - batch.num_rows, last)
                skip = self._skip_in(piece.chunk, window)
                write_rows(self._layout, batch, window.arrays, positions, chunk, stream.digest, self.skips, skip, first)
        if piece.stop < chunk.rows:
            self._streams[piece.chunk] = stream
        else:
            stream.finish()
        self._compare(piece.chunk, stream)

    def _open(self, number: int) -> Stream:
        chunk, digest = self._table[number], None
        if self.digests is not None:
            digest = ChunkDigest(self._layout.targets, self.digests.first(number))
        return Stream(open_stream(self._reader, chunk, self._layout.read, self._slice_rows), chunk, digest)

    def _compare(self, number: int, stream: Stream) -> None:
        """Compare what a stream has read of a chunk with what was read before."""
        if self.digests is None or stream.digest is None:
            return
        digest = stream.digest.value()
        if stream.position < int(self._table.rows[number]):
            self.digests.check_part(number, stream.position, digest, stream.digest.part)
            stream.digest.note(stream.position, digest)
        else:
            self.digests.check(number, digest, stream.digest.part)

    def _require_readable(self, number: int) -> None:
        """Read a chunk to its end only to find errors: what was learned from its first rows could not be undone."""
        chunk = self._table[number]
        stream = self._open(number)
        while stream.position < chunk.rows:
            self._check_stopped()
            batch = stream.take(stream.position, chunk.rows)
            if batch is not None and stream.digest is not None:
                stream.digest.add_batch(batch)
        stream.finish()
        self._compare(number, stream)

    def _check_stopped(self) -> None:
        if self.stopped:
            raise Stopped

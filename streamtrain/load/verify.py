"""Read again what was read before, only to compare it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from streamtrain.columns.groups import groups
from streamtrain.errors import CorruptError, SchemaError
from streamtrain.load.digests import ChunkDigest, Digests
from streamtrain.load.source import Source
from streamtrain.memory.gate import ByteGate
from streamtrain.memory.monitor import Monitor
from streamtrain.memory.process import steady_allocators
from streamtrain.plan import Plan
from streamtrain.plan.order import streamed
from streamtrain.storage.checked import open_stream, read_columns
from streamtrain.storage.nested import read_units
from streamtrain.storage.reader import Chunk

__all__ = ["reread"]

_AT_ONCE = 1024  # chunks that are handed to the threads at once


def reread(source: Source, plan: Plan, monitor: Monitor) -> dict[int, str]:
    """Read every chunk of the source that was read before, and return the numbers of those that differ or cannot be read any
    more, each with the error. It takes the memory of the plan's reads. monitor: of the process, entered."""
    assert source.digests is not None
    again = _Again(source, source.digests, plan, monitor)
    large, known = streamed(source.table.rows, plan.window_rows, shuffle=plan.shuffle), source.digests.known
    whole = np.flatnonzero(known & ~large)
    with steady_allocators(), ThreadPoolExecutor(plan.threads, thread_name_prefix="streamtrain-verify") as pool:
        for start in range(0, len(whole), _AT_ONCE):
            list(pool.map(again.compare, whole[start : start + _AT_ONCE].tolist()))
        begun = {number for number in source.digests.begun if not known[number]}
        for number in sorted({*np.flatnonzero(known & large).tolist(), *begun}):
            again.compare_slices(number)
    return dict(sorted(again.errors.items()))


class _Again:
    """Chunks that are read again. errors: by the number of the chunk."""

    def __init__(self, source: Source, digests: Digests, plan: Plan, monitor: Monitor) -> None:
        self._source, self._digests, self._plan, self._monitor = source, digests, plan, monitor
        units = read_units(source.reader.schema, source.layout.read)
        self._groups = groups(source.layout, plan.read_share, units)
        self._gate = ByteGate(max(1, plan.read_bytes), monitor.near)
        self._read_bytes = plan.read_bytes // max(1, min(plan.threads, plan.chunks))
        self._known = digests.known
        self.errors: dict[int, str] = {}

    def compare(self, number: int) -> None:
        """Compare a chunk that enters a window as a whole."""
        with self._gate.hold(self._read_bytes):
            self._compare(number, self._compare_slices if self._plan.sliced[number] else self._compare_whole)

    def compare_slices(self, number: int) -> None:
        """Compare a chunk that is read in slices, or as many of its rows as were read before."""
        self._compare(number, self._compare_slices)

    def _compare(self, number: int, how: Callable[[int, Chunk, ChunkDigest], None]) -> None:
        self._monitor.check()
        digest = ChunkDigest(self._source.layout.targets, self._digests.first(number))
        try:
            how(number, self._source.table[number], digest)
        except (CorruptError, SchemaError) as error:
            self.errors[number] = str(error)

    def _compare_whole(self, number: int, chunk: Chunk, digest: ChunkDigest) -> None:
        for columns in self._groups:
            for batch in read_columns(self._source.reader, chunk, columns):
                digest.add_batch(batch)
        self._digests.check(number, digest.value(), digest.part)

    def _compare_slices(self, number: int, chunk: Chunk, digest: ChunkDigest) -> None:
        row, rows = 0, chunk.rows if self._known[number] else digest.first
        for batch in open_stream(self._source.reader, chunk, self._source.layout.read, self._plan.slice_rows):
            part = batch.slice(0, rows - row)
            digest.add_batch(part)
            row += part.num_rows
            if row == rows < chunk.rows:
                break
        if row < rows:
            raise CorruptError(f"{chunk.key}: ended after {row:,} rows, but {chunk.rows:,} were declared")
        if rows < chunk.rows:
            self._digests.check_part(number, rows, digest.value())
        else:
            self._digests.check(number, digest.value(), digest.part)

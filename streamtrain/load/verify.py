"""Read again what was read before, only to compare it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from streamtrain.errors import CorruptError, SchemaError
from streamtrain.load.digests import ChunkDigest, Digests
from streamtrain.load.source import Source
from streamtrain.memory.gate import ByteGate
from streamtrain.memory.monitor import Monitor
from streamtrain.memory.process import steady_allocators
from streamtrain.plan import Plan
from streamtrain.plan.order import streamed
from streamtrain.storage.checked import open_stream, read_columns

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
        for number in sorted({*np.flatnonzero(known & large).tolist(), *source.digests.begun}):
            again.compare_slices(number)
    return dict(sorted(again.errors.items()))


class _Again:
    """Chunks that are read again. errors: by the number of the chunk."""

    def __init__(self, source: Source, digests: Digests, plan: Plan, monitor: Monitor) -> None:
        self._source, self._digests, self._plan, self._monitor = source, digests, plan, monitor
        self._groups = source.layout.groups(plan.read_share)
        self._gate = ByteGate(max(1, plan.read_bytes), monitor.near)
        self._read_bytes = plan.read_bytes // max(1, min(plan.threads, plan.chunks))
        self._begun = digests.begun
        self.errors: dict[int, str] = {}

    def compare(self, number: int) -> None:
        """Compare a chunk that is read as a whole."""
        self._monitor.check()
        chunk, digest = self._source.table[number], ChunkDigest(self._source.layout.targets)
        try:
            with self._gate.hold(self._read_bytes):
                for columns in self._groups:
                    for batch in read_columns(self._source.reader, chunk, columns):
                        digest.add_batch(batch)
            self._digests.check(number, digest.value())
        except (CorruptError, SchemaError) as error:
            self.errors[number] = str(error)

    def compare_slices(self, number: int) -> None:
        """Compare a chunk that is read in slices, or as many of its rows as were read before."""
        self._monitor.check()
        try:
            self._compare_slices(number)
        except (CorruptError, SchemaError) as error:
            self.errors[number] = str(error)

    def _compare_slices(self, number: int) -> None:
        chunk, digest, row = self._source.table[number], ChunkDigest(self._source.layout.targets), 0
        rows = self._begun.get(number, chunk.rows)
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
            self._digests.check(number, digest.value())

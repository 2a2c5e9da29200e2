"""A chunk that is read in slices, some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from streamtrain.errors import CorruptError
from streamtrain.load.digests import ChunkDigest
from streamtrain.storage.reader import Chunk

__all__ = ["Stream"]


class Stream:
    """One open stream of slices: its position, and the rest of a slice that a piece did not need.

    digest: of the rows before the position. Rows that `take` passes over are added here, those that it returns by the caller.
    """

    def __init__(self, batches: Iterator[pa.RecordBatch], chunk: Chunk, digest: ChunkDigest | None) -> None:
        self._batches, self._chunk, self.digest = batches, chunk, digest
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
        if skipped and self.digest is not None:
            self.digest.add_batch(batch.slice(0, skipped))
        taken = batch.slice(skipped, min(batch.num_rows - skipped, max(0, stop - first - skipped)))
        self.position += skipped + taken.num_rows
        rest = skipped + taken.num_rows
        self._held = batch.slice(rest) if rest < batch.num_rows else None
        return taken if taken.num_rows else None

    def finish(self) -> None:
        """Read to the end, so that all rows are counted."""
        if self._held is not None or any(batch.num_rows for batch in self._batches):
            raise CorruptError(f"{self._chunk.key}: gave more than the {self._chunk.rows:,} rows that were declared")

"""Copy chunk after chunk, whole or in slices, from the reader to the output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from streamtrain.errors import BadValueError, CorruptError, SchemaError
from streamtrain.memory.monitor import Monitor
from streamtrain.memory.process import steady_allocators
from streamtrain.plan.term import Term
from streamtrain.storage.checked import open_stream, read_columns
from streamtrain.storage.reader import Chunk, ChunkTable, Reader
from streamtrain.tools.rechunk.plan import CopyPlan

__all__ = ["Output", "Sink", "copy_rows"]


class Sink(Protocol):
    """Writes rows in their order. ``close`` finishes and returns the number of chunks; ``abort`` closes open files."""

    most_held_bytes: int

    def write(self, batch: pa.RecordBatch) -> None: ...
    def close(self) -> int: ...
    def abort(self) -> None: ...


class Output(Protocol):
    """The output in one format: its terms of the plan, and the sink that writes it."""

    def terms(self, table: ChunkTable, rows: int) -> tuple[Term, ...]: ...
    def open(self, folder: Path, rows: int, chunk_rows: int, require: Callable[[int, float], None]) -> Sink: ...


def copy_rows(reader: Reader, table: ChunkTable, plan: CopyPlan, sink: Sink, done: Callable[[int], object]) -> int:
    """Write every row of the reader to the sink. Returns the number of chunks. done: called with the rows so far.

    Raises CorruptError where the reader gives other rows than it declared, BudgetExceeded where the process goes over its
    budget.
    """
    copied = 0
    with Monitor(plan.budget_bytes, plan.term_bytes) as monitor, steady_allocators():
        try:
            for chunk in table:
                for batch in _batches(reader, chunk, plan):
                    _write(sink, batch, chunk)
                    if monitor.over():
                        monitor.check()
                    copied += batch.num_rows
                    done(copied)
                    del batch  # free it before the next one is read
            chunks = sink.close()
            monitor.check()
            return chunks
        except BaseException:
            sink.abort()
            raise


def _write(sink: Sink, batch: pa.RecordBatch, chunk: Chunk) -> None:
    """Write a batch. An error about one of its values names the chunk."""
    try:
        sink.write(batch)
    except (BadValueError, SchemaError) as error:
        raise type(error)(f"{chunk.key}: {error}") from error


def _batches(reader: Reader, chunk: Chunk, plan: CopyPlan) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a chunk; raise CorruptError unless there are as many as it declares."""
    names, left = reader.schema.names, chunk.rows
    if not left:
        return
    rows = plan.slice_rows(chunk)
    if rows is None:
        batches = read_columns(reader, chunk, names, raw=True)
    else:
        batches = open_stream(reader, chunk, names, rows, raw=True)
    for batch in batches:
        left -= batch.num_rows
        if left < 0:
            break
        yield batch
    if left:
        raise CorruptError(f"{chunk.key}: {chunk.rows - left:,} rows were read, but {chunk.rows:,} were declared")

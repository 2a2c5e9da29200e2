"""Reads that are checked: what a reader promised is what arrives, and whatever goes wrong names the chunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from streamtrain.errors import CorruptError, DataError, SchemaError, StreamtrainError
from streamtrain.kernels.crash import reading
from streamtrain.storage.arrow import as_batches
from streamtrain.storage.reader import Chunk, Reader

__all__ = ["checked_batches", "first_rows", "naming", "open_stream", "read_columns"]

_END = object()  # None is something that a wrong reader may give


@contextmanager
def naming(chunk: Chunk) -> Iterator[None]:
    """Whatever a reader of somebody else's raises, the error names the chunk; also where it ends the process."""
    try:
        with reading(chunk.key):
            yield
    except (StreamtrainError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise CorruptError(f"{chunk.key}: cannot be read: {type(error).__name__}: {error}") from error


def read_columns(reader: Reader, chunk: Chunk, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The named columns of a chunk: the names asked for, the rows declared. Raises CorruptError, SchemaError."""
    rows = 0
    with naming(chunk):
        data = reader.read(chunk, columns)
    for batch in checked_batches(data, chunk, columns):
        rows += batch.num_rows
        if rows <= chunk.rows:
            yield batch
    if rows != chunk.rows:
        raise CorruptError(f"{chunk.key}: gave {rows:,} rows, but {chunk.rows:,} were declared: the data has changed")


def open_stream(reader: Reader, chunk: Chunk, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    """A chunk from its start in slices of at most ``rows`` rows; in one where the reader has no streams."""
    stream = getattr(reader, "stream", None)
    if stream is None:
        yield from read_columns(reader, chunk, columns)
        return
    with naming(chunk):
        slices = iter(stream(chunk, columns, rows))
    while True:
        with naming(chunk):
            data = next(slices, _END)
        if data is _END:
            return
        yield from checked_batches(data, chunk, columns)


def checked_batches(data: Any, chunk: Chunk, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The batches of what a reader returned, each with the columns that were asked for."""
    try:
        batches = iter(as_batches(data))
    except DataError as error:
        raise DataError(f"{chunk.key}: {error}") from None
    while True:
        with naming(chunk):
            batch: Any = next(batches, _END)
        if batch is _END:
            return
        if batch.schema.names != list(columns):
            raise SchemaError(f"{chunk.key}: gave columns {batch.schema.names}, but {list(columns)} were asked for")
        _require_valid(batch, chunk)
        yield batch


def _require_valid(batch: pa.RecordBatch, chunk: Chunk) -> None:
    """Arrow takes over bytes that are no values of their type: text that is not UTF-8, decimals of too many digits, codes
    behind the end of their dictionary. To look at all of it costs 5 microseconds a batch for numbers, 3 to 10 nanoseconds
    a value for text and decimals."""
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid as error:
        for name, values in zip(batch.schema.names, batch.columns, strict=True):
            try:
                values.validate(full=True)
            except pa.ArrowInvalid as found:
                raise CorruptError(f"{chunk.key}: column {name!r} holds what is no {values.type}: {found}") from None
        raise CorruptError(f"{chunk.key}: holds values that are not valid: {error}") from None


def first_rows(reader: Reader, chunk: Chunk, columns: Sequence[str], rows: int) -> pa.RecordBatch:
    """At most ``rows`` rows from the start of a chunk that has some."""
    slices = open_stream(reader, chunk, columns, rows)
    try:
        return next(batch for batch in slices if batch.num_rows).slice(0, rows)
    except StopIteration:
        raise CorruptError(f"{chunk.key}: gave no rows, but {chunk.rows:,} were declared") from None

"""Checked reads: the data must be what the reader declared, and every error names the chunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import pyarrow as pa

from streamtrain.errors import CorruptError, DataError, SchemaError, StreamtrainError
from streamtrain.kernels.crash import reading
from streamtrain.memory.limits import is_shortage
from streamtrain.storage.arrow import as_batches
from streamtrain.storage.kept import KeptChunk, kept_batches, mask_of, whole
from streamtrain.storage.nested import read_plain
from streamtrain.storage.reader import Chunk, Reader, ReadsTogether

__all__ = ["checked_batches", "counted", "first_rows", "naming", "open_stream", "read_columns", "read_together"]

_END = object()  # not None, which a faulty reader may return


def code_of(reader: Any) -> str:
    """The code that reads, as ``module:name``, if a user wrote it; otherwise "".

    >>> code_of(object())
    'builtins:object'
    """
    code = getattr(reader, "read_function", type(reader))
    code = code if hasattr(code, "__qualname__") else type(code)  # a partial, or an object that can be called
    own = code.__module__.partition(".")[0] != __name__.partition(".")[0]
    return f"{code.__module__}:{code.__qualname__}" if own else ""


@contextmanager
def naming(chunk: Chunk, own: str = "") -> Iterator[None]:
    """Turn any exception of a third-party reader into a CorruptError that names the chunk. A crash names it too.

    own: the code of the reader if a user wrote it, see `code_of`.
    """
    try:
        with reading(chunk.key, own):
            yield
    except MemoryError:
        raise
    except BaseException as error:
        if isinstance(error, (KeyboardInterrupt, GeneratorExit)):
            raise
        if is_shortage(error):  # and no chunk to be skipped
            raise MemoryError(f"{chunk.key}: {' '.join(str(error).split())}") from error
        if isinstance(error, StreamtrainError):
            raise
        raise CorruptError(f"{chunk.key}: cannot be read: {type(error).__name__}: {error}") from error


def read_columns(
    reader: Reader, chunk: Chunk, columns: Sequence[str], *, raw: bool = False
) -> Iterator[pa.RecordBatch]:
    """The requested columns of a chunk, in batches. raw: as they are stored, structs and extension types too; otherwise the
    columns are those of `columns_of`.

    Raises CorruptError if the number of rows is not as declared, SchemaError if the columns are not as requested.
    """
    if not raw:
        yield from read_plain(reader.schema, columns, lambda stored: read_columns(reader, chunk, stored, raw=True))
        return
    if isinstance(chunk, KeptChunk):
        if chunk.rows:
            yield from kept_batches(read_columns(reader, chunk.whole, columns, raw=True), mask_of([chunk]))
        return
    own = code_of(reader)
    with naming(chunk, own):
        data = reader.read(chunk, columns)
    yield from counted(checked_batches(data, chunk, columns, own), chunk)


def counted(batches: Iterator[pa.RecordBatch], chunk: Chunk) -> Iterator[pa.RecordBatch]:
    """The batches. Raises CorruptError if they do not have the declared rows."""
    rows = 0
    for batch in batches:
        rows += batch.num_rows
        if rows <= chunk.rows:
            yield batch
    if rows != chunk.rows:
        raise CorruptError(
            f"{chunk.key}: {rows:,} rows were read, but {chunk.rows:,} were declared: the data has changed"
        )


def read_together(reader: ReadsTogether, chunks: Sequence[Chunk], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The requested columns of several chunks, read in one call, in batches: the rows of the first chunk first. Raises as
    `read_columns` does, but cannot tell which chunk is to blame."""
    schema = cast("Reader", reader).schema
    yield from read_plain(schema, columns, lambda stored: _read_together(reader, chunks, stored))


def _read_together(reader: ReadsTogether, chunks: Sequence[Chunk], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    if any(isinstance(chunk, KeptChunk) for chunk in chunks):
        chunks = [chunk for chunk in chunks if chunk.rows]
        if chunks:
            yield from kept_batches(_read_together(reader, list(map(whole, chunks)), columns), mask_of(chunks))
        return
    first = chunks[0]
    every = replace(first, key=f"{first.key} to {chunks[-1].key}", rows=sum(chunk.rows for chunk in chunks))
    own = code_of(reader)
    with naming(every, own):
        data = reader.read_together(chunks, columns)
    yield from counted(checked_batches(data, every, columns, own), every)


def open_stream(
    reader: Reader, chunk: Chunk, columns: Sequence[str], rows: int, *, raw: bool = False
) -> Iterator[pa.RecordBatch]:
    """A chunk from its first row, in slices of at most ``rows`` rows; in one piece if the reader has no streams. raw: as in
    `read_columns`."""
    if not raw:
        yield from read_plain(reader.schema, columns, lambda stored: open_stream(reader, chunk, stored, rows, raw=True))
        return
    stream = getattr(reader, "stream", None)
    if isinstance(chunk, KeptChunk):
        if chunk.rows:
            slices = counted(open_stream(reader, chunk.whole, columns, rows, raw=True), chunk.whole)
            yield from kept_batches(slices, mask_of([chunk]))
        return
    if stream is None:
        yield from read_columns(reader, chunk, columns, raw=True)
        return
    own = code_of(reader)
    with naming(chunk, own):
        slices = iter(stream(chunk, columns, rows))
    while True:
        with naming(chunk, own):
            data = next(slices, _END)
        if data is _END:
            return
        yield from checked_batches(data, chunk, columns, own)


def checked_batches(data: Any, chunk: Chunk, columns: Sequence[str], own: str = "") -> Iterator[pa.RecordBatch]:
    """The batches that a reader returned, checked for the requested columns and for valid values."""
    try:
        batches = iter(as_batches(data))
    except DataError as error:
        raise DataError(f"{chunk.key}: {error}") from None
    while True:
        with naming(chunk, own):
            batch: Any = next(batches, _END)
        if batch is _END:
            return
        if batch.schema.names != list(columns):
            raise SchemaError(
                f"{chunk.key}: the reader returned columns {batch.schema.names}, but {list(columns)} were requested"
            )
        _require_valid(batch, chunk)
        yield batch


def _require_valid(batch: pa.RecordBatch, chunk: Chunk) -> None:
    """Raise CorruptError for values that are invalid for their type: text that is not UTF-8, decimals with too many digits,
    indices beyond the end of a dictionary. Arrow accepts them unchecked. The check costs 5 microseconds a batch for
    numbers, and 3 to 10 nanoseconds a value for text and decimals."""
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid as error:
        for name, values in zip(batch.schema.names, batch.columns, strict=True):
            try:
                values.validate(full=True)
            except pa.ArrowInvalid as reason:
                raise CorruptError(
                    f"{chunk.key}: column {name!r} contains a value that is not a valid {values.type}: {reason}"
                ) from None
        raise CorruptError(f"{chunk.key}: contains invalid values: {error}") from None


def first_rows(reader: Reader, chunk: Chunk, columns: Sequence[str], rows: int, most_bytes: int) -> pa.Table:
    """The first rows of a chunk that is not empty: at most ``rows``, and no more once they take ``most_bytes``."""
    row_bytes = max(1, chunk.decoded_bytes // chunk.rows)
    slices = open_stream(reader, chunk, columns, max(1, min(rows, most_bytes // (4 * row_bytes))))
    batches: list[pa.RecordBatch] = []
    left, nbytes = rows, 0
    for batch in slices:
        batches.append(batch.slice(0, left))
        left, nbytes = left - batches[-1].num_rows, nbytes + batch.nbytes
        if left == 0 or nbytes >= most_bytes:
            break
    if left == rows:
        raise CorruptError(f"{chunk.key}: no rows were read, but {chunk.rows:,} were declared")
    return pa.Table.from_batches(batches).unify_dictionaries().combine_chunks()

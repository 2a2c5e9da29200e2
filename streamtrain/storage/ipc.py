"""Arrow IPC: files (``.arrow``, ``.ipc``, Feather version 2) and streams (``.arrows``).

In a file, a chunk is a run of whole batches: as many as make 65,536 rows or 8 MB, at least one. A stream is a single chunk,
because reading cannot start in the middle of it (dictionaries may change on the way). Batches are read whole, one at a time.
There are no checksums. Every batch is validated in full, so damaged data are never read out of bounds, but a flipped bit in a
number goes unnoticed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute  # encodes text as dictionaries; imported early so that the plan counts its memory

from streamtrain.errors import CorruptError, DataError
from streamtrain.storage.arrow import bytes_per_row, pick
from streamtrain.storage.files.columns import FileColumns
from streamtrain.storage.files.locate import Target, locate
from streamtrain.storage.files.store import FileBacked
from streamtrain.storage.formats import suffixes_of
from streamtrain.storage.ipc_messages import DICTIONARY, RECORDS, BadMessage, file_messages, is_stream, stream_messages
from streamtrain.storage.parquet.footer import READ_ERRORS, is_text, missing_codec, name_problem
from streamtrain.storage.reader import Chunk, ChunkTable
from streamtrain.storage.text.source import edges

__all__ = ["IpcReader"]

CODES = pa.dictionary(pa.int32(), pa.string())  # text is read as dictionaries
CHUNK_BYTES, CHUNK_ROWS = 8_000_000, 65_536
_FLOOR_BYTES = 300_000
_MOST_TRIED = 256  # columns, one by one, for the one that is broken
_TEXT_COPIES = (
    2.5  # memory for text while it is encoded, as a multiple of it: hash table and dictionary grow by doubling
)
_SLACK, _TEXT_SLACK = 1.1, 2.2  # dictionaries and hash tables grow by doubling


class IpcReader(FileBacked):
    """Reads Arrow IPC files and streams. The first bytes of a file tell which it is.

    target: a file, glob or directory, or several; its ``key=value`` folders become columns.
    Raises CorruptError, SchemaError, NotFoundError.
    """

    def __init__(self, target: Target) -> None:
        self._store, self._files = locate(target, suffixes_of("arrow"))
        self._stats = [self._store.stat(name) for name in self._files]
        self._numbers = {name: i for i, name in enumerate(self._files)}
        self._streams: list[bool] = []
        self._dictionary_bytes: list[int] = []  # bytes of the dictionaries of each file
        self._columns = FileColumns(self._files, self._store.folders)
        self._slack = _SLACK
        digest = hashlib.sha256()
        batches: list[tuple[int, ...]] = []
        for i in range(len(self._files)):
            try:
                schema, metadata = self._open_schema(i)
                found = list(self._messages(i, digest))
                self._columns.add(
                    schema, partial(metadata.get, b"pandas"), has_rows=any(rows for _, _, rows, *_ in found)
                )
                batches += found
            except DataError:
                raise
            except READ_ERRORS as error:
                raise self._failed(i, error) from None
        self._metadata = digest.hexdigest()
        file_of, number, rows, body, decoded = np.asarray(batches, np.int64).reshape(-1, 5).T
        first = _first_of_runs(file_of, rows, np.maximum(body, decoded), np.asarray(self._streams, bool))
        self._file_of, self._first = file_of[first], number[first]
        self._batches = np.diff(np.append(first, len(rows)))
        sums = (np.add.reduceat(column, first) if len(first) else column for column in (rows, decoded))
        self._rows, self._decoded = sums
        self._largest = np.maximum.reduceat(body + decoded, first) if len(first) else body
        self._columns.finish()
        self.schema = self._columns.schema
        largest_rows = np.maximum.reduceat(rows, first) if len(first) else rows
        self._largest = self._largest + np.ceil(largest_rows * self._columns.cast_row_bytes).astype(np.int64)

    def _open_schema(self, i: int) -> tuple[pa.Schema, dict[bytes, bytes]]:
        """The schema for reading a file, and its metadata."""
        name = self._files[i]
        self._streams.append(is_stream(self._store, name))
        with self._store.open(name, self._stats[i]) as source:
            stored = (pa.ipc.open_stream if self._streams[i] else pa.ipc.open_file)(source).schema
        schema = pa.schema([f.with_type(CODES) if _is_text(f.type) else f for f in stored])
        self._text_columns = sum(_is_text(f.type) for f in stored)
        self._slack = _TEXT_SLACK if self._text_columns else self._slack
        self._row_bytes = sum(bytes_per_row(f.type) for f in schema)
        self._has_width = all(_has_width(f.type) for f in stored)
        return schema, stored.metadata or {}

    def _messages(self, i: int, digest: Any) -> Iterator[tuple[int, ...]]:
        """For each batch: file, number, rows, bytes read beside the result, bytes of the result."""
        name, stat = self._files[i], self._stats[i]
        self._dictionary_bytes.append(0)
        number, ratio = 0, 0.0
        for info in (stream_messages if self._streams[i] else file_messages)(self._store, name, stat):
            digest.update(info.metadata)
            if info.kind in (DICTIONARY, RECORDS) and info.is_compressed and not self._has_width and not ratio:
                ratio = self._ratio(i, info.buffers)
            plain = int(info.body_bytes * max(1.0, ratio)) if info.is_compressed else info.body_bytes
            if info.kind == DICTIONARY:
                self._dictionary_bytes[i] += plain
            elif info.kind == RECORDS:
                least = int(info.rows * self._row_bytes)
                text = int(_TEXT_COPIES * max(0, plain - least)) if self._text_columns else 0
                yield i, number, info.rows, (info.body_bytes if info.is_compressed else 0) + text, max(plain, least)
                number += 1

    def _ratio(self, i: int, buffers: list[tuple[int, int]]) -> float:
        """Decoded bytes per stored byte of a compressed batch: each buffer begins with its decoded size."""
        starts = [(at, nbytes) for at, nbytes in buffers if nbytes >= 8]
        sizes = [
            int.from_bytes(self._store.read(self._files[i], at, at + 8), "little", signed=True) for at, _ in starts
        ]
        decoded = sum(size if size >= 0 else nbytes for size, (_, nbytes) in zip(sizes, starts, strict=True))
        return min(1000.0, decoded / max(1, sum(nbytes for _, nbytes in starts)))

    def chunks(self) -> ChunkTable:
        """All chunks. The key of a chunk is its file and the number of its first batch."""
        named = np.asarray(self._dictionary_bytes, np.int64)[self._file_of]
        whole = np.where(
            self._batches == 1, 0, self._decoded
        )  # for a single batch, _largest already contains the result
        peaks = self._slack * (whole + self._largest + named) + _FLOOR_BYTES
        return ChunkTable(self._key, self._rows, self._decoded, np.ceil(peaks))

    def _key(self, i: int) -> str:
        return f"{self._files[self._file_of[i]]}:{self._first[i]}"

    def _number(self, chunk: Chunk) -> int:
        name, batch = chunk.key.rsplit(":", 1)
        first, end = np.searchsorted(self._file_of, [self._numbers[name], self._numbers[name] + 1])
        return int(first + np.searchsorted(self._first[first:end], int(batch)))

    def read(self, chunk: Chunk, columns: Sequence[str]) -> pa.Table:
        schema = pa.schema([pick(self.schema, name, "read") for name in columns])
        return pa.Table.from_batches(list(self.stream(chunk, columns, max(1, chunk.rows))), schema)

    def stream(self, chunk: Chunk, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        for name in columns:
            pick(self.schema, name, "read")
        i = self._number(chunk)
        file, read_rows = int(self._file_of[i]), 0
        stored = self._columns.stored(file, columns)
        for batch in self._read_batches(i, file, stored) if stored else [None]:
            n = chunk.rows if batch is None else batch.num_rows
            read_rows += n
            for start in range(0, n, rows):
                part, some = None if batch is None else batch.slice(start, rows), min(rows, n - start)
                yield self._columns.assembled(part, some, columns, file)
        if read_rows != chunk.rows:
            raise CorruptError(
                f"{self._store.shown(self._files[file])}: {read_rows:,} rows were read of {chunk.key}, but "
                f"{chunk.rows:,} were declared: the data has changed"
            )

    def stream_peak_bytes(self, chunk: Chunk, rows: int) -> int:
        """A batch is read whole, while the caller may still hold a slice of the batch before it."""
        i = self._number(chunk)
        held = self._largest[i] * (1 if self._batches[i] == 1 else 2) + self._dictionary_bytes[self._file_of[i]]
        return int(self._slack * held) + _FLOOR_BYTES

    def _read_batches(self, i: int, file: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        name, names = self._files[file], self._columns.file_schema(file).names
        fields = [names.index(column) for column in columns]
        options = pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False)
        first, n = int(self._first[i]), int(self._batches[i])
        try:
            with self._store.open(name, self._stats[file]) as source:
                is_stream = self._streams[file]
                reader = (pa.ipc.open_stream if is_stream else pa.ipc.open_file)(source, options=options)
                for number in range(first, first + n):
                    batch = reader.read_next_batch() if is_stream else reader.get_batch(number)
                    for column, values in zip(batch.schema.names, batch.columns, strict=True):
                        self._require_valid(file, column, values)
                    yield self._converted(batch, file, columns)
                    del batch
        except (DataError, MemoryError):
            raise
        except (*READ_ERRORS, StopIteration) as error:
            raise self._failed(file, error, self._broken_column(file, first + n, columns)) from None
        self._store.verify(name, self._stats[file])

    def _broken_column(self, file: int, batches: int, columns: Sequence[str]) -> str | None:
        """The column that cannot be read up to this batch, if it is one alone: pyarrow does not say which."""
        broken: list[str] = []
        for column in columns if len(columns) <= _MOST_TRIED else ():
            options = pa.ipc.IpcReadOptions(
                included_fields=[self._columns.file_schema(file).names.index(column)], use_threads=False
            )
            try:
                with self._store.open(self._files[file], self._stats[file]) as source:
                    is_stream = self._streams[file]
                    reader = (pa.ipc.open_stream if is_stream else pa.ipc.open_file)(source, options=options)
                    for number in range(batches):
                        _ = reader.read_next_batch() if is_stream else reader.get_batch(number)
            except (*READ_ERRORS, StopIteration):
                broken.append(column)
        return broken[0] if len(broken) == 1 and len(columns) > 1 else None

    def _require_valid(self, file: int, column: str, values: pa.Array) -> None:
        try:
            values.validate(full=True)
        except pa.ArrowInvalid as error:
            raise self._failed(file, error, column) from None

    def _converted(self, batch: pa.RecordBatch, file: int, columns: Sequence[str]) -> pa.RecordBatch:
        arrays, schema = [batch.column(name) for name in columns], self._columns.file_schema(file)
        coded = [a.cast(pa.string()).dictionary_encode() if _is_text(a.type) else a for a in arrays]
        return pa.RecordBatch.from_arrays(coded, schema=pa.schema([schema.field(name) for name in columns]))

    def _failed(self, file: int, error: BaseException, column: str | None = None) -> DataError:
        """The error to raise. Raises ChangedError instead if the file has changed."""
        name = self._files[file]
        self._store.verify(name, self._stats[file])
        where = self._store.shown(name) + ("" if column is None else f": column {column!r}")
        if (missing := missing_codec(error)) is not None:
            return DataError(f"{where}: is stored with {missing}: write the file again with another codec")
        return CorruptError(
            f"{where}: {'' if isinstance(error, BadMessage) else 'cannot be read: '}{name_problem(error)}"
        )

    def fingerprint(self) -> str:
        """SHA-256 of the names, sizes, and first and last 64 kB of the files, the metadata of all batches, and a sample of
        the bytes (see `sampled`), because the files have no checksums."""
        digest = self._digest(b"ipc" + self._metadata.encode())
        for name in self._files:
            digest.update(edges(self._store, name, self._store.stat(name)))
        for piece in self._sample():
            digest.update(piece)
        return str(digest.hexdigest())


def _first_of_runs(file_of: Any, rows: Any, nbytes: Any, streams: Any) -> Any:
    """The number of the first batch of each chunk."""
    first: list[int] = []
    chunk_rows = chunk_bytes = 0
    for i in range(len(rows)):
        full = chunk_rows >= CHUNK_ROWS or chunk_bytes >= CHUNK_BYTES
        if not first or file_of[i] != file_of[i - 1] or (full and not streams[file_of[i]]):
            first.append(i)
            chunk_rows = chunk_bytes = 0
        chunk_rows, chunk_bytes = chunk_rows + int(rows[i]), chunk_bytes + int(nbytes[i])
    return np.asarray(first, np.int64)


def _is_text(kind: pa.DataType) -> bool:
    return is_text(kind) or bool(pa.types.is_string_view(kind))


def _has_width(kind: pa.DataType) -> bool:
    try:
        return bool(kind.bit_width > 0)
    except ValueError:
        return False

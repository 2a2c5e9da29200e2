"""Arrow IPC: files (``.arrow``, ``.ipc``, Feather version 2) and streams (``.arrows``).

In a file a chunk is a run of whole batches, as many as make 65,536 rows or 8 MB, one at least. A stream cannot be entered
in the middle (dictionaries may change): it is one chunk. Batches are read one at a time; a batch is the least that one read
takes. There are no checksums: every batch is validated in full, so that what is damaged is never read out of bounds, but a
number with a flipped bit is another number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute  # makes codes of text: what it takes must be in memory before a plan is made

from streamtrain.errors import CorruptError, DataError, SchemaError
from streamtrain.storage.arrow import bytes_per_row, pick
from streamtrain.storage.files.locate import locate
from streamtrain.storage.files.partitions import Partitions
from streamtrain.storage.files.place import Located
from streamtrain.storage.files.sample import sampled
from streamtrain.storage.ipc_messages import DICTIONARY, RECORDS, BadMessage, file_messages, is_stream, stream_messages
from streamtrain.storage.parquet.footer import READ_ERRORS, first_line, is_text, require_same
from streamtrain.storage.reader import Chunk, ChunkTable
from streamtrain.storage.text.source import edges

__all__ = ["IpcReader"]

CODES = pa.dictionary(pa.int32(), pa.string())  # text: nothing says how long it is
CHUNK_BYTES, CHUNK_ROWS = 8_000_000, 65_536
_FLOOR_BYTES = 300_000
_TEXT_COPIES = 2.5  # text of which codes are made: a hash table and the dictionary, as they grow
_SLACK, _TEXT_SLACK = 1.1, 2.2  # dictionaries and hash tables grow by doubling


class IpcReader(Located):
    """Reads Arrow IPC files and streams, whichever the first bytes say.

    target: a file, a glob, or a directory, whose ``key=value`` folders become columns.
    Raises CorruptError, SchemaError, NotFoundError.
    """

    def __init__(self, target: str | Path) -> None:
        self._place, self._files = locate(str(target), (".arrow", ".arrows", ".feather", ".ipc"))
        self._stats = [self._place.stat(name) for name in self._files]
        self._numbers = {name: i for i, name in enumerate(self._files)}
        self._streams: list[bool] = []
        self._named_bytes: list[int] = []  # of each file's dictionaries
        self._schemas: list[list[str]] = []  # the names of each file, in its order
        digest = hashlib.sha256()
        batches: list[tuple[int, ...]] = []
        for i in range(len(self._files)):
            try:
                self._add_schema(i)
                batches += self._messages(i, digest)
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
        self._largest_rows = np.maximum.reduceat(rows, first) if len(first) else rows
        self._partitions = Partitions(self._files)
        self.schema = self._partitions.added_to(self._file_schema)

    def _add_schema(self, i: int) -> None:
        name = self._files[i]
        self._streams.append(is_stream(self._place, name))
        with self._place.open(name, self._stats[i]) as source:
            stored = (pa.ipc.open_stream if self._streams[i] else pa.ipc.open_file)(source).schema
        names = stored.names
        twice = [n for n in names if names.count(n) > 1] if len(set(names)) < len(names) else []
        if twice:
            raise SchemaError(f"{name}: more than one column is named {twice[0]!r}: names must be unique")
        found = pa.schema([f.with_type(CODES) if _is_text(f.type) else f for f in stored]).remove_metadata()
        self._schemas.append(names)
        if i == 0:
            self._file_schema = found
            self._text_columns = sum(_is_text(f.type) for f in stored)
            self._slack = _TEXT_SLACK if self._text_columns else _SLACK
            self._row_bytes = sum(bytes_per_row(f.type) for f in found)
            self._has_width = all(_has_width(f.type) for f in stored)
            return
        require_same(self._file_schema, found, name, self._files[0])

    def _messages(self, i: int, digest: Any) -> Iterator[tuple[int, ...]]:
        """(file, number, rows, bytes that are read, bytes of the result) of each batch."""
        place, name, stat = self._place, self._files[i], self._stats[i]
        self._named_bytes.append(0)
        number, ratio = 0, 0.0
        for info in (stream_messages if self._streams[i] else file_messages)(place, name, stat):
            digest.update(info.metadata)
            if info.kind in (DICTIONARY, RECORDS) and info.is_compressed and not self._has_width and not ratio:
                ratio = self._ratio(i, info.buffers)
            plain = int(info.body_bytes * max(1.0, ratio)) if info.is_compressed else info.body_bytes
            if info.kind == DICTIONARY:
                self._named_bytes[i] += plain
            elif info.kind == RECORDS:
                least = int(info.rows * self._row_bytes)
                text = int(_TEXT_COPIES * max(0, plain - least)) if self._text_columns else 0
                yield i, number, info.rows, (info.body_bytes if info.is_compressed else 0) + text, max(plain, least)
                number += 1

    def _ratio(self, i: int, buffers: list[tuple[int, int]]) -> float:
        """Decoded to stored bytes of a compressed batch: each buffer begins with its decoded bytes."""
        starts = [(at, nbytes) for at, nbytes in buffers if nbytes >= 8]
        sizes = [
            int.from_bytes(self._place.read(self._files[i], at, at + 8), "little", signed=True) for at, _ in starts
        ]
        decoded = sum(size if size >= 0 else nbytes for size, (_, nbytes) in zip(sizes, starts, strict=True))
        return min(1000.0, decoded / max(1, sum(nbytes for _, nbytes in starts)))

    def chunks(self) -> ChunkTable:
        """The key of a chunk is its file and the number of its first batch."""
        named = np.asarray(self._named_bytes, np.int64)[self._file_of]
        whole = np.where(self._batches == 1, 0, self._decoded)  # of one batch, the result is among what it takes
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
        file, found = int(self._file_of[i]), 0
        stored = [name for name in columns if name in self._file_schema.names]
        for batch in self._read_batches(i, file, stored) if stored else [None]:
            n = chunk.rows if batch is None else batch.num_rows
            found += n
            for start in range(0, n, rows):
                part, some = None if batch is None else batch.slice(start, rows), min(rows, n - start)
                yield self._partitions.assembled(part, some, columns, self.schema, file)
        if found != chunk.rows:
            raise CorruptError(
                f"{self._place.shown(self._files[file])}: {chunk.key} gave {found:,} rows, not {chunk.rows:,}"
            )

    def stream_peak_bytes(self, chunk: Chunk, rows: int) -> int:
        """A batch is read whole, while a slice of the one before it may be held."""
        i = self._number(chunk)
        held = self._largest[i] * (1 if self._batches[i] == 1 else 2) + self._named_bytes[self._file_of[i]]
        return int(self._slack * held) + _FLOOR_BYTES

    def _read_batches(self, i: int, file: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        name, names = self._files[file], self._schemas[file]
        fields = [names.index(column) for column in columns]
        options = pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False)
        first, n = int(self._first[i]), int(self._batches[i])
        try:
            with self._place.open(name, self._stats[file]) as source:
                is_stream = self._streams[file]
                reader = (pa.ipc.open_stream if is_stream else pa.ipc.open_file)(source, options=options)
                for number in range(first, first + n):
                    batch = reader.read_next_batch() if is_stream else reader.get_batch(number)
                    batch.validate(full=True)
                    yield self._converted(batch, columns)
                    del batch
        except (DataError, MemoryError):
            raise
        except (*READ_ERRORS, StopIteration) as error:
            raise self._failed(file, error) from None
        self._place.verify(name, self._stats[file])

    def _converted(self, batch: pa.RecordBatch, columns: Sequence[str]) -> pa.RecordBatch:
        arrays = [batch.column(name) for name in columns]
        coded = [a.cast(pa.string()).dictionary_encode() if _is_text(a.type) else a for a in arrays]
        return pa.RecordBatch.from_arrays(coded, schema=pa.schema([self._file_schema.field(name) for name in columns]))

    def _failed(self, file: int, error: BaseException) -> CorruptError:
        """What to raise; ChangedError is raised here where the file is another than it was."""
        name = self._files[file]
        self._place.verify(name, self._stats[file])
        said = "" if isinstance(error, BadMessage) else "cannot be read: "
        return CorruptError(f"{self._place.shown(name)}: {said}{first_line(error)}")

    def fingerprint(self) -> str:
        """SHA-256 of the files' names, sizes, and first and last 64 kB, of the metadata of all batches, and of a sample of
        their bytes (see `sampled`): there are no checksums to tell what is in them."""
        digest = hashlib.sha256(b"ipc" + self._metadata.encode())
        for name in self._files:
            digest.update(edges(self._place, name, self._place.stat(name)))
        for piece in sampled(list(self.file_sizes.items()), self._place.read):
            digest.update(piece)
        return digest.hexdigest()


def _first_of_runs(file_of: Any, rows: Any, nbytes: Any, streams: Any) -> Any:
    """The first batch of each run that is read together."""
    first: list[int] = []
    held_rows = held_bytes = 0
    for i in range(len(rows)):
        full = held_rows >= CHUNK_ROWS or held_bytes >= CHUNK_BYTES
        if not first or file_of[i] != file_of[i - 1] or (full and not streams[file_of[i]]):
            first.append(i)
            held_rows = held_bytes = 0
        held_rows, held_bytes = held_rows + int(rows[i]), held_bytes + int(nbytes[i])
    return np.asarray(first, np.int64)


def _is_text(kind: pa.DataType) -> bool:
    return is_text(kind) or bool(pa.types.is_string_view(kind))


def _has_width(kind: pa.DataType) -> bool:
    try:
        return bool(kind.bit_width > 0)
    except ValueError:
        return False

"""Text files as tables: the part that CSV and JSON lines share. Opening a file reads it once, to find its chunks.

A plain file is cut into chunks of 65,536 records or 4 MB. A compressed file is a single chunk, because reading cannot start in
the middle; it is streamed. Text is decoded in blocks of about 1 MiB, so that a read takes little memory beside its result. The
types are inferred from the first block, or given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa

from streamtrain.errors import CorruptError, DataError, NotFoundError, SchemaError, data_name
from streamtrain.memory.monitor import require_room, unlimited
from streamtrain.storage.arrow import bytes_per_row, pick
from streamtrain.storage.common_type import CODES
from streamtrain.storage.files.columns import FileColumns
from streamtrain.storage.files.locate import Target, locate
from streamtrain.storage.files.store import FileBacked
from streamtrain.storage.parquet.footer import READ_ERRORS, first_line
from streamtrain.storage.reader import Chunk, ChunkTable
from streamtrain.storage.text.encoding import AsUtf8, Encoding
from streamtrain.storage.text.explain import explained
from streamtrain.storage.text.format import TextFormat
from streamtrain.storage.text.records import Block, blocks, extents
from streamtrain.storage.text.scanners import BadRecord
from streamtrain.storage.text.source import COMPRESSIONS, LOOK_BACK_BYTES, STORED_BYTES, codec_of, edges, text_source

__all__ = ["CODES", "FEW_COLUMNS", "TextReader"]

_OTHER_COMPRESSIONS = (".bz2", ".lz4", ".xz", ".zip", ".br")
BLOCK_BYTES = 1 << 20  # decoded at once
_LATER_BYTES = 1 << 16  # of a file that is not the first, from which types are inferred
_SCAN_BYTES = BLOCK_BYTES + (1 << 18)  # searched for records at once; the first MiB after a header is among it

# Measured; tests/storage/test_csv.py and test_jsonl.py measure again.
_FLOOR_BYTES = 1_500_000
_SLACK = 1.35
_COLUMN_BYTES, FEW_COLUMNS = 2_000, 512  # of a column in a decoded block, besides its values; so many need no more
_LEARNED_COLUMN_BYTES = 13_000  # of a column that is learned from, besides its values: objects, slices, a checkpoint
_ENCODING_SCRATCH = 6.0  # bytes for each byte of a block: as text of up to four bytes a character, and as UTF-8
_TEXT_SCRATCH = 3.5  # bytes for each byte of a block: the dictionary and its hash table grow by doubling


class TextReader(TextFormat, FileBacked):
    """Reads text files. The subclass of a format finds the records and decodes them."""

    row_oriented = True  # every read parses all columns
    schema: pa.Schema

    def __init__(self, target: Target, schema: pa.Schema | None, encoding: str | None) -> None:
        self._encoding = Encoding(encoding)
        endings = tuple(suffix + end for suffix in self.suffixes for end in ("", *COMPRESSIONS))
        self._store, names = locate(target, (*self.suffixes, *COMPRESSIONS))
        self._files = [name for name in names if name.lower().endswith(endings)] or names
        packed = next((name for name in self._files if name.lower().endswith(_OTHER_COMPRESSIONS)), None)
        if packed:
            raise DataError(
                f"{self._store.shown(packed)}: compressed text must end in {' or '.join(COMPRESSIONS)}: compress it that way"
            )
        with unlimited():  # Arrow starts a thread at the first read: if it cannot, it ends the process
            self.read_little()
        self._stats = [self._store.stat(name) for name in self._files]
        self._numbers = {name: i for i, name in enumerate(self._files)}
        self._given = pa.schema([]) if schema is None else schema
        self._columns = FileColumns(self._files, self._store.folders, join=self.types.join, as_text=self.types.is_text)
        self._inferred: list[pa.Schema] = []  # of the first file
        self._density = 0.0  # decoded bytes per byte of text
        self._first: tuple[Block, int] | None = None  # the records that tell types and density
        self._has_late = False  # types of columns that have only nulls in the first records of a file
        table = [(i, *extent) for i in range(len(self._files)) for extent in self._extents(i)]
        columns = np.asarray(table, np.int64).reshape(-1, 6).T.copy()
        self._file_of, self._start, self._stop, self._rows, self._line, self._longest = columns
        if not len(self._rows):
            raise NotFoundError(f"{data_name(target)}: the files have no rows")
        self._columns.finish(self.types.decoded, self.texts())
        self.schema = self._columns.schema
        if self._first is not None and (self._has_late or self.texts()):  # they were measured with other types
            self._measure(self._columns.file_schema(self._first[1]))
        self._first = None

    # -- opening: one pass over each file ---------------------------------------------------------------------------

    def _extents(self, file: int) -> Iterator[tuple[int, ...]]:
        with self._reporting(file), self.source(file) as source:
            yield from extents(self._data_blocks(file, source), cut=not self._is_whole(file))

    def _is_whole(self, file: int) -> bool:
        """Whether a file can only be read from its beginning, so that it is one chunk."""
        return codec_of(self._files[file]) is not None or self._encoding.is_streamed

    def _data_blocks(self, file: int, source: Any) -> Iterator[Block]:
        begun = has_types = False
        schema = pa.schema([])
        for block in blocks(source, _SCAN_BYTES, self.scanner(file)):
            if not begun and block.rows:
                begun, block = True, self.without_header(file, block)
            if begun and block.rows and not has_types:
                has_types = True
                if self._inferred:
                    self._columns.add(self._later_types(block.upto(_LATER_BYTES), file))
                else:
                    self._columns.add(self._first_types(block.upto(BLOCK_BYTES), file))
                schema = self._columns.file_schema(file)
            if begun:
                if block.rows:
                    found = self.look(block.data, file, schema)
                    if not found.equals(schema):
                        self._columns.join(found, file)
                        schema, self._has_late = found, True
                yield block
        if not has_types:
            self._columns.add(self.untyped(file), has_rows=False)

    def _later_types(self, block: Block, file: int) -> pa.Schema:
        """The types in a file that is not the first. What cannot be decoded is an error when it is read."""
        try:
            return self._checked(block, file, None, (), lambda data: self.infer(data, file))
        except (CorruptError, SchemaError):
            return self.untyped(file)

    def _first_types(self, block: Block, file: int) -> pa.Schema:
        columns, more = self.infer_bytes(block, file)
        values = 2 * int(_SLACK * columns * block.rows * 8)
        require_room(more, self.shown(file), max(0, columns - FEW_COLUMNS) * _LEARNED_COLUMN_BYTES + values)
        schema = self._checked(block, file, None, (), lambda data: self.infer(data, file))
        if not schema.names:
            raise SchemaError(f"{self.shown(file)}: there are no columns")
        self._inferred.append(schema)
        self._first = block, file
        self._measure(schema)
        return schema

    def _measure(self, schema: pa.Schema) -> None:
        assert self._first is not None
        block, file = self._first
        self._density = self._table(block, schema, schema.names, file).nbytes / len(block.data)

    # -- reading ---------------------------------------------------------------------------------------------------------

    def shown(self, file: int) -> str:
        """The path or URL of a file, for messages."""
        return self._store.shown(self._files[file])

    def chunks(self) -> ChunkTable:
        """All chunks. The key of a chunk is its file and the number of its first line."""
        decoded = self._rows * self._row_bytes()
        blocks = np.ceil((self._stop - self._start) / BLOCK_BYTES)
        wide = self._wide_bytes() * blocks
        peaks = [self._working_bytes(i) + _SLACK * decoded[i] + wide[i] for i in range(len(decoded))]
        return ChunkTable(self._key, self._rows, np.ceil(decoded), np.ceil(peaks))

    def _key(self, i: int) -> str:
        return f"{self._files[self._file_of[i]]}:{self._line[i]}"

    def _row_bytes(self) -> Any:
        """Decoded bytes of a row in each chunk: from the types, or from the density of the first block if that is more."""
        text = (self._stop - self._start) * self._density / np.maximum(1, self._rows)
        return np.maximum(text, sum(bytes_per_row(field.type) for field in self.schema))

    def _working_bytes(self, i: int) -> float:
        """The memory of a read beside its result: the text, and the scratch memory to decode a block."""
        text = int(self._stop[i] - self._start[i])
        block = min(text, BLOCK_BYTES + 2 * int(self._longest[i]))
        codec = codec_of(self._files[self._file_of[i]])
        held = STORED_BYTES if codec or self._encoding.is_streamed else text
        held += min(text, LOOK_BACK_BYTES[codec]) if codec else 0
        scratch = self.scratch + (_TEXT_SCRATCH if CODES in self.schema.types else 0)
        scratch += 0 if self._encoding.is_utf8 else _ENCODING_SCRATCH
        return held + scratch * block + _FLOOR_BYTES

    def _wide_bytes(self) -> int:
        """The memory of the columns of a decoded block, besides their values, if there are many."""
        return _COLUMN_BYTES * max(0, len(self.schema) - FEW_COLUMNS)

    def _number(self, chunk: Chunk) -> int:
        name, line = chunk.key.rsplit(":", 1)
        first, end = np.searchsorted(self._file_of, [self._numbers[name], self._numbers[name] + 1])
        return int(first + np.searchsorted(self._line[first:end], int(line)))

    def read(self, chunk: Chunk, columns: Sequence[str]) -> pa.Table:
        schema = pa.schema([pick(self.schema, name, "read") for name in columns])
        return pa.Table.from_batches(list(self.stream(chunk, columns, max(1, chunk.rows))), schema)

    def stream(self, chunk: Chunk, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        for name in columns:
            pick(self.schema, name, "read")
        i = self._number(chunk)
        file, read_rows = int(self._file_of[i]), 0
        for batch in self._batches(i, file, self._columns.stored(file, columns)):
            n = chunk.rows if batch is None else batch.num_rows
            read_rows += n
            for start in range(0, n, rows):
                part, some = None if batch is None else batch.slice(start, rows), min(rows, n - start)
                yield self._columns.assembled(part, some, columns, file)
        if read_rows != chunk.rows:
            raise CorruptError(
                f"{self.shown(file)}: {read_rows:,} rows were read of {chunk.key}, but {chunk.rows:,} were declared: the data "
                "has changed"
            )

    def stream_peak_bytes(self, chunk: Chunk, rows: int) -> int:
        i = self._number(chunk)
        text = max(1, int(self._stop[i] - self._start[i]))
        slices = 2 * min(
            1.0, (BLOCK_BYTES + int(self._longest[i])) / text
        )  # one slice is held while the next is decoded
        wide = 2 * self._wide_bytes()
        return int(self._working_bytes(i) + _SLACK * min(1.0, slices) * chunk.rows * self._row_bytes()[i] + wide)

    def _batches(self, i: int, file: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch | None]:
        """The batches of a chunk, block by block; a single None if no column is requested from the file."""
        if not columns:
            yield None
            return
        start, stop, line = (int(column[i]) for column in (self._start, self._stop, self._line))
        with self._reporting(file), self.source(file, start, stop) as source:
            for block in blocks(source, BLOCK_BYTES, self.scanner(file), start=start, line=line):
                if block.rows:
                    yield from self._table(block, self._columns.file_schema(file), columns, file).to_batches()
        self._store.verify(self._files[file], self._stats[file])

    def _table(self, block: Block, schema: pa.Schema, columns: Sequence[str], file: int) -> pa.Table:
        return self._checked(block, file, schema, columns, lambda data: self.decode(data, schema, columns, file))

    def _checked(
        self, block: Block, file: int, schema: pa.Schema | None, columns: Sequence[str], decode: Callable[[bytes], Any]
    ) -> Any:
        """Decode a block. Raises DataError, which names the first line that cannot be decoded."""

        def attempt(data: bytes, rows: int) -> Any:
            result = decode(self.utf8(data))
            if schema is not None and result.num_rows != rows:
                raise ValueError(f"{rows} records were decoded to {result.num_rows} rows")
            return result

        try:
            return attempt(block.data, block.rows)
        except READ_ERRORS as error:
            self._store.verify(self._files[file], self._stats[file])
            raise explained(self, self._given.names, block, file, schema, columns, attempt, error) from None

    # -- bytes -----------------------------------------------------------------------------------------------------------

    def source(self, file: int, start: int = 0, stop: int | None = None) -> Any:
        if not self._encoding.is_streamed:
            return text_source(self._store, self._files[file], self._stats[file], start, stop)
        source = AsUtf8(text_source(self._store, self._files[file], self._stats[file]), self._encoding.name)
        source.skip(start)
        return source

    def place(self, file: int, line: int) -> str:
        """Where a record is in a file, for messages."""
        return f"line {line}"

    def utf8(self, data: bytes) -> bytes:
        """Bytes of records as UTF-8. Raises UnicodeDecodeError if they are in another encoding."""
        return self._encoding.utf8(data)

    @property
    def encoding(self) -> str:
        """The name of the encoding."""
        return self._encoding.name

    @contextmanager
    def _reporting(self, file: int) -> Iterator[None]:
        try:
            yield
        except (DataError, MemoryError):
            raise
        except BadRecord as error:
            self._store.verify(self._files[file], self._stats[file])
            raise CorruptError(f"{self.shown(file)}: {self.place(file, error.line)}: {error.what}") from None
        except READ_ERRORS as error:
            self._store.verify(self._files[file], self._stats[file])
            raise CorruptError(f"{self.shown(file)}: cannot be read: {first_line(error)}") from error

    def fingerprint(self) -> str:
        """SHA-256 of the names, sizes, and first and last 64 kB of the files, the rows of all chunks, and a sample of the
        bytes (see `sampled`). There are no metadata, and reading everything would take as long as an epoch."""
        digest = self._digest(b"text")
        for name in self._files:
            digest.update(edges(self._store, name, self._store.stat(name)))
        digest.update(self._rows.tobytes() + str(self.schema).encode())
        options = (None if self._encoding.is_utf8 else self._encoding.name, *self.options())
        if any(option is not None for option in options):
            digest.update(repr(options).encode())
        for piece in self._sample():
            digest.update(piece)
        return str(digest.hexdigest())

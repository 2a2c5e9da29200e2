"""Text files as tables: what CSV and JSON lines share. Chunks are found when files are opened, by one pass over them.

A file that is not compressed is cut at records, after 65,536 of them or 4 MB. A compressed one cannot be entered in the
middle: it is one chunk, to be streamed. Text is decoded in blocks of about 1 MiB, so that a read takes little beside what
it gives. The types are those of the first block, or given.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from streamtrain.errors import CorruptError, DataError, NotFoundError, SchemaError, without_secrets
from streamtrain.storage.arrow import bytes_per_row, pick
from streamtrain.storage.files.locate import locate
from streamtrain.storage.files.partitions import Partitions
from streamtrain.storage.files.sample import sampled
from streamtrain.storage.files.store import FileBacked
from streamtrain.storage.parquet.footer import READ_ERRORS, first_line
from streamtrain.storage.reader import Chunk, ChunkTable
from streamtrain.storage.text.records import BadRecord, Block, Lines, blocks, extents, first_bad
from streamtrain.storage.text.source import COMPRESSIONS, LOOK_BACK_BYTES, STORED_BYTES, codec_of, edges, text_source

__all__ = ["CODES", "TextReader"]

CODES = pa.dictionary(pa.int32(), pa.string())  # text: nothing says how long it is
_OTHER_COMPRESSIONS = (".bz2", ".lz4", ".xz", ".zip", ".br")
BLOCK_BYTES = 1 << 20  # that are decoded at once
_SCAN_BYTES = 4 << 20  # that are looked through at once

# Measured; tests/storage/test_csv.py and test_jsonl.py measure again.
_FLOOR_BYTES = 1_500_000
_SLACK = 1.35
_TEXT_SCRATCH = 3.5  # for each byte of a block: the dictionary and its hash table, as they grow


class TextReader(FileBacked):
    """Reads text files; the format says where records end and what stands in them.

    suffixes: of its files, without that of a compression. scratch: what decoding takes for each byte of a block.
    """

    suffixes: tuple[str, ...]
    scratch: float
    row_oriented = True  # every read parses whole rows
    schema: pa.Schema
    _file_schema: pa.Schema
    _partitions: Partitions

    def __init__(self, target: str | Path, schema: pa.Schema | None) -> None:
        endings = tuple(suffix + end for suffix in self.suffixes for end in ("", *COMPRESSIONS))
        self._store, found = locate(str(target), (*self.suffixes, *COMPRESSIONS))
        self._files = [name for name in found if name.lower().endswith(endings)] or found
        packed = next((name for name in self._files if name.lower().endswith(_OTHER_COMPRESSIONS)), None)
        if packed:
            raise DataError(
                f"{self._store.shown(packed)}: compressed text is read from {', '.join(COMPRESSIONS)} alone"
            )
        self._stats = [self._store.stat(name) for name in self._files]
        self._numbers = {name: i for i, name in enumerate(self._files)}
        self._given = pa.schema([]) if schema is None else schema
        self._fixed: pa.Schema | None = None
        self._density = 0.0  # decoded bytes for each byte of text
        table = [(i, *extent) for i in range(len(self._files)) for extent in self._extents(i)]
        columns = np.asarray(table, np.int64).reshape(-1, 6).T.copy()
        self._file_of, self._start, self._stop, self._rows, self._line, self._longest = columns
        if self._fixed is None:
            raise NotFoundError(f"{without_secrets(str(target))}: has no rows")
        partitions = Partitions(self._files)
        self._partitions, self._file_schema = partitions, self._fixed
        self.schema = partitions.added_to(self._file_schema)

    # -- what a format says ----------------------------------------------------------------------------------------------

    def lines(self, data: bytes) -> Lines:
        """Where records end. May raise BadRecord."""
        raise NotImplementedError

    def without_header(self, file: int, block: Block) -> Block:
        """The first block of a file without what is no data."""
        return block

    def infer(self, data: bytes, file: int) -> pa.Schema:
        """Names and types of the columns; those that were given as they were given."""
        raise NotImplementedError

    def decode(self, data: bytes, schema: pa.Schema, columns: Sequence[str], file: int) -> pa.Table:
        """Some columns of records, of the types of the schema; at least one."""
        raise NotImplementedError

    def decode_one(self, record: bytes, field: pa.Field, file: int) -> None:
        """Decode one column of one record, whatever else it has."""
        self.decode(record, pa.schema([field]), [field.name], file)

    def complaint(self, record: bytes, schema: pa.Schema, columns: Sequence[str], file: int) -> str:
        """What is wrong with a record that cannot be decoded; nothing where its form is right, but not its values."""
        raise NotImplementedError

    def value(self, record: bytes, column: str, file: int) -> str:
        """A value as it stands in a record, for messages."""
        raise NotImplementedError

    # -- the pass over a file when it is opened ---------------------------------------------------------------------------

    def _extents(self, file: int) -> Iterator[tuple[int, ...]]:
        with self._reporting(file), self._source(file) as source:
            yield from extents(self._data_blocks(file, source), cut=codec_of(self._files[file]) is None)

    def _data_blocks(self, file: int, source: Any) -> Iterator[Block]:
        begun = False
        for block in blocks(source, _SCAN_BYTES, self.lines):
            if not begun and block.rows:
                begun, block = True, self.without_header(file, block)
            if begun and block.rows and self._fixed is None:
                self._fix_types(block.upto(BLOCK_BYTES), file)
            if begun:
                yield block

    def _fix_types(self, block: Block, file: int) -> None:
        schema = self._checked(block, file, None, (), lambda data: self.infer(data, file))
        twice = [name for name, count in Counter(schema.names).items() if count > 1]
        if twice or not schema.names:
            shown = f"more than one column is named {twice[0]!r}" if twice else "there are no columns"
            raise SchemaError(f"{self.shown(file)}: {shown}")
        self._fixed = schema
        self._density = self._table(block, schema, schema.names, file).nbytes / len(block.data)

    # -- reading ---------------------------------------------------------------------------------------------------------

    def shown(self, file: int) -> str:
        return self._store.shown(self._files[file])

    def chunks(self) -> ChunkTable:
        """The key of a chunk is its file and the number of its first line."""
        decoded = self._rows * self._row_bytes()
        peaks = [self._working_bytes(i) + _SLACK * decoded[i] for i in range(len(decoded))]
        return ChunkTable(self._key, self._rows, np.ceil(decoded), np.ceil(peaks))

    def _key(self, i: int) -> str:
        return f"{self._files[self._file_of[i]]}:{self._line[i]}"

    def _row_bytes(self) -> Any:
        """Decoded bytes of a row in each chunk: what its types take, or if that is more, what the first block took."""
        text = (self._stop - self._start) * self._density / np.maximum(1, self._rows)
        return np.maximum(text, sum(bytes_per_row(field.type) for field in self.schema))

    def _working_bytes(self, i: int) -> float:
        """What a read of a chunk takes beside its result: the text, and what decoding a block of it takes."""
        text = int(self._stop[i] - self._start[i])
        block = min(text, BLOCK_BYTES + 2 * int(self._longest[i]))
        codec = codec_of(self._files[self._file_of[i]])
        held = STORED_BYTES + min(text, LOOK_BACK_BYTES[codec]) if codec else text
        scratch = self.scratch + (_TEXT_SCRATCH if CODES in self.schema.types else 0)
        return held + scratch * block + _FLOOR_BYTES

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
        file, found = int(self._file_of[i]), 0
        for batch in self._batches(i, file, [c for c in columns if c in self._file_schema.names]):
            n = chunk.rows if batch is None else batch.num_rows
            found += n
            for start in range(0, n, rows):
                part, some = None if batch is None else batch.slice(start, rows), min(rows, n - start)
                yield self._partitions.assembled(part, some, columns, self.schema, file)
        if found != chunk.rows:
            raise CorruptError(f"{self.shown(file)}: {chunk.key} gave {found:,} rows, not {chunk.rows:,}")

    def stream_peak_bytes(self, chunk: Chunk, rows: int) -> int:
        i = self._number(chunk)
        text = max(1, int(self._stop[i] - self._start[i]))
        slices = 2 * min(
            1.0, (BLOCK_BYTES + int(self._longest[i])) / text
        )  # one that is held while the next is decoded
        return int(self._working_bytes(i) + _SLACK * min(1.0, slices) * chunk.rows * self._row_bytes()[i])

    def _batches(self, i: int, file: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch | None]:
        """A chunk, block by block; one None where none of its columns is stored."""
        if not columns:
            yield None
            return
        start, stop, line = (int(column[i]) for column in (self._start, self._stop, self._line))
        with self._reporting(file), self._source(file, start, stop) as source:
            for block in blocks(source, BLOCK_BYTES, self.lines, start=start, line=line):
                if block.rows:
                    yield from self._table(block, self._file_schema, columns, file).to_batches()
        self._store.verify(self._files[file], self._stats[file])

    def _table(self, block: Block, schema: pa.Schema, columns: Sequence[str], file: int) -> pa.Table:
        return self._checked(block, file, schema, columns, lambda data: self.decode(data, schema, columns, file))

    def _checked(
        self, block: Block, file: int, schema: pa.Schema | None, columns: Sequence[str], decode: Callable[[bytes], Any]
    ) -> Any:
        """What the block is decoded to. Raises DataError that names the first line that cannot be."""

        def attempt(data: bytes, rows: int) -> Any:
            if not data.isascii():
                str(data, "utf-8")
            found = decode(data)
            if schema is not None and found.num_rows != rows:
                raise ValueError(f"{found.num_rows} rows in {rows} records")
            return found

        try:
            return attempt(block.data, block.rows)
        except READ_ERRORS as error:
            self._store.verify(self._files[file], self._stats[file])
            raise self._explained(block, file, schema, columns, attempt, error) from None

    def _explained(
        self, block: Block, file: int, schema: pa.Schema | None, columns: Sequence[str], attempt: Any, error: Exception
    ) -> DataError:
        def works(n: int) -> bool:
            rows = int(np.count_nonzero(block.lines.is_row[:n]))
            try:
                return not rows or attempt(block.data[: ends[n - 1]], rows) is not None
            except READ_ERRORS:
                return False

        ends = block.lines.ends
        at = first_bad(len(ends), works)
        record, where = (
            block.data[block.starts[at] : ends[at]],
            f"{self.shown(file)}: line {block.line_at(block.starts[at])}",
        )
        try:
            str(record, "utf-8")
        except UnicodeDecodeError as found:
            return CorruptError(
                f"{where}: is not UTF-8: byte {record[found.start]:#04x} at {found.start} of the record"
            )
        if form := self.complaint(record, schema or pa.schema([]), columns, file):
            return CorruptError(f"{where}: {form}")
        for name in [*columns, *schema.names] if schema is not None else []:
            assert schema is not None
            try:
                self.decode_one(record, schema.field(name), file)
            except READ_ERRORS:
                kind = schema.field(name).type
                kind = kind.value_type if isinstance(kind, pa.DictionaryType) else kind
                return SchemaError(
                    f"{where}: column {name!r} holds {self.value(record, name, file)}, but is {kind} in "
                    f"{'the schema that was given' if name in self._given.names else 'the first rows'}: open the data as "
                    f"{type(self).__module__}.{type(self).__name__}(..., schema=pa.schema([({name!r}, TYPE)])) with a "
                    "type that fits all rows, or mend the line"
                )
        return CorruptError(f"{where}: cannot be read: {first_line(error)}")

    # -- bytes -----------------------------------------------------------------------------------------------------------

    def _source(self, file: int, start: int = 0, stop: int | None = None) -> Any:
        return text_source(self._store, self._files[file], self._stats[file], start, stop)

    @contextmanager
    def _reporting(self, file: int) -> Iterator[None]:
        try:
            yield
        except (DataError, MemoryError):
            raise
        except BadRecord as error:
            self._store.verify(self._files[file], self._stats[file])
            raise CorruptError(f"{self.shown(file)}: line {error.line}: {error.what}") from None
        except READ_ERRORS as error:
            self._store.verify(self._files[file], self._stats[file])
            raise CorruptError(f"{self.shown(file)}: cannot be read: {first_line(error)}") from error

    def fingerprint(self) -> str:
        """SHA-256 of the files' names, sizes and first and last 64 kB, of the rows of all chunks, and of a sample of the files'
        bytes (see `sampled`): there is no metadata, and to read everything would cost an epoch."""
        digest = hashlib.sha256(b"text")
        for name in self._files:
            digest.update(edges(self._store, name, self._store.stat(name)))
        digest.update(self._rows.tobytes() + str(self.schema).encode())
        for piece in sampled(list(self.file_sizes.items()), self._store.read):
            digest.update(piece)
        return digest.hexdigest()

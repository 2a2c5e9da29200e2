"""Parquet: a file, a glob, a directory or Hive partitions. A row group is a chunk.

The usual ways to read hold a whole file in memory (measured). So there is no ``pyarrow.dataset``, no pre-buffering and no
memory map (mapped pages count as resident); a read uses one core, and several reads run at once. An open file is lent to one
read at a time and kept for the next. All handles of a file share its footer. Column metadata are never used, because
``row_group(i).column(j)`` aborts the process if the column cannot be decrypted. Sizes come from the schema and from
``total_byte_size``.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.errors import CorruptError, DataError
from streamtrain.kernels.crash import reading
from streamtrain.storage.arrow import pick
from streamtrain.storage.files.columns import FileColumns
from streamtrain.storage.files.locate import Target, locate
from streamtrain.storage.files.store import FileBacked, FileStore, ahead
from streamtrain.storage.formats import suffixes_of
from streamtrain.storage.parquet.batches import after, coded, empty
from streamtrain.storage.parquet.footer import (
    READ_ERRORS,
    ReadSchemas,
    cause,
    first_page,
    missing_codec,
    pandas_metadata,
    require_counts,
    writer_of,
)
from streamtrain.storage.parquet.handles import KEPT_FOOTERS_BYTES, Footer, Handles, Mode
from streamtrain.storage.parquet.keys import Keys
from streamtrain.storage.parquet.sizes import STREAM_BUFFER_BYTES, Page, Sizes, remote_buffer_bytes
from streamtrain.storage.parquet.tail import parsed_bytes
from streamtrain.storage.parquet.text_pages import look
from streamtrain.storage.parquet.text_sizes import has_text
from streamtrain.storage.reader import Chunk, ChunkTable

__all__ = ["ParquetReader"]

_MOST_TRIED, _TRIED_ROWS = 256, 8192  # columns that are read one by one to find the broken one, and rows at a time
_SIZED_AT_ONCE = 65_536  # row groups


class ParquetReader(FileBacked):
    """Reads Parquet files.

    target: a file, glob or directory, or several; its ``key=value`` folders become columns.
    Raises CorruptError, SchemaError, NotFoundError.
    """

    def __init__(self, target: Target) -> None:
        store, files = locate(target, suffixes_of("parquet"))
        self._open(store, files, FileColumns(files, store.folders))

    def _open(self, store: FileStore, files: list[str], columns: FileColumns) -> None:
        """Open these files. columns: what their columns are, to which no file was added so far."""
        self._store, self._files, self._columns = store, files, columns
        self._stats = [store.stat(name) for name in files]
        self._handles = Handles(store, dict(zip(files, self._stats, strict=True)))
        self._open_footers()

    def _open_footers(self) -> None:
        rows, stored = array("q"), array("q")  # of each row group
        counts, lengths = array("q"), array("q")  # of each file: its row groups, and the bytes of its footer
        page, stored_columns = Page(), 0
        read = ReadSchemas()
        opened = (ahead if self._store.is_remote else map)(self._open_footer, self._files)
        for name, ((footer, stored_schema), first) in zip(self._files, opened, strict=True):
            page, stored_columns = page.larger(first), max(stored_columns, footer.num_columns)
            schema = read.schema(stored_schema)
            groups = map(footer.row_group, range(footer.num_row_groups))
            table = np.array([(group.num_rows, group.total_byte_size) for group in groups], np.int64).reshape(-1, 2)
            require_counts(name, footer.num_rows, table[:, 0])
            self._columns.add(schema, partial(pandas_metadata, footer), has_rows=bool(table[:, 0].any()))
            rows.frombytes(table[:, 0].tobytes())
            stored.frombytes(np.maximum(0, table[:, 1]).tobytes())
            counts.append(len(table))
            lengths.append(footer.serialized_size)
        self._file_of = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        self._footer_lengths = np.frombuffer(lengths, np.int64)
        self._first = np.concatenate([[0], np.cumsum(counts)])  # the number of the first row group of each file
        self._rows = np.frombuffer(rows, np.int64)
        self._columns.finish()
        self.schema = self._columns.schema
        buffer_bytes = remote_buffer_bytes(stored_columns) if self._store.is_remote else STREAM_BUFFER_BYTES
        self._sizes = Sizes.of(
            self.schema, self._rows, np.frombuffer(stored, np.int64), stored_columns, page, buffer_bytes,
            self._columns.cast_row_bytes,
        )  # fmt: skip
        self._long: frozenset[str] = frozenset()  # the columns whose text is long: see `LongText`
        if self._sizes.is_long.any():
            self._look_at_text()
        self._numbers = {name: i for i, name in enumerate(self._files)}
        self._text_names = frozenset(f.name for f in self._stored_fields() if has_text(f.type))

    def _look_at_text(self) -> None:
        """Find out how long text is stored."""
        text_bytes, is_long = self._sizes.text_bytes, self._sizes.is_long
        most_first = [i for i in np.argsort(-text_bytes, kind="stable").tolist() if is_long[i]]
        groups = (
            (self._files[self._file_of[i]], int(i - self._first[self._file_of[i]]), int(text_bytes[i]))
            for i in most_first
        )
        text = look(self._store, groups, [f.name for f in self._stored_fields() if has_text(f.type)])
        self._long, self._sizes = frozenset(text.columns), replace(self._sizes, text_pages=text.most())

    def _stored_fields(self) -> list[pa.Field]:
        """The columns of all files, as they are stored."""
        return [field for schema in self._columns.variants for field in schema]

    def _open_footer(self, name: str) -> tuple[Footer, Page]:
        """The footer of a file, and the size of its first page."""
        with reading(self._store.shown(name)):
            footer = self._handles.footer(name)
        return footer, first_page(self._store, name, writer_of(footer.metadata))

    @property
    def open_bytes(self) -> int:
        """The memory that each file being read takes for its footer, while that is parsed: that of the largest, or 0 if all
        footers are kept."""
        parsed = self._parsed_bytes()
        kept = len(parsed) == 1 or int(parsed.sum()) <= KEPT_FOOTERS_BYTES
        return 0 if kept else int((parsed + self._footer_lengths).max())

    @property
    def footers_bytes(self) -> int:
        """The memory of the footers that are kept once the data are open, and of the largest while it is parsed."""
        parsed = self._parsed_bytes()
        return max(int(parsed.max()), min(int(parsed.sum()), KEPT_FOOTERS_BYTES)) + int(self._footer_lengths.max())

    def _parsed_bytes(self) -> NDArray[np.int64]:
        """The memory of the footer of each file."""
        sizes = parsed_bytes(np.diff(self._first), self._sizes.stored_columns, self._footer_lengths)
        return np.asarray(sizes, np.int64)

    def chunks(self) -> ChunkTable:
        decoded, peaks = np.empty(len(self._rows), np.int64), np.empty(len(self._rows), np.int64)
        for start in range(0, len(self._rows), _SIZED_AT_ONCE):  # the sizes of a million row groups would take 100 MB
            some = slice(start, start + _SIZED_AT_ONCE)
            sizes = self._sizes.of_groups(some)
            decoded[some], peaks[some] = sizes.decoded_bytes(), sizes.read_peak_bytes()
        return ChunkTable(Keys(self._files, self._file_of, self._first), self._rows, decoded, peaks)

    def read(self, chunk: Chunk, columns: Sequence[str]) -> pa.Table | pa.RecordBatch:
        name, groups, rows = self._row_groups([chunk])[0]
        return self._read([self._slices(name, groups, rows, columns, max(1, rows), buffer_size=0)], columns)

    def read_together(self, chunks: Sequence[Chunk], columns: Sequence[str]) -> pa.Table | pa.RecordBatch:
        files = self._row_groups(chunks)
        return self._read(
            [self._slices(name, groups, rows, columns, max(1, rows), buffer_size=0) for name, groups, rows in files],
            columns,
        )

    def _read(self, files: list[Iterator[pa.RecordBatch]], columns: Sequence[str]) -> pa.Table | pa.RecordBatch:
        batches = [batch for file in files for batch in file]
        return batches[0] if len(batches) == 1 else pa.Table.from_batches(batches, self._schema_of(columns))

    def stream(self, chunk: Chunk, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        name, groups, total = self._row_groups([chunk])[0]
        return self._slices(name, groups, total, columns, rows, buffer_size=self._sizes.buffer_bytes)

    def stream_peak_bytes(self, chunk: Chunk, rows: int) -> int:
        return self._sizes.stream_peak_bytes(self._number(chunk), min(rows, chunk.rows))

    def _number(self, chunk: Chunk) -> int:
        """The index of a chunk."""
        name, group = chunk.key.rsplit(":", 1)
        return int(self._first[self._numbers[name]]) + int(group)

    def _row_groups(self, chunks: Sequence[Chunk]) -> list[tuple[str, list[int], int]]:
        """The chunks file by file: the name of each file, its row groups, and their rows together."""
        files: list[tuple[str, list[int], int]] = []
        for chunk in chunks:
            name, group = chunk.key.rsplit(":", 1)
            if files and files[-1][0] == name:
                _, groups, rows = files.pop()
            else:
                groups, rows = [], 0
            files.append((name, [*groups, int(group)], rows + chunk.rows))
        return files

    def _slices(
        self, name: str, groups: list[int], total: int, columns: Sequence[str], rows: int, *, buffer_size: int
    ) -> Iterator[pa.RecordBatch]:
        """Some columns of row groups of a file, in batches of at most ``rows`` rows. total: the rows in the footer."""
        file = self._numbers[name]
        for other in set(columns).difference(self.schema.names):
            pick(self.schema, other, "read")  # raises ColumnError
        stored = self._columns.stored(file, columns)
        read_rows, which = (
            0,
            f"row group {groups[0]}" if len(groups) == 1 else f"row groups {groups[0]} to {groups[-1]}",
        )
        try:
            for batch in self._batches(name, groups, stored, rows, buffer_size) if stored else empty(total, rows):
                read_rows += batch.num_rows
                yield self._columns.assembled(batch if stored else None, batch.num_rows, columns, file)
        except (DataError, MemoryError):
            raise
        except READ_ERRORS as error:
            self._verify(name)
            column = self._broken_column(name, groups, stored)
            where = f"{self._store.shown(name)}: " + (f"column {column!r} of " if column is not None else "") + which
            if (missing := missing_codec(error)) is not None:
                raise DataError(f"{where}: is stored with {missing}: write the file again with another codec") from None
            raise CorruptError(f"{where} cannot be read: {cause(error)}") from error
        self._verify(name)
        if read_rows != total:
            raise CorruptError(
                f"{self._store.shown(name)}: {which} has {read_rows:,} rows, but the footer declares {total:,}: "
                "the file is damaged"
            )

    def _verify(self, name: str) -> None:
        """Raise CorruptError if a file has changed since it was opened."""
        self._store.verify(name, self._stats[self._numbers[name]])

    def _batches(
        self, name: str, groups: list[int], columns: Sequence[str], rows: int, buffer_size: int
    ) -> Iterator[pa.RecordBatch]:
        """Batches of the stored columns, with text as dictionaries."""
        read_rows = 0
        try:
            for batch in self._decoded(name, groups, columns, rows, Mode(buffer_size, self._long)):
                read_rows += batch.num_rows
                yield coded(batch)
        except OSError as error:
            if "not yet implemented" not in str(error).lower():
                raise
            # pyarrow cannot read text in a delta encoding as dictionaries: continue with plain text
            plain = self._decoded(name, groups, columns, rows, Mode(buffer_size, self._text_names))
            yield from map(coded, after(read_rows, plain))

    def _decoded(
        self, name: str, groups: list[int], columns: Sequence[str], rows: int, mode: Mode
    ) -> Iterator[pa.RecordBatch]:
        with self._handles.lend(name, mode) as file:
            yield from file.iter_batches(rows, groups, columns, use_threads=False)

    def _broken_column(self, name: str, groups: list[int], columns: Sequence[str]) -> str | None:
        """The column of row groups that cannot be read, if it is one alone: pyarrow does not say which."""
        broken: list[str] = []
        for column in columns if 1 < len(columns) <= _MOST_TRIED else ():
            try:
                for _ in self._batches(name, groups, [column], _TRIED_ROWS, STREAM_BUFFER_BYTES):
                    pass
            except READ_ERRORS:
                broken.append(column)
        return broken[0] if len(broken) == 1 else None

    def _schema_of(self, columns: Sequence[str]) -> pa.Schema:
        return pa.schema([self.schema.field(c) for c in columns])

    def fingerprint(self) -> str:
        """SHA-256 of the names, sizes, footers and row counts of the files, and a sample of their bytes (see `sampled`)."""
        digest = self._digest(b"parquet")
        for name in self._files:
            size = self._store.stat(name).nbytes
            footer = int.from_bytes(self._store.read(name, max(0, size - 8), size - 4), "little")
            digest.update(f"{name}\0{size}\0".encode(errors="surrogateescape"))
            digest.update(self._store.read(name, max(0, size - 8 - footer), size - 8))
        digest.update(self._rows.tobytes())
        for piece in self._sample():
            digest.update(piece)
        return str(digest.hexdigest())

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_handles": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(
            state, _handles=Handles(state["_store"], dict(zip(state["_files"], state["_stats"], strict=True)))
        )

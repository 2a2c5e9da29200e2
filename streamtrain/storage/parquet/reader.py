"""Parquet: a file, a glob, a directory or Hive partitions. A row group is a chunk.

The usual ways to read hold a whole file in memory (measured). So there is no ``pyarrow.dataset``, no pre-buffering and no
memory map (mapped pages count as resident); a read uses one core, and several reads run at once. An open file is lent to one
read at a time and kept for the next. All handles of a file share its footer. Column metadata are never used, because
``row_group(i).column(j)`` aborts the process if the column cannot be decrypted. Sizes come from the schema and from
``total_byte_size``.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from streamtrain.errors import CorruptError, DataError
from streamtrain.kernels.crash import reading
from streamtrain.storage.arrow import pick
from streamtrain.storage.files.locate import locate
from streamtrain.storage.files.partitions import Partitions
from streamtrain.storage.files.store import FileBacked, ahead
from streamtrain.storage.formats import suffixes_of
from streamtrain.storage.parquet.footer import (
    READ_ERRORS,
    as_codes,
    cause,
    first_page,
    is_text,
    missing_codec,
    read_schema,
    require_counts,
    require_same,
    writer_of,
)
from streamtrain.storage.parquet.handles import KEPT_FOOTERS_BYTES, Footer, Handles, Mode
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

    target: a file, glob or directory; its ``key=value`` folders become columns.
    Raises CorruptError, SchemaError, NotFoundError.
    """

    def __init__(self, target: str | Path) -> None:
        self._store, self._files = locate(str(target), suffixes_of("parquet"))
        self._stats = [self._store.stat(name) for name in self._files]
        self._handles = Handles(self._store, dict(zip(self._files, self._stats, strict=True)))
        self._partitions = Partitions(self._files)
        self._open_footers()

    def _open_footers(self) -> None:
        rows, stored = array("q"), array("q")  # of each row group
        counts, lengths = array("q"), array("q")  # of each file: its row groups, and the bytes of its footer
        page = Page()
        opened = (ahead if self._store.is_remote else map)(self._open_footer, self._files)
        for i, (name, ((footer, stored_schema), first)) in enumerate(zip(self._files, opened, strict=True)):
            page = page.larger(first)
            schema = read_schema(stored_schema, name)
            if i == 0:
                self._file_schema = schema
            else:
                require_same(self._file_schema, schema, name, self._files[0])
            groups = map(footer.row_group, range(footer.num_row_groups))
            table = np.array([(group.num_rows, group.total_byte_size) for group in groups], np.int64).reshape(-1, 2)
            require_counts(name, footer.num_rows, table[:, 0])
            rows.frombytes(table[:, 0].tobytes())
            stored.frombytes(np.maximum(0, table[:, 1]).tobytes())
            counts.append(len(table))
            lengths.append(footer.serialized_size)
        self._file_of = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        self._footer_lengths = np.frombuffer(lengths, np.int64)
        self._first = np.concatenate([[0], np.cumsum(counts)])  # the number of the first row group of each file
        self._rows = np.frombuffer(rows, np.int64)
        self.schema = self._partitions.added_to(self._file_schema)
        buffer_bytes = remote_buffer_bytes(footer.num_columns) if self._store.is_remote else STREAM_BUFFER_BYTES
        self._sizes = Sizes.of(
            self.schema, self._rows, np.frombuffer(stored, np.int64), footer.num_columns, page, buffer_bytes
        )
        self._long: frozenset[str] = frozenset()  # the columns whose text is long: see `LongText`
        if self._sizes.is_long.any():
            self._look_at_text()
        self._numbers = {name: i for i, name in enumerate(self._files)}
        self._stored_names = frozenset(self._file_schema.names)

    def _look_at_text(self) -> None:
        """Find out how long text is stored."""
        text_bytes, is_long = self._sizes.text_bytes, self._sizes.is_long
        most_first = [i for i in np.argsort(-text_bytes, kind="stable").tolist() if is_long[i]]
        groups = (
            (self._files[self._file_of[i]], int(i - self._first[self._file_of[i]]), int(text_bytes[i]))
            for i in most_first
        )
        text = look(self._store, groups, [field.name for field in self._file_schema if has_text(field.type)])
        self._long, self._sizes = frozenset(text.columns), replace(self._sizes, text_pages=text.most())

    def _open_footer(self, name: str) -> tuple[Footer, Page]:
        """The footer of a file, and the size of its first page."""
        with reading(self._store.shown(name)):
            footer = self._handles.footer(name)
        return footer, first_page(self._store, name, writer_of(footer.metadata))

    @property
    def open_bytes(self) -> int:
        """The memory that each file being read takes for its footer, while that is parsed: that of the largest, or 0 if all
        footers are kept."""
        parsed = parsed_bytes(np.diff(self._first), self._sizes.stored_columns, self._footer_lengths)
        kept = len(parsed) == 1 or int(parsed.sum()) <= KEPT_FOOTERS_BYTES
        return 0 if kept else int((parsed + self._footer_lengths).max())

    def chunks(self) -> ChunkTable:
        decoded, peaks = np.empty(len(self._rows), np.int64), np.empty(len(self._rows), np.int64)
        for start in range(0, len(self._rows), _SIZED_AT_ONCE):  # the sizes of a million row groups would take 100 MB
            some = slice(start, start + _SIZED_AT_ONCE)
            sizes = self._sizes.of_groups(some)
            decoded[some], peaks[some] = sizes.decoded_bytes(), sizes.read_peak_bytes()
        return ChunkTable(self._key, self._rows, decoded, peaks)

    def _key(self, i: int) -> str:
        file = self._file_of[i]
        return f"{self._files[file]}:{i - self._first[file]}"

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
        stored = [c for c in columns if c in self._stored_names]
        for other in set(columns).difference(self.schema.names):
            pick(self.schema, other, "read")  # raises ColumnError
        read_rows, which = (
            0,
            f"row group {groups[0]}" if len(groups) == 1 else f"row groups {groups[0]} to {groups[-1]}",
        )
        try:
            for batch in self._batches(name, groups, stored, rows, buffer_size) if stored else _empty(total, rows):
                read_rows += batch.num_rows
                yield self._partitions.assembled(
                    batch if stored else None, batch.num_rows, columns, self.schema, self._numbers[name]
                )
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
                yield _coded(batch)
        except OSError as error:
            if "not yet implemented" not in str(error).lower():
                raise
            # pyarrow cannot read text in a delta encoding as dictionaries: continue with plain text
            plain = self._decoded(name, groups, columns, rows, Mode(buffer_size, self._stored_names))
            yield from map(_coded, _after(read_rows, plain))

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
        digest = hashlib.sha256(b"parquet")
        for name in self._files:
            size = self._store.stat(name).nbytes
            footer = int.from_bytes(self._store.read(name, max(0, size - 8), size - 4), "little")
            digest.update(f"{name}\0{size}\0".encode(errors="surrogateescape"))
            digest.update(self._store.read(name, max(0, size - 8 - footer), size - 8))
        digest.update(self._rows.tobytes())
        for piece in self._sample():
            digest.update(piece)
        return digest.hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_handles": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(
            state, _handles=Handles(state["_store"], dict(zip(state["_files"], state["_stats"], strict=True)))
        )


def _after(rows: int, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The batches without their first ``rows`` rows."""
    for batch in batches:
        if batch.num_rows > rows:
            yield batch.slice(rows)
        rows = max(0, rows - batch.num_rows)


def _empty(total: int, rows: int) -> Iterator[pa.RecordBatch]:
    """Batches without real columns, for a read of partition columns only."""
    for start in range(0, total, rows):
        yield pa.record_batch([pa.nulls(min(rows, total - start))], names=[""])


def _coded(batch: pa.RecordBatch) -> pa.RecordBatch:
    if not any(map(is_text, batch.schema.types)):
        return batch
    return pa.RecordBatch.from_arrays([as_codes(values) for values in batch.columns], names=batch.schema.names)

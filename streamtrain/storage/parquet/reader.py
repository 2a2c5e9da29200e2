"""Parquet: one file, a glob, a directory or Hive partitions. A row group is a chunk.

How it reads (measured; the usual ways hold a whole file in memory): never through ``pyarrow.dataset``, no pre-buffering,
no memory map (mapped pages count as resident), one core a read, several reads at once. Handles are lent to one read at
a time and kept for the next; the footer of a file is shared between its handles. Column metadata is never touched:
``row_group(i).column(j)`` aborts the process on a column that cannot be decrypted, so sizes come from the schema and
from ``total_byte_size``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from streamtrain.errors import CorruptError, DataError
from streamtrain.kernels.crash import reading
from streamtrain.storage.arrow import pick
from streamtrain.storage.files.locate import locate
from streamtrain.storage.files.partitions import Partitions
from streamtrain.storage.files.sample import sampled
from streamtrain.storage.files.store import FileBacked, ahead
from streamtrain.storage.formats import suffixes_of
from streamtrain.storage.parquet.footer import (
    READ_ERRORS,
    as_codes,
    first_line,
    first_page,
    is_text,
    read_schema,
    require_counts,
    require_same,
)
from streamtrain.storage.parquet.handles import KEPT_FOOTERS_BYTES, Footer, Handles, Mode, footer_bytes
from streamtrain.storage.parquet.sizes import STREAM_BUFFER_BYTES, Page, Sizes, remote_buffer_bytes
from streamtrain.storage.reader import Chunk, ChunkTable

__all__ = ["ParquetReader"]


class ParquetReader(FileBacked):
    """Reads Parquet files.

    target: a file, a glob, or a directory, whose ``key=value`` folders become columns.
    """

    def __init__(self, target: str | Path) -> None:
        self._store, self._files = locate(str(target), suffixes_of("parquet"))
        self._stats = [self._store.stat(name) for name in self._files]
        self._handles = Handles(self._store, dict(zip(self._files, self._stats, strict=True)))
        self._partitions = Partitions(self._files)
        self._open_footers()

    def _open_footers(self) -> None:
        file_of: list[int] = []
        group_of: list[int] = []
        rows: list[int] = []
        stored: list[int] = []
        page = Page()
        looks = (ahead if self._store.is_remote else map)(self._look, self._files)
        for i, (name, ((footer, stored_schema), first)) in enumerate(zip(self._files, looks, strict=True)):
            page = page.larger(first)
            found = read_schema(stored_schema, name)
            if i == 0:
                self._file_schema = found
            else:
                require_same(self._file_schema, found, name, self._files[0])
            groups = [footer.row_group(g) for g in range(footer.num_row_groups)]
            require_counts(name, footer.num_rows, [g.num_rows for g in groups])
            file_of += [i] * len(groups)
            group_of += range(len(groups))
            rows += [g.num_rows for g in groups]
            stored += [max(0, g.total_byte_size) for g in groups]
        self._file_of, self._group_of = np.asarray(file_of, np.int32), np.asarray(group_of, np.int32)
        self._rows = np.asarray(rows, np.int64)
        self.schema = self._partitions.added_to(self._file_schema)
        buffer_bytes = remote_buffer_bytes(footer.num_columns) if self._store.is_remote else STREAM_BUFFER_BYTES
        self._sizes = Sizes.of(self.schema, rows, stored, footer.num_columns, page, buffer_bytes)
        self._numbers = {name: i for i, name in enumerate(self._files)}
        self._stored_names = frozenset(self._file_schema.names)

    def _look(self, name: str) -> tuple[Footer, Page]:
        """What a file says of itself, and its first page."""
        with reading(self._store.shown(name)):
            footer = self._handles.footer(name)
        return footer, first_page(self._store, name, footer.metadata.created_by or "")

    @property
    def open_bytes(self) -> int:
        """Memory that the footer of each file that is read takes, beyond those that are kept: of the largest."""
        groups, columns = np.bincount(self._file_of, minlength=1), len(self._file_schema)
        kept = len(groups) == 1 or sum(footer_bytes(n, columns) for n in groups.tolist()) <= KEPT_FOOTERS_BYTES
        return 0 if kept else footer_bytes(int(groups.max()), columns)

    def chunks(self) -> ChunkTable:
        return ChunkTable(self._key, self._rows, self._sizes.decoded_bytes(), self._sizes.read_peak_bytes())

    def _key(self, i: int) -> str:
        return f"{self._files[self._file_of[i]]}:{self._group_of[i]}"

    def read(self, chunk: Chunk, columns: Sequence[str]) -> pa.Table | pa.RecordBatch:
        batches = list(self._slices(chunk, columns, max(1, chunk.rows), buffer_size=0))
        return batches[0] if len(batches) == 1 else pa.Table.from_batches(batches, self._schema_of(columns))

    def stream(self, chunk: Chunk, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        return self._slices(chunk, columns, rows, buffer_size=self._sizes.buffer_bytes)

    def stream_peak_bytes(self, chunk: Chunk, rows: int) -> int:
        return self._sizes.stream_peak_bytes(self._number(chunk), min(rows, chunk.rows))

    def _number(self, chunk: Chunk) -> int:
        """The number of a chunk."""
        name, group = chunk.key.rsplit(":", 1)
        return int(np.searchsorted(self._file_of, self._numbers[name])) + int(group)

    def _slices(self, chunk: Chunk, columns: Sequence[str], rows: int, *, buffer_size: int) -> Iterator[pa.RecordBatch]:
        name, group = chunk.key.rsplit(":", 1)
        stored = [c for c in columns if c in self._stored_names]
        for other in set(columns).difference(self.schema.names):
            pick(self.schema, other, "read")  # raises
        found = 0
        try:
            for batch in self._batches(name, group, stored, rows, buffer_size) if stored else _empty(chunk.rows, rows):
                found += batch.num_rows
                yield self._partitions.assembled(
                    batch if stored else None, batch.num_rows, columns, self.schema, self._numbers[name]
                )
        except (DataError, MemoryError):
            raise
        except READ_ERRORS as error:
            self._verify(name)
            raise CorruptError(
                f"{self._store.shown(name)}: row group {group} cannot be read: {first_line(error)}"
            ) from error
        self._verify(name)
        if found != chunk.rows:
            raise CorruptError(
                f"{self._store.shown(name)}: row group {group} gave {found:,} rows, but its footer says {chunk.rows:,}"
            )

    def _verify(self, name: str) -> None:
        """Raises CorruptError where a file has changed since it was opened."""
        self._store.verify(name, self._stats[self._numbers[name]])

    def _batches(
        self, name: str, group: str, columns: Sequence[str], rows: int, buffer_size: int
    ) -> Iterator[pa.RecordBatch]:
        """What the file holds, text as codes."""
        found = 0
        try:
            for batch in self._decoded(name, group, columns, rows, Mode(buffer_size)):
                found += batch.num_rows
                yield _coded(batch)
        except OSError as error:
            if "not yet implemented" not in str(error).lower():
                raise
            # pyarrow makes no codes of text in a delta encoding: on without them
            plain = self._decoded(name, group, columns, rows, Mode(buffer_size, text_as_codes=False))
            yield from map(_coded, _after(found, plain))

    def _decoded(
        self, name: str, group: str, columns: Sequence[str], rows: int, mode: Mode
    ) -> Iterator[pa.RecordBatch]:
        with self._handles.lend(name, mode) as file:
            yield from file.iter_batches(rows, [int(group)], columns, use_threads=False)

    def _schema_of(self, columns: Sequence[str]) -> pa.Schema:
        return pa.schema([self.schema.field(c) for c in columns])

    def fingerprint(self) -> str:
        """SHA-256 of the files' names, sizes, footers and row counts, and of a sample of their bytes (see `sampled`)."""
        digest = hashlib.sha256(b"parquet")
        for name in self._files:
            size = self._store.stat(name).nbytes
            footer = int.from_bytes(self._store.read(name, max(0, size - 8), size - 4), "little")
            digest.update(f"{name}\0{size}\0".encode())
            digest.update(self._store.read(name, max(0, size - 8 - footer), size - 8))
        digest.update(self._rows.tobytes())
        for piece in sampled(list(self.file_sizes.items()), self._store.read):
            digest.update(piece)
        return digest.hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_handles": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(
            state, _handles=Handles(state["_store"], dict(zip(state["_files"], state["_stats"], strict=True)))
        )


def _after(rows: int, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """What follows the first ``rows`` rows."""
    for batch in batches:
        if batch.num_rows > rows:
            yield batch.slice(rows)
        rows = max(0, rows - batch.num_rows)


def _empty(total: int, rows: int) -> Iterator[pa.RecordBatch]:
    """Slices without columns: of a read of partition folders alone."""
    for start in range(0, total, rows):
        yield pa.record_batch([pa.nulls(min(rows, total - start))], names=[""])


def _coded(batch: pa.RecordBatch) -> pa.RecordBatch:
    if not any(map(is_text, batch.schema.types)):
        return batch
    return pa.RecordBatch.from_arrays([as_codes(values) for values in batch.columns], names=batch.schema.names)

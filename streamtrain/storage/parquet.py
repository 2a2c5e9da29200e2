"""Parquet: one file, a glob, a directory or Hive partitions. A row group is a chunk.

How it reads (measured; the usual ways hold a whole file in memory): never through ``pyarrow.dataset``, no pre-buffering,
no memory map (mapped pages count as resident), one core a read, several reads at once. Handles are lent to one read at
a time and kept for the next; the footer of a file is shared between its handles. Column metadata is never touched:
``row_group(i).column(j)`` aborts the process on a column that cannot be decrypted, so sizes come from the schema and
from ``total_byte_size``.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streamtrain.errors import CorruptError, DataError
from streamtrain.storage.files import list_files, partition_columns
from streamtrain.storage.parquet_footer import (
    READ_ERRORS,
    as_codes,
    first_line,
    first_page,
    is_text,
    read_schema,
    require_counts,
    require_same,
)
from streamtrain.storage.parquet_sizes import STREAM_BUFFER_BYTES, Page, Sizes
from streamtrain.storage.reader import Chunk, ChunkTable

__all__ = ["ParquetReader"]

_IDLE_HANDLES = 16
_FOOTERS_BYTES = 4 << 20  # footers kept for files that are not being read: few, so that many files take what some do
_ENTRY_BYTES, _COLUMN_BYTES = 950, 1_800  # a footer in memory: for each column of each row group, and for each column


class ParquetReader:
    """Reads Parquet files.

    target: a file, a glob, or a directory, whose ``key=value`` folders become columns.
    """

    def __init__(self, target: str | Path) -> None:
        self._root, self._files = list_files(str(target), (".parquet", ".parq", ".pq"))
        self._handles = _Handles(self._root)
        self._partitions = partition_columns(self._files)
        self._open_footers()

    def _open_footers(self) -> None:
        file_of: list[int] = []
        group_of: list[int] = []
        rows: list[int] = []
        stored: list[int] = []
        page = Page()
        for i, name in enumerate(self._files):
            footer, stored_schema = self._handles.footer(name)
            page = page.larger(first_page(self._root / name, footer.created_by or ""))
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
        self.schema = _with_partitions(self._file_schema, self._partitions)
        self._sizes = Sizes.of(self.schema, rows, stored, footer.num_columns, page)
        self._numbers = {name: i for i, name in enumerate(self._files)}
        self._stored_names = frozenset(self._file_schema.names)

    @property
    def paths(self) -> list[Path]:
        """The data files."""
        return [self._root / name for name in self._files]

    @property
    def stored_bytes(self) -> int:
        """Bytes of all files on disk."""
        return sum((self._root / name).stat().st_size for name in self._files)

    @property
    def open_bytes(self) -> int:
        """Memory that the footer of each file that is read takes, beyond those that are kept: of the largest."""
        groups, columns = np.bincount(self._file_of, minlength=1), len(self._file_schema)
        kept = len(groups) == 1 or sum(_footer_bytes(n, columns) for n in groups.tolist()) <= _FOOTERS_BYTES
        return 0 if kept else _footer_bytes(int(groups.max()), columns)

    def chunks(self) -> ChunkTable:
        return ChunkTable(self._key, self._rows, self._sizes.decoded_bytes(), self._sizes.read_peak_bytes())

    def _key(self, i: int) -> str:
        return f"{self._files[self._file_of[i]]}:{self._group_of[i]}"

    def read(self, chunk: Chunk, columns: Sequence[str]) -> pa.Table | pa.RecordBatch:
        batches = list(self._slices(chunk, columns, max(1, chunk.rows), buffer_size=0))
        return batches[0] if len(batches) == 1 else pa.Table.from_batches(batches, self._schema_of(columns))

    def stream(self, chunk: Chunk, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        return self._slices(chunk, columns, rows, buffer_size=STREAM_BUFFER_BYTES)

    def stream_peak_bytes(self, chunk: Chunk, rows: int) -> int:
        return self._sizes.stream_peak_bytes(self._place(chunk), min(rows, chunk.rows))

    def _place(self, chunk: Chunk) -> int:
        """The number of a chunk."""
        name, group = chunk.key.rsplit(":", 1)
        return int(np.searchsorted(self._file_of, self._numbers[name])) + int(group)

    def _slices(self, chunk: Chunk, columns: Sequence[str], rows: int, *, buffer_size: int) -> Iterator[pa.RecordBatch]:
        name, group = chunk.key.rsplit(":", 1)
        stored = [c for c in columns if c in self._stored_names]
        found = 0
        if not stored:
            for start in range(0, chunk.rows, rows):
                yield self._assembled(None, columns, name, min(rows, chunk.rows - start))
            return
        try:
            try:
                for batch in self._batches(name, group, stored, rows, _Mode(buffer_size)):
                    found += batch.num_rows
                    yield self._assembled(batch, columns, name)
            except OSError as error:
                if "not yet implemented" not in str(error).lower():
                    raise
                # pyarrow makes no codes of text in a delta encoding: on without them
                plain = self._batches(name, group, stored, rows, _Mode(buffer_size, text_as_codes=False))
                for batch in _after(found, plain):
                    found += batch.num_rows
                    yield self._assembled(batch, columns, name)
        except (DataError, MemoryError):
            raise
        except READ_ERRORS as error:
            raise CorruptError(f"{self._root / name}: row group {group} cannot be read: {first_line(error)}") from error
        if found != chunk.rows:
            raise CorruptError(
                f"{self._root / name}: row group {group} gave {found:,} rows, but its footer says {chunk.rows:,}"
            )

    def _batches(
        self, name: str, group: str, columns: Sequence[str], rows: int, mode: _Mode
    ) -> Iterator[pa.RecordBatch]:
        with self._handles.lend(name, mode) as file:
            yield from file.iter_batches(rows, [int(group)], columns, use_threads=False)

    def _assembled(
        self, batch: pa.RecordBatch | None, columns: Sequence[str], file: str, rows: int = 0
    ) -> pa.RecordBatch:
        """The columns in the order asked for, those of the partition folders added."""
        wanted = self._schema_of(columns)
        if batch is not None and batch.schema.equals(wanted):
            return batch
        rows = rows if batch is None else batch.num_rows
        arrays = [
            _constant(self._partitions[c], self._numbers[file], rows)
            if batch is None or c not in batch.schema.names
            else as_codes(batch.column(c))
            for c in columns
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=wanted)

    def _schema_of(self, columns: Sequence[str]) -> pa.Schema:
        return pa.schema([self.schema.field(c) for c in columns])

    def fingerprint(self) -> str:
        """SHA-256 of the files' names, sizes, footers and row counts."""
        digest = hashlib.sha256(b"parquet")
        for name in self._files:
            with (self._root / name).open("rb") as file:
                size = file.seek(0, 2)
                file.seek(max(0, size - 8))
                footer = int.from_bytes(file.read(4), "little")
                file.seek(max(0, size - 8 - footer))
                digest.update(f"{name}\0{size}\0".encode() + file.read(footer))
        digest.update(self._rows.tobytes())
        return digest.hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_handles": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _handles=_Handles(state["_root"]))


class _Mode(NamedTuple):
    """How a file is open: with a buffer, or without for 0; and whether text comes as codes into a dictionary."""

    buffer_size: int
    text_as_codes: bool = True


class _Footer(NamedTuple):
    """What a file says of itself. The schema is asked of the open file: the footer's own would keep it in a cycle, so in
    memory until Python looks for those."""

    metadata: Any
    schema: pa.Schema

    @property
    def nbytes(self) -> int:
        return _footer_bytes(self.metadata.num_row_groups, self.metadata.num_columns)


class _Handles:
    """Open files, each lent to one read at a time, and their footers, which the handles of a file share. The last few are
    kept: handles by their number, footers by their bytes (but as many as there were reads at a time, which the plan has
    memory for), and no handle longer than its footer."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._idle: OrderedDict[int, tuple[str, _Mode, Any]] = OrderedDict()
        self._footers: OrderedDict[str, _Footer] = OrderedDict()
        self._footers_bytes = self._largest_bytes = self._coming = 0
        self._lent: list[str] = []  # files, once for each handle that is with a read
        self._most_lent = 0

    def footer(self, name: str) -> _Footer:
        with self._lock:
            if name in self._footers:
                self._footers.move_to_end(name)
                return self._footers[name]
            self._coming += 1
            dropped = self._forget()  # before there is one more
        for file in dropped:
            file.close(force=True)
        footer = None
        try:
            footer = self._read_footer(name)
        finally:
            with self._lock:
                self._coming -= 1
                if footer is not None and name not in self._footers:
                    self._footers[name] = footer
                    self._footers_bytes += footer.nbytes
                    self._largest_bytes = max(self._largest_bytes, footer.nbytes)
        return footer

    def _read_footer(self, name: str) -> _Footer:
        path = self._root / name
        try:
            with pa.OSFile(str(path), memory_pool=pa.default_memory_pool()) as source:
                file = pq.ParquetFile(source, pre_buffer=False)
                try:
                    return _Footer(file.metadata, file.schema_arrow.remove_metadata())
                except READ_ERRORS as error:
                    raise CorruptError(f"{path}: its schema cannot be read: {first_line(error)}") from error
        except FileNotFoundError as error:
            raise CorruptError(f"{path}: the file is gone since it was listed") from error
        except DataError:
            raise
        except READ_ERRORS as error:
            raise CorruptError(f"{path}: not a Parquet file, or damaged: {first_line(error)}") from error

    def _forget(self) -> list[Any]:
        """Drop the footers that were not used for longest, if with those that are coming there would be too many, and return
        the handles that hold them."""
        forgotten = set()
        most, coming_bytes = max(1, self._most_lent), self._coming * self._largest_bytes
        for name in [name for name in self._footers if name not in self._lent]:  # of others nothing would be given back
            enough = self._footers_bytes + coming_bytes <= _FOOTERS_BYTES
            if enough or len(self._footers) + self._coming <= most:
                break
            self._footers_bytes -= self._footers.pop(name).nbytes
            forgotten.add(name)
        gone = [key for key, (name, *_) in self._idle.items() if name in forgotten]
        return [self._idle.pop(key)[2] for key in gone]

    @contextmanager
    def lend(self, name: str, mode: _Mode) -> Iterator[Any]:
        file = self._take(name, mode)
        try:
            if file is None:
                file = self._open(name, mode)
            yield file
        except BaseException:
            with self._lock:
                self._lent.remove(name)
            if file is not None:
                file.close(force=True)
            raise
        self._keep(name, mode, file)

    def _open(self, name: str, mode: _Mode) -> Any:
        footer, schema = self.footer(name)
        # Given a path, pyarrow reads into another pool than the one that was set. Checksums are verified where there are any.
        source = pa.OSFile(str(self._root / name), memory_pool=pa.default_memory_pool())
        return pq.ParquetFile(
            source,
            metadata=footer,
            read_dictionary=[f.name for f in schema if is_text(f.type)] if mode.text_as_codes else None,
            buffer_size=mode.buffer_size,
            pre_buffer=False,
            page_checksum_verification=True,
        )

    def _take(self, name: str, mode: _Mode) -> Any:
        with self._lock:
            self._lent.append(name)
            self._most_lent = max(self._most_lent, len(self._lent))
            for key, (*held, file) in self._idle.items():
                if held == [name, mode]:
                    del self._idle[key]
                    return file
        return None

    def _keep(self, name: str, mode: _Mode, file: Any) -> None:
        with self._lock:
            self._lent.remove(name)
            dropped = [file]
            if name in self._footers:  # otherwise it would be all that holds its footer
                self._idle[id(file)] = name, mode, file
                dropped = [self._idle.popitem(last=False)[1][2]] if len(self._idle) > _IDLE_HANDLES else []
        for old in dropped:
            old.close(force=True)


def _footer_bytes(groups: int, columns: int) -> int:
    return columns * (groups * _ENTRY_BYTES + _COLUMN_BYTES)


def _with_partitions(schema: pa.Schema, partitions: dict[str, pa.Array]) -> pa.Schema:
    for key, values in partitions.items():
        if key not in schema.names:
            schema = schema.append(pa.field(key, values.type))
    return schema


def _after(rows: int, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """What follows the first ``rows`` rows."""
    for batch in batches:
        if batch.num_rows > rows:
            yield batch.slice(rows)
        rows = max(0, rows - batch.num_rows)


def _constant(values: pa.Array, file: int, rows: int) -> pa.Array:
    """A column that has one value throughout a file."""
    if isinstance(values, pa.DictionaryArray):
        index = values.indices[file].as_py()
        indices = pa.nulls(rows, pa.int32()) if index is None else pa.array(np.full(rows, index, np.int32))
        return pa.DictionaryArray.from_arrays(indices, values.dictionary)
    value = values[file]
    return pa.nulls(rows, values.type) if not value.is_valid else pa.array(np.full(rows, value.as_py(), np.int64))

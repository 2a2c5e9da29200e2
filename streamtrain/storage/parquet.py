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
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streamtrain.errors import ColumnError, CorruptError, DataError, SchemaError
from streamtrain.storage.arrow import bytes_per_row
from streamtrain.storage.files import list_files, partition_columns
from streamtrain.storage.reader import Chunk, ChunkTable

__all__ = ["ParquetReader"]

_PAGE_BYTES = 1 << 20  # the page size that writers default to, and the buffer that a stream reads through
_IDLE_HANDLES = 16
_FOOTERS_BYTES = 32 << 20  # footers kept for files that are not being read
_FOOTER_ENTRY_BYTES = 1000  # a footer in memory, for each column of each row group
_READ_ERRORS = (OSError, pa.ArrowException, ValueError, TypeError, KeyError)


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
        for i, name in enumerate(self._files):
            footer = self._handles.footer(name)
            found = _schema(footer, name)
            if i == 0:
                self._file_schema = found
            else:
                _require_same(self._file_schema, found, name, self._files[0])
            groups = [footer.row_group(g) for g in range(footer.num_row_groups)]
            _require_counts(name, footer.num_rows, [g.num_rows for g in groups])
            file_of += [i] * len(groups)
            group_of += range(len(groups))
            rows += [g.num_rows for g in groups]
            stored += [max(0, g.total_byte_size) for g in groups]
        self._file_of, self._group_of = np.asarray(file_of, np.int32), np.asarray(group_of, np.int32)
        self._rows, self._encoded_bytes = np.asarray(rows, np.int64), np.asarray(stored, np.int64)
        self.schema = _with_partitions(self._file_schema, self._partitions)
        self._numbers = {name: i for i, name in enumerate(self._files)}

    @property
    def files(self) -> list[str]:
        """The data files, relative to where they were found."""
        return list(self._files)

    @property
    def stored_bytes(self) -> int:
        """Bytes of all files on disk."""
        return sum((self._root / name).stat().st_size for name in self._files)

    @property
    def open_bytes(self) -> int:
        """Memory that footers and handles take while reading."""
        per_group = _FOOTER_ENTRY_BYTES * max(1, len(self._file_schema))
        most = int(np.bincount(self._file_of).max(initial=0)) * per_group
        return most + min(len(self._rows) * per_group, _FOOTERS_BYTES)

    def chunks(self) -> ChunkTable:
        row_bytes = sum(bytes_per_row(field.type) for field in self.schema)
        decoded = np.maximum(np.ceil(self._rows * row_bytes), self._encoded_bytes).astype(np.int64)
        # One read holds what it decoded, the raw column chunks, and a decompressed page of each column.
        pages = np.minimum(self._encoded_bytes, len(self._file_schema) * _PAGE_BYTES)
        return ChunkTable(self._key, self._rows, decoded, decoded + self._encoded_bytes + pages)

    def _key(self, i: int) -> str:
        return f"{self._files[self._file_of[i]]}:{self._group_of[i]}"

    def read(self, chunk: Chunk, columns: Sequence[str]) -> pa.Table | pa.RecordBatch:
        batches = list(self._slices(chunk, columns, max(1, chunk.rows), buffer_size=0))
        return batches[0] if len(batches) == 1 else pa.Table.from_batches(batches, self._schema_of(columns))

    def stream(self, chunk: Chunk, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        return self._slices(chunk, columns, rows, buffer_size=_PAGE_BYTES)

    def stream_peak_bytes(self, chunk: Chunk, rows: int) -> int:
        row_bytes = chunk.decoded_bytes / max(1, chunk.rows)
        buffers = min(2 * len(self._file_schema) * _PAGE_BYTES, 2 * chunk.decoded_bytes)
        return int(2 * min(rows, chunk.rows) * row_bytes) + buffers

    def _slices(self, chunk: Chunk, columns: Sequence[str], rows: int, *, buffer_size: int) -> Iterator[pa.RecordBatch]:
        name, group = chunk.key.rsplit(":", 1)
        stored = [c for c in columns if c in self._file_schema.names]
        found = 0
        try:
            with self._handles.lend(name, buffer_size) as file:
                for batch in file.iter_batches(rows, [int(group)], stored, use_threads=False):
                    found += batch.num_rows
                    yield self._assembled(batch, columns, name)
        except DataError:
            raise
        except _READ_ERRORS as error:
            raise CorruptError(f"{self._root / name}: row group {group} cannot be read: {_line(error)}") from error
        if not stored:
            yield self._assembled(None, columns, name, chunk.rows)
        elif found != chunk.rows:
            raise CorruptError(
                f"{self._root / name}: row group {group} gave {found:,} rows, but its footer says {chunk.rows:,}"
            )

    def _assembled(
        self, batch: pa.RecordBatch | None, columns: Sequence[str], file: str, rows: int = 0
    ) -> pa.RecordBatch:
        """The columns in the order asked for, those of the partition folders added."""
        if batch is not None and batch.schema.names == list(columns):
            return batch
        rows = rows if batch is None else batch.num_rows
        arrays = [
            _constant(self._partitions[c], self._numbers[file], rows)
            if batch is None or c not in batch.schema.names
            else batch.column(c)
            for c in columns
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema_of(columns))

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


class _Handles:
    """Open files, each lent to one read at a time; the last few are kept. Footers are shared."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._idle: OrderedDict[int, tuple[str, int, Any]] = OrderedDict()
        self._footers: OrderedDict[str, tuple[Any, int]] = OrderedDict()

    def footer(self, name: str) -> Any:
        with self._lock:
            if name in self._footers:
                self._footers.move_to_end(name)
                return self._footers[name][0]
        path = self._root / name
        try:
            footer = pq.read_metadata(str(path))
        except FileNotFoundError as error:
            raise CorruptError(f"{path}: the file is gone since it was listed") from error
        except _READ_ERRORS as error:
            raise CorruptError(f"{path}: not a Parquet file, or damaged: {_line(error)}") from error
        size = footer.num_row_groups * footer.num_columns * _FOOTER_ENTRY_BYTES
        with self._lock:
            self._footers[name] = footer, size
            while len(self._footers) > 1 and sum(s for _, s in self._footers.values()) > _FOOTERS_BYTES:
                self._footers.popitem(last=False)
        return footer

    @contextmanager
    def lend(self, name: str, buffer_size: int) -> Iterator[Any]:
        file = self._take(name, buffer_size)
        if file is None:
            # Checksums are verified where the writer left them.
            file = pq.ParquetFile(
                str(self._root / name),
                metadata=self.footer(name),
                buffer_size=buffer_size,
                pre_buffer=False,
                page_checksum_verification=True,
            )
        try:
            yield file
        except BaseException:
            file.close(force=True)
            raise
        self._keep(name, buffer_size, file)

    def _take(self, name: str, buffer_size: int) -> Any:
        with self._lock:
            for key, (held, size, file) in self._idle.items():
                if (held, size) == (name, buffer_size):
                    del self._idle[key]
                    return file
        return None

    def _keep(self, name: str, buffer_size: int, file: Any) -> None:
        with self._lock:
            self._idle[id(file)] = name, buffer_size, file
            dropped = [self._idle.popitem(last=False)[1][2]] if len(self._idle) > _IDLE_HANDLES else []
        for old in dropped:
            old.close(force=True)


def _schema(footer: Any, name: str) -> pa.Schema:
    try:
        schema = footer.schema.to_arrow_schema().remove_metadata()
    except _READ_ERRORS as error:
        raise CorruptError(f"{name}: its schema cannot be read: {_line(error)}") from error
    twice = {n for n in schema.names if schema.names.count(n) > 1} if len(set(schema.names)) < len(schema) else set()
    if twice:
        raise SchemaError(f"{name}: more than one column is named {sorted(twice)[0]!r}: names must be unique")
    return schema


def _require_same(expected: pa.Schema, found: pa.Schema, name: str, first: str) -> None:
    if found.equals(expected):
        return
    for field in expected:
        if field.name not in found.names:
            raise SchemaError(f"{name}: no column {field.name!r}, which {first} has: all files must have one schema")
        kind = found.field(field.name).type
        if kind != field.type:
            raise SchemaError(f"{name}: column {field.name!r} is {kind}, but {field.type} in {first}")
    for extra in found.names:
        if extra not in expected.names:
            raise SchemaError(f"{name}: a column {extra!r}, which {first} has not: all files must have one schema")


def _require_counts(name: str, total: int, groups: list[int]) -> None:
    if min(groups, default=0) < 0:
        raise CorruptError(f"{name}: a row group says that it has {min(groups):,} rows: the footer is damaged")
    if total not in (0, sum(groups)):  # some writers leave 0 in the file's count
        raise CorruptError(f"{name}: the footer says {total:,} rows, its row groups {sum(groups):,}: it is damaged")


def _with_partitions(schema: pa.Schema, partitions: dict[str, pa.Array]) -> pa.Schema:
    for key, values in partitions.items():
        if key not in schema.names:
            schema = schema.append(pa.field(key, values.type))
    return schema


def _constant(values: pa.Array, file: int, rows: int) -> pa.Array:
    """A column that has one value throughout a file."""
    if isinstance(values, pa.DictionaryArray):
        index = values.indices[file].as_py()
        indices = pa.nulls(rows, pa.int32()) if index is None else pa.array(np.full(rows, index, np.int32))
        return pa.DictionaryArray.from_arrays(indices, values.dictionary)
    value = values[file]
    return pa.nulls(rows, values.type) if not value.is_valid else pa.array(np.full(rows, value.as_py(), np.int64))


def _line(error: BaseException) -> str:
    """The first line of a library's message."""
    text = str(error).strip().splitlines()
    return text[0].rstrip(".") if text else type(error).__name__


def require_scalar(field: pa.Field) -> None:
    """Refuse a nested column by name."""
    if pa.types.is_nested(field.type) and not isinstance(field.type, pa.DictionaryType):
        raise ColumnError(f"column {field.name!r} is nested ({field.type}): flatten it, or leave it out with --exclude")

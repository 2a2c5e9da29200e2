"""``.npy`` files: an array of numpy in each. They are read in slices of rows; nothing is mapped into memory.

A plain array is the column ``X``; a structured array has a column for each field. Arrays in Fortran order are stored column by
column, so a slice of rows is one read for each value of a row. There are no checksums.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.errors import ColumnError, CorruptError, DataError, SchemaError, UsageError
from streamtrain.storage.arrow import HINT, pick
from streamtrain.storage.files.columns import PROBLEM, FileColumns
from streamtrain.storage.files.locate import Target, locate
from streamtrain.storage.files.store import FileBacked
from streamtrain.storage.formats import suffixes_of
from streamtrain.storage.from_numpy import arrow_type, row_bits, to_arrow
from streamtrain.storage.npy_header import BadHeaderError, NpyHeader, read_header
from streamtrain.storage.parquet.footer import READ_ERRORS, first_line
from streamtrain.storage.reader import Chunk, ChunkTable
from streamtrain.storage.text.source import edges

__all__ = ["NpyReader"]

CHUNK_BYTES, CHUNK_ROWS = 8_000_000, 65_536
_FLOOR_BYTES = 300_000
_PLAIN = "X"
_PAIR = "in Python give numpy.load(path, mmap_mode='r') of each as a pair (X, y), or save one structured array"


class NpyReader(FileBacked):
    """Reads ``.npy`` files. A chunk is 65,536 rows or 8 MB of a file.

    target: a file, glob or directory, or several; its ``key=value`` folders become columns.
    Raises CorruptError, DataError, SchemaError, ColumnError, NotFoundError.
    """

    def __init__(self, target: Target) -> None:
        self._store, self._files = locate(target, suffixes_of("npy"))
        self._stats = [self._store.stat(name) for name in self._files]
        self._numbers = {name: i for i, name in enumerate(self._files)}
        self._columns = FileColumns(self._files, self._store.folders)
        self._headers = [self._header(i) for i in range(len(self._files))]
        self._require_one_shape()
        for i, header in enumerate(self._headers):
            self._columns.add(self._schema(i), has_rows=header.rows > 0)
        self._columns.finish()
        self.schema = self._columns.schema
        if all(header.dtype.names is None for header in self._headers):
            self.schema = self.schema.with_metadata(
                {HINT: f"a plain array in a .npy file is the column {_PLAIN}: for more columns, {_PAIR}".encode()}
            )
        #: whether reading one column costs as much as reading all: the fields of a row are stored together
        self.row_oriented = any(len(header.dtype.names or ()) > 1 for header in self._headers)
        steps = [_step(header) for header in self._headers]
        counts = [-(-header.rows // step) for header, step in zip(self._headers, steps, strict=True)]
        self._file_of = np.repeat(np.arange(len(counts)), counts)
        self._steps = np.asarray(steps, np.int64)
        self._first = np.cumsum([0, *counts])

    def _header(self, i: int) -> NpyHeader:
        name, stat = self._files[i], self._stats[i]
        try:
            header = read_header(lambda start, stop: self._store.read(name, start, stop), stat.nbytes)
        except BadHeaderError as error:
            self._store.verify(name, stat)
            raise (CorruptError if error.is_damaged else DataError)(f"{self._store.shown(name)}: {error}") from None
        except READ_ERRORS as error:
            raise self._failed(i, error) from None
        if header.in_columns and header.values_per_row > 1 and self._store.is_remote:
            raise UsageError(
                f"{self._store.shown(name)}: the array is in Fortran order, which would take a request for each column of "
                "each slice: save numpy.ascontiguousarray(array), or download the file"
            )
        return header

    def _require_one_shape(self) -> None:
        """Raise SchemaError if the rows of plain arrays have several shapes: they were meant to be beside each other."""
        plain = [(i, h.shape[1:]) for i, h in enumerate(self._headers) if h.dtype.names is None and h.rows]
        for i, shape in plain:
            if shape != plain[0][1]:
                first, then = (self._store.shown(self._files[k]) for k in (plain[0][0], i))
                raise SchemaError(
                    f"{then}: its rows have the shape {shape}, but those of {first} have {plain[0][1]}: files are read one "
                    f"after the other, as more rows, not as columns of the same rows: {_PAIR}"
                )

    def _schema(self, i: int) -> pa.Schema:
        """The columns of a file. A field that cannot be read is no problem as long as nobody asks for it."""
        fields, header = [], self._headers[i]
        for name, dtype, row_shape in _fields(header):
            try:
                fields.append(pa.field(name, arrow_type(name, dtype, row_shape)))
            except ColumnError as error:
                if header.dtype.names is None:
                    raise ColumnError(f"{self._store.shown(self._files[i])}: {error}") from None
                fields.append(pa.field(name, pa.null(), metadata={PROBLEM: str(error).encode(errors="replace")}))
        return pa.schema(fields)

    # -- chunks and sizes ------------------------------------------------------------------------------------------------

    def chunks(self) -> ChunkTable:
        """All chunks. The key of a chunk is its file and the number of its first row."""
        step, start = self._steps[self._file_of], self._starts()
        rows = np.minimum(step, np.array([h.rows for h in self._headers], np.int64)[self._file_of] - start)
        decoded = np.array([_decoded_bytes(header) for header in self._headers])[self._file_of] * rows
        peak = np.array([self._row_peak(header) for header in self._headers])[self._file_of] * rows + _FLOOR_BYTES
        return ChunkTable(self._key, rows, np.ceil(decoded), np.ceil(peak))

    def _starts(self) -> NDArray[np.int64]:
        """The first row of each chunk in its file."""
        own = np.arange(len(self._file_of)) - self._first[self._file_of]
        return np.asarray(own * self._steps[self._file_of], np.int64)

    def _row_peak(self, header: NpyHeader) -> float:
        """The memory of a row while it is read: as stored, in native and then in row order, in Arrow; and as the caller may
        still hold the one before. Text grows by doubling."""
        copies = 4 if any(kind.kind in "US" for _, kind, _ in _fields(header)) else 3
        return header.row_bytes + copies * max(header.row_bytes, _decoded_bytes(header)) + self._columns.cast_row_bytes

    def stream_peak_bytes(self, chunk: Chunk, rows: int) -> int:
        """A slice is read by itself."""
        file, _ = self._place(chunk)
        return int(min(rows, chunk.rows) * self._row_peak(self._headers[file])) + _FLOOR_BYTES

    def _key(self, i: int) -> str:
        file = int(self._file_of[i])
        return f"{self._files[file]}:{(i - int(self._first[file])) * int(self._steps[file])}"

    def _place(self, chunk: Chunk) -> tuple[int, int]:
        """The file of a chunk, and its first row in it."""
        name, _, row = chunk.key.rpartition(":")
        return self._numbers[name], int(row)

    # -- reading -----------------------------------------------------------------------------------------------------------

    def read(self, chunk: Chunk, columns: Sequence[str]) -> pa.RecordBatch:
        (batch,) = self.stream(chunk, columns, max(1, chunk.rows))
        return batch

    def stream(self, chunk: Chunk, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        for name in columns:
            pick(self.schema, name, "read")
        file, first = self._place(chunk)
        stored = self._columns.stored(file, columns)
        for start in range(first, first + chunk.rows, rows):
            stop = min(first + chunk.rows, start + rows)
            batch = self._slice(file, start, stop, stored) if stored else None
            yield self._columns.assembled(batch, stop - start, columns, file)
            del batch

    def _slice(self, file: int, start: int, stop: int, names: Sequence[str]) -> pa.RecordBatch:
        schema = self._columns.file_schema(file)
        try:
            values = self._values(file, start, stop)
            arrays = [
                pa.nulls(stop - start) if pa.types.is_null(schema.field(name).type) else
                to_arrow(name, values if values.dtype.names is None else values[name])
                for name in names
            ]  # fmt: skip
        except ColumnError as error:
            raise ColumnError(f"{self._store.shown(self._files[file])}: {error}") from None
        except (*READ_ERRORS, ValueError) as error:
            raise self._failed(file, error) from None
        self._store.verify(self._files[file], self._stats[file])
        return pa.RecordBatch.from_arrays(arrays, schema=pa.schema([schema.field(name) for name in names]))

    def _values(self, file: int, start: int, stop: int) -> NDArray[Any]:
        header = self._headers[file]
        size, rows = header.dtype.itemsize, stop - start
        # runs of bytes that follow each other in the file: all rows, or so many values of one column
        runs = header.values_per_row if header.in_columns else 1
        values = np.empty(rows * header.row_bytes, np.uint8).reshape(runs, -1)
        skip, before = (header.rows * size, start * size) if header.in_columns else (0, start * header.row_bytes)
        with self._store.open(self._files[file], self._stats[file]) as source:
            for number, run in enumerate(values):
                source.seek(header.offset + number * skip + before)
                if source.readinto(run) != run.nbytes:
                    raise ValueError(f"it ends before row {stop:,}")
        typed = values.reshape(-1).view(header.dtype)
        if header.in_columns:
            return typed.reshape(*header.shape[:0:-1], rows).T
        return typed.reshape(rows, *header.shape[1:])

    def _failed(self, file: int, error: BaseException) -> DataError:
        """The error to raise. Raises ChangedError instead if the file has changed."""
        if isinstance(error, DataError):
            return error
        self._store.verify(self._files[file], self._stats[file])
        return CorruptError(f"{self._store.shown(self._files[file])}: cannot be read: {first_line(error)}")

    def fingerprint(self) -> str:
        """SHA-256 of the names, sizes, and first and last 64 kB of the files, and a sample of the bytes (see `sampled`)."""
        digest = self._digest(b"npy")
        for name, stat in zip(self._files, self._stats, strict=True):
            digest.update(edges(self._store, name, stat))
        for piece in self._sample():
            digest.update(piece)
        return str(digest.hexdigest())


def _fields(header: NpyHeader) -> list[tuple[str, np.dtype[Any], tuple[int, ...]]]:
    """The columns: name, type of a value, shape of a row."""
    row_shape, dtype = header.shape[1:], header.dtype
    if dtype.names is None:
        return [(_PLAIN, dtype, row_shape)]
    kinds = [(name, dtype[name]) for name in dtype.names]
    return [(name, kind.base, (*row_shape, *kind.shape)) for name, kind in kinds]


def _decoded_bytes(header: NpyHeader) -> float:
    """The bytes of a row in Arrow; a guess where there is text."""
    return sum(row_bits(dtype, row_shape) for _, dtype, row_shape in _fields(header)) / 8


def _step(header: NpyHeader) -> int:
    """The rows of a chunk."""
    return max(1, min(CHUNK_ROWS, int(CHUNK_BYTES / max(header.row_bytes, _decoded_bytes(header)))))

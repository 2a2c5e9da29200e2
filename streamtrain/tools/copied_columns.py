"""Columns of the data that are copied beside predictions, and where each row comes from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.errors import ColumnError, CorruptError, UsageError, near_names, printable
from streamtrain.storage.arrow import bytes_per_row
from streamtrain.storage.checked import open_stream
from streamtrain.storage.files.store import KnowsFiles
from streamtrain.storage.nested import columns_of, plain_type
from streamtrain.storage.parquet.text_sizes import has_text, plain_bytes
from streamtrain.storage.reader import ChunkTable, Reader, Streams

__all__ = ["ORIGIN", "CopiedColumns"]

#: what says where a row comes from, in data that have no column of the name: the file, and the number of the row in it
ORIGIN = {"file": pa.string(), "row": pa.int64()}
_SLICE_ROWS, _SLICE_BYTES, _PIECE_BYTES = 8192, 2 * 10**6, 4 * 10**6


class CopiedColumns:
    """Columns of the data, in the order of the rows, without dictionaries.

    Raises ColumnError for a column that is missing, or cannot be read; UsageError for the file of data that have none.
    """

    def __init__(self, reader: Reader, table: ChunkTable, names: Sequence[str]) -> None:
        self._reader, self._table, self._names = reader, table, list(names)
        self._fields = {field.name: field for schema in (columns_of(reader.schema), reader.schema) for field in schema}
        self._stored = [name for name in names if name in self._fields]
        self._first_chunks = _first_chunks(reader, table)
        self._starts = table.unfiltered.starts[self._first_chunks]
        self.schema = pa.schema([self._field(name) for name in names])
        if any(isinstance(self._fields[name].type, pa.DictionaryType) for name in self._stored):
            import_module("pyarrow.compute")  # decodes; its memory belongs to the baseline
        row_bytes = max(1.0, float(table.decoded_bytes.sum()) / max(1, table.total_rows))
        self._slice_rows = max(1, min(_SLICE_ROWS, int(_SLICE_BYTES / row_bytes)))
        self._batches = self._read()
        self._held: tuple[pa.RecordBatch, NDArray[np.int64]] | None = None

    def _field(self, name: str) -> pa.Field:
        if name in self._stored:
            field = self._fields[name]
            if b"problem" in (field.metadata or {}):
                raise ColumnError(f"--columns-out {name}: {field.metadata[b'problem'].decode()}")
            kind = plain_type(field.type)
            kind = kind.value_type if isinstance(kind, pa.DictionaryType) else kind
            return pa.field(name, kind)
        if name not in ORIGIN:
            known = [*self._fields, *ORIGIN]
            raise ColumnError(f"--columns-out {name}: the data have no such column: {near_names(name, known)}")
        if name == "file" and not isinstance(self._reader, KnowsFiles):
            raise UsageError("--columns-out file: the data have no column of this name, and are not read from files")
        return pa.field(name, ORIGIN[name])

    @property
    def row_bytes(self) -> int:
        """The bytes of a row, as far as metadata tell."""
        copied = float(self._table.decoded_bytes.sum()) / max(1, self._table.total_rows) if self._stored else 0.0
        return int(copied) + 64 * len(self._names)

    @property
    def held_bytes(self) -> int:
        """The memory that reading and holding them takes."""
        if not self._stored or not len(self._table):
            return _PIECE_BYTES
        largest = self._table.unfiltered[int(np.argmax(self._table.unfiltered.read_peak_bytes))]
        streams = isinstance(self._reader, Streams)
        peak = self._reader.stream_peak_bytes(largest, self._slice_rows) if streams else largest.read_peak_bytes  # type: ignore[attr-defined]
        fixed = sum(bytes_per_row(field.type) for field in self.schema)
        return int(peak + 2 * self._slice_rows * fixed + 2 * _PIECE_BYTES)

    def at(self, rows: NDArray[np.int64]) -> Iterator[pa.RecordBatch]:
        """The columns of rows of the data, by their positions, which ascend from call to call; in pieces of about 4 MB."""
        while len(rows):
            if self._held is None or self._held[1][-1] < rows[0]:
                self._held = None
                self._held = next(self._batches, None)
                if self._held is None:
                    raise CorruptError(f"the data ended before row {int(rows[0]):,}: they have changed")
                continue
            batch, positions = self._held
            here = int(np.searchsorted(rows, positions[-1], side="right"))
            found = np.searchsorted(positions, rows[:here])
            if not np.array_equal(positions[found], rows[:here]):
                raise CorruptError(f"row {int(rows[0]):,} is not among those that were read: the data have changed")
            for first, last in _runs(found):
                yield from self._pieces(batch.slice(first, last - first), positions[first:last])
            rows = rows[here:]

    def _read(self) -> Iterator[tuple[pa.RecordBatch, NDArray[np.int64]]]:
        """All rows, with their positions."""
        for i, chunk in enumerate(self._table):
            start, stop = int(self._table.starts[i]), int(self._table.starts[i + 1])
            if not self._stored:
                slices: Iterator[pa.RecordBatch] = iter(
                    pa.record_batch([pa.nulls(min(stop, at + self._slice_rows) - at)], names=[""])
                    for at in range(start, stop, self._slice_rows)
                )
            else:
                slices = open_stream(self._reader, chunk, self._stored, self._slice_rows)
            for batch in slices:
                positions = self._table.data_rows(np.arange(start, start + batch.num_rows))
                start += batch.num_rows
                if len(positions):
                    yield batch, positions

    def _pieces(self, batch: pa.RecordBatch, positions: NDArray[np.int64]) -> Iterator[pa.RecordBatch]:
        """The rows without dictionaries. Text may be far longer then, so it is cut."""
        texts = [c for c in batch.columns if isinstance(c, pa.DictionaryArray) and has_text(c.type)]
        nbytes = sum(plain_bytes(column) for column in texts)
        if nbytes > _PIECE_BYTES and batch.num_rows > 1:
            half = batch.num_rows // 2
            yield from self._pieces(batch.slice(0, half), positions[:half])
            yield from self._pieces(batch.slice(half), positions[half:])
            return
        columns = {name: batch.column(i) for i, name in enumerate(self._stored)}
        arrays = [columns[name] if name in columns else self._origin(name, positions) for name in self._names]
        plain = [array.dictionary_decode() if isinstance(array, pa.DictionaryArray) else array for array in arrays]
        yield pa.RecordBatch.from_arrays(plain, schema=self.schema)

    def _origin(self, name: str, positions: NDArray[np.int64]) -> pa.Array:
        run = np.searchsorted(self._starts, positions, side="right") - 1
        if name == "row":
            return pa.array(positions - self._starts[run])
        assert isinstance(self._reader, KnowsFiles)
        files, file_of = self._reader.chunk_files()
        return pa.array([printable(files[i]) for i in file_of[self._first_chunks[run]].tolist()])


def _first_chunks(reader: Reader, table: ChunkTable) -> NDArray[np.int64]:
    """The number of the first chunk of each file that has one; of data without files the first of all."""
    if not isinstance(reader, KnowsFiles) or not len(table):
        return np.zeros(1, np.int64)
    return np.concatenate([[0], np.flatnonzero(np.diff(reader.chunk_files()[1])) + 1]).astype(np.int64)


def _runs(numbers: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Runs of numbers that follow each other, as first and last + 1."""
    cuts = np.flatnonzero(np.diff(numbers) != 1) + 1
    for run in np.split(numbers, cuts):
        yield int(run[0]), int(run[-1]) + 1

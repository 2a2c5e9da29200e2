"""Write a Zarr v3 group: an array for each column, in chunks of exactly the given number of rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from streamtrain.errors import CorruptError
from streamtrain.plan.term import Term
from streamtrain.storage.arrow import bytes_per_row
from streamtrain.storage.parquet.text_sizes import has_text, plain_bytes
from streamtrain.storage.reader import ChunkTable
from streamtrain.storage.zarr import ZarrReader, ZarrWriter
from streamtrain.storage.zarr.files import Directory
from streamtrain.storage.zarr.writer import Notes, check_names, write_peak_bytes
from streamtrain.tools.rechunk.plan import most_bytes
from streamtrain.tools.rechunk.zarr_arrays import array_of, as_numpy, existing

__all__ = ["ZarrOutput", "ZarrSink"]

_TEXT_BYTES = 32  # assumed for a row of a column if metadata say less
_CONVERTED_BYTES = 4_000_000  # of text that are Python strings at the same time


@dataclass(frozen=True)
class ZarrOutput:
    """What will be written. columns: the shape and dtype of a row, by name. with_nan: the columns in which a null is NaN.

    Raises ColumnError for a column that Zarr cannot hold.
    """

    incoming: pa.Schema
    columns: dict[str, tuple[tuple[int, ...], np.dtype[Any]]]
    compression: str
    notes: dict[str, Notes] = field(default_factory=dict)
    with_nan: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        check_names(self.columns)

    @classmethod
    def of(cls, incoming: pa.Schema, declared: pa.Schema, compression: str) -> ZarrOutput:
        return cls(incoming, {f.name: array_of(f) for f in declared}, compression)

    @classmethod
    def like(cls, reader: ZarrReader, compression: str) -> ZarrOutput:
        """Output like another store: its arrays, attributes and dimension names."""
        columns, notes = existing(reader)
        floats = frozenset(name for name, (shape, dtype) in columns.items() if dtype.kind == "f" and not shape)
        return cls(reader.schema, columns, compression, notes, floats)

    def terms(self, table: ChunkTable, rows: int) -> tuple[Term, ...]:
        """The terms of the plan for chunks of ``rows`` rows."""
        texts = sum(has_text(f.type) for f in self.incoming)
        row_bytes = sum(bytes_per_row(f.type) for f in self.incoming if not has_text(f.type))
        text = max(texts * rows * _TEXT_BYTES, most_bytes(table, rows, row_bytes)) if texts else 0
        buffers = self.buffer_bytes(rows)
        return (
            Term("chunk", buffers + text, "output"),
            Term("writes", write_peak_bytes(self.columns, rows, text) - buffers - text, "output"),
        )

    def buffer_bytes(self, rows: int) -> int:
        return sum(
            rows * int(np.prod(shape, dtype=np.int64)) * dtype.itemsize for shape, dtype in self.columns.values()
        )

    def open(self, folder: Path, rows: int, chunk_rows: int, require: Callable[[int, float], None]) -> ZarrSink:
        return ZarrSink(self, folder, rows, chunk_rows, require)


class ZarrSink:
    """Writes rows to the group ``folder``. require: called with the bytes of a chunk, before they are taken, and
    the share of its rows that these are; it may raise."""

    def __init__(
        self, output: ZarrOutput, folder: Path, rows: int, chunk_rows: int, require: Callable[[int, float], None]
    ) -> None:
        self._output, self._folder, self._rows, self._chunk_rows = output, folder, rows, chunk_rows
        self._require, self.most_held_bytes = require, 0
        self._writer = ZarrWriter(folder, output.columns, rows, chunk_rows, output.compression, output.notes)
        self._texts = [f.name for f in output.incoming if has_text(f.type)]
        self._buffer_bytes = output.buffer_bytes(min(rows, chunk_rows))
        self._text_bytes, self._written = 0, 0

    def write(self, batch: pa.RecordBatch) -> None:
        while batch.num_rows:
            room = self._chunk_rows - self._written % self._chunk_rows
            rows, text_bytes = self._part(batch, min(room, batch.num_rows))
            self._text_bytes = text_bytes + (self._text_bytes if room < self._chunk_rows else 0)
            held = self._buffer_bytes + self._text_bytes
            self._require(held, (self._chunk_rows - room + rows) / min(self._rows, self._chunk_rows))
            self.most_held_bytes = max(self.most_held_bytes, held)
            part = batch.slice(0, rows)
            own, nan = self._output.columns, self._output.with_nan
            self._writer.write({n: as_numpy(n, part.column(n), *own[n], has_nan=n in nan) for n in part.schema.names})
            self._written, batch = self._written + rows, batch.slice(rows)

    def _part(self, batch: pa.RecordBatch, rows: int) -> tuple[int, int]:
        """Return how many rows to convert at once, and the bytes of their text, which may be long where codes are short."""
        while True:
            text_bytes = sum(plain_bytes(batch.column(name).slice(0, rows)) for name in self._texts)
            if text_bytes <= _CONVERTED_BYTES or rows == 1:
                return rows, text_bytes
            rows //= 2

    def close(self) -> int:
        """Write the rest. Returns the number of chunks. Raises CorruptError where files are missing."""
        self._writer.close()
        chunks = -(-self._rows // self._chunk_rows)
        files = Directory(self._folder)
        for name in self._output.columns:
            written = sum(1 for _ in files.sizes(f"{name}/c"))
            if written != chunks:
                raise CorruptError(
                    f"array {name!r} has {written:,} of {chunks:,} files: nothing was kept; please report this bug"
                )
        return chunks

    def abort(self) -> None:
        """Nothing is open."""

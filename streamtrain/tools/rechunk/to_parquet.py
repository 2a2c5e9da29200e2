"""Write Parquet files, ``part-00000.parquet``, ..., with row groups of exactly the given number of rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from streamtrain.errors import CorruptError, SchemaError
from streamtrain.plan.term import Term
from streamtrain.storage.parquet.text_sizes import has_text
from streamtrain.storage.parquet.types import count, require_storable
from streamtrain.storage.parquet.writer import ParquetTableWriter, footer_entry_bytes, write_peak_bytes
from streamtrain.storage.reader import ChunkTable
from streamtrain.tools.rechunk.dictionaries import codes_named
from streamtrain.tools.rechunk.gather import Gather, gathered_bits
from streamtrain.tools.rechunk.plan import most_bytes

__all__ = ["ParquetOutput", "ParquetSink"]

#: a footer of this size in memory starts another file: about 8,000 columns x row groups
FOOTER_BYTES = 16_000_000
_TEXT_COPIES = 3  # text is in memory up to twice, and once more while dictionaries are merged
_TEXT_BYTES, _TEXT_MOST_BYTES = 32, 4 << 20  # assumed for a column if metadata say less: for a row, and in total
_DICTIONARY_BYTES, _VALUE_BYTES = 5 << 18, 1 << 10  # and at least: a dictionary of 1 MiB, but no more than this a row


@dataclass(frozen=True)
class ParquetOutput:
    """What will be written. incoming: the schema of the rows that are read. declared: the schema of the files.

    Raises ColumnError for a column that Parquet cannot hold.
    """

    incoming: pa.Schema
    declared: pa.Schema
    compression: str

    def __post_init__(self) -> None:
        require_storable(self.declared)

    @property
    def text(self) -> frozenset[str]:
        """The columns of text that are read as codes."""
        pairs = zip(self.incoming, self.declared, strict=True)
        return frozenset(a.name for a, b in pairs if isinstance(a.type, pa.DictionaryType) and a.type != b.type)

    def terms(self, table: ChunkTable, rows: int) -> tuple[Term, ...]:
        """The terms of the plan for chunks of ``rows`` rows."""
        groups, entry = -(-table.total_rows // rows), sum(map(footer_entry_bytes, self.declared))
        row_bytes = sum(gathered_bits(field.type) for field in self.incoming) / 8
        more = most_bytes(table, rows, row_bytes)
        columns = sum(has_text(field.type) for field in self.incoming)
        text = columns * min(max(_TEXT_BYTES * rows, min(_DICTIONARY_BYTES, _VALUE_BYTES * rows)), _TEXT_MOST_BYTES)
        return (
            Term("footers", min(groups * entry, FOOTER_BYTES + entry), "output"),
            Term("chunk", int(rows * row_bytes) + max(text, _TEXT_COPIES * more), "output"),
            Term("writes", write_peak_bytes(self.declared, rows, self.compression, more), "output"),
        )

    def open(self, folder: Path, rows: int, chunk_rows: int, require: Callable[[int, float], None]) -> ParquetSink:
        return ParquetSink(self, folder, rows, chunk_rows, require)


class ParquetSink:
    """Writes rows to files in ``folder``. A new file is started when the footer takes 16 MB in memory. require: called with the
    bytes of the chunk and the share of its rows that these are; it may raise."""

    def __init__(
        self, output: ParquetOutput, folder: Path, rows: int, chunk_rows: int, require: Callable[[int, float], None]
    ) -> None:
        self._output, self._folder, self._rows, self._chunk_rows = output, folder, rows, chunk_rows
        self._require, self.most_held_bytes = require, 0
        incoming = pa.schema(
            [a.with_nullable(b.nullable) for a, b in zip(output.incoming, output.declared, strict=True)]
        )
        self._gather = Gather(incoming, min(chunk_rows, rows), output.text)
        gathered = zip(self._gather.schema.types, output.declared, strict=True)
        self._schema = pa.schema([field.with_type(kind) for kind, field in gathered])
        self._digits = max(
            5, len(str(rows // chunk_rows))
        )  # at most one file a row group, so that names sort as rows do
        self._paths: list[Path] = []
        self._writer: ParquetTableWriter | None = None

    def write(self, batch: pa.RecordBatch) -> None:
        while batch.num_rows:
            fitting = min(self._gather.room, batch.num_rows)
            self._gather.add(batch.slice(0, fitting))
            held = self._gather.held_bytes
            self._require(held, (self._gather.rows - self._gather.room) / self._gather.rows)
            self.most_held_bytes = max(self.most_held_bytes, held)
            batch = batch.slice(fitting)
            if not self._gather.room:
                self._flush()

    def close(self) -> int:
        """Write the rest. Returns the number of chunks. Raises CorruptError where the files do not contain all rows."""
        if self._gather.room < self._gather.rows:
            self._flush()
        if self._writer is not None:
            self._writer.close()
        counts = [count(path) for path in self._paths]
        rows, groups = sum(rows for rows, _ in counts), sum(groups for _, groups in counts)
        if (rows, groups) != (self._rows, -(-self._rows // self._chunk_rows)):
            raise CorruptError(
                f"{self._rows:,} rows were read and {rows:,} written: nothing was kept; please report this bug"
            )
        return groups

    def abort(self) -> None:
        """Close the open file."""
        if self._writer is not None:
            self._writer.abort()

    def _flush(self) -> None:
        rows = self._gather.take()
        for field, values in zip(self._output.declared, rows.columns, strict=True):
            _require_named(field, values)
        writer = self._writer or self._next()
        writer.write_chunk(pa.RecordBatch.from_arrays(rows.columns, schema=self._schema))
        if writer.footer_bytes >= FOOTER_BYTES:
            writer.close()
            self._writer = None

    def _next(self) -> ParquetTableWriter:
        path = self._folder / f"part-{len(self._paths):0{self._digits}d}.parquet"
        self._writer = ParquetTableWriter(
            path, self._schema, chunk_rows=self._chunk_rows, compression=self._output.compression,
            declared=self._output.declared,
        )  # fmt: skip
        self._paths.append(path)
        return self._writer


def _require_named(field: pa.Field, values: pa.Array) -> None:
    """Raise SchemaError if a dictionary has more values than its codes can number: such a file could not be read."""
    if isinstance(field.type, pa.DictionaryType) and isinstance(values, pa.DictionaryArray):
        index, categories = field.type.index_type, len(values.dictionary)
        if categories > codes_named(index):
            raise SchemaError(
                f"column {field.name!r}: a chunk has {categories:,} categories, more than {index} codes can number: give a "
                "smaller --chunk-rows"
            )

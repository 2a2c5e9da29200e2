"""Write Parquet files with row groups of an exact size, while rows arrive."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from streamtrain.errors import SchemaError, UsageError
from streamtrain.state import staging
from streamtrain.storage.formats import COMPRESSIONS, MAX_CHUNK_ROWS
from streamtrain.storage.parquet.text_sizes import has_text, plain_bytes, text_sizes
from streamtrain.storage.parquet.types import key_values, leaves

__all__ = ["ParquetTableWriter", "footer_entry_bytes", "write_peak_bytes"]

#: measured memory of a footer while it is written, for each column of each row group
_ENTRY_BYTES, _TEXT_ENTRY_BYTES = 2000, 1000
_STATISTICS_COPIES, _STATISTICS_BYTES = 6, 4096  # smallest and largest text, three times each; longer text is left out
#: a larger dictionary is given up; with the default of pyarrow, four times as large, its hash table takes 30 MB
_DICTIONARY_BYTES = 256 << 10
_PLAIN_ABOVE_BYTES = 1 << 20  # text with a dictionary larger than this is stored plain
_PIECE_ROWS, _PIECE_LIST_BYTES, _PIECE_BYTES = (
    128 << 10,
    500_000,
    4_000_000,
)  # the piece that the encoder gets at a time
_ENCODER_BYTES, _BROTLI_BYTES = 12_000_000, 20_000_000  # measured
_CODED_LIST_SHARE = 3  # pages of indices per byte of lists, for 8-bit integers with levels


class ParquetTableWriter:
    """One Parquet file whose row groups hold ``chunk_rows`` rows each (the last one what is left).

    Every page has a checksum. Rows are written to a hidden file beside ``path``, which `close` renames, so ``path`` is always
    complete. Leaving the context with an exception removes the partial file; so does `abort`.

    schema: of the rows that are written. declared: the schema of the file, if it differs: dictionary-encoded text, for example,
    can be declared as text. Its metadata are written.

    Holds at most ``chunk_rows`` rows (none with `write_chunk`), `write_peak_bytes` while a row group is written, and
    `footer_bytes` for the footer.

    Raises UsageError for ``chunk_rows`` outside 1 to 67,108,864 or an unknown compression.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/t.parquet"
    >>> with ParquetTableWriter(path, pa.schema([("x", pa.int64())]), chunk_rows=2) as writer:
    ...     writer.write({"x": [1, 2, 3]})
    ...     writer.write({"x": [4, 5]})
    >>> file = pq.ParquetFile(path)
    >>> [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    [2, 2, 1]
    """

    def __init__(
        self, path: str | os.PathLike[str], schema: pa.Schema, *, chunk_rows: int, compression: str = "zstd",
        declared: pa.Schema | None = None,
    ) -> None:  # fmt: skip
        if not 1 <= chunk_rows <= MAX_CHUNK_ROWS:
            raise UsageError(f"chunk_rows={chunk_rows}: must be from 1 to {MAX_CHUNK_ROWS:,}")
        if compression not in COMPRESSIONS["parquet"]:
            raise UsageError(
                f"compression={compression!r}: must be one of {', '.join(COMPRESSIONS['parquet'])} for Parquet"
            )
        self.path = Path(path)
        self.chunk_rows = chunk_rows
        #: memory that the footer takes for the row groups of `write_chunk`
        self.footer_bytes = 0
        self._schema = schema
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = 0
        self._hidden = ExitStack()
        self._part = self._hidden.enter_context(staging(self.path.parent)) / self.path.name
        try:
            # the path as bytes, because names need not be UTF-8
            self._sink = self._hidden.enter_context(pa.OSFile(os.fsencode(self._part), "wb"))
            self._writer = pq.ParquetWriter(
                self._sink,
                schema if declared is None else schema.remove_metadata(),
                compression=compression.upper(),
                # floats seldom repeat: a dictionary would cost memory and be given up half-way
                use_dictionary=[p for f in schema for p, kind in leaves(f) if not pa.types.is_floating(kind)],
                dictionary_pagesize_limit=_DICTIONARY_BYTES,
                write_page_checksum=True,
                store_schema=declared is None,
            )
            if declared is not None:
                self._writer.add_key_value_metadata(key_values(declared))
        except BaseException:
            self._hidden.close()
            raise

    def write(self, rows: pa.RecordBatch | Mapping[str, Any]) -> None:
        """Append a record batch, or arrays of the same length by column name.

        The arrays may be reused when this returns, because rows that wait for a full row group are copied.
        Raises SchemaError if the columns are not those of the file.
        """
        batch = self._as_batch(rows)
        while self._pending_rows + batch.num_rows >= self.chunk_rows:
            missing = self.chunk_rows - self._pending_rows
            self._flush([*self._pending, batch.slice(0, missing)])
            batch = batch.slice(missing)
        if batch.num_rows:
            # a slice would keep its whole batch alive; the system pool returns the memory of the copy when it is written
            self._pending.append(pa.concat_batches([batch], memory_pool=pa.system_memory_pool()))
            self._pending_rows += batch.num_rows

    def write_chunk(self, rows: pa.RecordBatch) -> None:
        """Append a record batch as one row group, without a copy, encoded in pieces. Text with a large dictionary is stored
        plain, as pyarrow does with text that seldom repeats."""
        if not 0 < rows.num_rows <= self.chunk_rows or self._pending:
            raise UsageError(
                f"{rows.num_rows} rows cannot be a row group: it must have 1 to {self.chunk_rows} rows, and none may be pending"
            )
        columns = [pa.chunked_array(list(_pieces(column)), column.type) for column in self._as_batch(rows).columns]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema), row_group_size=self.chunk_rows)
        self.footer_bytes += sum(footer_entry_bytes(column) for column in rows.columns)

    def close(self) -> None:
        """Write the pending rows and the footer, then rename the file. Closing again does nothing."""
        if not self._writer.is_open:
            return
        try:
            if self._pending:
                self._flush(self._pending)
            self._writer.close()
            self._sink.close()
            self._part.replace(self.path)
        except BaseException:
            self.abort()
            raise
        self._hidden.close()

    def abort(self) -> None:
        """Remove everything that was written so far."""
        try:
            self._writer.close()
        finally:
            self._hidden.close()

    def __enter__(self) -> ParquetTableWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abort()

    def _as_batch(self, rows: pa.RecordBatch | Mapping[str, Any]) -> pa.RecordBatch:
        if isinstance(rows, Mapping):
            if set(rows) != set(self._schema.names):
                raise SchemaError(
                    f"{self.path.name}: columns {list(rows)} were given, but the file has {self._schema.names}"
                )
            rows = pa.record_batch([pa.array(rows[f.name], f.type) for f in self._schema], schema=self._schema)
        if not rows.schema.equals(self._schema):
            raise SchemaError(
                f"{self.path.name}: the rows have the schema\n{rows.schema}\nbut the file has\n{self._schema}"
            )
        return rows

    def _flush(self, batches: list[pa.RecordBatch]) -> None:
        """Write one row group."""
        self._writer.write_table(pa.Table.from_batches(batches, self._schema), row_group_size=self.chunk_rows)
        self._pending, self._pending_rows = [], 0


def write_peak_bytes(schema: pa.Schema, rows: int, compression: str, list_bytes: int = 0) -> int:
    """The most memory that `ParquetTableWriter.write_chunk` takes beside the rows: an encoder, and the encoded pages of the
    largest dictionary column. Its pages are held because the dictionary precedes them in the file.

    list_bytes: bytes of all lists, strings and binary of any length.
    """
    more = _BROTLI_BYTES if compression == "brotli" else 0
    return _ENCODER_BYTES + more + max((_coded_bytes(field.type, rows, list_bytes) for field in schema), default=0)


def _coded_bytes(kind: pa.DataType, rows: int, list_bytes: int) -> int:
    """Twice the pages of dictionary indices, which take at most 2 bytes a value, and 1 byte for 8-bit types."""
    if isinstance(kind, pa.BaseExtensionType):
        return _coded_bytes(kind.storage_type, rows, list_bytes)
    if isinstance(kind, pa.FixedSizeListType):
        return _coded_bytes(kind.value_type, rows * int(kind.list_size), list_bytes)
    if all(pa.types.is_floating(leaf) for _, leaf in leaves(pa.field("", kind))):
        return 0
    if pa.types.is_nested(kind):
        return _CODED_LIST_SHARE * list_bytes
    if has_text(kind):
        return rows * 4 + _PIECE_BYTES
    return rows * (2 if pa.types.is_primitive(kind) and kind.bit_width <= 8 else 4)


def footer_entry_bytes(column: pa.Field | Any) -> int:
    """The memory of the footer for one row group of a column. Given values and not a field, the longest text counts too,
    because the footer has the smallest and the largest value.

    >>> footer_entry_bytes(pa.field("x", pa.int8())), footer_entry_bytes(pa.array(["x" * 100]))
    (2000, 3600)
    """
    if isinstance(column, pa.Field):
        return sum(_ENTRY_BYTES + _TEXT_ENTRY_BYTES * has_text(kind) for _, kind in leaves(column))
    longest = 0
    if has_text(column.type):
        values = column.dictionary if isinstance(column, pa.DictionaryArray) else column
        longest = int(text_sizes(values).max(initial=0))
    return footer_entry_bytes(pa.field("", column.type)) + _STATISTICS_COPIES * min(longest, _STATISTICS_BYTES)


def _pieces(column: Any) -> Iterator[Any]:
    """A column in slices. The encoder makes levels, and plain text of dictionary indices, for one slice at a time."""
    rows, step, start = len(column), _step(column), 0
    coded = isinstance(column, pa.DictionaryArray) and has_text(column.type) and not column.type.ordered
    if coded and column.dictionary.nbytes > _PLAIN_ABOVE_BYTES:
        yield _alone(column)  # the encoder gives up the dictionary when another one follows
        # For each row of a slice Arrow reserves the bytes of a value of the dictionary, on average; rows may be longer.
        row_bytes = max((plain_bytes(column) + rows) / rows, column.dictionary.nbytes / len(column.dictionary))
        start, step = 1, max(1, int(_PIECE_BYTES / row_bytes))
    yield from (column.slice(at, step) for at in range(start, rows, step))


def _step(column: Any) -> int:
    """The rows of a slice. Levels take 4 bytes for each value, and a list has many values a row."""
    stored = column.storage if isinstance(column, pa.ExtensionArray) else column
    if pa.types.is_nested(stored.type):
        return max(1, len(column) * _PIECE_LIST_BYTES // max(1, int(column.nbytes)))
    return _PIECE_ROWS


def _alone(column: Any) -> Any:
    """The first row of a dictionary column, with a dictionary of its own."""
    code = column.indices[0].as_py()
    value = column.dictionary.slice(code or 0, 0 if code is None else 1)
    return pa.DictionaryArray.from_arrays(pa.array([None if code is None else 0], column.indices.type), value)

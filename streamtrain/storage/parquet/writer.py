"""Parquet files with row groups of exactly the asked size, written as rows arrive."""

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

#: a footer in memory, for each column of each row group, the moment when it is written included; measured
_ENTRY_BYTES, _TEXT_ENTRY_BYTES = 2000, 1000
_STATISTICS_COPIES, _STATISTICS_BYTES = 6, 4096  # least and greatest text, three times each; longer is left out
#: a dictionary that grows larger is given up; in pyarrow's default, four times that, its hash table takes 30 MB
_DICTIONARY_BYTES = 256 << 10
_PLAIN_ABOVE_BYTES = 1 << 20  # text with a dictionary larger than this is stored plain
_PIECE_ROWS, _PIECE_LIST_BYTES, _PIECE_BYTES = 128 << 10, 500_000, 4_000_000  # what the encoder is given at a time
_ENCODER_BYTES, _BROTLI_BYTES = 12_000_000, 20_000_000  # measured
_CODED_LIST_SHARE = 3  # pages of codes of lists, to the lists themselves: those of 8-bit integers, levels included


class ParquetTableWriter:
    """One Parquet file whose row groups hold ``chunk_rows`` rows each (the last one what is left).

    Every page carries a checksum. Rows go to a hidden file beside ``path``, which `close` renames to ``path``: whoever sees
    ``path`` sees all of it. Leaving the context with an exception removes the partial file; so does `abort`.

    schema: of the rows that are handed over. declared: of the file, if it is another one: text that is handed over as
    codes into a dictionary is text for whoever reads the file; what is noted in its metadata is written.

    Holds at most ``chunk_rows`` rows (none with `write_chunk`), `write_peak_bytes` while a row group is written, and
    `footer_bytes` for the footer.

    Raises `UsageError` for ``chunk_rows`` outside 1 to 67,108,864 or an unknown compression.

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
            raise UsageError(f"chunk_rows must be 1 to {MAX_CHUNK_ROWS:,}, got {chunk_rows}")
        if compression not in COMPRESSIONS["parquet"]:
            raise UsageError(
                f"unknown compression {compression!r} for Parquet; one of {', '.join(COMPRESSIONS['parquet'])}"
            )
        self.path = Path(path)
        self.chunk_rows = chunk_rows
        #: what the footer takes in memory for the row groups of `write_chunk`
        self.footer_bytes = 0
        self._schema = schema
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = 0
        self._hidden = ExitStack()
        self._part = self._hidden.enter_context(staging(self.path.parent)) / self.path.name
        try:
            self._writer = pq.ParquetWriter(
                str(self._part),
                schema if declared is None else schema.remove_metadata(),
                compression=compression.upper(),
                # floats seldom repeat: a dictionary of them costs memory and is thrown away half-way
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
        """Append a record batch, or columns by name (arrays of the same length).

        The arrays may be reused once this returns: rows that must wait for their row group to fill are copied.
        Raises `SchemaError` where the columns are not those of the file.
        """
        batch = self._as_batch(rows)
        while self._pending_rows + batch.num_rows >= self.chunk_rows:
            missing = self.chunk_rows - self._pending_rows
            self._flush([*self._pending, batch.slice(0, missing)])
            batch = batch.slice(missing)
        if batch.num_rows:
            # a slice would keep the whole parent alive; the system pool gives the copy back once it is written
            self._pending.append(pa.concat_batches([batch], memory_pool=pa.system_memory_pool()))
            self._pending_rows += batch.num_rows

    def write_chunk(self, rows: pa.RecordBatch) -> None:
        """Append a record batch as a row group of its own, without a copy, encoded a piece at a time. Text in a large
        dictionary is stored plain, as pyarrow stores text that does not repeat."""
        if not 0 < rows.num_rows <= self.chunk_rows or self._pending:
            raise UsageError(f"{rows.num_rows} rows are no row group of {self.chunk_rows}")
        columns = [pa.chunked_array(list(_pieces(column)), column.type) for column in self._as_batch(rows).columns]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema), row_group_size=self.chunk_rows)
        self.footer_bytes += sum(footer_entry_bytes(column) for column in rows.columns)

    def close(self) -> None:
        """Write what is left and the footer, then give the file its name. Closing twice does nothing."""
        if not self._writer.is_open:
            return
        try:
            if self._pending:
                self._flush(self._pending)
            self._writer.close()
            self._part.replace(self.path)
        except BaseException:
            self.abort()
            raise
        self._hidden.close()

    def abort(self) -> None:
        """Leave nothing behind, whatever was written so far."""
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
                raise SchemaError(f"{self.path.name} has the columns {self._schema.names}, got {list(rows)}")
            rows = pa.record_batch([pa.array(rows[f.name], f.type) for f in self._schema], schema=self._schema)
        if not rows.schema.equals(self._schema):
            raise SchemaError(f"{self.path.name} has the schema\n{self._schema}\ngot\n{rows.schema}")
        return rows

    def _flush(self, batches: list[pa.RecordBatch]) -> None:
        """Write one row group."""
        self._writer.write_table(pa.Table.from_batches(batches, self._schema), row_group_size=self.chunk_rows)
        self._pending, self._pending_rows = [], 0


def write_peak_bytes(schema: pa.Schema, rows: int, compression: str, list_bytes: int = 0) -> int:
    """The most memory that `ParquetTableWriter.write_chunk` takes beside the rows: an encoder, and of the column with the
    largest of them the encoded pages, where there is a dictionary, which stands before them in the file.

    list_bytes: of all lists, strings and bytes of any length.
    """
    more = _BROTLI_BYTES if compression == "brotli" else 0
    return _ENCODER_BYTES + more + max((_coded_bytes(field.type, rows, list_bytes) for field in schema), default=0)


def _coded_bytes(kind: pa.DataType, rows: int, list_bytes: int) -> int:
    """Pages of codes, twice. A dictionary is given up before its codes take 3 bytes; those of 8-bit types take one."""
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
    """Bytes in memory of the footer for one row group of a column: a field, or the values, whose longest text counts
    (the least and the greatest are noted).

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
    """A column in slices: the encoder makes levels, and of codes plain text, for a slice at a time."""
    rows, step, start = len(column), _step(column), 0
    coded = isinstance(column, pa.DictionaryArray) and has_text(column.type) and not column.type.ordered
    if coded and column.dictionary.nbytes > _PLAIN_ABOVE_BYTES:
        yield _alone(column)  # the encoder gives up on a dictionary when another one follows
        start, step = 1, max(1, rows * _PIECE_BYTES // (plain_bytes(column) + rows))
    yield from (column.slice(at, step) for at in range(start, rows, step))


def _step(column: Any) -> int:
    """Rows of a slice: levels take 4 bytes for each value, of which lists have many a row."""
    stored = column.storage if isinstance(column, pa.ExtensionArray) else column
    if pa.types.is_nested(stored.type):
        return max(1, len(column) * _PIECE_LIST_BYTES // max(1, int(column.nbytes)))
    return _PIECE_ROWS


def _alone(column: Any) -> Any:
    """The first row of a column of codes, with a dictionary of its own."""
    code = column.indices[0].as_py()
    value = column.dictionary.slice(code or 0, 0 if code is None else 1)
    return pa.DictionaryArray.from_arrays(pa.array([None if code is None else 0], column.indices.type), value)

"""Parquet files with row groups of exactly the asked size, written as rows arrive."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from streamtrain.errors import SchemaError, UsageError

__all__ = ["COMPRESSIONS", "ParquetTableWriter"]

COMPRESSIONS = ("zstd", "snappy", "lz4", "gzip", "brotli", "none")
MAX_CHUNK_ROWS = 1 << 26  # pyarrow silently cuts row groups that are larger


class ParquetTableWriter:
    """One Parquet file whose row groups hold ``chunk_rows`` rows each (the last one what is left).

    Every page carries a checksum. Rows go to ``path + ".part"``, which `close` renames to ``path``: whoever sees
    ``path`` sees all of it. Leaving the context with an exception removes the partial file; so does `abort`.

    Holds at most ``chunk_rows`` rows, and for the footer about 1.5 kB for each column and row group written so far.

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
        self, path: str | os.PathLike[str], schema: pa.Schema, *, chunk_rows: int, compression: str = "zstd"
    ) -> None:
        if not 1 <= chunk_rows <= MAX_CHUNK_ROWS:
            raise UsageError(f"chunk_rows must be 1 to {MAX_CHUNK_ROWS:,}, got {chunk_rows}")
        if compression not in COMPRESSIONS:
            raise UsageError(f"unknown compression {compression!r} for Parquet; one of {', '.join(COMPRESSIONS)}")
        self.path = Path(path)
        self.chunk_rows = chunk_rows
        self._schema = schema
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = 0
        self._part = Path(f"{os.fspath(path)}.part")
        self._writer = pq.ParquetWriter(
            str(self._part),
            schema,
            compression=compression.upper(),
            # floats seldom repeat: a dictionary of them costs memory and is thrown away half-way
            use_dictionary=[f.name for f in schema if not pa.types.is_floating(f.type)],
            write_page_checksum=True,
        )

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

    def close(self) -> None:
        """Write what is left and the footer, then give the file its name. Closing twice does nothing."""
        if not self._writer.is_open:
            return
        try:
            if self._pending:
                self._flush(self._pending)
            self._writer.close()
            os.replace(self._part, self.path)
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Leave nothing behind, whatever was written so far."""
        try:
            self._writer.close()
        finally:
            self._part.unlink(missing_ok=True)

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

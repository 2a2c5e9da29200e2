"""The file of predictions: Parquet, CSV, JSON lines or Arrow, by the ending of its name. It appears when it is complete."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from streamtrain.errors import ColumnError, UsageError
from streamtrain.state import write_beside
from streamtrain.storage.first_bytes import foreign_name
from streamtrain.storage.formats import format_of, suffixes_of

__all__ = ["format_of_output", "prediction_file", "require_types", "written_bytes"]

_PACKED = {".gz": "gzip", ".zst": "zstd"}
_TEXT = (*suffixes_of("csv"), *suffixes_of("jsonl"))
_GROUP_BYTES = 8 * 10**6  # of a row group
_PIECE_BYTES = {
    "csv": 16 * 10**6,
    "jsonl": 40 * 10**6,
    "arrow": 8 * 10**6,
}  # while rows are written; JSON as Python objects

Write = Callable[[pa.RecordBatch], None]


def format_of_output(out: str | Path) -> str:
    """The format of a file that is written, by its name: parquet, csv, jsonl or arrow; Parquet if the name tells nothing.
    Raises UsageError for a format that is not written.

    >>> format_of_output("p.csv.gz"), format_of_output("p"), format_of_output("p.feather")
    ('csv', 'parquet', 'arrow')
    """
    name = os.fspath(out).lower()
    kind, foreign = format_of([name]), foreign_name(name)
    what = None if foreign is None else foreign.what
    if name.endswith((".zarr", ".zarr.zip")):
        what = "Zarr"
    if kind in ("csv", "jsonl") and not name.endswith((*_PACKED, *_TEXT)):
        what = "text of this compression"
    if what is not None:
        raise UsageError(
            f"--out {out}: predictions are not written as {what}: give a name that ends in .parquet, .csv, .jsonl or .arrow; "
            ".csv and .jsonl may be followed by .gz or .zst"
        )
    return kind or "parquet"


def require_types(kind: str, schema: pa.Schema) -> None:
    """Raise ColumnError for a column that a format cannot hold."""
    for field in schema:
        if kind in ("csv", "jsonl") and not _is_writable(field.type, nested=kind == "jsonl"):
            raise ColumnError(
                f"--columns-out {field.name}: {field.type} cannot be written as {kind}: write .parquet or .arrow, or leave "
                "it out"
            )


def _is_writable(kind: pa.DataType, *, nested: bool) -> bool:
    """Whether text can hold the values of a type. nested: whether it can hold lists and objects."""
    t = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return nested and _is_writable(kind.storage_type, nested=True)
    if t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind):
        return nested and _is_writable(kind.value_type, nested=True)
    if t.is_struct(kind):
        return nested and all(_is_writable(field.type, nested=True) for field in kind)
    plain = t.is_integer(kind) or t.is_floating(kind) or t.is_boolean(kind) or t.is_decimal(kind) or t.is_null(kind)
    timed = t.is_date(kind) or t.is_time(kind) or t.is_timestamp(kind)
    return bool(plain or timed or t.is_string(kind) or t.is_large_string(kind))


def written_bytes(kind: str, schema: pa.Schema, rows: int, *, group_rows: int, row_bytes: int, is_copy: bool) -> int:
    """The memory of writing so many rows: two row groups, and the entries of all row groups in the footer. is_copy: whether
    columns of the data are among them."""
    if kind != "parquet":
        return _PIECE_BYTES[kind]
    from streamtrain.storage.parquet.writer import footer_entry_bytes, write_peak_bytes

    entries = sum(map(footer_entry_bytes, schema))
    if not is_copy:
        return 2 * group_rows * row_bytes + -(-rows // group_rows) * entries
    groups = rows * row_bytes // _GROUP_BYTES + rows // group_rows + 1
    return 3 * _GROUP_BYTES + write_peak_bytes(schema, group_rows, "zstd", _GROUP_BYTES) + groups * entries


class _Groups:
    """Row groups of about 8 MB, whatever their rows take."""

    def __init__(self, writer: Any) -> None:
        self._writer, self._pending, self._rows, self._bytes = writer, list[pa.RecordBatch](), 0, 0

    def write(self, batch: pa.RecordBatch) -> None:
        for start in range(0, batch.num_rows, self._writer.chunk_rows):
            self._add(batch.slice(start, self._writer.chunk_rows))

    def _add(self, batch: pa.RecordBatch) -> None:
        if self._rows + batch.num_rows > self._writer.chunk_rows:
            self.flush()
        self._pending.append(batch)
        self._rows, self._bytes = self._rows + batch.num_rows, self._bytes + batch.nbytes
        if self._bytes >= _GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        if self._pending:
            self._writer.write_chunk(pa.concat_batches(self._pending))
        self._pending, self._rows, self._bytes = [], 0, 0


@contextmanager
def prediction_file(path: Path, schema: pa.Schema, *, group_rows: int, is_copy: bool) -> Iterator[Write]:
    """Yield a function that appends rows to a file, which appears at ``path`` when the block ends without an exception.
    is_copy: whether columns of the data are among the rows, so that they may be large."""
    kind = format_of_output(path)
    if kind == "parquet":
        from streamtrain.storage.parquet.writer import ParquetTableWriter

        with ParquetTableWriter(path, schema, chunk_rows=group_rows) as writer:
            groups = _Groups(writer)
            yield groups.write if is_copy else writer.write
            groups.flush()
        return
    with write_beside(path) as hidden, ExitStack() as stack:
        # the path as bytes, because names need not be UTF-8
        sink = stack.enter_context(pa.OSFile(os.fsencode(hidden), "wb"))
        codec = next((codec for end, codec in _PACKED.items() if path.name.lower().endswith(end)), None)
        if codec is not None:
            sink = stack.enter_context(pa.CompressedOutputStream(sink, codec))
        if kind == "arrow":
            yield stack.enter_context(pa.ipc.new_file(sink, schema)).write_batch
        elif kind == "jsonl":
            yield lambda batch: _write_lines(sink, batch)
        else:
            import pyarrow.csv as pc

            tabs = any(suffix.lower() in (".tsv", ".tab") for suffix in path.suffixes)
            options = pc.WriteOptions(delimiter="\t" if tabs else ",")
            yield stack.enter_context(pc.CSVWriter(sink, schema, write_options=options)).write_batch


def _write_lines(sink: Any, batch: pa.RecordBatch) -> None:
    """Append rows as JSON lines. What is no finite number is null, as JSON has no other."""
    columns = [_as_json(column) for column in batch.columns]
    keys = [json.dumps(name, ensure_ascii=False) for name in batch.schema.names]
    for row in zip(*columns, strict=True):
        text = ", ".join(f"{key}: {value}" for key, value in zip(keys, row, strict=True))
        sink.write(f"{{{text}}}\n".encode(errors="surrogatepass"))


def _as_json(column: pa.Array) -> list[str]:
    """The values of a column as JSON. Numbers of 32 bits have the digits that tell them apart, not those of 64 bits."""
    if pa.types.is_float32(column.type) or pa.types.is_float16(column.type):
        numbers = column.to_numpy(zero_copy_only=False)
        return [str(number) if math.isfinite(number) else "null" for number in numbers]
    return [json.dumps(_plain(value), ensure_ascii=False) for value in column.to_pylist()]


def _plain(value: Any) -> Any:
    """A value as JSON has it: times as ISO 8601, decimals as text, so that no digit is lost."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return list(map(_plain, value)) if isinstance(value, (list, tuple)) else value

"""Types in Parquet: the declared types of files, the types that a file can hold, and the stored columns of nested types."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from streamtrain.errors import ColumnError, CorruptError
from streamtrain.storage.files.store import FileStore
from streamtrain.storage.parquet.footer import READ_ERRORS, first_line

__all__ = ["declared_schema", "key_values", "leaves", "require_storable"]

_SCHEMA_KEY = b"ARROW:schema"


def declared_schema(store: FileStore, names: Sequence[str]) -> pa.Schema:
    """The schema with which Parquet files were written. (The reader's schema has text as dictionaries.) A column is nullable
    if it is in any file. Only metadata on which all files agree are kept. Reads every footer, one at a time."""
    merged: pa.Schema | None = None
    for name in names:
        try:
            with store.open(
                name, store.stat(name)
            ) as source:  # the schema of file.metadata would keep the footer in memory, in a reference cycle
                file = pq.ParquetFile(source, pre_buffer=False)
                metadata = {key: value for key, value in (file.metadata.metadata or {}).items() if key != _SCHEMA_KEY}
                schema = file.schema_arrow.with_metadata(metadata or None)
        except READ_ERRORS as error:
            raise CorruptError(f"{store.shown(name)}: the footer cannot be read: {first_line(error)}") from error
        merged = schema if merged is None else _agreed(merged, schema)
    assert merged is not None
    return merged


def _agreed(first: pa.Schema, other: pa.Schema) -> pa.Schema:
    if first.equals(other, check_metadata=True):
        return first
    fields = []
    for field in first:
        twin = other.field(field.name)
        metadata = _common(field.metadata, twin.metadata)
        fields.append(pa.field(field.name, field.type, field.nullable or twin.nullable, metadata))
    return pa.schema(fields, _common(first.metadata, other.metadata))


def _common(first: Any, other: Any) -> dict[bytes, bytes] | None:
    return {key: value for key, value in (first or {}).items() if (other or {}).get(key) == value} or None


def key_values(declared: pa.Schema) -> dict[bytes, bytes]:
    """The file metadata with which the columns are read with their declared types, whatever types were written."""
    return {**(declared.metadata or {}), _SCHEMA_KEY: base64.b64encode(declared.serialize().to_pybytes())}


def leaves(field: pa.Field) -> Iterator[tuple[str, pa.DataType]]:
    """The stored columns of a column, which may be nested: the path in the file and the type of each.

    >>> [path for path, _ in leaves(pa.field("a", pa.list_(pa.struct([("x", pa.int8()), ("y", pa.int8())]))))]
    ['a.list.element.x', 'a.list.element.y']
    """
    kind, name = field.type, field.name
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if isinstance(kind, pa.StructType):
        inner = list(kind)
    elif isinstance(kind, pa.MapType):
        inner = [pa.field("key_value.key", kind.key_type), pa.field("key_value.value", kind.item_type)]
    elif hasattr(kind, "value_field"):
        inner = [pa.field("list.element", kind.value_type)]
    else:
        yield name, kind
        return
    for child in inner:
        yield from ((f"{name}.{path}", leaf) for path, leaf in leaves(child))


def require_storable(schema: pa.Schema) -> None:
    """Raise ColumnError for a column that Parquet cannot store, or would return as another type. Seconds may become
    milliseconds, because Parquet has no seconds."""
    if _problem(schema):  # checking each of thousands of columns is slow
        for field in schema:
            if problem := _problem(pa.schema([field])):
                raise ColumnError(
                    f"column {field.name!r} is {field.type}, which Parquet cannot store ({problem}): convert it, or "
                    f"leave it out"
                )


def _problem(schema: pa.Schema) -> str:
    sink = pa.BufferOutputStream()
    try:
        pq.ParquetWriter(sink, schema.remove_metadata()).close()
        schema_read = pq.ParquetFile(pa.BufferReader(sink.getvalue())).schema_arrow
    except (pa.ArrowException, NotImplementedError, OSError) as error:
        return first_line(error)
    differ = (t for f, t in zip(schema, schema_read.types, strict=True) if t not in (f.type, _milliseconds(f.type)))
    return next((f"it would be read as {kind}" for kind in differ), "")


def _milliseconds(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind) and kind.unit == "s":
        return pa.timestamp("ms", kind.tz)
    return pa.time32("ms") if kind == pa.time32("s") else kind


def count(path: Path) -> tuple[int, int]:
    """The rows and row groups of a file, from its footer."""
    with pa.OSFile(os.fsencode(path)) as file:
        footer = pq.read_metadata(file)
    return sum(footer.row_group(i).num_rows for i in range(footer.num_row_groups)), footer.num_row_groups

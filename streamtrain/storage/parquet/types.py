"""Types in Parquet: what files declare, what a file can hold, and which columns a column is stored as."""

from __future__ import annotations

import base64
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
    """What Parquet files say of their columns: types as they were written (the reader takes text as codes), nullable if
    they are in any file; and of what is noted beside them what all files agree on. Reads every footer, one at a time."""
    merged: pa.Schema | None = None
    for name in names:
        try:
            with store.open(
                name, store.stat(name)
            ) as source:  # the footer's own schema would keep it in a cycle, so in memory
                file = pq.ParquetFile(source, pre_buffer=False)
                noted = {key: value for key, value in (file.metadata.metadata or {}).items() if key != _SCHEMA_KEY}
                found = file.schema_arrow.with_metadata(noted or None)
        except READ_ERRORS as error:
            raise CorruptError(f"{store.shown(name)}: its footer cannot be read: {first_line(error)}") from error
        merged = found if merged is None else _agreed(merged, found)
    assert merged is not None
    return merged


def _agreed(first: pa.Schema, other: pa.Schema) -> pa.Schema:
    if first.equals(other, check_metadata=True):
        return first
    fields = []
    for field in first:
        twin = other.field(field.name)
        noted = _common(field.metadata, twin.metadata)
        fields.append(pa.field(field.name, field.type, field.nullable or twin.nullable, noted))
    return pa.schema(fields, _common(first.metadata, other.metadata))


def _common(first: Any, other: Any) -> dict[bytes, bytes] | None:
    return {key: value for key, value in (first or {}).items() if (other or {}).get(key) == value} or None


def key_values(declared: pa.Schema) -> dict[bytes, bytes]:
    """What to write into a file so that its columns are read as declared, whatever types they were handed over in."""
    return {**(declared.metadata or {}), _SCHEMA_KEY: base64.b64encode(declared.serialize().to_pybytes())}


def leaves(field: pa.Field) -> Iterator[tuple[str, pa.DataType]]:
    """The columns that a column is stored as, by their paths in the file.

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
    """Raise ColumnError for a column that Parquet cannot hold, or would give back as something else. Seconds may become
    milliseconds: Parquet has none."""
    if _problem(schema):  # to ask for each column takes a while where there are thousands
        for field in schema:
            if problem := _problem(pa.schema([field])):
                raise ColumnError(
                    f"column {field.name!r} is {field.type}, which Parquet cannot hold ({problem}): convert it, or "
                    f"leave it out"
                )


def _problem(schema: pa.Schema) -> str:
    sink = pa.BufferOutputStream()
    try:
        pq.ParquetWriter(sink, schema.remove_metadata()).close()
        found = pq.ParquetFile(pa.BufferReader(sink.getvalue())).schema_arrow
    except (pa.ArrowException, NotImplementedError) as error:
        return first_line(error)
    differ = (t for f, t in zip(schema, found.types, strict=True) if t not in (f.type, _milliseconds(f.type)))
    return next((f"it would be read as {kind}" for kind in differ), "")


def _milliseconds(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind) and kind.unit == "s":
        return pa.timestamp("ms", kind.tz)
    return pa.time32("ms") if kind == pa.time32("s") else kind


def count(path: Path) -> tuple[int, int]:
    """Rows and row groups of a file, as its footer says."""
    footer = pq.read_metadata(str(path))
    return sum(footer.row_group(i).num_rows for i in range(footer.num_row_groups)), footer.num_row_groups

"""Types in Parquet: the declared types of files, the types that a file can hold, and the stored columns of nested types."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from streamtrain.errors import ColumnError, CorruptError
from streamtrain.storage.files.store import FileStore
from streamtrain.storage.parquet.footer import INT96_UNIT, READ_ERRORS, first_line, read_schema

__all__ = ["declared_schema", "key_values", "leaves", "require_storable"]

_SCHEMA_KEY = b"ARROW:schema"


def declared_schema(store: FileStore, names: Sequence[str], schema: pa.Schema) -> pa.Schema:
    """The schema with which Parquet files were written, for the columns of ``schema``, that of their reader, which has text as
    dictionaries. Where files declare different types, a column has the type of the reader. A column is nullable if it is in any
    file. Only metadata on which all files agree are kept. Reads every footer, one at a time."""
    merged: dict[str, _Declared] = {}
    last: pa.Schema | None = None
    metadata: Any = None
    for name in names:
        stored = _stored_schema(store, name)
        if last is not None and stored.equals(last, check_metadata=True):
            continue
        metadata = stored.metadata if last is None else _common(metadata, stored.metadata)
        last = stored
        for field in stored:
            merged[field.name] = merged[field.name].with_field(field) if field.name in merged else _Declared.of(field)
    fields = [merged[f.name].field(f) if f.name in merged else _decoded(f) for f in schema]
    return pa.schema(fields, metadata or None)


def _stored_schema(store: FileStore, name: str) -> pa.Schema:
    try:
        with store.open(
            name, store.stat(name)
        ) as source:  # the schema of file.metadata would keep the footer in memory
            file = pq.ParquetFile(source, pre_buffer=False, coerce_int96_timestamp_unit=INT96_UNIT)
            metadata = {key: value for key, value in (file.metadata.metadata or {}).items() if key != _SCHEMA_KEY}
            return file.schema_arrow.with_metadata(metadata or None)
    except READ_ERRORS as error:
        raise CorruptError(f"{store.shown(name)}: the footer cannot be read: {first_line(error)}") from error


class _Declared(NamedTuple):
    """A column as files declare it. kinds: its different types."""

    kinds: frozenset[pa.DataType]
    nullable: bool
    metadata: Any

    @classmethod
    def of(cls, field: pa.Field) -> _Declared:
        return cls(frozenset([field.type]), field.nullable, field.metadata)

    def with_field(self, field: pa.Field) -> _Declared:
        return _Declared(
            self.kinds | {field.type}, self.nullable or field.nullable, _common(self.metadata, field.metadata)
        )

    def field(self, read: pa.Field) -> pa.Field:
        """The column to write. read: as the reader has it."""
        kind = next(iter(self.kinds))
        if len(self.kinds) > 1 or read.type not in (kind, read_schema(pa.schema([("", kind)])).field(0).type):
            coded = all(isinstance(kind, pa.DictionaryType) for kind in self.kinds)
            kind = read.type if coded else _decoded(read).type
        return pa.field(read.name, kind, self.nullable or read.nullable, self.metadata)


def _decoded(field: pa.Field) -> pa.Field:
    """A column of the reader, of whose text nobody says that it is a dictionary."""
    kind = field.type.value_type if isinstance(field.type, pa.DictionaryType) else field.type
    return pa.field(field.name, kind, field.nullable)


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

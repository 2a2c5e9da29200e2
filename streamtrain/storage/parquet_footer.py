"""What a Parquet footer says: the schema that columns are read with, and whether files and counts agree."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from streamtrain.errors import CorruptError, SchemaError
from streamtrain.storage.arrow import value_type

__all__ = [
    "READ_ERRORS",
    "as_codes",
    "file_schema",
    "first_line",
    "is_text",
    "read_schema",
    "require_counts",
    "require_same",
]

#: what pyarrow raises for bytes that it cannot read
READ_ERRORS = (OSError, pa.ArrowException, ValueError, TypeError, KeyError)


def file_schema(footer: Any) -> pa.Schema:
    return footer.schema.to_arrow_schema().remove_metadata()


def is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def as_codes(values: pa.Array) -> pa.Array:
    """Text as codes into a dictionary; anything else as it is."""
    return values.cast(pa.string()).dictionary_encode() if is_text(values.type) else values


def read_schema(footer: Any, name: str) -> pa.Schema:
    """What a file's columns are read as: text stays dictionary-encoded, because nothing says how long it is decoded."""
    try:
        schema = file_schema(footer)
    except READ_ERRORS as error:
        raise CorruptError(f"{name}: its schema cannot be read: {first_line(error)}") from error
    for i, field in enumerate(schema):
        if is_text(field.type):
            schema = schema.set(i, field.with_type(pa.dictionary(pa.int32(), pa.string())))
    twice = {n for n in schema.names if schema.names.count(n) > 1} if len(set(schema.names)) < len(schema) else set()
    if twice:
        raise SchemaError(f"{name}: more than one column is named {sorted(twice)[0]!r}: names must be unique")
    return schema


def require_same(expected: pa.Schema, found: pa.Schema, name: str, first: str) -> None:
    if found.equals(expected):
        return
    for field in expected:
        if field.name not in found.names:
            raise SchemaError(f"{name}: no column {field.name!r}, which {first} has: all files must have one schema")
        kind = found.field(field.name).type
        if kind != field.type:
            here, there = value_type(kind), value_type(field.type)
            here, there = (here, there) if here != there else (kind, field.type)
            raise SchemaError(f"{name}: column {field.name!r} is {here}, but {there} in {first}")
    for extra in found.names:
        if extra not in expected.names:
            raise SchemaError(f"{name}: a column {extra!r}, which {first} has not: all files must have one schema")


def require_counts(name: str, total: int, groups: list[int]) -> None:
    if min(groups, default=0) < 0:
        raise CorruptError(f"{name}: a row group says that it has {min(groups):,} rows: the footer is damaged")
    if total not in (0, sum(groups)):  # some writers leave 0 in the file's count
        raise CorruptError(f"{name}: the footer says {total:,} rows, its row groups {sum(groups):,}: it is damaged")


def first_line(error: BaseException) -> str:
    """The first line of a library's message."""
    text = str(error).strip().splitlines()
    return text[0].rstrip(".") if text else type(error).__name__

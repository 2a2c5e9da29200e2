"""What a Parquet file says of itself: the schema that columns are read with, whether files and counts agree, and how large
its pages are."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from streamtrain.errors import CorruptError, SchemaError
from streamtrain.storage.arrow import value_type
from streamtrain.storage.files.store import FileStore
from streamtrain.storage.parquet.sizes import Page

__all__ = [
    "READ_ERRORS",
    "as_codes",
    "first_line",
    "first_page",
    "is_text",
    "read_schema",
    "require_counts",
    "require_same",
]

#: what pyarrow raises for bytes that it cannot read
READ_ERRORS = (OSError, pa.ArrowException, ValueError, TypeError, KeyError)


def is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def as_codes(values: pa.Array) -> pa.Array:
    """Text as codes into a dictionary; anything else as it is."""
    return values.cast(pa.string()).dictionary_encode() if is_text(values.type) else values


def read_schema(schema: pa.Schema, name: str) -> pa.Schema:
    """What a file's columns are read as: text stays dictionary-encoded, because nothing says how long it is decoded."""
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


_DICTIONARY_PAGE = 2
_HEADER_BYTES = 256
_UNCUT = ("DuckDB",)  # writers that put a column of a row group into one page


def first_page(store: FileStore, name: str, writer: str) -> Page:
    """The first data page of a file, as its header describes it. No footer is needed: it stands at the beginning, perhaps
    behind a dictionary. Where there is none to be found, or it is encrypted, the page of zeros. writer: of the file."""
    try:
        at, kind = len(b"PAR1"), _DICTIONARY_PAGE
        while kind == _DICTIONARY_PAGE:
            header, end = _thrift_struct(store.read(name, at, at + _HEADER_BYTES), 0)
            kind, nbytes, stored = (int(header[field]) for field in (1, 2, 3))
            at += end + stored
            if min(end, stored) < 0 and kind == _DICTIONARY_PAGE:
                return Page()
        values = (header.get(5) or header[8])[1]  # of a data page, or one of version 2
    except (OSError, KeyError, IndexError, TypeError):
        return Page()
    if values <= 0 or nbytes < 0:
        return Page()
    return Page(values, 1 << 62 if writer.startswith(_UNCUT) else nbytes)


def _thrift_struct(data: bytes, at: int) -> tuple[dict[int, Any], int]:
    """Numbers and structs of a struct in Thrift's compact protocol, by field, and where it ends: -1 where a field of
    another kind came, for which nothing more is read. In a page's header these are statistics, which come last."""
    fields: dict[int, Any] = {}
    number = 0
    while data[at]:
        number, kind, at = number + (data[at] >> 4), data[at] & 15, at + 1
        if kind in (1, 2):  # a boolean is its kind
            fields[number] = kind == 1
        elif kind in (4, 5, 6):
            fields[number], at = _zigzag(data, at)
        elif kind == 12:
            fields[number], at = _thrift_struct(data, at)
        if kind not in (1, 2, 4, 5, 6, 12) or at < 0:
            return fields, -1
    return fields, at + 1


def _zigzag(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while data[at] & 128:
        value, shift, at = value | (data[at] & 127) << shift, shift + 7, at + 1
    value |= data[at] << shift
    return (value >> 1) ^ -(value & 1), at + 1

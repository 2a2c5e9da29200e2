"""JSON files with one object on each line, or one array of objects, plain or compressed with gzip or zstd."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute  # encodes text as dictionaries; imported early so that the plan counts its memory
import pyarrow.json as pj

from streamtrain.storage.common_type import CODES, common_type
from streamtrain.storage.files.locate import Target
from streamtrain.storage.first_bytes import FIRST_BYTES
from streamtrain.storage.formats import suffixes_of
from streamtrain.storage.parquet.footer import READ_ERRORS, is_text
from streamtrain.storage.text.json_form import AsLines, Form, form_of
from streamtrain.storage.text.reader import FEW_COLUMNS, TextReader
from streamtrain.storage.text.records import Block
from streamtrain.storage.text.scanners import JsonScanner
from streamtrain.storage.text.source import Ahead
from streamtrain.storage.text.types import JsonTypes
from streamtrain.storage.text.wide import with_wide_integers

__all__ = ["JsonLinesReader"]

_KEY = re.compile(rb'("(?:[^"\\]|\\.)*+")\s*:', re.DOTALL)
_LONGEST_START = 3  # bytes of a byte order mark, with which a file may begin
_COLUMN_BYTES, _VALUE_BYTES = 4_000, 16  # of a key, and of each of its values, which may be absent: measured


class JsonLinesReader(TextReader):
    """Reads JSON lines, and arrays of objects. The keys are the columns. A value that is missing or ``null`` is null.

    target: a file, glob or directory, or several; its ``key=value`` folders become columns.
    schema: types of some or all columns, by name, and of columns that do not occur in the first MiB. The other types are
    inferred from the first MiB of the first file.

    Opening reads all files once to find where lines begin (measured on a busy machine: 430 MB/s). A key that is not a column
    is an error. An array, or objects printed over several lines, are read as JSON lines (150 MB/s).
    Raises SchemaError for values that do not fit, CorruptError for invalid JSON. Messages give the file, and the line or the
    number of the object.
    """

    suffixes = suffixes_of("jsonl")
    types = JsonTypes()
    scratch = 6.0

    def __init__(self, target: Target, schema: pa.Schema | None = None, *, encoding: str | None = None) -> None:
        self._forms: dict[int, Form] = {}
        super().__init__(target, schema, encoding)

    def read_little(self) -> None:
        _read(b'{"x": 1}\n', pj.ParseOptions())

    def scanner(self, file: int) -> JsonScanner:
        return JsonScanner()

    def source(self, file: int, start: int = 0, stop: int | None = None) -> Any:
        source = super().source(file, start, stop)
        head = b""
        if file not in self._forms:
            head = source.read(FIRST_BYTES)
            name = self._files[file].lower()
            self._forms[file] = form_of(head, lines_only=".jsonl" in name or ".ndjson" in name)
        form = self._forms[file]
        if form == "lines":
            return Ahead(head, source) if head else source
        return AsLines(source, form, head=head, is_begun=start > _LONGEST_START, to_end=stop is None)

    def place(self, file: int, line: int) -> str:
        return f"{'line' if self._forms[file] == 'lines' else 'object'} {line}"

    def infer_bytes(self, block: Block, file: int) -> tuple[int, int]:
        keys = len(set(_KEY.findall(block.data)))
        return keys, (_COLUMN_BYTES + _VALUE_BYTES * block.rows) * max(0, keys - FEW_COLUMNS)

    def infer(self, data: bytes, file: int) -> pa.Schema:
        first = _read(data, pj.ParseOptions(explicit_schema=_written(self._given)))
        schema = pa.schema([pa.field(f.name, CODES if is_text(f.type) else f.type) for f in first.schema])

        def written(name: str) -> list[int | None]:
            values = (json.loads(line).get(name) for line in data.splitlines() if line.strip())
            return [value if type(value) is int else None for value in values if value is not None]

        return with_wide_integers(first, schema, self._given.names, written)

    def look(self, data: bytes, file: int, schema: pa.Schema) -> pa.Schema:
        blank = {f.name for f in schema if _has_null(f.type) and f.name not in self._given.names}
        if not blank:
            return schema
        others = pa.schema([f for f in schema if f.name not in blank])
        try:
            found = _read(self.utf8(data), pj.ParseOptions(explicit_schema=_written(others))).schema
        except (UnicodeDecodeError, *READ_ERRORS):  # which belong to the read
            return schema
        for each in found:
            if each.name in blank:
                kind = CODES if is_text(each.type) else each.type
                joined = common_type(schema.field(each.name).type, kind)
                schema = schema.set(schema.get_field_index(each.name), pa.field(each.name, joined or kind))
        return schema

    def untyped(self, file: int) -> pa.Schema:
        return pa.schema([])

    def decode(self, data: bytes, schema: pa.Schema, columns: Sequence[str], file: int) -> pa.Table:
        options = pj.ParseOptions(explicit_schema=_written(schema), unexpected_field_behavior="error")
        table = _read(data, options).select(columns)
        for i, name in enumerate(columns):
            if schema.field(name).type == CODES:
                table = table.set_column(i, name, table.column(i).dictionary_encode())
        return table

    def decode_one(self, record: bytes, field: pa.Field, file: int) -> None:
        schema = _written(pa.schema([field]))
        _read(record, pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"))

    def complaint(self, record: bytes, schema: pa.Schema, columns: Sequence[str], file: int) -> str:
        try:
            row = json.loads(record)
        except (ValueError, RecursionError) as error:
            return f"is not one JSON object: {error}"
        extra = next(_extra_keys(row, pa.struct(list(schema))), None) if len(schema) else None
        if extra is None:
            return ""
        column = extra[0]
        inner = f" in {'.'.join(extra[:-1])}" if len(extra) > 1 else ""
        return (
            f"has a key {extra[-1]!r}{inner}, which is missing in the first rows: open the data as {type(self).__module__}."
            f"{type(self).__name__}(..., schema=pa.schema([({column!r}, TYPE)])), or correct the line"
        )

    def value(self, record: bytes, column: str, file: int) -> str:
        return json.dumps(json.loads(record).get(column))[:100]


def _extra_keys(value: Any, kind: pa.DataType) -> Iterator[tuple[str, ...]]:
    """The paths of the keys of a value that its type does not have."""
    if isinstance(value, dict) and pa.types.is_struct(kind):
        known = {f.name: f.type for f in kind}
        for key, inner in value.items():
            if key not in known:
                yield (key,)
            else:
                yield from ((key, *path) for path in _extra_keys(inner, known[key]))
    elif isinstance(value, list) and pa.types.is_list(kind):
        for inner in value:
            yield from _extra_keys(inner, kind.value_type)


def _has_null(kind: pa.DataType) -> bool:
    """Whether the values say nothing of a type, or what is in them."""
    inner = [kind.field(i).type for i in range(kind.num_fields)]
    return pa.types.is_null(kind) or kind == pa.struct([]) or any(map(_has_null, inner))


def _written(schema: pa.Schema) -> pa.Schema:
    """The schema for pyarrow's parser, which reads text; it is encoded as a dictionary later."""
    return pa.schema([pa.field(f.name, pa.string() if f.type == CODES else f.type) for f in schema])


def _read(data: bytes, options: pj.ParseOptions) -> pa.Table:
    return pj.read_json(pa.BufferReader(data), pj.ReadOptions(use_threads=False, block_size=len(data) + 1), options)

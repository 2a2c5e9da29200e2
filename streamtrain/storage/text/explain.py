"""Why a block of records cannot be decoded: the first line that is wrong, and what is wrong there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from streamtrain.errors import CorruptError, DataError, SchemaError
from streamtrain.storage.parquet.footer import READ_ERRORS, first_line
from streamtrain.storage.text.encoding import not_in_encoding
from streamtrain.storage.text.records import Block, first_bad

__all__ = ["explained"]


class Format(Protocol):
    """What a text format says of one record (see `TextReader`)."""

    @property
    def encoding(self) -> str: ...
    def shown(self, file: int) -> str: ...
    def place(self, file: int, line: int) -> str: ...
    def way_on(self, record: bytes, column: str, file: int) -> str: ...
    def utf8(self, data: bytes) -> bytes: ...
    def complaint(self, record: bytes, schema: pa.Schema, columns: Sequence[str], file: int) -> str: ...
    def decode_one(self, record: bytes, field: pa.Field, file: int) -> None: ...
    def value(self, record: bytes, column: str, file: int) -> str: ...


def explained(
    reader: Format, given: Sequence[str], block: Block, file: int, schema: pa.Schema | None, columns: Sequence[str],
    attempt: Callable[[bytes, int], Any], error: Exception,
) -> DataError:  # fmt: skip
    """The error to raise for a block. given: columns whose type the user gave. attempt: decodes bytes of so many rows. error:
    what decoding the whole block raised."""

    def works(n: int) -> bool:
        rows = int(np.count_nonzero(block.lines.is_row[:n]))
        try:
            return not rows or attempt(block.data[: ends[n - 1]], rows) is not None
        except READ_ERRORS:
            return False

    ends = block.lines.ends
    at = first_bad(len(ends), works)
    record, where = (
        block.data[block.starts[at] : ends[at]],
        f"{reader.shown(file)}: {reader.place(file, block.line_at(block.starts[at]))}",
    )
    try:
        record = reader.utf8(record)
    except UnicodeDecodeError as invalid:
        return CorruptError(f"{where}: {not_in_encoding(record, reader.encoding, invalid)}")
    if form := reader.complaint(record, schema or pa.schema([]), columns, file):
        return CorruptError(f"{where}: {form}")
    for name in [*columns, *schema.names] if schema is not None else []:
        assert schema is not None
        try:
            reader.decode_one(record, schema.field(name), file)
        except READ_ERRORS:
            kind = schema.field(name).type
            kind = kind.value_type if isinstance(kind, pa.DictionaryType) else kind
            return SchemaError(
                f"{where}: column {name!r} contains {reader.value(record, name, file)}, but is {kind} in "
                f"{'the given schema' if name in given else 'the first rows'}: "
                f"{reader.way_on(record, name, file)}open the data as {type(reader).__module__}.{type(reader).__name__}(..., "
                f"schema=pa.schema([({name!r}, TYPE)])) with a type that fits all rows, or correct the line"
            )
    return CorruptError(f"{where}: cannot be read: {first_line(error)}")

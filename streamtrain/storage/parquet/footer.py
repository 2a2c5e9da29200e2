"""The metadata of a Parquet file: the schema for reading its columns, checks that row counts agree, and the size of
its pages."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.errors import CorruptError
from streamtrain.storage.common_type import CODES
from streamtrain.storage.files.store import FileStore
from streamtrain.storage.parquet.sizes import Page
from streamtrain.storage.parquet.thrift import INTEGERS, STRUCT, Thrift, ThriftError

__all__ = [
    "INT96_UNIT",
    "READ_ERRORS",
    "ReadSchemas",
    "as_codes",
    "cause",
    "first_line",
    "first_page",
    "is_text",
    "missing_codec",
    "name_problem",
    "pandas_metadata",
    "read_schema",
    "require_counts",
    "writer_of",
]

#: the exceptions that pyarrow raises for bytes that it cannot read
READ_ERRORS = (OSError, pa.ArrowException, ValueError, TypeError, KeyError)


#: timestamps of 96 bits, as Spark and Hive write them, are read in this unit: in nanoseconds the year 9999 would be 1816
INT96_UNIT = "us"


def is_text(kind: pa.DataType) -> bool:
    """Whether a type is a string type."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def as_codes(values: pa.Array) -> pa.Array:
    """Encode text as a dictionary; return other values unchanged."""
    return values.cast(pa.string()).dictionary_encode() if is_text(values.type) else values


def read_schema(schema: pa.Schema) -> pa.Schema:
    """The schema for reading the columns of a file. Text stays dictionary-encoded, because its decoded size is unknown."""
    for i, field in enumerate(schema):
        if is_text(field.type):
            schema = schema.set(i, field.with_type(CODES))
    return schema


class ReadSchemas:
    """The schemas for reading files, of which successive ones are mostly equal."""

    def __init__(self) -> None:
        self._stored: pa.Schema | None = None
        self._read = pa.schema([])

    def schema(self, stored: pa.Schema) -> pa.Schema:
        """The schema for reading the columns of a file."""
        if self._stored is None or not stored.equals(self._stored, check_metadata=True):
            self._stored, self._read = stored, read_schema(stored)
        return self._read


def pandas_metadata(metadata: Any) -> Any:
    """What pandas wrote into the metadata of a file; None if it did not write it."""
    return (metadata.metadata or {}).get(b"pandas")


def require_counts(name: str, total: int, groups: NDArray[np.int64]) -> None:
    """Raise CorruptError if the rows of the row groups do not add up to those of the file."""
    if groups.min(initial=0) < 0:
        raise CorruptError(f"{name}: a row group declares {groups.min():,} rows: the footer is damaged")
    if total not in (0, int(groups.sum())):  # some writers leave the count of the file 0
        raise CorruptError(
            f"{name}: the footer declares {total:,} rows, but its row groups have {groups.sum():,}: it is damaged"
        )


def first_line(error: BaseException) -> str:
    """The first line of the message of an exception."""
    text = str(error).strip().splitlines()
    return text[0].rstrip(".") if text else type(error).__name__


def missing_codec(error: BaseException) -> str | None:
    """What to say of an error of pyarrow about a codec that it lacks; None for any other error.

    >>> missing_codec(OSError("Support for codec 'lzo' not built"))
    "the codec 'lzo', which this build of pyarrow lacks"
    """
    found = re.search(r"[Cc]odec '?(\w+)'? (?:not built|not implemented|isn't supported)|(LZO)", str(error))
    return None if found is None else f"the codec {(found[1] or found[2]).lower()!r}, which this build of pyarrow lacks"


def name_problem(error: BaseException) -> str:
    """What to say of an error of pyarrow about the names of columns."""
    return "the name of a column is not UTF-8" if isinstance(error, UnicodeDecodeError) else first_line(error)


def cause(error: BaseException) -> str:
    """Why pyarrow could not read a Parquet file."""
    line = name_problem(error)
    return "it is encrypted: read a copy that was written without encryption" if "decrypt" in line.lower() else line


def writer_of(metadata: Any) -> str:
    """The program that wrote a file, "" if it does not say so in UTF-8."""
    try:
        return str(metadata.created_by or "")
    except UnicodeDecodeError:
        return ""


_DICTIONARY_PAGE = 2
_HEADER_BYTES = 256
_UNCUT = ("DuckDB",)  # writers that put a whole column of a row group into one page


def first_page(store: FileStore, name: str, writer: str) -> Page:
    """The size of the first data page of a file, from the header of the page. It is at the beginning of the file, or after a
    dictionary page, so the footer is not needed. All zeros if there is no page or it is encrypted.

    writer: the name of the program that wrote the file.
    """
    try:
        at, kind = len(b"PAR1"), _DICTIONARY_PAGE
        while kind == _DICTIONARY_PAGE:
            header, end = _numbers(store.read(name, at, at + _HEADER_BYTES))
            kind, nbytes, stored = header[1], header[2], header[3]
            at += end + stored
            if min(end, stored) < 0 and kind == _DICTIONARY_PAGE:
                return Page()
        values = header.get((5, 1)) or header[8, 1]  # of a data page, or one of version 2
    except (OSError, KeyError):
        return Page()
    if values <= 0 or nbytes < 0:
        return Page()
    return Page(values, 1 << 62 if writer.startswith(_UNCUT) else nbytes)


def _numbers(data: bytes) -> tuple[dict[Any, int], int]:
    """The integers of a page header, by the numbers of their fields, and where the header ends: -1 if it is longer than the
    data. The statistics, which may be long, come last."""
    header, found = Thrift(data), dict[Any, int]()
    try:
        for number, kind in header.fields():
            if kind in INTEGERS:
                found[number] = header.number()
            elif kind == STRUCT:
                for inner, inner_kind in header.fields():
                    if inner_kind in INTEGERS:
                        found[number, inner] = header.number()
                    else:
                        header.skip(inner_kind)
            else:
                header.skip(kind)
    except ThriftError:
        return found, -1
    return found, header.at

"""The table of file formats, one row each: the suffixes of their names, and the class that reads them. To add a format, add
a row here and a module with its reader. Also the compressions that each writer offers."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from importlib import import_module
from pathlib import PurePath
from typing import Any, NamedTuple

from streamtrain.errors import DataError
from streamtrain.storage.files.locate import locate
from streamtrain.storage.reader import Reader

__all__ = [
    "COMPRESSIONS",
    "MAX_CHUNK_ROWS",
    "ZARR_MARKS",
    "file_reader",
    "format_of",
    "has_format",
    "reader_for",
    "suffixes_of",
]

_COMPRESSED = (".gz", ".zst", ".bz2", ".lz4", ".xz", ".zip")


class _Format(NamedTuple):
    suffixes: tuple[str, ...]
    module: str
    reader: str


_FORMATS = {
    "ipc": _Format((".arrow", ".arrows", ".feather", ".ipc"), "ipc", "IpcReader"),
    "csv": _Format((".csv", ".tsv"), "csv", "CsvReader"),
    "jsonl": _Format((".jsonl", ".ndjson"), "jsonl", "JsonLinesReader"),
    "parquet": _Format((".parquet", ".parq", ".pq"), "parquet.reader", "ParquetReader"),
}
#: the formats that can be written, and their compressions; the default comes first
COMPRESSIONS = {
    "parquet": ("zstd", "snappy", "lz4", "gzip", "brotli", "none"),
    "zarr": ("zstd", "gzip", "lz4", "none"),
}
MAX_CHUNK_ROWS = 1 << 26  # pyarrow silently splits larger row groups
#: a folder with one of these files in it is a Zarr group or array
ZARR_MARKS = ("zarr.json", ".zgroup", ".zarray")


def format_of(names: Iterable[str]) -> str:
    """The format of files with these names: Parquet if any of them is, or if no name tells. Raises DataError if the names
    have two other formats.

    >>> format_of(["a/b.csv.gz"]), format_of(["a.csv", "b.parquet"]), format_of(["part-0"])
    ('csv', 'parquet', 'parquet')
    """
    kinds = {kind for name in names for kind in [_format(name)] if kind}
    if len(kinds) > 1 and "parquet" not in kinds:
        raise DataError(f"the files have several formats ({', '.join(sorted(kinds))}): choose those of one with a glob")
    return "parquet" if "parquet" in kinds else next(iter(kinds), "parquet")


def _format(name: str) -> str | None:
    suffixes = [suffix.lower() for suffix in PurePath(name).suffixes]
    last = suffixes[-2:-1] if suffixes[-1:] and suffixes[-1] in _COMPRESSED else suffixes[-1:]
    return next((kind for kind, row in _FORMATS.items() if last and last[0] in row.suffixes), None)


def file_reader(target: str) -> Reader:
    """The reader for a local file, glob or directory. Raises NotFoundError if there are no files."""
    several = os.path.isdir(target) or (glob.has_magic(target) and not os.path.exists(target))
    kind = (_format(target) if not os.path.isdir(target) else None) or format_of(
        locate(target, ())[1] if several else [target]
    )
    reader: Reader = reader_for(kind)(target)
    return reader


def has_format(path: str) -> bool:
    """Whether a file name has the suffix of a format."""
    return _format(path) is not None


def reader_for(kind: str) -> Any:
    """The reader class of a format."""
    row = _FORMATS[kind]
    return getattr(import_module(f"streamtrain.storage.{row.module}"), row.reader)


def suffixes_of(kind: str) -> tuple[str, ...]:
    """The suffixes of the file names of a format.

    >>> suffixes_of("csv")
    ('.csv', '.tsv')
    """
    return _FORMATS[kind].suffixes

"""The formats of files, one row each: which names they have and which class reads them; and what the writers can be asked."""

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

__all__ = ["COMPRESSIONS", "MAX_CHUNK_ROWS", "file_reader", "format_of", "has_format", "reader_for"]

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
COMPRESSIONS = {
    "parquet": ("zstd", "snappy", "lz4", "gzip", "brotli", "none"),
    "zarr": ("zstd", "gzip", "lz4", "none"),
}
MAX_CHUNK_ROWS = 1 << 26  # pyarrow silently cuts row groups that are larger


def format_of(names: Iterable[str]) -> str:
    """The format of files: Parquet where any is, or where no name tells. Raises DataError for two of the others together.

    >>> format_of(["a/b.csv.gz"]), format_of(["a.csv", "b.parquet"]), format_of(["part-0"])
    ('csv', 'parquet', 'parquet')
    """
    found = {kind for name in names for kind in [_format(name)] if kind}
    if len(found) > 1 and "parquet" not in found:
        raise DataError(f"files of several formats there ({', '.join(sorted(found))}): name those of one with a glob")
    return "parquet" if "parquet" in found else next(iter(found), "parquet")


def _format(name: str) -> str | None:
    suffixes = [suffix.lower() for suffix in PurePath(name).suffixes]
    last = suffixes[-2:-1] if suffixes[-1:] and suffixes[-1] in _COMPRESSED else suffixes[-1:]
    return next((kind for kind, known in _FORMATS.items() if last and last[0] in known.suffixes), None)


def file_reader(target: str) -> Reader:
    """The reader for a file, a glob or a directory of this machine. Raises NotFoundError where there is none."""
    several = os.path.isdir(target) or (glob.has_magic(target) and not os.path.exists(target))
    kind = (_format(target) if not os.path.isdir(target) else None) or format_of(
        locate(target, ())[1] if several else [target]
    )
    reader: Reader = reader_for(kind)(target)
    return reader


def has_format(path: str) -> bool:
    """Whether the name of a file tells its format."""
    return _format(path) is not None


def reader_for(kind: str) -> Any:
    """The class of readers for a format."""
    known = _FORMATS[kind]
    return getattr(import_module(f"streamtrain.storage.{known.module}"), known.reader)

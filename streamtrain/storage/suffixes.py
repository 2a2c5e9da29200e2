"""Which reader reads files, by their names."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from importlib import import_module
from pathlib import PurePath
from typing import Any

from streamtrain.errors import DataError
from streamtrain.storage.place import locate
from streamtrain.storage.reader import Reader

__all__ = ["file_reader", "format_of", "has_format", "reader_for"]

_COMPRESSED = (".gz", ".zst", ".bz2", ".lz4", ".xz", ".zip")
_FORMATS = {
    "ipc": (".arrow", ".arrows", ".feather", ".ipc"),
    "csv": (".csv", ".tsv"),
    "jsonl": (".jsonl", ".ndjson"),
    "parquet": (".parquet", ".parq", ".pq"),
}
_READERS = {"ipc": "IpcReader", "csv": "CsvReader", "jsonl": "JsonLinesReader", "parquet": "ParquetReader"}


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
    return next((kind for kind, known in _FORMATS.items() if last and last[0] in known), None)


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
    return getattr(import_module(f"streamtrain.storage.{kind}"), _READERS[kind])

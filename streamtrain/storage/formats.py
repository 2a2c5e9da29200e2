"""The table of file formats, one row each: the suffixes of their names, and the class that reads them. To add a format, add
a row here and a module with its reader. Also the compressions that each writer offers."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import PurePath
from typing import Any, NamedTuple

from streamtrain.errors import CorruptError, DataError, NotFoundError, without_secrets
from streamtrain.storage.files.locate import locate
from streamtrain.storage.first_bytes import FIRST_BYTES, Foreign, foreign_name, format_of_bytes, looks_like
from streamtrain.storage.parquet.footer import READ_ERRORS, first_line
from streamtrain.storage.reader import Reader
from streamtrain.storage.settings import ReadSettings
from streamtrain.storage.text.source import text_source

__all__ = [
    "COMPRESSIONS",
    "MAX_CHUNK_ROWS",
    "ZARR_MARKS",
    "file_reader",
    "format_of",
    "format_of_target",
    "reader_for",
    "suffixes_of",
]

_COMPRESSED = (".gz", ".zst", ".bz2", ".lz4", ".xz", ".zip")
_UNPACK = {".gz": "gunzip", ".zst": "unzstd", ".bz2": "bunzip2", ".lz4": "unlz4", ".xz": "unxz", ".zip": "unzip"}
_TEXT = ("csv", "jsonl")  # these are read compressed


class _Format(NamedTuple):
    suffixes: tuple[str, ...]
    module: str
    reader: str


_FORMATS = {
    "arrow": _Format((".arrow", ".arrows", ".feather", ".ipc"), "ipc", "IpcReader"),
    "csv": _Format((".csv", ".tsv", ".tab"), "csv", "CsvReader"),
    "jsonl": _Format((".jsonl", ".ndjson", ".json"), "jsonl", "JsonLinesReader"),
    "npy": _Format((".npy",), "npy", "NpyReader"),
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


def format_of(names: Iterable[str]) -> str | None:
    """The format of files by their names: Parquet if any of them is; None if no name tells. ``.json`` tells where no other name
    does, because it is often a description that lies beside the data. Raises DataError if the names have two other formats.

    >>> format_of(["a/b.csv.gz"]), format_of(["a.csv", "b.parquet"]), format_of(["part-0"]), format_of(["a.csv", "about.json"])
    ('csv', 'parquet', None, 'csv')
    """
    kinds: dict[str, bool] = {}
    for name in names:
        kind, is_weak = _format(name)
        if kind is not None:
            kinds[kind] = kinds.get(kind, True) and is_weak
    strong = {kind for kind, is_weak in kinds.items() if not is_weak} or set(kinds)
    if len(strong) > 1 and "parquet" not in strong:
        raise DataError(
            f"the files have several formats ({', '.join(sorted(strong))}): choose those of one with a glob"
        )
    return "parquet" if "parquet" in strong else next(iter(strong), None)


def _format(name: str) -> tuple[str | None, bool]:
    """The format of a file by its name, and whether the name tells little."""
    suffixes = [suffix.lower() for suffix in PurePath(name).suffixes]
    is_packed = bool(suffixes) and suffixes[-1] in _COMPRESSED
    last = suffixes[-2:-1] if is_packed else suffixes[-1:]
    kind = next((kind for kind, row in _FORMATS.items() if last and last[0] in row.suffixes), None)
    return (None if is_packed and kind not in _TEXT else kind), last == [".json"]


def file_reader(target: str | Sequence[str], settings: ReadSettings, kind: str | None = None) -> Reader:
    """The reader for the files of a path, glob, directory or URL; or of several on this machine, which have the format of the
    first. kind: the format, if it is known. Raises NotFoundError if there are no files, DataError if their format is not read,
    and UsageError for a setting that has no effect on it."""
    first = target if isinstance(target, str) else target[0]
    kind = format_of_target(first, settings, kind)
    settings.require_effect(without_secrets(first), kind)
    reader: Reader = reader_for(kind)(target, **settings.given_for_text(kind))
    return reader


def format_of_target(target: str, settings: ReadSettings, kind: str | None = None) -> str:
    """The format of the files of a path, glob, directory or URL. kind: as it is known."""
    several = "://" in target or os.path.isdir(target) or (glob.has_magic(target) and not os.path.exists(target))
    requested = None if settings.input_format == "zarr" else settings.input_format
    if requested is None or settings.are_of_others:
        kind = kind or (None if os.path.isdir(target) else _format(target)[0])
        kind = kind or format_of(locate(target, ())[1] if several else [target])
    return kind or requested or _format_inside(target)


def _format_inside(target: str) -> str:
    """The format of files whose names do not tell, by the first bytes of the first. Raises DataError if they do not, either."""
    store, names = locate(target, ())
    name = names[0]
    whole = next((end for end in _COMPRESSED if name.lower().endswith(end)), "")
    if whole and format_of([name[: -len(whole)]]):
        raise DataError(
            f"{store.shown(name)}: a file of this format is not read if it is compressed as a whole: unpack it, with "
            f"{_UNPACK.get(whole, 'its program')}"
        )
    found: str | Foreign | None = foreign_name(name)
    head = b""
    if found is None:
        try:
            with text_source(store, name, store.stat(name)) as source:
                head = source.read(FIRST_BYTES)
        except READ_ERRORS as error:
            if isinstance(error, DataError):
                raise
            raise CorruptError(f"{store.shown(name)}: cannot be read: {first_line(error)}") from error
        if not head:
            raise NotFoundError(f"{store.shown(name)}: the file is empty")
        found = format_of_bytes(head)
    if isinstance(found, str):
        return found
    listed = f"the formats that are read are {', '.join(_FORMATS)} and zarr"
    if found is not None:
        raise DataError(f"{store.shown(name)}: is {found.what}, which is not read; {listed}: {found.remedy}")
    like = looks_like(head)
    hint = f"for example {like}" if like else "and if it has one of these formats, it may be damaged"
    raise DataError(
        f"{store.shown(name)}: neither its name nor its first bytes tell the format; {listed}: say which one it is with "
        f"--input-format, {hint}"
    )


def reader_for(kind: str) -> Any:
    """The reader class of a format."""
    row = _FORMATS[kind]
    return getattr(import_module(f"streamtrain.storage.{row.module}"), row.reader)


def suffixes_of(kind: str) -> tuple[str, ...]:
    """The suffixes of the file names of a format.

    >>> suffixes_of("csv")
    ('.csv', '.tsv', '.tab')
    """
    return _FORMATS[kind].suffixes

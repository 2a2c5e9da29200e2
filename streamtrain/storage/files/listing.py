"""List the data files of a file name, glob or directory, and read Hive partitions (``key=value`` folders) from their paths."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa

from streamtrain.errors import NotFoundError, SchemaError

__all__ = ["data_files", "list_files", "partition_columns"]

_NULL = "__HIVE_DEFAULT_PARTITION__"
_INTEGER = re.compile(
    r"-?[0-9]{1,18}"
)  # int() would also accept 1_000 and digits of other scripts; those are text here


def list_files(target: str, suffixes: tuple[str, ...]) -> tuple[Path, list[str]]:
    """The root folder, and the names of the data files relative to it, sorted.

    In a directory or glob, names that begin with ``_`` or ``.``, checksum files and empty files are not data. If some
    files have one of the ``suffixes``, only those are data. Links to folders are followed.
    Raises NotFoundError if there are no data files, and for a folder that cannot be listed or a broken link, because
    data could be missing.
    """
    path = Path(target)
    if path.is_file():
        return path.parent, [path.name]
    if path.is_dir():
        root, names = path, set(_walk(path))
    elif glob.has_magic(target):
        root = _static_prefix(path)
        names = set()
        for match in glob.glob(target, recursive=True):
            name = Path(match).relative_to(root).as_posix()
            names |= {f"{name}/{inner}" for inner in _walk(Path(match))} if os.path.isdir(match) else {name}
    else:
        raise NotFoundError(f"{target}: no such file or directory")
    data = data_files(names, suffixes, lambda name: _size(os.path.join(root, name)))
    if not data:
        number = f"{len(names):,} files" if len(names) > 1 else "one file"
        content = f"{number} there, none of them data" if names else "nothing there"
        raise NotFoundError(f"{target}: no data files ({content}): give a file, glob or directory that contains data")
    return root, data


def data_files(names: Iterable[str], suffixes: tuple[str, ...], nbytes: Callable[[str], int]) -> list[str]:
    """The names of the data files among all files of a folder, sorted folder by folder.

    >>> data_files(["b/x.csv", "b-/x.csv", "_log", "a"], (".csv",), {"b/x.csv": 1, "b-/x.csv": 1, "a": 9}.__getitem__)
    ['b/x.csv', 'b-/x.csv']
    """
    data = [name for name in sorted(names, key=lambda name: name.split("/")) if _is_data(name) and nbytes(name) > 0]
    return [name for name in data if os.path.splitext(name)[1].lower() in suffixes] or data


def _walk(folder: Path) -> Iterator[str]:
    """The names of all files in a folder and its subfolders. A folder is visited once, however many links lead to it.
    Strings, because there may be 100,000 of them and a Path costs ten times as much."""
    seen: set[str] = set()
    for at, folders, names in os.walk(folder, onerror=_unlisted, followlinks=True):
        folder_path = os.path.realpath(at)
        if folder_path in seen:
            folders.clear()
            continue
        seen.add(folder_path)
        folders[:] = [name for name in folders if _is_data(name)]
        inner = os.path.relpath(at, folder).replace(os.sep, "/")
        yield from names if inner == os.curdir else (f"{inner}/{name}" for name in names)


def _unlisted(error: OSError) -> None:
    raise NotFoundError(f"{error.filename}: the folder cannot be listed: {error.strerror}") from error


def _size(file: str) -> int:
    try:
        return os.stat(file).st_size
    except OSError as error:
        raise NotFoundError(f"{file}: cannot be read: {error.strerror}") from error


def _static_prefix(path: Path) -> Path:
    """The part of a glob before its first wildcard."""
    parts: list[str] = []
    for part in path.parts[:-1]:
        if glob.has_magic(part):
            break
        parts.append(part)
    return Path(*parts)


def _is_data(relative: str) -> bool:
    hidden = any(part.startswith(("_", ".")) and "=" not in part for part in relative.split("/"))
    return not hidden and not relative.endswith(".crc")


def partition_columns(files: Iterable[str]) -> dict[str, pa.Array]:
    """One array for each key of the ``key=value`` folders, with the value for each file, in the order of the files.

    Integers become int64, other values dictionary-encoded strings. ``__HIVE_DEFAULT_PARTITION__`` is null.

    >>> partition_columns(["year=2024/a.parquet", "year=2025/b.parquet"])["year"].to_pylist()
    [2024, 2025]
    """
    names = list(files)
    parts = ([part.partition("=") for part in name.split("/")[:-1] if "=" in part] for name in names)
    pairs = [[(unquote(key), unquote(value)) for key, _, value in folders] for folders in parts]
    keys = [key for key, _ in pairs[0]] if pairs else []
    if len(set(keys)) < len(keys):
        raise SchemaError(
            f"{names[0]}: two of the folders above this file have the same partition key: rename one of them"
        )
    for name, own in zip(names, pairs, strict=True):
        if [key for key, _ in own] != keys:
            raise SchemaError(
                f"{name}: has partition keys {[k for k, _ in own]}, but {names[0]} has {keys}: "
                "all files must have the same key=value folders in their paths"
            )
    return {key: _typed([own[i][1] for own in pairs]) for i, key in enumerate(keys)}


def _typed(values: list[str]) -> pa.Array:
    present = [None if value == _NULL else value for value in values]
    if all(v is None or _INTEGER.fullmatch(v) for v in present):
        return pa.array([None if v is None else int(v) for v in present], pa.int64())
    return pa.array(present, pa.dictionary(pa.int32(), pa.string()))

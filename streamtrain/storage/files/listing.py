"""List the data files of a file name, glob or directory."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

from streamtrain.errors import NotFoundError
from streamtrain.storage.files.table_roots import require_no_table, require_no_table_in

__all__ = ["Listed", "data_files", "list_files", "once_each"]


_T = TypeVar("_T")


class Listed(NamedTuple):
    """Data files. root: the folder that their names are relative to. names: sorted folder by folder. again: names of files that
    are among them by another name."""

    root: Path
    names: list[str]
    again: list[str]


def list_files(target: str, suffixes: tuple[str, ...]) -> Listed:
    """The data files of a file, folder or glob.

    In a directory or glob, names that begin with ``_`` or ``.``, checksum files and empty files are not data. If some
    files have one of the ``suffixes``, only those are data. Links to folders are followed. A file that is reached twice, by a
    link, is listed once.
    Raises NotFoundError if there are no data files, and for a folder that cannot be listed or a broken link, because
    data could be missing; DataError for files of a table, of which only its log tells which are alive.
    """
    path = Path(target)
    require_no_table(target)
    if path.is_file():
        return Listed(path.parent, [path.name], [])
    if path.is_dir():
        root, names = path, set(_walk(path))
    elif glob.has_magic(target):
        root = _static_prefix(path)
        names = set()
        matches = glob.glob(target, recursive=True)
        require_no_table(target, matches)
        for match in matches:
            name = Path(match).relative_to(root).as_posix()
            names |= {f"{name}/{inner}" for inner in _walk(Path(match))} if os.path.isdir(match) else {name}
    else:
        raise NotFoundError(f"{target}: no such file or directory")
    data = data_files(names, suffixes, lambda name: _size(os.path.join(root, name)))
    if not data:
        number = f"{len(names):,} files" if len(names) > 1 else "one file"
        content = f"{number} there, none of them data" if names else "nothing there"
        raise NotFoundError(f"{target}: no data files ({content}): give a file, glob or directory that contains data")
    return Listed(root, *once_each(data, lambda name: os.path.join(root, name)))


def once_each(files: Iterable[_T], path_of: Callable[[_T], str]) -> tuple[list[_T], list[_T]]:
    """The files without those that come again by another name, and these. A file that does not exist is kept.

    >>> once_each(["a", "./a", "b"], lambda name: name)
    (['a', './a', 'b'], [])
    """
    first, again, seen = list[_T](), list[_T](), set[tuple[int, int]]()
    for file in files:
        try:
            status = os.stat(path_of(file))
        except OSError:
            first.append(file)
            continue
        identity = status.st_dev, status.st_ino
        (again if status.st_ino and identity in seen else first).append(file)
        seen.add(identity)
    return first, again


def data_files(names: Iterable[str], suffixes: tuple[str, ...], nbytes: Callable[[str], int]) -> list[str]:
    """The names of the data files among all files of a folder, sorted as pandas and polars read them: as text.

    >>> data_files(["b/x.csv", "b-/x.csv", "_log", "a"], (".csv",), {"b/x.csv": 1, "b-/x.csv": 1, "a": 9}.__getitem__)
    ['b-/x.csv', 'b/x.csv']
    """
    data = [name for name in sorted(names) if _is_data(name) and nbytes(name) > 0]
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
        require_no_table_in(str(folder), at, folders)
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

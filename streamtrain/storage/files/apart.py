"""Whether what is written would be among the data that are read."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from streamtrain.errors import UsageError, printable
from streamtrain.storage.files.file_urls import local_path
from streamtrain.storage.files.store import FileBacked, LocalFileStore
from streamtrain.storage.files.table_roots import split_version
from streamtrain.storage.formats import ZARR_MARKS
from streamtrain.storage.several import SeveralReader

__all__ = ["require_apart"]

_ELSEWHERE = "name a place outside of the data"

#: the device and the inode of a file or folder: the same by whatever path it is reached
_Identity = tuple[int, int]


def require_apart(what: str, out: str | Path, *data: Any) -> None:
    """Raise UsageError if a file or folder would be written into the data, where the next reader would find it, or if it is one
    of the data files, or contains them.

    what: the flag and its value, for the message. out: the file or folder, which need not exist. data: as `open_reader` takes
    them; data in memory and on servers are apart from every file.

    A link counts as what it points to. Of a glob, a place is inside if the glob matches it or a folder that contains it, or may
    match what is below it: ``data/run`` is inside ``data/*`` and ``data/**/*.csv``, but not inside ``data/*.csv``.
    """
    real = Path(os.path.realpath(out))
    around = {identity for place in (real, *real.parents) if (identity := _identity(place))}
    for one in _each(data):
        if isinstance(one, (str, Path)):
            problem = _problem(Path(os.path.abspath(out)), real, around, local_path(str(one)))
        else:
            is_file = _identity(real) in set(map(_identity, _files_of(one))) - {None}
            problem = "is one of the data files" if is_file else None
        if problem:
            raise UsageError(f"{printable(what)}: {problem}: {_ELSEWHERE}")


def _problem(out: Path, real: Path, around: set[_Identity], data: str) -> str | None:
    """What is wrong with a place for data at a path or glob; None if they are apart."""
    if not data or "://" in data:
        return None
    data, _ = split_version(data)
    shown, targets = printable(data), [data]
    if glob.has_magic(data) and not os.path.exists(data):
        if any(_reaches(pattern, place.parts) for pattern in _patterns(data) for place in (out, real)):
            return f"is inside the data, which the glob {shown} finds"
        targets = glob.glob(data, recursive=True)
    for target in targets:
        identity = _identity(target)
        if identity is None:
            continue
        if not os.path.isdir(target):
            if identity == _identity(real):
                return f"is one of the data files ({shown})"
        elif any(found in around for found in _contents(target, files=real.is_file())):
            return f"is inside the data ({shown})"
    own = _identity(real)
    if own is not None and any(own == _identity(place) for target in targets for place in _parents(target)):
        return f"contains the data ({shown})"
    return None


def _patterns(data: str) -> Iterator[tuple[str, ...]]:
    """The parts of a glob as an absolute path: as it is written, and with its links followed up to the first wildcard."""
    parts = Path(os.path.normpath(data)).parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    before = Path(*parts[:fixed])
    for folder in (os.path.abspath(before), os.path.realpath(before)):
        yield *map(glob.escape, Path(folder).parts), *parts[fixed:]


def _reaches(pattern: Sequence[str], place: Sequence[str]) -> bool:
    """Whether a glob matches a path, a folder that contains it, or possibly something below it. Both as parts."""
    for part, name in zip(pattern, place, strict=False):
        if part == "**":
            return True
        if not fnmatchcase(name, part):
            return False
    return True


def _contents(root: str, *, files: bool) -> Iterator[_Identity | None]:
    """A folder, and what links in it lead to: folders, and files if asked for. All else is inside it by its path. Nothing in a
    Zarr store is a link."""
    yield _identity(root)
    if any(os.path.exists(os.path.join(root, mark)) for mark in ZARR_MARKS):
        return
    seen: set[_Identity | None] = set()
    for at, folders, names in os.walk(root, followlinks=True):
        here = _identity(at)
        if here in seen:
            folders.clear()
            continue
        seen.add(here)
        below = (os.path.join(at, name) for name in (*folders, *(names if files else ())))
        yield from (_identity(path) for path in below if os.path.islink(path))


def _parents(target: str) -> Sequence[Path]:
    return Path(os.path.realpath(target)).parents


def _each(data: Sequence[Any]) -> Iterator[Any]:
    """The data, and what is in lists of them."""
    for one in data:
        yield from (
            _each(one) if isinstance(one, (list, tuple)) else one.sources if isinstance(one, SeveralReader) else [one]
        )


def _files_of(reader: Any) -> Iterator[Path]:
    store, names = reader.stored_files if isinstance(reader, FileBacked) else (None, [])
    if isinstance(store, LocalFileStore):
        yield from (store.root / name for name in names)


def _identity(path: str | Path) -> _Identity | None:
    """None for what does not exist, or cannot be looked at."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino

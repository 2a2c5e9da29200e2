"""Which files a URL names: one, those that match a glob, or those of a folder; as for files of this machine."""

from __future__ import annotations

import glob
import itertools
from collections.abc import Sequence
from fnmatch import fnmatchcase

from streamtrain.errors import DataError, NotFoundError
from streamtrain.storage.files.listing import data_files
from streamtrain.storage.files.store import Stat, ahead
from streamtrain.storage.remote.client import Client
from streamtrain.storage.remote.failure import GivenUp

__all__ = ["find_files", "walk"]

_MOST_FOLDERS, _DEEPEST = 10_000, 32


def find_files(client: Client, suffixes: tuple[str, ...]) -> tuple[str, dict[str, Stat]]:
    """The folder, and each data file in it by its name there, in the order of `list_files`. The tag of a file is "" where it
    comes from a listing: the first answer tells it.

    Raises NotFoundError where there is nothing, DataError where a web server shows no folders.
    """
    address = client.address
    path = address.path
    if glob.has_magic(path):
        root = _static_prefix(path)
        entries = walk(client, root)
        pattern = path[len(root) :].strip("/").split("/")
        entries = (
            None if entries is None else {at: n for at, n in entries.items() if _matches(_below(root, at), pattern)}
        )
    else:
        if path and not path.endswith("/"):
            try:
                found = client.stat(path)
            except GivenUp:
                raise
            except DataError:  # a folder, perhaps
                entries = walk(client, path)
                if not entries:
                    raise
            else:
                folder, _, name = path.rpartition("/")
                return folder, {name: found}
        else:
            entries = walk(client, path)
        root = path.rstrip("/")
    if entries is None:
        raise DataError(
            f"{address.shown}: the server shows no page with the files of this folder: name one file, or have it show them "
            "(nginx: autoindex on)"
        )
    return root, _data(client, root, entries, suffixes)


def walk(client: Client, folder: str) -> dict[str, int] | None:
    """Path and bytes (-1: not told) of every file at any depth; None where the server does not tell."""
    if not client.address.is_web:
        return {entry.path: entry.nbytes for entry in client.entries(folder, deep=True) or []}
    found: dict[str, int] = {}
    folders, seen = [folder], 0
    while folders:
        at = folders.pop()
        seen += 1
        if seen > _MOST_FOLDERS or at.count("/") - folder.count("/") > _DEEPEST:
            raise DataError(
                f"{client.address.at(at).shown}: more than {_MOST_FOLDERS:,} folders, or more than {_DEEPEST} in one "
                "another: name one of them"
            )
        entries = client.entries(at, deep=False)
        if entries is None and at == folder:
            return None
        for entry in entries or []:
            if entry.is_folder:
                folders.append(entry.path)
            else:
                found[entry.path] = entry.nbytes
    return found


def _data(client: Client, root: str, entries: dict[str, int], suffixes: tuple[str, ...]) -> dict[str, Stat]:
    stats = {"/".join(_below(root, path)): Stat(nbytes, "") for path, nbytes in entries.items()}
    if client.address.is_web:  # whose pages tell no sizes: only of what may be data
        names = data_files(stats, suffixes, lambda name: 1)
        asked = ahead(lambda name: client.stat("/".join(filter(None, (root, name)))), names)
        stats = dict(zip(names, asked, strict=True))
    names = data_files(stats, suffixes, lambda name: stats[name].nbytes)
    if not names:
        seen = f"{len(entries):,} files there, none of them data" if entries else "nothing there"
        raise NotFoundError(
            f"{client.address.shown}: no data files ({seen}): name files, a glob or a folder that holds some"
        )
    return {name: stats[name] for name in names}


def _below(root: str, path: str) -> list[str]:
    return path[len(root) :].strip("/").split("/")


def _static_prefix(path: str) -> str:
    """The folders of a glob before its first wildcard."""
    parts = path.split("/")[:-1]
    return "/".join(itertools.takewhile(lambda part: not glob.has_magic(part), parts))


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a file, or a folder that it lies in, matches a glob: ``**`` is any number of folders."""
    if not pattern:
        return True
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or (bool(parts) and _matches(parts[1:], pattern))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])

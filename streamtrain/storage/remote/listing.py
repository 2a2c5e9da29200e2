"""Find the data files of a URL: one file, those that match a glob, or those in a folder. The rules are as for local files."""

from __future__ import annotations

import glob
import itertools
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from streamtrain.errors import DataError, NotFoundError
from streamtrain.storage.files.listing import data_files
from streamtrain.storage.files.store import Stat, ahead
from streamtrain.storage.files.table_roots import LOGS, mark_of_table
from streamtrain.storage.remote.client import Client
from streamtrain.storage.remote.failure import GivenUp

__all__ = ["find_files", "walk"]

_MOST_FOLDERS, _DEEPEST = 10_000, 32


def find_files(client: Client, suffixes: tuple[str, ...]) -> tuple[str, dict[str, Stat]]:
    """The folder, and the size and version of each data file in it by name, sorted as by `list_files`. The version of a file
    from a listing is "", because only an answer tells it.

    Raises NotFoundError if there are no data files, DataError if a web server does not list the folder.
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
                status = client.stat(path)
            except GivenUp:
                raise
            except DataError:  # it may be a folder
                entries = walk(client, path)
                if not entries:
                    raise
            else:
                folder, _, name = path.rpartition("/")
                _require_outside(client, folder)
                return folder, {name: status}
        else:
            entries = walk(client, path)
        root = path.rstrip("/")
    if entries is None:
        raise DataError(
            f"{address.shown}: the server does not list the files of this folder: give the URL of one file, or let the server "
            "list them (nginx: autoindex on)"
        )
    _require_outside(client, root)
    return root, _data(client, root, entries, suffixes)


def walk(client: Client, folder: str) -> dict[str, int] | None:
    """The path and size (-1 if unknown) of every file at any depth; None if the server does not list them."""
    if not client.address.is_web:
        listed = {entry.path: entry.nbytes for entry in client.entries(folder, deep=True) or []}
        _require_no_table(client, listed)
        return listed
    files: dict[str, int] = {}
    folders, seen = [folder], 0
    while folders:
        at = folders.pop()
        seen += 1
        if seen > _MOST_FOLDERS or at.count("/") - folder.count("/") > _DEEPEST:
            raise DataError(
                f"{client.address.at(at).shown}: there are more than {_MOST_FOLDERS:,} folders, or more than {_DEEPEST} levels "
                "of them: give the URL of one of them"
            )
        entries = client.entries(at, deep=False)
        if entries is None and at == folder:
            return None
        for entry in entries or []:
            if entry.is_folder:
                folders.append(entry.path)
            else:
                files[entry.path] = entry.nbytes
    _require_no_table(client, files)
    return files


def _require_no_table(client: Client, files: Iterable[str], where: str = "holds") -> None:
    """Raise DataError for the files of a table, which may hold rows that are deleted."""
    for path in files:
        if (kind := mark_of_table(path)) is not None:
            raise DataError(
                f"{client.address.shown}: {where} the {kind} table of {path}; tables are read from this machine "
                "only, and their files alone may hold rows that are deleted: copy the whole table, with its log"
            )


def _require_outside(client: Client, folder: str) -> None:
    """Raise DataError for a folder in which a table keeps its files: at its root or in its ``data``, under ``key=value``.

    A server that shows the file but not the folders above it tells nothing: then the file is read. So is one of a web server
    whose URL is signed.
    """
    if client.address.is_web and client.address.secret.query:
        return
    inner = [part for part in folder.strip("/").split("/") if part]
    while inner and "=" in inner[-1]:
        inner.pop()
    roots = [inner, inner[:-1]] if inner and inner[-1] == "data" else [inner]
    for root, log in itertools.product(roots, LOGS):
        try:
            entries = client.entries("/".join((*root, log)), deep=False)
        except GivenUp:
            raise
        except DataError:  # there is no such folder, or it may not be looked into
            continue
        _require_no_table(client, (entry.path for entry in entries or []), "is inside")


def _data(client: Client, root: str, entries: dict[str, int], suffixes: tuple[str, ...]) -> dict[str, Stat]:
    stats = {"/".join(_below(root, path)): Stat(nbytes, "") for path, nbytes in entries.items()}
    if client.address.is_web:  # its pages do not tell sizes: request those of possible data files
        names = data_files(stats, suffixes, lambda name: 1)
        answers = ahead(lambda name: client.stat("/".join(filter(None, (root, name)))), names)
        stats = dict(zip(names, answers, strict=True))
    names = data_files(stats, suffixes, lambda name: stats[name].nbytes)
    if not names:
        content = f"{len(entries):,} files there, none of them data" if entries else "nothing there"
        raise NotFoundError(
            f"{client.address.shown}: no data files ({content}): give a file, glob or folder that contains data"
        )
    return {name: stats[name] for name in names}


def _below(root: str, path: str) -> list[str]:
    return path[len(root) :].strip("/").split("/")


def _static_prefix(path: str) -> str:
    """The folders of a glob before its first wildcard."""
    parts = path.split("/")[:-1]
    return "/".join(itertools.takewhile(lambda part: not glob.has_magic(part), parts))


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a file, or a folder above it, matches a glob. ``**`` matches any number of folders."""
    if not pattern:
        return True
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or (bool(parts) and _matches(parts[1:], pattern))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])

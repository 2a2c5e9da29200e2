"""Folders that are tables: the files in them do not say which of them are still part of the table, its log does."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable

from streamtrain.errors import DataError, printable

__all__ = [
    "DELTA",
    "HUDI",
    "ICEBERG",
    "LOGS",
    "kind_of_table",
    "mark_of_table",
    "marks_table",
    "require_no_table",
    "require_no_table_in",
    "split_version",
]

DELTA, ICEBERG, HUDI = "Delta", "Iceberg", "Hudi"
_MARKS = {"_delta_log": DELTA, ".hoodie": HUDI, "metadata": ICEBERG}
LOGS = tuple(_MARKS)  # the folders in which tables keep their logs
_METADATA = re.compile(r"(?:v[0-9]+|[0-9]+-.*)(?:\.gz)?\.metadata\.json(?:\.gz)?|version-hint\.text")
_VERSION = re.compile(r"(.+)@([0-9]{1,19})", re.DOTALL)


def kind_of_table(path: str) -> str | None:
    """The format of the table in a folder, or that a metadata file is of; None if it is none.

    >>> kind_of_table("/nowhere")
    """
    if path.endswith((".metadata.json", ".metadata.json.gz")) and os.path.isfile(path):
        return ICEBERG
    try:
        return next((kind for name, kind in _MARKS.items() if marks_table(path, name)), None)
    except OSError:  # a folder that may not be looked into is no root, as far as anybody can tell
        return None


def marks_table(folder: str, name: str) -> bool:
    """Whether a folder of this name in a folder shows that it is a table."""
    if name not in _MARKS:
        return False
    inner = os.path.join(folder, name)
    if _MARKS[name] != ICEBERG:
        return os.path.isdir(inner)
    return os.path.isdir(inner) and any(map(_METADATA.fullmatch, os.listdir(inner)))


def mark_of_table(path: str) -> str | None:
    """The format of a table, if a file of this path is part of its log; for files on a server.

    >>> mark_of_table("a/_delta_log/0.json"), mark_of_table("a/metadata/v1.metadata.json"), mark_of_table("metadata/a.csv")
    ('Delta', 'Iceberg', None)
    """
    *folders, name = path.split("/")
    if folders and folders[-1] == "metadata" and _METADATA.fullmatch(name):
        return ICEBERG
    return next((_MARKS[folder] for folder in folders if _MARKS.get(folder) in (DELTA, HUDI)), None)


def require_no_table(target: str, found: Iterable[str] = ()) -> None:
    """Raise DataError if a file, folder or glob is inside of a table: some of its files may have been deleted.

    found: what the glob has found.
    """
    fixed = _fixed(target) if glob.has_magic(target) and not os.path.exists(target) else os.path.dirname(target)
    folders = {os.path.abspath(fixed), os.path.realpath(fixed), os.path.dirname(os.path.realpath(target))}
    folders |= {os.path.abspath(path if os.path.isdir(path) else os.path.dirname(path)) for path in found}
    seen: set[str] = set()
    for folder in sorted(folders):
        while folder not in seen:
            seen.add(folder)
            if (kind := kind_of_table(folder)) is not None:
                raise DataError(
                    f"{printable(target)}: is inside the {kind} table {printable(folder)}, whose files may hold deleted rows: "
                    "give the folder of the table"
                )
            folder = os.path.dirname(folder)


def require_no_table_in(target: str, folder: str, inner: Iterable[str]) -> None:
    """Raise DataError if a folder is a table. target: the data that it is part of. inner: the folders in it."""
    if any(marks_table(folder, name) for name in inner):
        kind = kind_of_table(folder)
        what = f"{printable(target)}: is" if os.path.samefile(target, folder) else f"{printable(target)}: contains"
        raise DataError(
            f"{what} the {kind} table {printable(folder)}, whose files may hold deleted rows: give the folder of the table by "
            "itself, and the rest without it"
        )


def _fixed(pattern: str) -> str:
    """The folder before the first wildcard."""
    while glob.has_magic(pattern):
        pattern = os.path.dirname(pattern)
    return pattern


def split_version(target: str) -> tuple[str, int | None]:
    """The path and the version of ``path@N``; as a whole if there is a file or folder of that name.

    >>> split_version("sales@12"), split_version("a@b.csv")
    (('sales', 12), ('a@b.csv', None))
    """
    match = _VERSION.fullmatch(target)
    if match is None or "://" in target or os.path.lexists(target):
        return target, None
    return match[1], int(match[2])

"""What a table is at one moment: its files, columns and deleted rows, whatever format its log has."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from streamtrain.errors import CorruptError, DataError, NotFoundError, without_secrets
from streamtrain.storage.files.columns import Declared
from streamtrain.storage.lake.bitmaps import Bitmap

__all__ = [
    "BitmapOf",
    "LiveFile",
    "Snapshot",
    "StoredDeletes",
    "local_path",
    "name_below",
    "renamed_inside",
    "with_codes",
]


#: the bitmap of a live file, by its name; None for a file that is not alive
BitmapOf = Callable[[str], Bitmap | None]


class StoredDeletes(NamedTuple):
    """Deleted rows as they are stored. identity: what tells them from others, for the fingerprint. add: writes them into the
    bitmaps of their files."""

    identity: str
    add: Callable[[BitmapOf], None]


class LiveFile(NamedTuple):
    """A file of a snapshot. name: the path relative to the table, with ``/``. nbytes: as the log has it."""

    name: str
    nbytes: int


@dataclass(frozen=True)
class Snapshot:
    """A table at one moment.

    title: the format and version, for messages and ``inspect``: "Delta table, version 3". id: of the snapshot. table_id: of the
    table, the same in every copy of it. files: sorted by name. columns: the columns, and how to find them in a file.
    partitions: values of the log, one for each file. in_files: columns that must be stored in the files, because the log has
    values for some of these only. deletes: of rows. remedy: what to do where a file is gone. warnings: for the user.
    """

    root: Path
    title: str
    id: str
    table_id: str
    files: Sequence[LiveFile]
    columns: Declared
    partitions: Mapping[str, pa.Array]
    remedy: str
    in_files: Sequence[str] = ()
    deletes: Sequence[StoredDeletes] = ()
    warnings: Sequence[str] = ()

    def require_files(self) -> None:
        """Raise NotFoundError for a file that is gone, CorruptError for one of another size than the log says."""
        if not self.files:
            raise NotFoundError(f"{self.root}: the {self.title} has no rows")
        for name, nbytes in self.files:
            path = self.root / name
            try:
                found = os.stat(path).st_size
            except OSError as error:
                raise NotFoundError(
                    f"{self.root}: the {self.title} needs the file {name}, which cannot be found ({error.strerror}): "
                    f"{self.remedy}"
                ) from error
            if found != nbytes:
                raise CorruptError(
                    f"{path}: has {found:,} bytes, but {nbytes:,} in the log of the {self.title}: restore the file"
                )


def with_codes(field: pa.Field) -> pa.Field:
    """The field as files are read: text as a dictionary."""
    text = pa.types.is_string(field.type) or pa.types.is_large_string(field.type) or pa.types.is_string_view(field.type)
    return field.with_type(pa.dictionary(pa.int32(), pa.string())) if text else field


def renamed_inside(name: str, title: str) -> str:
    """What is wrong with a column whose inner fields have other names in the files."""
    return f"fields inside of {name!r} were renamed, dropped or added again in the {title}, which is not followed"


def local_path(location: str, shown: str) -> str:
    """The path of a file that a log names, as it is written there. Raises DataError for one on a server.

    >>> local_path("file:///a b/c", "t"), local_path("/a%20b", "t")
    ('/a b/c', '/a%20b')
    """
    scheme, colon, path = location.partition(":")
    if not colon or "/" in scheme or len(scheme) == 1:  # a letter is a drive
        return location
    if scheme != "file":
        raise DataError(
            f"{shown}: a file of the table is at {without_secrets(location)}: only tables whose files are on this machine are "
            "read: copy the whole table, with its log"
        )
    return "/" + path.removeprefix("//localhost").lstrip("/")


def name_below(root: Path, path: str) -> str:
    """The path relative to a table's folder; it may lead out of it.

    >>> name_below(Path("/t"), "/t/k=1/a.parquet"), name_below(Path("/t"), "/other/a.parquet")
    ('k=1/a.parquet', '../other/a.parquet')
    """
    return os.path.relpath(path, os.path.abspath(root)).replace(os.sep, "/")

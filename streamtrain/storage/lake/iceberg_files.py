"""The files of an Iceberg table on this machine, for the package ``pyiceberg``: its own ways to read them import much more."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

from pyiceberg.io import FileIO, InputFile, InputStream, OutputFile

from streamtrain.errors import NotFoundError
from streamtrain.storage.lake.snapshot import local_path

__all__ = ["TableFiles"]


class TableFiles(FileIO):
    """Finds files where the table is now. The metadata name them with the whole path that they were written to; the table may
    have been moved or copied since.

    root: the folder of the table. location: where the metadata say that it is, "" before they are read. title: of the table, in
    messages.
    """

    def __init__(self, root: Path, location: str, title: str) -> None:
        super().__init__()
        self._root, self._title = root, title
        self._before = _without_file(location).rstrip("/")

    def path(self, location: str) -> str:
        """Where a file is now."""
        written = _without_file(location)
        if self._before and written.startswith(f"{self._before}/"):
            return os.path.join(self._root, written[len(self._before) + 1 :])
        return local_path(location, str(self._root))

    def new_input(self, location: str) -> InputFile:
        return _LocalFile(location, self.path(location), f"{self._root}: the {self._title}")

    def new_output(self, location: str) -> OutputFile:
        self._refuse()

    def delete(self, location: str | InputFile | OutputFile) -> None:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise NotImplementedError("the files of a table are only read")


def _without_file(location: str) -> str:
    """The location as a path, if it is one on some machine: ``file:/a``, ``file:///a`` and ``/a`` are the same."""
    return local_path(location, "") if location.startswith("file:") else location


class _LocalFile(InputFile):
    def __init__(self, location: str, path: str, shown: str) -> None:
        super().__init__(location)
        self._path, self._shown = path, shown

    def __len__(self) -> int:
        return os.path.getsize(self._path)

    def exists(self) -> bool:
        return os.path.exists(self._path)

    def open(self, seekable: bool = True) -> InputStream:
        try:
            return open(self._path, "rb")
        except OSError as error:
            raise NotFoundError(
                f"{self._shown} needs the file {self._path}, which cannot be opened ({error.strerror}): snapshots expire: read "
                "a later one, or restore the file"
            ) from error

"""Where files are: a folder of this machine, or of a store elsewhere. Readers of files know no more of it than `Place`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

import pyarrow as pa

from streamtrain.errors import ChangedError, CorruptError
from streamtrain.storage.files import list_files

__all__ = ["LocalPlace", "Place", "Stat", "locate", "require_unchanged"]


class Stat(NamedTuple):
    """What tells that a file is still the same: its bytes, and the time of its last change or the store's tag for it."""

    nbytes: int
    version: str


class Place(Protocol):
    """A folder of files. Names are relative to it and use ``/``. Picklable; used by several threads at once."""

    def shown(self, name: str) -> str:
        """A file as people name it, for messages; without credentials."""

    def stat(self, name: str) -> Stat:
        """Raises NotFoundError where there is no such file."""

    def open(self, name: str, stat: Stat) -> pa.NativeFile:
        """A file for random access. stat: what it was when it was found. A place that learns with every read what the file
        is now raises CorruptError where it has changed."""

    def verify(self, name: str, stat: Stat) -> None:
        """To be called after a file was read, also in vain. Raises CorruptError where it has changed since ``stat`` was
        taken; does nothing where every read has looked at that already."""

    def read(self, name: str, start: int, stop: int) -> bytes:
        """The bytes from ``start`` to ``stop``, fewer where the file ends before."""


class LocalPlace:
    """A folder of this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def shown(self, name: str) -> str:
        return str(self.root / name)

    def stat(self, name: str) -> Stat:
        try:
            found = (self.root / name).stat()
        except OSError as error:
            raise CorruptError(f"{self.shown(name)}: the file is gone since it was listed: {error.strerror}") from error
        return Stat(found.st_size, str(found.st_mtime_ns))

    def open(self, name: str, stat: Stat) -> pa.NativeFile:
        # Given a path, pyarrow reads into another pool than the one that was set.
        return pa.OSFile(self.shown(name), memory_pool=pa.default_memory_pool())

    def verify(self, name: str, stat: Stat) -> None:
        require_unchanged(self.shown(name), stat, self.stat(name))

    def read(self, name: str, start: int, stop: int) -> bytes:
        with (self.root / name).open("rb") as file:
            file.seek(start)
            return file.read(max(0, stop - start))


def require_unchanged(shown: str, before: Stat, now: Stat) -> None:
    """Raises CorruptError where a file is not the one that it was."""
    if now != before:
        what = (
            f"{before.nbytes:,} bytes then, {now.nbytes:,} now" if now.nbytes != before.nbytes else "of the same size"
        )
        raise ChangedError(
            f"{shown}: the file has changed since it was opened ({what}): what was read of it does not belong to what is "
            "there now. Start again, with data that nobody writes to meanwhile"
        )


def locate(target: str, suffixes: tuple[str, ...]) -> tuple[Place, list[str]]:
    """The place of a file, a glob or a directory, and the names of its data files there, sorted (see `list_files`)."""
    root, names = list_files(target, suffixes)
    return LocalPlace(root), names

"""From a path, glob, directory or URL to a file store and the names of the data files in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from streamtrain.storage.files.gathered import gathered_files
from streamtrain.storage.files.listing import list_files
from streamtrain.storage.files.store import FileStore, LocalFileStore

__all__ = ["Target", "locate"]

#: a file, glob, directory or URL; or several of them on this machine
Target = str | Path | Sequence[str]


def locate(target: Target, suffixes: tuple[str, ...]) -> tuple[FileStore, list[str]]:
    """The file store of a target, and the names of the data files in it, sorted (see `list_files`); of several targets, one
    after the other."""
    if not isinstance(target, (str, Path)):
        listed = gathered_files(target, suffixes)
    elif "://" in str(target):
        from streamtrain.storage.remote.store import locate_remote

        return locate_remote(str(target), suffixes)
    else:
        listed = list_files(str(target), suffixes)
    return LocalFileStore(listed.root, listed.again), listed.names

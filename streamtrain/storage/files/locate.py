"""From a path, glob, directory or URL to a file store and the names of the data files in it."""

from __future__ import annotations

from streamtrain.storage.files.listing import list_files
from streamtrain.storage.files.store import FileStore, LocalFileStore

__all__ = ["locate"]


def locate(target: str, suffixes: tuple[str, ...]) -> tuple[FileStore, list[str]]:
    """The file store of a file, glob, directory or URL, and the names of the data files in it, sorted (see `list_files`)."""
    if "://" in target:
        from streamtrain.storage.remote.store import locate_remote

        return locate_remote(target, suffixes)
    listed = list_files(target, suffixes)
    return LocalFileStore(listed.root, listed.again), listed.names

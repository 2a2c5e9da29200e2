"""A path, glob, directory or URL made into a place and the names of its data files there."""

from __future__ import annotations

from streamtrain.storage.files.listing import list_files
from streamtrain.storage.files.place import FileStore, LocalFileStore

__all__ = ["locate"]


def locate(target: str, suffixes: tuple[str, ...]) -> tuple[FileStore, list[str]]:
    """The place of a file, a glob or a directory, and the names of its data files there, sorted (see `list_files`); of a
    URL too."""
    if "://" in target:
        from streamtrain.storage.remote.place import locate_remote

        return locate_remote(target, suffixes)
    root, names = list_files(target, suffixes)
    return LocalFileStore(root), names

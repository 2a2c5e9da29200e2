"""The data files of several paths, globs and folders, as one list of files in one folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from streamtrain.storage.files.listing import Listed, list_files, once_each
from streamtrain.storage.files.partitions import folders_above

__all__ = ["gathered_files", "partition_keys"]


def gathered_files(targets: Sequence[str], suffixes: tuple[str, ...]) -> Listed:
    """The files of all targets, relative to the folder that they are all in: target by target, those of each as `list_files`
    sorts them. A file that comes again, by a link or by another target, is listed once."""
    paths, again = list[str](), list[str]()
    for target in targets:
        root, names, twice = list_files(target, suffixes)
        paths += [os.path.join(root, name) for name in names]
        again += [os.path.join(root, name) for name in twice]
    if any(os.path.isabs(path) or os.pardir in path.split(os.sep) for path in paths):
        paths = list(map(os.path.abspath, paths))
    first, more = once_each(paths, str)
    above = os.path.commonpath([os.path.dirname(path) for path in first])
    names = [os.path.relpath(path, above or os.curdir).replace(os.sep, "/") for path in first]
    return Listed(Path(above or os.curdir), names, [*again, *more])


def partition_keys(target: str) -> tuple[str, ...]:
    """The keys of the ``key=value`` folders in and above a path, glob or folder, by its first file."""
    root, names, _ = list_files(target, ())
    inside = [part for part in names[0].split("/")[:-1] if "=" in part]
    return tuple(part.partition("=")[0] for part in [*folders_above(os.path.abspath(root)), *inside])

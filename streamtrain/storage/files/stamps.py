"""Stamps of files: a number for each, which differs once the file was written, replaced or copied, whatever its content is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

__all__ = ["Stamped", "Stamps", "local_stamp", "stamp_of"]


@dataclass(frozen=True, eq=False)
class Stamps:
    """The stamps of the files of a reader.

    values: of each file, shape (files,). file_of: the file of each chunk, shape (chunks,). name: of the file with a number, for
    messages.
    """

    values: NDArray[np.uint64]
    file_of: NDArray[np.int64]
    name: Callable[[int], str]


@runtime_checkable
class Stamped(Protocol):
    """Optional: a reader whose files have stamps."""

    def stamps(self) -> Stamps:
        """The stamps of the files as they are now."""


def local_stamp(path: str | os.PathLike[str]) -> str:
    """The size, the times of the last write and of the last change, and the inode of a local file. "" if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"


def stamp_of(parts: Iterable[str]) -> int:
    """One stamp for what was told of one file, or of several.

    >>> stamp_of(["10 bytes", "today"]) == stamp_of(["10 bytes", "tomorrow"])
    False
    """
    return int(xxh3_64_intdigest("\n".join(parts).encode()))

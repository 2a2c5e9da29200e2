"""Storage: `open_reader` finds the reader for a target. Formats are imported only when they are used."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from streamtrain.errors import DataError, NotFoundError, UsageError
from streamtrain.storage.reader import Chunk, ChunkTable, Reader, Streams

__all__ = ["Chunk", "ChunkTable", "Reader", "Streams", "open_reader", "register_scheme"]

_ZARR_MARKS = ("zarr.json", ".zgroup", ".zarray", ".zattrs")
_ENTRY_POINTS = "streamtrain.readers"
_schemes: dict[str, Callable[[str], Reader]] = {}


def register_scheme(scheme: str, opener: Callable[[str], Reader]) -> None:
    """Let `open_reader` open ``scheme://...`` with ``opener(url)``. A package does the same for everybody with an entry
    point of that name in the group ``streamtrain.readers``."""
    _schemes[scheme] = opener


def open_reader(target: Any, *, missing_chunks: str = "error") -> Reader:
    """The reader for a path, glob, directory, Zarr store or registered URL; or for arrays and tables in memory; or the
    reader itself.

    missing_chunks: what an absent Zarr chunk is, ``"error"`` or ``"fill"`` (its fill value).
    Raises NotFoundError, and whatever the format raises for data that it cannot open.

    >>> open_reader({"x": [[1.0, 2.0]]}).schema.names
    ['x']
    """
    if missing_chunks not in ("error", "fill"):
        raise UsageError(f"--missing-chunks {missing_chunks}: there are error and fill")
    if isinstance(target, (str, Path)):
        return _open_path(str(target), missing_chunks)
    if isinstance(target, Reader):
        return target
    from streamtrain.storage.memory import MemoryReader

    return MemoryReader(target)


def _open_path(target: str, missing_chunks: str) -> Reader:
    if not target:
        raise NotFoundError("the path of the data is empty")
    scheme, colon, _ = target.partition("://")
    if colon:
        return _opener(scheme, target)(target)
    if _is_zarr(target):
        from streamtrain.storage.zarr import ZarrReader

        return ZarrReader(target, missing_chunks="fill" if missing_chunks == "fill" else "error")
    from streamtrain.storage.parquet import ParquetReader

    return ParquetReader(target)


def _opener(scheme: str, target: str) -> Callable[[str], Reader]:
    if scheme in _schemes:
        return _schemes[scheme]
    found = [point for point in entry_points(group=_ENTRY_POINTS) if point.name == scheme]
    if not found:
        known = sorted({*_schemes, *(point.name for point in entry_points(group=_ENTRY_POINTS))})
        raise NotFoundError(
            f"{target}: no reader for {scheme}:// is installed ({', '.join(known) or 'none are'}): install a package "
            f"that provides one (entry point {_ENTRY_POINTS}), or register it with streamtrain.register_scheme"
        )
    try:
        opener: Callable[[str], Reader] = found[0].load()
    except Exception as error:  # somebody else's package: whatever it raises, it is named
        raise DataError(f"{target}: the reader {found[0].value!r} cannot be loaded: {error}") from error
    return opener


def _is_zarr(target: str) -> bool:
    if glob.has_magic(target) and not os.path.exists(target):
        return False
    path = Path(target)
    marked = path.is_dir() and any((path / mark).exists() for mark in _ZARR_MARKS)
    return marked or path.suffix == ".zarr" or target.endswith(".zarr.zip")

"""Storage: `open_reader` finds the reader for a target. The module of a format is imported when it is first used."""

from __future__ import annotations

import glob
import os
from pathlib import Path
from typing import Any

from streamtrain.errors import NotFoundError, UsageError, without_secrets
from streamtrain.kernels.crash import reading
from streamtrain.storage.formats import ZARR_MARKS, file_reader
from streamtrain.storage.functions import reader_from
from streamtrain.storage.reader import Chunk, ChunkTable, Reader, Streams
from streamtrain.storage.schemes import is_registered, open_url, register_scheme

__all__ = ["Chunk", "ChunkTable", "Reader", "Streams", "open_reader", "reader_from", "register_scheme"]

_REMOTE = ("s3", "gs", "az", "http", "https", "memory")


def open_reader(target: Any, *, missing_chunks: str = "error") -> Reader:
    """Open data and return a reader for it.

    Parameters
    ----------
    target : Any
        A path, glob, directory, Zarr store or URL; a dict of numpy arrays, an array, a pair ``(X, y)``, an Arrow table or
        a data frame; or a reader, which is returned unchanged.
    missing_chunks : str
        How a missing Zarr chunk is treated: ``"error"`` raises CorruptError, ``"fill"`` reads the array's fill value.

    Returns
    -------
    Reader
        An object with ``schema``, ``chunks()``, ``read(chunk, columns)`` and ``fingerprint()``.

    Raises
    ------
    NotFoundError
        If there are no data at the target, or no reader for the scheme of a URL.
    CorruptError, SchemaError, ColumnError
        If the data are damaged, their files differ in columns, or no column can be read.
    UsageError
        If the target or ``missing_chunks`` has no meaning.

    Examples
    --------
    >>> open_reader({"x": [[1.0, 2.0]]}).schema.names
    ['x']
    """
    if missing_chunks not in ("error", "fill"):
        raise UsageError(f"--missing-chunks {missing_chunks}: must be 'error' or 'fill'")
    if isinstance(target, (str, Path)):
        with reading(without_secrets(str(target))):
            return _open_path(str(target), missing_chunks)
    if isinstance(target, Reader):
        return target
    from streamtrain.storage.tables import MemoryReader

    return MemoryReader(target)


def _open_path(target: str, missing_chunks: str) -> Reader:
    if not target:
        raise NotFoundError("the path of the data is empty: give a file, glob, directory or URL")
    scheme, colon, _ = target.partition("://")
    if colon and scheme in _REMOTE and not is_registered(scheme):
        from streamtrain.storage.remote.opening import open_remote

        return open_remote(target, missing_chunks)
    if colon:
        return open_url(scheme, target)
    if _is_zarr(target):
        from streamtrain.storage.zarr import ZarrReader

        return ZarrReader(target, missing_chunks="fill" if missing_chunks == "fill" else "error")
    return file_reader(target)


def _is_zarr(target: str) -> bool:
    if glob.has_magic(target) and not os.path.exists(target):
        return False
    path = Path(target)
    marked = path.is_dir() and any((path / mark).exists() for mark in (*ZARR_MARKS, ".zattrs"))
    return marked or path.suffix == ".zarr" or target.endswith(".zarr.zip")

"""Open a store: from its metadata documents to its columns."""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import zarr
import zarr.storage

from streamtrain.errors import ColumnError, CorruptError, DataError, NotFoundError, SchemaError, StreamtrainError
from streamtrain.storage.from_numpy import arrow_type
from streamtrain.storage.remote.address import Address
from streamtrain.storage.zarr.decode import LastBlock
from streamtrain.storage.zarr.files import Files, Zip, list_arrays, open_files
from streamtrain.storage.zarr.grid import Column, Grid, make_grid
from streamtrain.storage.zarr.missing import check_blosc
from streamtrain.storage.zarr.remote import RemoteFiles, RemoteStore
from streamtrain.storage.zarr.shards import ShardIndexes

__all__ = ["Opened", "open_store"]

_GROUP_MARKS = ("zarr.json", ".zgroup")
#: codecs whose decoders need a second buffer of the decoded size
_GROWING = ("gzip", "zlib", "bz2", "lzma")
_CHECKSUMS = ("crc32", "adler32", "fletcher32", "jenkins")


@dataclass(frozen=True, slots=True)
class Opened:
    """An open store: its files and its grid; for each column by name the array, the kept block and the index of shards."""

    files: Files
    grid: Grid
    arrays: dict[str, Any]
    columns: dict[str, Column]
    last: dict[str, LastBlock]
    shards: dict[str, ShardIndexes]


def open_store(path: Path | Address) -> Opened:
    """Open a store. Raises NotFoundError, SchemaError, CorruptError or ColumnError; see `ZarrReader`."""
    files = open_files(path)
    store = _store_of(files)
    arrays, columns = {}, {}
    for at, version in list_arrays(files):
        name = at or _root_name(path)
        arrays[name] = _open_array(path, store, at, version)
        columns[name] = _describe(name, at, arrays[name])
    _check(path, list(columns.values()))
    grid = make_grid(list(columns.values()))
    last = {c.name: LastBlock() for c in grid.readable if grid.keeps(c)}
    shards = {c.name: ShardIndexes(files, arrays[c.name], c) for c in grid.readable if c.sharded}
    if isinstance(files, RemoteFiles):
        files.check = _Check(files, [c for c in grid.readable if c.blosc])
    return Opened(files, grid, arrays, columns, last, shards)


def _store_of(files: Files) -> Any:
    """The same files as a store of zarr."""
    if isinstance(files, RemoteFiles):
        return RemoteStore(files)
    if isinstance(files, Zip):
        return zarr.storage.ZipStore(files.root, mode="r")
    return zarr.storage.LocalStore(str(files.root), read_only=True)


@dataclass(frozen=True, slots=True)
class _Check:
    """The check of a chunk file from a server before it is decoded."""

    files: Files
    columns: list[Column]

    def __call__(self, key: str) -> None:
        for column in self.columns:
            if key.startswith(f"{column.path}/" if column.path else ""):
                check_blosc(self.files, column, key, self.files.size(key) or 0)
                return


def _root_name(path: Path | Address) -> str:
    """The column name of a single array: its folder's name if it is in a group, otherwise ``X``, because a copy may have
    another folder name."""
    if isinstance(path, Address):
        folder, _, name = path.path.rstrip("/").rpartition("/")
        around = RemoteFiles(path.at(folder))
        return name if folder and any(around.size(mark) is not None for mark in _GROUP_MARKS) else "X"
    in_group = any((path.absolute().parent / name).is_file() for name in _GROUP_MARKS)
    return path.absolute().name if in_group else "X"


def _open_array(path: Path | Address, store: Any, at: str, version: Literal[2, 3]) -> Any:
    try:
        with warnings.catch_warnings():  # warnings about types that are not in the specification yet
            warnings.simplefilter("ignore")
            return zarr.open_array(store, path=at, mode="r", zarr_format=version)
    except (StreamtrainError, MemoryError):
        raise
    except Exception as error:  # zarr raises a dozen exception types for invalid documents
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        if isinstance(error, ImportError) or type(error).__name__ == "UnknownCodecError":  # of zarr or of numcodecs
            raise DataError(
                f"{path}: array {at or '/'!r} needs a codec that is not installed here ({reason}): install the package "
                "that has it"
            ) from None
        document = f"{at}/{'zarr.json' if version == 3 else '.zarray'}".lstrip("/")
        raise CorruptError(
            f"{path}: {document} cannot be read ({type(error).__name__}: {reason}): restore it, or install the "
            f"zarr version that it needs"
        ) from None


def _describe(name: str, at: str, array: Any) -> Column:
    shape = tuple(array.shape)
    dtype = array.dtype.newbyteorder("=") if array.dtype.kind not in "OVT" else array.dtype
    try:
        if not shape:
            raise ColumnError(f"array {name!r} has no dimension, and so no rows: leave it out")
        if 0 in array.chunks:
            raise ColumnError(f"array {name!r} has chunks of shape {array.chunks}, without any values: leave it out")
        problem, kind = "", arrow_type(name, dtype, shape[1:])
    except ColumnError as error:
        problem, kind = str(error), pa.null()
    unit = tuple(array.chunks)
    file = tuple(array.shards or unit)
    codecs = [_codec_name(codec) for codec in array.compressors]
    blosc = file == unit and codecs[-1:] == ["blosc"]
    return Column(name, at, shape, dtype, unit, file, _copies(array, codecs), kind, problem, blosc)


def _copies(array: Any, codecs: list[str]) -> int:
    """The number of decoded copies beside the result, from the names of the codecs."""
    compressors = [name for name in codecs if not name.startswith(_CHECKSUMS)]
    copies = len(tuple(array.filters)) + max(0, len(compressors) - 1)
    copies += any(name.startswith(_GROWING) for name in compressors)
    swapped = array.dtype.kind in "iufcMm" and not array.dtype.isnative
    if array.metadata.zarr_format == 3:  # in version 3 the codec has the byte order, not the type
        endian = getattr(array.serializer, "endian", None)
        swapped = swapped or (endian is not None and endian.value != sys.byteorder)
    return int(copies + bool(swapped) + (array.order == "F"))


def _codec_name(codec: Any) -> str:
    """The name of a codec: ``zstd`` for ``{"id": "zstd"}`` in version 2 and ``{"name": "numcodecs.zstd"}`` in version 3."""
    if hasattr(codec, "get_config"):
        return str(codec.get_config()["id"])
    return str(codec.to_dict()["name"]).removeprefix("numcodecs.")


def _check(path: Path | Address, columns: list[Column]) -> None:
    readable = [c for c in columns if not c.problem]
    if not columns:
        raise NotFoundError(f"{path}: the Zarr group has no arrays: give one that has some")
    if not readable:
        raise ColumnError(f"{path}: no array can be read: {columns[0].problem}")
    first = readable[0]
    for other in readable[1:]:
        if other.shape[0] != first.shape[0]:
            raise SchemaError(
                f"{path}: arrays {first.name!r} and {other.name!r} have {first.shape[0]} and {other.shape[0]} rows, "
                f"but columns must share axis 0: give the group or array with one of them, for example {path / first.path}"
            )
    if first.shape[0] == 0:
        raise NotFoundError(f"{path}: the arrays have 0 rows: give a store with rows")

"""A Zarr v3 group, written from beginning to end, a chunk of rows at a time."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import zarr
import zarr.codecs
import zarr.storage
from numpy.typing import ArrayLike, DTypeLike, NDArray

from streamtrain.errors import ColumnError, SchemaError, UsageError
from streamtrain.storage.formats import COMPRESSIONS

__all__ = ["Notes", "ZarrWriter", "check_names", "write_peak_bytes"]

Columns = Mapping[str, tuple[tuple[int, ...], DTypeLike]]

_COMPRESSORS: dict[str, list[Any]] = {
    "zstd": [zarr.codecs.ZstdCodec()],
    "gzip": [zarr.codecs.GzipCodec()],
    "lz4": [zarr.codecs.BloscCodec(cname="lz4")],
    "none": [],
}
assert tuple(_COMPRESSORS) == COMPRESSIONS["zarr"]
_WRITER_BYTES, _ARRAY_BYTES = 3_000_000, 4_000  # threads and buffers of zarr, and an open array; measured
_ENCODED_TEXT_BYTES = 250  # of a string while its chunk is encoded: an object of Python's, and the bytes twice


@dataclass(frozen=True)
class Notes:
    """What stands in the metadata of an array or a group beside its values."""

    attributes: Mapping[str, Any] = field(default_factory=dict)
    dimension_names: tuple[str | None, ...] | None = None
    fill_value: Any = None


class ZarrWriter:
    """Rows appended to a new Zarr v3 group, one array a column.

    Every chunk is written, those that are all zero too, so that an absent file always means a lost one, and carries a
    CRC32C, so that a flipped bit is an error. Memory: one chunk of all columns, and one column's chunk encoded.

    path: a directory that does not exist or is empty. columns: name -> (shape of a row, dtype); ``sub/X`` is the array X
    in the group sub. rows: of the whole store; exactly so many must be written before ``close``. compression: zstd,
    gzip, lz4 or none. notes: by the path of an array or a group ("" is the outermost).

    Raises UsageError for settings, ColumnError for a name or a type that a store cannot have.

    >>> import tempfile
    >>> with ZarrWriter(tempfile.mkdtemp(), {"X": ((2,), "f4"), "y": ((), "i8")}, rows=5, chunk_rows=2) as writer:
    ...     writer.write({"X": np.zeros((3, 2)), "y": [1, 2, 3]})
    ...     writer.write({"X": np.ones((2, 2)), "y": [4, 5]})
    """

    def __init__(
        self,
        path: str | Path,
        columns: Columns,
        rows: int,
        chunk_rows: int,
        compression: str = "zstd",
        notes: Mapping[str, Notes] | None = None,
    ) -> None:
        _check(Path(path), columns, rows, chunk_rows, compression)
        self._rows, self._chunk_rows = rows, min(chunk_rows, rows)
        self._arrays = _create(Path(path), columns, rows, self._chunk_rows, compression, notes or {})
        self._buffers: dict[str, NDArray[Any]] = {
            name: np.empty((self._chunk_rows, *shape), dtype) for name, (shape, dtype) in columns.items()
        }
        self._written, self._held = 0, 0  # rows in the store; rows in the buffers, not yet in the store

    def write(self, columns: Mapping[str, ArrayLike]) -> None:
        """Append rows: an array for every column, all of one length. Raises SchemaError where they do not fit."""
        arrays = self._fitting(columns)
        count, at = len(next(iter(arrays.values()))), 0
        while at < count:
            take = min(count - at, self._chunk_rows - self._held)
            for name, values in arrays.items():
                self._buffers[name][self._held : self._held + take] = values[at : at + take]
            self._held, at = self._held + take, at + take
            if self._held == self._chunk_rows:
                self._flush()

    def close(self) -> None:
        """Write what is held. Raises SchemaError if fewer rows were written than were announced."""
        self._flush()
        if self._written != self._rows:
            raise SchemaError(
                f"{self._written} rows written of the {self._rows} announced; write the others before close()"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.close()

    def _flush(self) -> None:
        if not self._held:
            return
        for name, array in self._arrays.items():
            buffer = self._buffers[name]
            array[self._written : self._written + self._held] = buffer[: self._held]
            if buffer.dtype.kind == "T":  # overwritten text leaves holes where it was
                self._buffers[name] = np.empty_like(buffer)
        self._written, self._held = self._written + self._held, 0

    def _fitting(self, columns: Mapping[str, ArrayLike]) -> dict[str, NDArray[Any]]:
        if set(columns) != set(self._buffers):
            raise SchemaError(f"got columns {sorted(columns)}; write all of {sorted(self._buffers)} at once")
        arrays = {name: np.asarray(values) for name, values in columns.items()}
        count = len(next(iter(arrays.values()))) if all(a.ndim for a in arrays.values()) else -1
        for name, values in arrays.items():
            wanted = (count, *self._buffers[name].shape[1:])
            if values.shape != wanted:
                raise SchemaError(
                    f"column {name!r} has shape {values.shape}, not {wanted}; give every column the same rows"
                )
        if self._written + self._held + count > self._rows:
            raise SchemaError(
                f"{self._written + self._held + count} rows are more than the {self._rows} announced; announce as many "
                f"as are written"
            )
        return arrays


def _check(path: Path, columns: Columns, rows: int, chunk_rows: int, compression: str) -> None:
    if not columns:
        raise UsageError("no columns to write; give at least one")
    if rows < 1 or chunk_rows < 1:
        raise UsageError(f"rows={rows}, chunk_rows={chunk_rows}: both must be at least 1")
    if compression not in _COMPRESSORS:
        raise UsageError(f"compression={compression!r}: must be one of {', '.join(_COMPRESSORS)}")
    check_names(columns)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"{path} exists and is not an empty directory; remove it, or write elsewhere")


def check_names(names: Iterable[str]) -> None:
    """Raise ColumnError for a name that would be no array of a store, or another one: names are paths in it.

    >>> check_names(["a", "a/b"])
    Traceback (most recent call last):
    streamtrain.errors.ColumnError: columns 'a' and 'a/b': in Zarr an array cannot lie within another; rename one of them
    """
    known = set(names)
    for name in known:
        parts = name.split("/")
        bad = [p for p in parts if not p or p.startswith((".", "__")) or p == "zarr.json" or len(p.encode()) > 255]
        if bad or "\\" in name or "\0" in name:
            raise ColumnError(
                f"column {name!r} cannot be the name of a Zarr array: parts between / may not be empty, begin with . or "
                f"__, hold a backslash, or be longer than 255 bytes; rename it"
            )
        for i in range(1, len(parts)):
            if (outer := "/".join(parts[:i])) in known:
                raise ColumnError(
                    f"columns {outer!r} and {name!r}: in Zarr an array cannot lie within another; rename one of them"
                )


def write_peak_bytes(columns: Columns, chunk_rows: int, text_bytes: int = 0) -> int:
    """The most memory that a `ZarrWriter` takes: a chunk of all columns, a column's chunk twice while it is encoded, and
    the arrays. text_bytes: of all strings of variable length of a chunk."""
    sizes = [chunk_rows * math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in columns.values()]
    strings = any(np.dtype(dtype).kind == "T" for _, dtype in columns.values())
    encoding = max(2 * max(sizes), strings * chunk_rows * _ENCODED_TEXT_BYTES)
    return sum(sizes) + encoding + 4 * text_bytes + _WRITER_BYTES + _ARRAY_BYTES * len(columns)


def _create(
    path: Path, columns: Columns, rows: int, chunk_rows: int, compression: str, notes: Mapping[str, Notes]
) -> dict[str, Any]:
    codecs = [*_COMPRESSORS[compression], zarr.codecs.Crc32cCodec()]
    arrays: dict[str, Any] = {}
    with (
        warnings.catch_warnings()
    ):  # strings and times are not in the v3 specification yet, but zarr-python writes them
        warnings.simplefilter("ignore")
        outermost = dict(notes.get("", Notes()).attributes)
        group = zarr.create_group(zarr.storage.LocalStore(path), zarr_format=3, attributes=outermost)
        for at in sorted({"/".join(name.split("/")[:i]) for name in columns for i in range(1, name.count("/") + 1)}):
            group.create_group(at, attributes=dict(notes.get(at, Notes()).attributes))
        # the arrays are kept as created: that every chunk is written is a setting of the object, not of the store
        for name, (shape, dtype) in columns.items():
            noted = notes.get(name, Notes())
            try:
                arrays[name] = group.create_array(
                    name,
                    shape=(rows, *shape),
                    dtype=np.dtype(dtype),
                    chunks=(chunk_rows, *shape),
                    compressors=codecs,
                    config={"write_empty_chunks": True},
                    attributes=dict(noted.attributes),
                    dimension_names=noted.dimension_names,
                    **({} if noted.fill_value is None else {"fill_value": noted.fill_value}),
                )
            except (TypeError, ValueError, NotImplementedError) as error:
                raise ColumnError(f"column {name!r} is {dtype}, which zarr cannot write: {error}") from error
    return arrays

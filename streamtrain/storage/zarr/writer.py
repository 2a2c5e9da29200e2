"""Write a Zarr group of version 3 from beginning to end, one chunk of rows at a time."""

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
_WRITER_BYTES, _ARRAY_BYTES = 3_000_000, 4_000  # measured: threads and buffers of zarr; an open array
_ENCODED_TEXT_BYTES = 250  # per string while its chunk is encoded: a Python object, and its bytes twice


@dataclass(frozen=True)
class Notes:
    """The metadata of an array or group beside its values."""

    attributes: Mapping[str, Any] = field(default_factory=dict)
    dimension_names: tuple[str | None, ...] | None = None
    fill_value: Any = None


class ZarrWriter:
    """Appends rows to a new Zarr group of version 3, with one array for each column.

    Every chunk is written, also if all its values are zero, so a missing file always means a lost one. Every chunk has a
    CRC32C, so a flipped bit is an error. The writer holds one chunk of all columns, and the encoded chunk of one column.

    path: a directory that does not exist or is empty. columns: the shape of a row and the dtype of each column, by name;
    ``sub/X`` is the array X in the group sub. rows: the number of rows in the store, all of which must be written before
    ``close``. compression: zstd, gzip, lz4 or none. notes: metadata by the path of an array or group; "" is the root.

    Raises UsageError for invalid settings, ColumnError for a name or type that a store cannot have.

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
        """Append rows: an array for every column, all of the same length. Raises SchemaError if they do not fit."""
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
        """Write the rows in the buffers. Raises SchemaError if fewer rows were written than declared."""
        self._flush()
        if self._written != self._rows:
            raise SchemaError(
                f"{self._written} rows were written, but {self._rows} were declared: write the others before close()"
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
            if buffer.dtype.kind == "T":  # overwriting text would leave gaps in its memory
                self._buffers[name] = np.empty_like(buffer)
        self._written, self._held = self._written + self._held, 0

    def _fitting(self, columns: Mapping[str, ArrayLike]) -> dict[str, NDArray[Any]]:
        if set(columns) != set(self._buffers):
            raise SchemaError(f"columns {sorted(columns)} were given: give all of {sorted(self._buffers)} at once")
        arrays = {name: np.asarray(values) for name, values in columns.items()}
        count = len(next(iter(arrays.values()))) if all(a.ndim for a in arrays.values()) else -1
        for name, values in arrays.items():
            expected = (count, *self._buffers[name].shape[1:])
            if values.shape != expected:
                raise SchemaError(
                    f"column {name!r} has shape {values.shape}, but must have {expected}: give the same rows of every column"
                )
        if self._written + self._held + count > self._rows:
            raise SchemaError(
                f"{self._written + self._held + count} rows are more than the {self._rows} that were declared: declare as "
                f"many as are written"
            )
        return arrays


def _check(path: Path, columns: Columns, rows: int, chunk_rows: int, compression: str) -> None:
    if not columns:
        raise UsageError("no columns to write: give at least one")
    if rows < 1 or chunk_rows < 1:
        raise UsageError(f"rows={rows}, chunk_rows={chunk_rows}: both must be at least 1")
    if compression not in _COMPRESSORS:
        raise UsageError(f"compression={compression!r}: must be one of {', '.join(_COMPRESSORS)}")
    check_names(columns)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"{path}: exists and is not an empty directory: remove it, or write elsewhere")


def check_names(names: Iterable[str]) -> None:
    """Raise ColumnError for a name that cannot be the path of an array in a store.

    >>> check_names(["a", "a/b"])
    Traceback (most recent call last):
    streamtrain.errors.ColumnError: columns 'a' and 'a/b': a Zarr array cannot be inside another: rename one of them
    """
    unique = set(names)
    for name in unique:
        parts = name.split("/")
        bad = [p for p in parts if not p or p.startswith((".", "__")) or p == "zarr.json" or len(p.encode()) > 255]
        if bad or "\\" in name or "\0" in name:
            raise ColumnError(
                f"column {name!r} cannot be the name of a Zarr array: parts between / may not be empty, begin with . or "
                f"__, contain a backslash, or be longer than 255 bytes: rename it"
            )
        for i in range(1, len(parts)):
            if (outer := "/".join(parts[:i])) in unique:
                raise ColumnError(
                    f"columns {outer!r} and {name!r}: a Zarr array cannot be inside another: rename one of them"
                )


def write_peak_bytes(columns: Columns, chunk_rows: int, text_bytes: int = 0) -> int:
    """The most memory that a `ZarrWriter` takes: a chunk of all columns, the chunk of one column twice while it is encoded,
    and the arrays. text_bytes: bytes of all strings of variable length in a chunk."""
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
        attributes = dict(notes.get("", Notes()).attributes)
        group = zarr.create_group(zarr.storage.LocalStore(path), zarr_format=3, attributes=attributes)
        for at in sorted({"/".join(name.split("/")[:i]) for name in columns for i in range(1, name.count("/") + 1)}):
            group.create_group(at, attributes=dict(notes.get(at, Notes()).attributes))
        # Keep the array objects: the setting to write every chunk belongs to the object, not to the store.
        for name, (shape, dtype) in columns.items():
            metadata = notes.get(name, Notes())
            try:
                arrays[name] = group.create_array(
                    name,
                    shape=(rows, *shape),
                    dtype=np.dtype(dtype),
                    chunks=(chunk_rows, *shape),
                    compressors=codecs,
                    config={"write_empty_chunks": True},
                    attributes=dict(metadata.attributes),
                    dimension_names=metadata.dimension_names,
                    **({} if metadata.fill_value is None else {"fill_value": metadata.fill_value}),
                )
            except (TypeError, ValueError, NotImplementedError) as error:
                raise ColumnError(f"column {name!r} is {dtype}, which zarr cannot write: {error}") from error
    return arrays

"""A Zarr v3 group, written from beginning to end, a chunk of rows at a time."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import zarr
import zarr.codecs
import zarr.storage
from numpy.typing import ArrayLike, DTypeLike, NDArray

from streamtrain.errors import SchemaError, UsageError

__all__ = ["ZarrWriter"]

_COMPRESSORS: dict[str, list[Any]] = {
    "zstd": [zarr.codecs.ZstdCodec()],
    "gzip": [zarr.codecs.GzipCodec()],
    "lz4": [zarr.codecs.BloscCodec(cname="lz4")],
    "none": [],
}


class ZarrWriter:
    """Rows appended to a new Zarr v3 group, one array a column.

    Every chunk is written, those that are all zero too, so that an absent file always means a lost one, and carries a
    CRC32C, so that a flipped bit is an error. Memory: one chunk of all columns, and one column's chunk encoded.

    path: a directory that does not exist or is empty. columns: name -> (shape of a row, dtype). rows: of the whole
    store; exactly so many must be written before ``close``. compression: zstd, gzip, lz4 or none.

    >>> import tempfile
    >>> with ZarrWriter(tempfile.mkdtemp(), {"X": ((2,), "f4"), "y": ((), "i8")}, rows=5, chunk_rows=2) as writer:
    ...     writer.write({"X": np.zeros((3, 2)), "y": [1, 2, 3]})
    ...     writer.write({"X": np.ones((2, 2)), "y": [4, 5]})
    """

    def __init__(
        self,
        path: str | Path,
        columns: Mapping[str, tuple[tuple[int, ...], DTypeLike]],
        rows: int,
        chunk_rows: int,
        compression: str = "zstd",
    ) -> None:
        _check(Path(path), columns, rows, chunk_rows, compression)
        self._rows, self._chunk_rows = rows, min(chunk_rows, rows)
        self._arrays = _create(Path(path), columns, rows, self._chunk_rows, compression)
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
            array[self._written : self._written + self._held] = self._buffers[name][: self._held]
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


def _check(path: Path, columns: Mapping[str, Any], rows: int, chunk_rows: int, compression: str) -> None:
    if not columns:
        raise UsageError("no columns to write; give at least one")
    if rows < 1 or chunk_rows < 1:
        raise UsageError(f"rows={rows}, chunk_rows={chunk_rows}: both must be at least 1")
    if compression not in _COMPRESSORS:
        raise UsageError(f"compression={compression!r}: must be one of {', '.join(_COMPRESSORS)}")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"{path} exists and is not an empty directory; remove it, or write elsewhere")


def _create(
    path: Path, columns: Mapping[str, tuple[tuple[int, ...], DTypeLike]], rows: int, chunk_rows: int, compression: str
) -> dict[str, Any]:
    codecs = [*_COMPRESSORS[compression], zarr.codecs.Crc32cCodec()]
    with (
        warnings.catch_warnings()
    ):  # strings and times are not in the v3 specification yet, but zarr-python writes them
        warnings.simplefilter("ignore")
        group = zarr.create_group(zarr.storage.LocalStore(path), zarr_format=3)
        # the arrays are kept as created: that every chunk is written is a setting of the object, not of the store
        return {
            name: group.create_array(
                name,
                shape=(rows, *shape),
                dtype=np.dtype(dtype),
                chunks=(chunk_rows, *shape),
                compressors=codecs,
                config={"write_empty_chunks": True},
            )
            for name, (shape, dtype) in columns.items()
        }

"""Read Zarr stores. The columns are the arrays of a group, which share axis 0."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from streamtrain.errors import ColumnError, StreamtrainError, UsageError
from streamtrain.storage.arrow import pick
from streamtrain.storage.files.stamps import Stamps, stamp_of
from streamtrain.storage.from_numpy import to_arrow
from streamtrain.storage.reader import Chunk, ChunkTable
from streamtrain.storage.remote.address import Address
from streamtrain.storage.zarr.decode import read_rows
from streamtrain.storage.zarr.files import Zip, fingerprint
from streamtrain.storage.zarr.grid import Column, Grid
from streamtrain.storage.zarr.missing import broken, check_files, chunk_files
from streamtrain.storage.zarr.opening import Opened, open_store
from streamtrain.storage.zarr.remote import RemoteFiles

__all__ = ["ZarrReader"]


class ZarrReader:
    """Reads a Zarr store of version 2 or 3, sharded or not, in a directory, a zip file or on a server.

    The columns are the arrays of the group and of groups in it (``sub/X``), sorted by name. They must share axis 0. A single
    array is one column, named like its folder if that is in a group, otherwise ``X``. Rows with dimensions are fixed-shape
    tensors. An array that cannot be a column (complex, structured, no dimension) has type null, and reading it raises
    ColumnError.

    A chunk is a run of whole Zarr chunks of the widest array (`make_grid`). An array whose Zarr chunks are longer than a run
    keeps its last decoded block, which ``read_peak_bytes`` includes.

    path: a directory with ``zarr.json``, ``.zgroup`` or ``.zarray`` in it, a zip file of one, or its URL.
    missing_chunks: how a missing chunk file is treated, ``"error"`` or ``"fill"``. zarr does not write chunks in which all
        values are the fill value, so a missing file may be intended or lost; only the user knows.

    Raises NotFoundError if there is no store or no arrays, SchemaError if first axes differ, CorruptError for invalid
    metadata. ``read`` raises CorruptError for missing and damaged chunks.
    """

    def __init__(self, path: str | Path, *, missing_chunks: str = "error") -> None:
        if missing_chunks not in ("error", "fill"):
            raise UsageError(f"missing_chunks={missing_chunks!r}: must be 'error' or 'fill'")
        self._path = Address.parse(str(path)) if "://" in str(path) else Path(path)
        self._missing = missing_chunks
        self._lock = threading.Lock()
        self._opened: Opened | None = None
        self._open()

    def __reduce__(self) -> tuple[Any, ...]:
        return _closed, (self._path, self._missing)

    def _open(self) -> Opened:
        with self._lock:
            if self._opened is None:
                self._opened = open_store(self._path)
            return self._opened

    @property
    def schema(self) -> pa.Schema:
        """A field for each array. If an array cannot be read, ``problem`` in the metadata of its field says why."""
        return pa.schema(
            [
                pa.field(c.name, c.type, metadata={"problem": c.problem} if c.problem else None)
                for c in self._open().grid.columns
            ]
        )

    @property
    def stored_bytes(self) -> int:
        """The bytes of all chunk files."""
        opened = self._open()
        return sum(size for c in opened.grid.columns for _, size in opened.files.sizes(c.path))

    @property
    def traffic(self) -> Any:
        """The counts of requests to a server so far; None for a local store."""
        files = self._open().files
        return files.client.traffic if isinstance(files, RemoteFiles) else None

    def chunks(self) -> ChunkTable:
        """All chunks. The key of a chunk is its range of rows."""
        grid = self._open().grid
        rows = np.full(len(grid), grid.run_rows, np.int64)
        rows[-1] = grid.rows_of(len(grid) - 1)
        sizes = {n: (grid.decoded_bytes(n), grid.read_peak_bytes(n)) for n in {int(rows[0]), int(rows[-1])}}
        decoded, peak = (np.full(len(grid), sizes[int(rows[0])][k], np.int64) for k in (0, 1))
        decoded[-1], peak[-1] = sizes[int(rows[-1])]
        return ChunkTable(_Keys(grid.run_rows, grid.rows), rows, decoded, peak)

    def read(self, chunk: Chunk, columns: Sequence[str]) -> Any:
        """The given columns of one chunk as a ``pyarrow.RecordBatch``. Thread-safe and deterministic."""
        opened, start = self._find(chunk, columns)
        return self._batch(opened, start, start + chunk.rows, columns)

    def stream(self, chunk: Chunk, columns: Sequence[str], rows: int) -> Iterator[Any]:
        """The chunk in slices of at most ``rows`` rows. Each Zarr chunk is decoded once. A slice is a view of it, and keeps
        it in memory."""
        if rows < 1:
            raise UsageError(f"slices of {rows} rows were requested: must be at least 1")
        opened, start = self._find(chunk, columns)
        return self._slices(opened, start, start + chunk.rows, columns, rows)

    def stream_peak_bytes(self, chunk: Chunk, rows: int) -> int:
        """The most memory that one open stream of all columns takes, one slice included."""
        return self._open().grid.stream_peak_bytes(chunk.rows, rows)

    def fingerprint(self) -> str:
        """A hash of the metadata documents, the names and sizes of the chunk files, and a sample of their bytes."""
        opened = self._open()
        return fingerprint(opened.files, [c.path for c in opened.grid.columns])

    def stamps(self) -> Stamps:
        """The stamps of the chunks: of the files that hold any of the rows. A zip file has one for all."""
        opened = self._open()
        grid, files = opened.grid, opened.files

        def stamp(i: int) -> int:
            start = i * grid.run_rows
            each = (chunk_files(opened.arrays[c.name], c, start, start + grid.rows_of(i)) for c in grid.readable)
            return stamp_of(files.stamp(key) for keys in each for key, _ in keys)

        if isinstance(files, Zip):
            return Stamps(
                np.array([stamp_of([files.stamp("")])], np.uint64),
                np.zeros(len(grid), np.int64),
                lambda _: str(files.root),
            )
        values = np.fromiter(map(stamp, range(len(grid))), np.uint64, len(grid))
        return Stamps(values, np.arange(len(grid)), lambda i: f"{files.root} {_Keys(grid.run_rows, grid.rows)(i)}")

    def _slices(self, opened: Opened, start: int, stop: int, columns: Sequence[str], rows: int) -> Iterator[Any]:
        step = opened.grid.block_rows(rows)
        for at in range(start, stop, step):
            batch = self._batch(opened, at, min(at + step, stop), columns)
            for first in range(0, batch.num_rows, rows):
                yield batch.slice(first, rows)
            del batch  # before the next block is decoded

    def _batch(self, opened: Opened, start: int, stop: int, columns: Sequence[str]) -> Any:
        arrays = [self._column(opened, opened.columns[name], start, stop) for name in columns]
        return pa.RecordBatch.from_arrays(arrays, names=list(columns))

    def _column(self, opened: Opened, column: Column, start: int, stop: int) -> Any:
        array, last, fill = opened.arrays[column.name], opened.last.get(column.name), self._missing == "fill"
        shards, is_remote = opened.shards.get(column.name), isinstance(self._path, Address)
        if not is_remote:  # the files of a server are checked when they arrive
            check_files(opened.files, array, column, shards, start, stop, fill=fill)
        try:
            values = (
                last.read(array, column, start, stop) if last is not None else read_rows(array, column, start, stop)
            )
        except (StreamtrainError, MemoryError):
            raise
        except Exception as error:  # whatever a codec raises
            raise broken(opened.files, array, column, start, stop, error) from None
        # Check again: a file that exists now also existed while it was read.
        if is_remote or not fill:
            check_files(opened.files, array, column, shards, start, stop, fill=fill)
        return to_arrow(column.name, values)

    def _find(self, chunk: Chunk, columns: Sequence[str]) -> tuple[Opened, int]:
        opened = self._open()
        start = _start(chunk, opened.grid)
        if not columns:
            raise UsageError("no columns were requested: name at least one")
        for name in columns:
            pick(self.schema, name, "read")
            if opened.columns[name].problem:
                raise ColumnError(opened.columns[name].problem)
        return opened, start


def _closed(path: Path | Address, missing: str) -> ZarrReader:
    """A reader that opens its store on first use, because the store may not be readable yet where a pickle is loaded."""
    reader = ZarrReader.__new__(ZarrReader)
    reader._path, reader._missing, reader._lock, reader._opened = path, missing, threading.Lock(), None
    return reader


@dataclass(frozen=True, slots=True)
class _Keys:
    run_rows: int
    rows: int

    def __call__(self, i: int) -> str:
        return f"rows[{i * self.run_rows}:{min((i + 1) * self.run_rows, self.rows)}]"


def _start(chunk: Chunk, grid: Grid) -> int:
    first = chunk.key.removeprefix("rows[").split(":")[0]
    i = int(first) // grid.run_rows if first.isdecimal() else -1
    if not 0 <= i < len(grid) or _Keys(grid.run_rows, grid.rows)(i) != chunk.key or chunk.rows != grid.rows_of(i):
        raise UsageError(
            f"chunk {chunk.key!r} of {chunk.rows} rows does not belong to this reader: use chunks from its chunks()"
        )
    return i * grid.run_rows

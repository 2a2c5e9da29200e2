"""Read Zarr stores. The columns are the arrays of a group, which share axis 0."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from streamtrain.errors import ColumnError, CorruptError, UsageError
from streamtrain.storage.arrow import pick
from streamtrain.storage.files.stamps import Stamps, stamp_of
from streamtrain.storage.from_numpy import to_arrow
from streamtrain.storage.reader import Chunk, ChunkTable
from streamtrain.storage.remote.address import Address
from streamtrain.storage.settings import Asked
from streamtrain.storage.zarr.columns import Column, StoredArray
from streamtrain.storage.zarr.files import Zip, fingerprint, node_at
from streamtrain.storage.zarr.grid import Grid
from streamtrain.storage.zarr.missing import chunk_files
from streamtrain.storage.zarr.opening import Opened, open_store
from streamtrain.storage.zarr.remote import RemoteFiles

__all__ = ["ZarrReader"]


class ZarrReader:
    """Reads a Zarr store of version 2 or 3, sharded or not, in a directory, a zip file or on a server.

    The columns are the arrays of the group and of groups in it (``sub/X``), sorted by name, that share the dimension of the
    samples, which is axis 0: that of the target, otherwise that of most arrays (see `choose_columns`). A single
    array is one column, named like its folder if that is in a group, otherwise ``X``. Rows with dimensions are fixed-shape
    tensors. Values that are packed as CF says are decoded as xarray does (`cf`). In AnnData stores, ``obs/cell_type`` is a
    column, and a CSR matrix is one of sparse rows. An array that cannot be a column (complex, structured) has type null, and
    reading it raises ColumnError.

    A chunk is a run of whole Zarr chunks of the widest array (`make_grid`). An array whose Zarr chunks are longer than a run
    keeps its last decoded block, which ``read_peak_bytes`` includes.

    path: a directory with ``zarr.json``, ``.zgroup`` or ``.zarray`` in it, a zip file of one or a folder of that, or its URL.
    missing_chunks: how a missing chunk file is treated, ``"error"`` or ``"fill"``. zarr does not write chunks in which all
        values are the fill value, so a missing file may be intended or lost; only the user knows.
    sample_dim: the name of the dimension of the samples. asked: the columns that somebody wants.

    Raises NotFoundError if there is no store or no arrays, SchemaError if first axes differ, CorruptError for invalid
    metadata. ``read`` raises CorruptError for missing and damaged chunks.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        missing_chunks: str = "error",
        sample_dim: str | None = None,
        asked: Asked | None = None,
    ) -> None:
        if missing_chunks not in ("error", "fill"):
            raise UsageError(f"missing_chunks={missing_chunks!r}: must be 'error' or 'fill'")
        self._path = Address.parse(str(path)) if "://" in str(path) else Path(path)
        self._missing, self._sample_dim, self._asked = missing_chunks, sample_dim, asked or Asked()
        self._lock = threading.Lock()
        self._opened: Opened | None = None
        _ = self.opened  # raise what is wrong with it

    def __reduce__(self) -> tuple[Any, ...]:
        return _closed, (self._path, self._missing, self._sample_dim, self._asked)

    @property
    def opened(self) -> Opened:
        """The open store."""
        with self._lock:
            if self._opened is None:
                self._opened = open_store(
                    self._path, fills=self._missing == "fill", sample_dim=self._sample_dim, asked=self._asked
                )
            return self._opened

    @property
    def schema(self) -> pa.Schema:
        """A field for each column. In the metadata of its field, ``problem`` says why an array cannot be read, and ``left_out``
        why it is no feature unless it is named."""
        return pa.schema([_field(column) for column in self.opened.columns.values()])

    def warnings(self, columns: Sequence[str]) -> list[str]:
        """What a user should know of how these columns are read."""
        decoders = [self.opened.columns[name].decoder for name in columns]
        return [decoder.note for decoder in decoders if decoder is not None and decoder.note]

    def is_beside(self, name: str) -> bool:
        """Whether the store has something of this name that is no column."""
        parts, opened = name.split("/"), self.opened
        plain = all(part not in ("", ".", "..") for part in parts)
        return plain and name not in opened.columns and node_at(opened.files, name).kind != "none"

    @property
    def stored_bytes(self) -> int:
        """The bytes of all chunk files."""
        opened = self.opened
        return sum(size for array in opened.arrays for _, size in opened.files.sizes(array.path))

    @property
    def footers_bytes(self) -> int:
        """The bytes that are kept as long as the store is open: categories, and the borders of sparse rows."""
        columns = self.opened.grid.readable
        borders = sum(c.csr.borders.nbytes for c in columns if c.csr is not None and c.csr.borders is not None)
        return borders + sum(c.decoder.kept_bytes for c in columns if c.decoder is not None)

    @property
    def traffic(self) -> Any:
        """The counts of requests to a server so far; None for a local store."""
        files = self.opened.files
        return files.client.traffic if isinstance(files, RemoteFiles) else None

    def chunks(self) -> ChunkTable:
        """All chunks. The key of a chunk is its range of rows."""
        grid = self.opened.grid
        rows = np.full(len(grid), grid.run_rows, np.int64)
        rows[-1] = grid.rows_of(len(grid) - 1)
        numbers = range(len(grid)) if not grid.is_even else sorted({0, len(grid) - 1})
        spans = [(i * grid.run_rows, i * grid.run_rows + grid.rows_of(i)) for i in numbers]
        decoded, peak = np.empty(len(grid), np.int64), np.empty(len(grid), np.int64)
        for i, (start, stop) in zip(numbers, spans, strict=True):
            until = i + 1 if not grid.is_even or i else len(grid)
            decoded[i:until], peak[i:until] = grid.decoded_bytes(start, stop), grid.read_peak_bytes(start, stop)
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
        grid = self.opened.grid
        start = _start(chunk, grid)
        return grid.stream_peak_bytes(start, start + chunk.rows, rows)

    def fingerprint(self) -> str:
        """A hash of the metadata documents, the names and sizes of the chunk files, and a sample of their bytes."""
        opened = self.opened
        return fingerprint(opened.files, [array.path for array in opened.arrays], opened.documents)

    def stamps(self) -> Stamps:
        """The stamps of the chunks: of the files that hold any of the rows. A zip file has one for all."""
        opened = self.opened
        grid, files = opened.grid, opened.files

        def stamp(i: int) -> int:
            start = i * grid.run_rows
            parts = (part for c in grid.readable for part in _parts(c, start, start + grid.rows_of(i)))
            keys = (chunk_files(opened.values.arrays[array.path], array, a, b) for array, a, b in parts)
            return stamp_of(files.stamp(key) for each in keys for key, _ in each)

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
        arrays = [_read(opened, opened.columns[name], start, stop) for name in columns]
        return pa.RecordBatch.from_arrays(arrays, names=list(columns))

    def _find(self, chunk: Chunk, columns: Sequence[str]) -> tuple[Opened, int]:
        opened = self.opened
        start = _start(chunk, opened.grid)
        if not columns:
            raise UsageError("no columns were requested: name at least one")
        for name in columns:
            pick(self.schema, name, "read")
            if opened.columns[name].problem:
                raise ColumnError(opened.columns[name].problem)
        return opened, start


def _closed(path: Path | Address, missing: str, sample_dim: str | None, asked: Asked) -> ZarrReader:
    """A reader that opens its store on first use, because the store may not be readable yet where a pickle is loaded."""
    reader = ZarrReader.__new__(ZarrReader)
    reader._path, reader._missing, reader._sample_dim, reader._asked = path, missing, sample_dim, asked
    reader._lock, reader._opened = threading.Lock(), None
    return reader


def _field(column: Column) -> pa.Field:
    about = {key: text for key, text in (("problem", column.problem), ("left_out", column.left_out)) if text}
    return pa.field(column.name, column.type, metadata=about or None)


def _read(opened: Opened, column: Column, start: int, stop: int) -> pa.Array:
    if column.csr is not None:
        return column.csr.read(opened.values, start, stop)
    values = [opened.values(array, start, stop) for array in column.arrays]
    try:
        return to_arrow(column.name, values[0]) if column.decoder is None else column.decoder(values)
    except CorruptError as error:
        raise CorruptError(f"{opened.files.root}: array {column.name!r}, rows {start} to {stop}: {error}") from None


def _parts(column: Column, start: int, stop: int) -> Iterator[tuple[StoredArray, int, int]]:
    """The arrays of a column, and the range of each that has the rows."""
    if column.csr is None:
        yield from ((array, start, stop) for array in column.arrays)
    elif column.csr.borders is not None:
        csr, borders = column.csr, column.csr.borders
        first, last = int(borders[start // csr.unit_rows]), int(borders[-(-stop // csr.unit_rows)])
        yield csr.indptr, start, stop + 1
        yield from ((array, first, last) for array in (csr.indices, csr.data) if last > first)


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

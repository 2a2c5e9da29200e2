"""Cut rows into chunks and write them in a format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from streamtrain.tools.make.problems import Piece, Problem
from streamtrain.tools.make.settings import Settings

__all__ = ["Meter", "write_parquet", "write_zarr"]


class Meter:
    """Reports the rows done. passes: how often each row is processed; one pass counts as that share of a row.

    >>> meter = Meter(print, passes=2)
    >>> meter.add(10)
    5
    """

    def __init__(self, progress: Callable[[int], object] | None, *, passes: int = 1) -> None:
        self._progress, self._passes, self._done = progress, passes, 0

    def add(self, rows: int) -> None:
        self._done += rows
        if self._progress is not None:
            self._progress(self._done // self._passes)

    def count(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        for x, y in pieces:
            yield x, y
            self.add(len(y))


class Tap:
    """Draws blocks of any number of rows from pieces of other sizes.

    The arrays are reused: a block is valid until the next draw.
    """

    def __init__(self, pieces: Iterable[Piece], columns: int, target_type: str, most: int) -> None:
        self._pieces = iter(pieces)
        self._x = np.empty((columns, most), np.float32)
        self._y = np.empty(most, target_type)
        self._rest: Piece = (self._x[:, :0], self._y[:0])

    def draw(self, rows: int) -> Piece:
        """Return the next ``rows`` rows; each column is contiguous."""
        at = 0
        while at < rows:
            x, y = self._rest if len(self._rest[1]) else next(self._pieces)
            n = min(rows - at, len(y))
            self._x[:, at : at + n], self._y[at : at + n] = x[:, :n], y[:n]
            self._rest = x[:, n:], y[n:]
            at += n
        return self._x[:, :rows], self._y[:rows]


def write_parquet(pieces: Iterable[Piece], settings: Settings, problem: Problem, path: Path, meter: Meter) -> None:
    """Write the rows as ``path/part-000.parquet``, ..."""
    from streamtrain.storage.parquet.writer import ParquetTableWriter

    names = [f"x{j}" for j in range(problem.columns)]
    target = pa.from_numpy_dtype(np.dtype(problem.target_type))
    schema = pa.schema([pa.field(name, pa.float32(), nullable=False) for name in names])
    schema = schema.append(pa.field("y", target, nullable=False))
    tap = Tap(pieces, problem.columns, problem.target_type, min(settings.chunk, settings.rows))
    path.mkdir()
    for part, rows in enumerate(_split(settings.rows, settings.parts)):
        file = path / f"part-{part:03d}.parquet"
        with ParquetTableWriter(file, schema, chunk_rows=settings.chunk, compression=settings.compression) as writer:
            for n in _chunks(rows, settings.chunk):
                x, y = tap.draw(n)
                writer.write(pa.record_batch([*x, y], schema=schema))
                meter.add(n)


def write_zarr(pieces: Iterable[Piece], settings: Settings, problem: Problem, path: Path, meter: Meter) -> None:
    """Write the rows as the Zarr group ``path`` with the arrays X and y."""
    from streamtrain.storage.zarr import ZarrWriter

    columns = {"X": ((problem.columns,), "float32"), "y": ((), problem.target_type)}
    with ZarrWriter(path, columns, settings.rows, settings.chunk, settings.compression) as writer:
        for x, y in pieces:  # the writer collects them into chunks
            writer.write({"X": x.T, "y": y})
            meter.add(len(y))


def _split(rows: int, parts: int) -> Iterator[int]:
    """Yield the rows of each file; they differ by at most one.

    >>> list(_split(10, 3))
    [3, 3, 4]
    """
    return (rows * (i + 1) // parts - rows * i // parts for i in range(parts))


def _chunks(rows: int, chunk_rows: int) -> Iterator[int]:
    """Yield the rows of each chunk of a file.

    >>> list(_chunks(10, 4))
    [4, 4, 2]
    """
    return (min(chunk_rows, rows - start) for start in range(0, rows, chunk_rows))

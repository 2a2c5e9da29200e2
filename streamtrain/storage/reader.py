"""What a reader is: the contract between a storage format and everything else.

A reader lists chunks and reads them. It is thread-safe (``read`` is called from several threads at once), deterministic
(the same chunk and columns give the same rows, always) and picklable (it travels to the workers of a cluster). It opens
files when it reads, keeps no more than it declares, and knows nothing of batches, windows or learning.

A complete reader::

    class Squares:
        schema = pa.schema([("x", pa.float32()), ("y", pa.float32())])

        def chunks(self):
            return [Chunk(key=str(i), rows=100, decoded_bytes=800, read_peak_bytes=1600) for i in range(10)]

        def read(self, chunk, columns):
            x = np.arange(100, dtype=np.float32) + 100 * int(chunk.key)
            return pa.record_batch({"x": x, "y": x * x}).select(columns)

        def fingerprint(self):
            return "squares-1"
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, overload, runtime_checkable

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from streamtrain.errors import DataError

__all__ = ["Chunk", "ChunkTable", "Reader", "Streams"]


@dataclass(frozen=True, slots=True)
class Chunk:
    """What a reader reads at once.

    key: stable and unique; the same for the same rows on another machine; errors and the ledger name it.
    rows: how many rows ``read`` returns, exactly.
    decoded_bytes: bytes of all columns once decoded to Arrow (an estimate where strings are involved).
    read_peak_bytes: the most memory that one ``read`` of all columns takes while it runs, its result included.
    """

    key: str
    rows: int
    decoded_bytes: int
    read_peak_bytes: int


@runtime_checkable
class Reader(Protocol):
    """The four members that every storage provides."""

    @property
    def schema(self) -> pa.Schema:
        """Names and types of all columns, in order."""

    def chunks(self) -> Sequence[Chunk]:
        """Every chunk, in the order of the data. Return a `ChunkTable` where there may be many."""

    def read(self, chunk: Chunk, columns: Sequence[str]) -> Any:
        """The named columns of one chunk, in the order named, as a ``pyarrow.RecordBatch`` of ``chunk.rows`` rows
        (or anything with ``__arrow_c_array__`` or ``__arrow_c_stream__``). Thread-safe and deterministic."""

    def fingerprint(self) -> str | None:
        """A hash of the content: names, sizes, row counts, metadata; not of modification times. A copy of the data
        elsewhere has the same one. None where that cannot be told."""


@runtime_checkable
class Streams(Protocol):
    """Optional: a chunk as successive slices, for chunks too large to hold."""

    def stream(self, chunk: Chunk, columns: Sequence[str], rows: int) -> Iterator[Any]:
        """The chunk from its start in slices of at most ``rows`` rows. Several may be open at once."""

    def stream_peak_bytes(self, chunk: Chunk, rows: int) -> int:
        """The most memory that one open stream of all columns takes, a slice of ``rows`` rows included."""


class ChunkTable(Sequence[Chunk]):
    """Chunks as columns: a million of them take 24 MB instead of 254.

    >>> table = ChunkTable(lambda i: f"part#{i}", rows=[3, 4], decoded_bytes=[12, 16], read_peak_bytes=[24, 32])
    >>> len(table), table[1]
    (2, Chunk(key='part#1', rows=4, decoded_bytes=16, read_peak_bytes=32))
    >>> table.total_rows, table.starts.tolist()
    (7, [0, 3, 7])
    """

    def __init__(
        self, key: Callable[[int], str], rows: ArrayLike, decoded_bytes: ArrayLike, read_peak_bytes: ArrayLike
    ) -> None:
        self._key = key
        self.rows: NDArray[np.int64] = np.asarray(rows, np.int64)
        self.decoded_bytes: NDArray[np.int64] = np.asarray(decoded_bytes, np.int64)
        self.read_peak_bytes: NDArray[np.int64] = np.asarray(read_peak_bytes, np.int64)
        #: position of each chunk's first row in the data, and the number of rows at the end; shape (chunks + 1,)
        self.starts: NDArray[np.int64] = np.concatenate([[0], np.cumsum(self.rows)]).astype(np.int64)

    @classmethod
    def of(cls, chunks: Sequence[Chunk]) -> ChunkTable:
        """The table of any sequence of chunks."""
        if isinstance(chunks, cls):
            return chunks
        if not all(hasattr(c, "read_peak_bytes") for c in chunks):
            odd = next(c for c in chunks if not hasattr(c, "read_peak_bytes"))
            raise DataError(f"the reader's chunks() gave {odd!r}: it must give Chunk objects, or a ChunkTable")
        keys = [c.key for c in chunks]
        columns = [[c.rows for c in chunks], [c.decoded_bytes for c in chunks], [c.read_peak_bytes for c in chunks]]
        return cls(keys.__getitem__, *columns)

    @property
    def total_rows(self) -> int:
        return int(self.starts[-1])

    @property
    def nbytes(self) -> int:
        """Bytes of the table itself."""
        return self.rows.nbytes + self.decoded_bytes.nbytes + self.read_peak_bytes.nbytes + self.starts.nbytes

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, i: int) -> Chunk: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[Chunk]: ...
    def __getitem__(self, i: int | slice) -> Chunk | Sequence[Chunk]:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        i %= len(self)
        return Chunk(self._key(i), int(self.rows[i]), int(self.decoded_bytes[i]), int(self.read_peak_bytes[i]))

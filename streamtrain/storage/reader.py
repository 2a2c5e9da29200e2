"""The reader protocol: the contract between a storage format and everything else.

A reader lists chunks and reads them. It is thread-safe (``read`` is called from several threads at once), deterministic
(the same chunk and columns always give the same rows) and picklable (it is sent to the workers of a cluster). It opens
files when it reads, uses no more memory than it declares, and knows nothing about batches, windows or learning.

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

__all__ = [
    "Chunk",
    "ChunkTable",
    "KnowsOthers",
    "Reader",
    "ReadsTogether",
    "Streams",
    "Warns",
    "columns_among",
    "is_reader",
    "snapshots_of",
]


@dataclass(frozen=True, slots=True)
class Chunk:
    """The unit that a reader reads at once.

    key: a unique and stable name, the same for the same rows on every machine. Errors and the ledger use it.
    rows: the exact number of rows that ``read`` returns.
    decoded_bytes: the bytes of all columns decoded to Arrow; an estimate if there are strings.
    read_peak_bytes: the most memory that one ``read`` of all columns takes while it runs, its result included.
    """

    key: str
    rows: int
    decoded_bytes: int
    read_peak_bytes: int


@runtime_checkable
class Reader(Protocol):
    """The four members that every reader has."""

    @property
    def schema(self) -> pa.Schema:
        """The names and types of all columns, in order."""

    def chunks(self) -> Sequence[Chunk]:
        """All chunks, in the order of the data. Return a `ChunkTable` if there may be many."""

    def read(self, chunk: Chunk, columns: Sequence[str]) -> Any:
        """The given columns of one chunk, in the given order, as a ``pyarrow.RecordBatch`` of ``chunk.rows`` rows
        (or any object with ``__arrow_c_array__`` or ``__arrow_c_stream__``). Thread-safe and deterministic."""

    def fingerprint(self) -> str | None:
        """A hash of the content: names, sizes, row counts and metadata, but no modification times. A copy of the data
        elsewhere has the same fingerprint. None if the reader cannot make one."""


def is_reader(data: Any) -> bool:
    """Whether an object has the four members. It is asked for that of the rarest name first: ``chunks`` of other libraries'
    objects may raise.

    >>> is_reader("no reader")
    False
    """
    return hasattr(data, "fingerprint") and isinstance(data, Reader)


@runtime_checkable
class Streams(Protocol):
    """Optional: read a chunk slice by slice, for chunks that do not fit in memory."""

    def stream(self, chunk: Chunk, columns: Sequence[str], rows: int) -> Iterator[Any]:
        """The chunk from its first row, in slices of at most ``rows`` rows. Several streams may be open at once."""

    def stream_peak_bytes(self, chunk: Chunk, rows: int) -> int:
        """The most memory that one open stream of all columns takes, one slice of ``rows`` rows included."""


@runtime_checkable
class KnowsOthers(Protocol):
    """Optional: tell what is stored beside the columns, such as arrays of other lengths."""

    def is_beside(self, name: str) -> bool:
        """Whether there is something of this name that is no column."""


def columns_among(reader: Reader, names: Sequence[str]) -> list[str]:
    """The names without those of what is stored beside the columns, which need not be excluded, but may be."""
    return [name for name in names if not (isinstance(reader, KnowsOthers) and reader.is_beside(name))]


@runtime_checkable
class Warns(Protocol):
    """Optional: say what the user should know of data that can be read."""

    def warnings(self, columns: Sequence[str]) -> list[str]:
        """Warnings about these columns, which are those that are read; one for each thing, not for each file."""


def snapshots_of(reader: Any) -> dict[str, str]:
    """Of the tables that a reader reads, by their ids: the snapshot of each, which a resumed run reads again. Optional: the
    attribute ``snapshots``.

    >>> snapshots_of("no table")
    {}
    """
    return dict(getattr(reader, "snapshots", {}))


@runtime_checkable
class ReadsTogether(Protocol):
    """Optional: read several small chunks in one call, for data that have very many."""

    def read_together(self, chunks: Sequence[Chunk], columns: Sequence[str]) -> Any:
        """The rows of several chunks as ``read`` returns those of one: the rows of the first chunk first. The chunks are in
        the order of the data, but need not follow each other. The call may take as much memory as they declare together.
        If one of them cannot be read, raise a DataError: each is then read by itself."""


class ChunkTable(Sequence[Chunk]):
    """A sequence of chunks, stored as columns: a million chunks take 24 MB instead of 254 MB.

    >>> table = ChunkTable(lambda i: f"part#{i}", rows=[3, 4], decoded_bytes=[12, 16], read_peak_bytes=[24, 32])
    >>> len(table), table[1]
    (2, Chunk(key='part#1', rows=4, decoded_bytes=16, read_peak_bytes=32))
    >>> table.total_rows, table.starts.tolist()
    (7, [0, 3, 7])
    """

    def __init__(
        self, key: Callable[[int], str], rows: ArrayLike, decoded_bytes: ArrayLike, read_peak_bytes: ArrayLike
    ) -> None:
        #: (number of a chunk) -> its key
        self.key = key
        self.rows: NDArray[np.int64] = np.asarray(rows, np.int64)
        self.decoded_bytes: NDArray[np.int64] = np.asarray(decoded_bytes, np.int64)
        self.read_peak_bytes: NDArray[np.int64] = np.asarray(read_peak_bytes, np.int64)
        #: number of the first row of each chunk, followed by the total number of rows; shape (chunks + 1,)
        self.starts: NDArray[np.int64] = np.concatenate([[0], np.cumsum(self.rows)]).astype(np.int64)

    @classmethod
    def of(cls, chunks: Sequence[Chunk]) -> ChunkTable:
        """Make a table of any sequence of chunks. Raises DataError for items that are not chunks."""
        if isinstance(chunks, cls):
            return chunks
        if not all(hasattr(c, "read_peak_bytes") for c in chunks):
            other = next(c for c in chunks if not hasattr(c, "read_peak_bytes"))
            raise DataError(f"the reader's chunks() returned {other!r}: it must return Chunk objects, or a ChunkTable")
        keys = [c.key for c in chunks]
        columns = [[c.rows for c in chunks], [c.decoded_bytes for c in chunks], [c.read_peak_bytes for c in chunks]]
        return cls(keys.__getitem__, *columns)

    @property
    def total_rows(self) -> int:
        """The rows of all chunks together."""
        return int(self.starts[-1])

    @property
    def nbytes(self) -> int:
        """The memory that the table itself takes."""
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
        return self._chunk(i % len(self))

    def _chunk(self, i: int) -> Chunk:
        return Chunk(self.key(i), int(self.rows[i]), int(self.decoded_bytes[i]), int(self.read_peak_bytes[i]))

    # -- fewer rows than the reader has, see `storage.kept` ----------------------------------------------------------------

    @property
    def unfiltered(self) -> ChunkTable:
        """The table of all rows of the data: this one, unless rows are left out."""
        return self

    def data_rows(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The positions in the data of rows of this table; same shape."""
        return rows

    def located(self, position: int) -> tuple[int, int]:
        """The number of the chunk in which a position in the data is, and the number of the row in it."""
        starts = self.unfiltered.starts
        chunk = int(np.searchsorted(starts, position, side="right")) - 1
        return chunk, position - int(starts[chunk])

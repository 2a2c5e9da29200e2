"""What was read so far, as one number a chunk. What is read again must have the same values.

A chunk's digest is the sum of the digests of its columns (`streamtrain.columns.digest`), modulo 2^64. So it depends neither on
how many columns are read at a time nor on which thread reads them. The sum over the targets is kept as well, because the target
is read before the other columns.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.columns.digest import ColumnDigest, by_value, digest_of, stored_bytes
from streamtrain.errors import ChangedError
from streamtrain.plan.term import Term
from streamtrain.state import Form
from streamtrain.storage.reader import ChunkTable

__all__ = ["ChunkDigest", "Digests", "Pair", "Part", "RunDigest", "added"]

#: the digest of all columns of a chunk, and of its targets
Pair = tuple[int, int]
#: how many of the first rows of a chunk, and their digest
Part = tuple[int, int]

_NOTHING = (0, 0)
_BYTES_PER_CHUNK = 24  # with the stamp of its file
_CHANGED = (
    "either the data were changed in place, or the reader does not return the same values each time: restore the data as "
    "they were and go on, or start a new run"
)


def added(one: int, other: int) -> int:
    """The digest of the columns of both.

    >>> added(2**64 - 1, 2)
    1
    """
    return (one + other) % 2**64


class ChunkDigest:
    """The digest of a chunk that is being read, some columns and some rows at a time. targets: the names of the targets. first:
    of how many of the first rows the digest is taken on the way; see `part`."""

    def __init__(self, targets: Sequence[str], first: int = 0) -> None:
        self._targets = targets
        self.first, self._first = first, 0
        self._columns: dict[str, ColumnDigest] = {}
        self._ready: dict[str, int] = {}

    def add_column(self, name: str, digest: int) -> None:
        """Add a column whose digest is known."""
        self._ready[name] = digest

    def add(self, name: str, values: pa.Array) -> None:
        """Add the next values of a column."""
        column = self._columns.get(name)
        if column is None:
            column = self._columns[name] = ColumnDigest()
        missing = self.first - column.rows
        if 0 < missing <= len(values):
            column.update(values.slice(0, missing))
            self._first = added(self._first, column.value(name))
            values = values.slice(missing)
        column.update(values)

    def add_batch(self, batch: pa.RecordBatch) -> None:
        """Add the next rows of some columns."""
        for name, values in zip(batch.schema.names, batch.columns, strict=True):
            self.add(name, values)

    def value(self) -> Pair:
        """The digest of what was added so far."""
        whole = targets = 0
        each = self._ready | {name: column.value(name) for name, column in self._columns.items()}
        for name, digest in each.items():
            whole = added(whole, digest)
            if name in self._targets:
                targets = added(targets, digest)
        return whole, targets

    @property
    def part(self) -> Part:
        """The ``first`` rows and their digest, once they were added; or the rows that were noted since."""
        return self.first, self._first

    def note(self, rows: int, digest: Pair) -> None:
        """Take the rows so far as the `part` if it is smaller: their digest was noted."""
        if rows > self.first:
            self.first, self._first = rows, digest[0]


class RunDigest:
    """The digests of chunks that are read one after the other, or together. rows: of each chunk. firsts: for each chunk, see
    `ChunkDigest`."""

    def __init__(self, targets: Sequence[str], rows: Sequence[int], firsts: Sequence[int] | None = None) -> None:
        self.chunks = [ChunkDigest(targets, first) for first in firsts or [0] * len(rows)]
        self._starts = np.concatenate([[0], np.cumsum(rows, dtype=np.int64)])
        self._rows: dict[str, int] = {}  # of each column so far

    def add(self, name: str, values: pa.Array) -> None:
        """Add the next values of a column: of the first chunk first."""
        if len(self.chunks) == 1:
            stored = stored_bytes(values) if len(values) == self._starts[1] else None
            if stored is None or self.chunks[0].first:
                self.chunks[0].add(name, values)
            else:
                self.chunks[0].add_column(name, digest_of(name, len(values), stored))
            return
        values, first = by_value(values), self._rows.get(name, 0)
        last = self._rows[name] = first + len(values)
        begin, end = np.searchsorted(self._starts, [first, last - 1], "right").tolist() if last > first else (1, 0)
        stored = stored_bytes(values)
        width = 0 if stored is None else len(stored) // len(values)
        starts = self._starts[begin - 1 : end + 1].tolist()
        for chunk, start, stop in zip(self.chunks[begin - 1 : end], starts, starts[1:], strict=False):
            is_all = first <= start < stop <= last and not chunk.first
            if stored is not None and is_all:  # most chunks
                part = stored[(start - first) * width : (stop - first) * width]
                chunk.add_column(name, digest_of(name, stop - start, part))
            else:
                start = max(first, start)
                chunk.add(name, values.slice(start - first, min(last, stop) - start))

    def values(self) -> list[Pair]:
        """The digest of each chunk."""
        return [chunk.value() for chunk in self.chunks]


class Digests:
    """The digests of all chunks of a source, as far as they were read. Several threads may use them at once.

    stamps: of the files that are read (`streamtrain.storage.files.stamps`), shape (files,); empty if nobody noted them.

    Each ``check`` raises ChangedError, which names the chunk, for values that differ from those that were read before. Of a
    chunk that was read in part, the digest of that part stays noted until it was compared: whoever reads the chunk again takes
    the digest of its first rows on the way (`first`).

    >>> digests = Digests(ChunkTable("a.parquet:{}".format, [10, 10], [80, 80], [80, 80]))
    >>> digests.check(1, (7, 0))
    >>> digests.check(1, (7, 0)), digests.known.tolist()
    (None, [False, True])
    """

    def __init__(self, table: ChunkTable) -> None:
        self._table = table
        self._all = np.zeros(len(table), np.uint64)  # 0: not read
        self._targets = np.zeros(len(table), np.uint64)
        self.stamps = np.zeros(0, np.uint64)
        self._begun: dict[int, Part] = {}  # chunks read in part
        self._lock = threading.Lock()

    @property
    def term(self) -> Term:
        """The memory plan's term."""
        return Term("digests", _BYTES_PER_CHUNK * len(self._table), "reading", for_validation=True)

    @property
    def known(self) -> NDArray[np.bool_]:
        """Which chunks were read to their end; shape (chunks,)."""
        return np.not_equal(self._all, 0)

    @property
    def begun(self) -> dict[int, int]:
        """The rows that were read of each chunk that was read in part, by its number."""
        with self._lock:
            return {number: rows for number, (rows, _) in self._begun.items()}

    def first(self, number: int) -> int:
        """The rows that were read of a chunk, if it was read in part; otherwise 0."""
        return self._begun.get(number, _NOTHING)[0]

    def check(self, number: int, digest: Pair, part: Part = _NOTHING) -> None:
        """Compare a chunk that was read to its end; note its digest if it was not read before. part: its first rows as they are
        now."""
        before = self._begun.get(number, _NOTHING)
        if part[0] == before[0] and part[1] != before[1]:
            raise self._changed(number, f"the values of the first {part[0]:,} rows")
        whole, targets = max(1, digest[0]), digest[1]
        if int(self._all[number]) not in (0, whole):
            raise self._changed(number, "the values")
        if int(self._targets[number]) not in (0, targets):
            raise self._changed(number, "the values of the target")
        with self._lock:
            self._all[number], self._targets[number] = whole, targets
            if self._begun.get(number) == part:
                del self._begun[number]

    def check_part(self, number: int, rows: int, digest: Pair, part: Part = _NOTHING) -> None:
        """Compare the first ``rows`` rows of a chunk of which the rest is read later; note their digest if fewer rows were read
        before. part: fewer rows, as they are now. A chunk that was read to its end is compared at its end."""
        with self._lock:
            before, known = self._begun.get(number, _NOTHING)
            now = {0: 0, part[0]: part[1], rows: digest[0]}.get(before) if rows >= before else None
            if rows > before and now == known and not self._all[number]:
                self._begun[number] = rows, digest[0]
        if now not in (None, known):
            raise self._changed(number, f"the values of the first {before:,} rows")

    def forget(self, chunks: NDArray[np.bool_]) -> None:
        """Forget what was read of some chunks, a mask of shape (chunks,)."""
        with self._lock:
            self._all[chunks] = self._targets[chunks] = 0
            self._begun = {number: part for number, part in self._begun.items() if not chunks[number]}

    def check_targets(self, targets: NDArray[np.uint64]) -> None:
        """Compare the targets of all chunks, shape (chunks,); 0 where they were not read. Note those not read before."""
        differ = (targets != self._targets) & (targets != 0) & (self._targets != 0)
        if differ.any():
            raise self._changed(int(np.argmax(differ)), "the values of the target")
        np.copyto(self._targets, targets, where=targets != 0)

    def _changed(self, number: int, what: str) -> ChangedError:
        return ChangedError(f"{self._table[number].key}: {what} differ from those that were read before: {_CHANGED}")

    @staticmethod
    def forms(chunks: int) -> dict[str, Form]:
        """The forms of the arrays of a state."""
        each = Form("<u8", (chunks,))
        return {
            "all": each,
            "targets": each,
            "stamps": each._replace(loose=0),
            "begun": Form("<u8", (chunks, 3), loose=0),
        }

    def __getstate__(self) -> dict[str, Any]:  # a lock cannot be pickled
        return {"table": self._table, "state": self.state_dict()}

    def __setstate__(self, pickled: dict[str, Any]) -> None:
        self.__init__(pickled["table"])  # type: ignore[misc]
        self.load_state_dict(pickled["state"])

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Everything that was noted; copies."""
        with self._lock:
            begun = [(number, *part) for number, part in sorted(self._begun.items())]
            return {
                "all": self._all.copy(),
                "targets": self._targets.copy(),
                "stamps": self.stamps,
                "begun": np.array(begun, np.uint64).reshape(-1, 3),
            }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of the same chunks. Raises ValueError for another."""
        arrays = {name: np.asarray(state[name]) for name in ("all", "targets", "stamps", "begun")}
        begun = arrays["begun"]
        fits = all(arrays[name].shape == self._all.shape for name in ("all", "targets"))
        if not fits or begun.shape[1:] != (3,) or any(array.dtype != np.uint64 for array in arrays.values()):
            raise ValueError("the digests are of other chunks")
        if len(begun) and int(begun[:, 0].max()) >= len(self._table):
            raise ValueError("the digests are of other chunks")
        with self._lock:
            self._all, self._targets = arrays["all"].copy(), arrays["targets"].copy()
            self.stamps = arrays["stamps"]
            self._begun = {number: (rows, digest) for number, rows, digest in begun.tolist()}

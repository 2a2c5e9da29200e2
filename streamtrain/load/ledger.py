"""The record of skipped rows: chunks that could not be read, and rows that cannot be used.

Why is noted when they are read, how many when they are handed out: so the counts belong to the position of the loader, and do
not depend on what was read ahead.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.columns.weights import Skips
from streamtrain.errors import CorruptError, DataError
from streamtrain.load.settings import SkipSettings
from streamtrain.storage.reader import ChunkTable

__all__ = ["Ledger"]

_NAMED = 3  # how many entries the error for too many skipped rows shows, and how many reasons an entry
_FEWEST_ROWS = 10_000  # before so many were read, any share of them may be skipped


class Ledger:
    """The skipped chunks and rows; each chunk has one entry. A row counts each time that it is skipped: once an epoch.

    source: a name of the data, for messages. table: of their chunks. most: the largest share of the rows read so far that may
    be skipped; it is not judged before 10,000 rows. infinite: whether rows with infinite features are skipped. is_used: whether
    rows are skipped now; if not, this only says what was skipped before. Several threads may use a ledger at once.

    >>> table = ChunkTable("part#{}".format, [10, 10], [80, 80], [80, 80])
    >>> ledger = Ledger("clicks", table, most=0.05)
    >>> ledger.note(1, "target 'y' is null")
    >>> ledger.count(20, [1, 1, 1])
    >>> ledger.rows, ledger.is_lost(1), [(entry["chunk"], entry["rows"], entry["error"]) for entry in ledger.entries()]
    (3, False, [('part#1', 3, "target 'y' is null")])
    """

    def __init__(
        self, source: str, table: ChunkTable, most: float, *, infinite: bool = True, is_used: bool = True
    ) -> None:
        self._source, self._table, self._most, self.is_used = source, table, most, is_used
        self.skips = Skips(infinite)
        self._lock = threading.Lock()
        self._counts: dict[int, int] = {}
        self._why: dict[int, tuple[str, ...]] = {}
        self._lost: set[int] = set()
        self.rows = self.read = 0  # rows skipped, and handed out

    @classmethod
    def of(
        cls, settings: SkipSettings, source: str, table: ChunkTable, infinities: str, unread: Mapping[int, DataError],
        state: Mapping[str, Any] | None = None,
    ) -> Ledger | None:  # fmt: skip
        """The ledger for data; None if nothing was skipped, and what cannot be used is an error. infinities: the setting of the
        model. unread: chunks of which it is already known that they cannot be read. state: of the ledger so far."""
        is_used = settings.on_error == "skip"
        if not is_used and state is None:
            return None
        ledger = cls(source, table, settings.max_skipped, infinite=infinities == "error", is_used=is_used)
        if state is not None:
            ledger.load_state_dict(state)
        for number, error in unread.items():
            ledger.skip_chunk(number, error)
        return ledger

    @property
    def in_use(self) -> Ledger | None:
        """The ledger itself; None if nothing is skipped now."""
        return self if self.is_used else None

    def is_lost(self, number: int) -> bool:
        """Whether all rows of the chunk with this number are skipped."""
        return number in self._lost

    def skip_chunk(self, number: int, error: DataError) -> None:
        """Note that a chunk cannot be read: all of its rows are skipped from now on."""
        with self._lock:
            if number not in self._lost:
                self._lost.add(number)
                self._why[number] = (str(error),)

    def try_again(self, numbers: Iterable[int]) -> None:
        """Note that the chunks with these numbers may have become readable. What was skipped of them stays entered."""
        with self._lock:
            self._lost -= set(numbers)

    def note(self, number: int, why: str) -> None:
        """Note why rows of a chunk are skipped."""
        with self._lock:
            known = self._why.get(number, ())
            if number not in self._lost and why not in known:
                self._why[number] = tuple(sorted((*known, why))[:_NAMED])  # the same whoever reads first

    def count(self, rows: int, chunks: NDArray[np.int32] | Iterable[int]) -> None:
        """Count rows that were handed out. chunks: the number of the chunk of each that was skipped. Raises CorruptError if too
        many are skipped now."""
        numbers, counts = np.unique(np.asarray(chunks, np.int32), return_counts=True)
        with self._lock:
            for number, more in zip(numbers.tolist(), counts.tolist(), strict=True):
                self._counts[number] = self._counts.get(number, 0) + more
            self.rows += int(counts.sum())
            self.read += rows
        if len(numbers):
            self.require_few(self.rows, self.read, self.entries)

    def has_read(self, rows: int) -> None:
        """At least so many rows were read so far, also by a process that skipped none."""
        self.read = max(self.read, rows)

    def require_few(self, skipped: int, read: int, entries: Any) -> None:
        """Raise CorruptError if so many skipped rows are too many of those read. entries: returns them, for the message."""
        if read < _FEWEST_ROWS or skipped <= self._most * read:
            return
        found = entries()
        more = f"; and {len(found) - _NAMED:,} more" if len(found) > _NAMED else ""
        named = "; ".join(f"{entry['chunk']}, {entry['rows']:,} rows: {entry['error']}" for entry in found[:_NAMED])
        raise CorruptError(
            f"{self._source}: {skipped:,} of {read:,} rows read so far are skipped, more than --max-skipped {self._most:g} "
            f"allows: repair the data, or allow more ({named}{more})"
        )

    def entry(self, number: int, rows: int) -> dict[str, Any]:
        """The entry of a chunk of which so many rows are skipped."""
        why = "; ".join(self._why.get(number, ()))
        return {"source": self._source, "chunk": self._table[number].key, "rows": rows, "error": why}

    def entries(self) -> list[dict[str, Any]]:
        """One entry for each chunk, in the order of the data: ``source``, ``chunk``, ``rows`` and ``error``."""
        with self._lock:
            unread = {
                number for number in self._lost if not self._table.rows[number]
            }  # nobody knows which rows are left
            return [self.entry(number, self._counts.get(number, 0)) for number in sorted({*self._counts, *unread})]

    def state_dict(self) -> dict[str, Any]:
        """Counts and reasons by the number of their chunk, which chunks are skipped completely, and how many rows were read:
        what a resumed run needs."""
        with self._lock:
            entries = {
                str(number): {
                    "source": self._source,
                    "chunk": self._table[number].key,
                    "rows": self._counts.get(number, 0),
                    "why": list(why),
                }
                for number, why in self._why.items()
            }
            return {"entries": entries, "lost": sorted(self._lost), "read": self.read}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        with self._lock:
            entries = {int(number): entry for number, entry in state["entries"].items()}
            self._counts = {number: entry["rows"] for number, entry in entries.items() if entry["rows"]}
            self._why = {number: tuple(entry["why"]) for number, entry in entries.items()}
            self._lost, self.read = set(state["lost"]), state["read"]
            self.rows = sum(self._counts.values())

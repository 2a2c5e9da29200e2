"""The record of skipped rows: chunks that could not be read, and rows without a usable target.

It is exact, and the same for every pass over the data.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from streamtrain.errors import CorruptError, DataError

__all__ = ["Ledger"]

_NAMED = 3  # how many entries the error for too many skipped rows shows


class Ledger:
    """The skipped chunks and rows. Each chunk has one entry, however often it is read.

    source: a name of the data, for messages. total_rows: rows of the data. most: the largest share of them that may be
    skipped. Several threads may use a ledger at once.

    >>> ledger = Ledger("clicks", 1000, most=0.05)
    >>> ledger.skip_rows(4, "part#4", 3, "target 'y': 3 nulls")
    >>> ledger.rows, ledger.is_lost(4), [entry["chunk"] for entry in ledger.entries()]
    (3, False, ['part#4'])
    """

    def __init__(self, source: str, total_rows: int, most: float) -> None:
        self._source, self._total, self._most = source, total_rows, most
        self._lock = threading.Lock()
        self._entries: dict[int, dict[str, Any]] = {}
        self._lost: set[int] = set()
        self._rows = 0

    @property
    def rows(self) -> int:
        """Rows skipped."""
        return self._rows

    def is_lost(self, number: int) -> bool:
        """Whether all rows of the chunk with this number are skipped."""
        return number in self._lost

    def skip_chunk(self, number: int, key: str, rows: int, error: DataError) -> None:
        """Enter all rows of a chunk. Raises CorruptError if too many rows are skipped now."""
        with self._lock:
            self._lost.add(number)
        self._add(number, key, rows, str(error))

    def skip_rows(self, number: int, key: str, rows: int, why: str) -> None:
        """Enter some rows of a chunk. Raises CorruptError if too many rows are skipped now."""
        if not self.is_lost(number):
            self._add(number, key, rows, why)

    def _add(self, number: int, key: str, rows: int, error: str) -> None:
        with self._lock:
            before = self._entries.get(number, {"rows": 0})
            self._entries[number] = {"source": self._source, "chunk": key, "rows": rows, "error": error}
            self._rows += rows - before["rows"]
            skipped = self._rows
        if skipped > self._most * self._total:
            entries = self.entries()
            more = f"; and {len(entries) - _NAMED:,} more" if len(entries) > _NAMED else ""
            named = "; ".join(
                f"{entry['chunk']}, {entry['rows']:,} rows: {entry['error']}" for entry in entries[:_NAMED]
            )
            raise CorruptError(
                f"{self._source}: {skipped:,} of {self._total:,} rows would be skipped, more than --max-skipped "
                f"{self._most:g} allows: repair the data, or allow more ({named}{more})"
            )

    def entries(self) -> list[dict[str, Any]]:
        """One entry for each chunk, in the order of the data: ``source``, ``chunk``, ``rows`` and ``error``."""
        with self._lock:
            return [dict(self._entries[number]) for number in sorted(self._entries)]

    def state_dict(self) -> dict[str, Any]:
        """Entries by the number of their chunk, and which chunks are skipped completely: what a resumed run needs."""
        with self._lock:
            return {"entries": {str(n): dict(e) for n, e in self._entries.items()}, "lost": sorted(self._lost)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        with self._lock:
            self._entries = {int(n): dict(e) for n, e in state["entries"].items()}
            self._lost = set(state["lost"])
            self._rows = sum(entry["rows"] for entry in self._entries.values())

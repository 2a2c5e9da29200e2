"""What was skipped: chunks that could not be read, and rows without a usable target. Exact, and the same on every repeat."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from streamtrain.errors import CorruptError, DataError

__all__ = ["Ledger"]

_NAMED = 3  # entries that the error for too many names


class Ledger:
    """The chunks of a data set that are skipped, whole or some rows of them, each once however often it is met.

    source: the data, as people name them. total_rows: of the data. most: the share of them that may be skipped.
    Used by several threads at once.

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

    @property
    def rows(self) -> int:
        """Rows skipped."""
        with self._lock:
            return sum(entry["rows"] for entry in self._entries.values())

    def is_lost(self, number: int) -> bool:
        """Whether the chunk of this number is skipped whole."""
        return number in self._lost

    def skip_chunk(self, number: int, key: str, rows: int, error: DataError) -> None:
        """All rows of a chunk. Raises CorruptError where too many are skipped now."""
        with self._lock:
            self._lost.add(number)
        self._add(number, key, rows, str(error))

    def skip_rows(self, number: int, key: str, rows: int, why: str) -> None:
        """So many rows of a chunk. Raises CorruptError where too many are skipped now."""
        if not self.is_lost(number):
            self._add(number, key, rows, why)

    def _add(self, number: int, key: str, rows: int, error: str) -> None:
        with self._lock:
            self._entries[number] = {"source": self._source, "chunk": key, "rows": rows, "error": error}
            skipped = sum(entry["rows"] for entry in self._entries.values())
        if skipped > self._most * self._total:
            found = self.entries()
            more = f"; and {len(found) - _NAMED:,} more" if len(found) > _NAMED else ""
            named = "; ".join(f"{entry['chunk']}, {entry['rows']:,} rows: {entry['error']}" for entry in found[:_NAMED])
            raise CorruptError(
                f"{self._source}: {skipped:,} of {self._total:,} rows would be skipped, more than --max-skipped "
                f"{self._most:g} allows: mend the data, or allow more ({named}{more})"
            )

    def entries(self) -> list[dict[str, Any]]:
        """One for each chunk, in the order of the data: ``source``, ``chunk``, ``rows`` and ``error``."""
        with self._lock:
            return [dict(self._entries[number]) for number in sorted(self._entries)]

    def state_dict(self) -> dict[str, Any]:
        """What a run that goes on must know: entries by the number of their chunk, and which are skipped whole."""
        with self._lock:
            return {"entries": {str(n): dict(e) for n, e in self._entries.items()}, "lost": sorted(self._lost)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        with self._lock:
            self._entries = {int(n): dict(e) for n, e in state["entries"].items()}
            self._lost = set(state["lost"])

"""The gate: reads start only while the bytes that they declare fit under a limit together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from streamtrain.errors import BudgetExceeded
from streamtrain.memory.sizes import format_bytes

__all__ = ["ByteGate", "never"]

_NEAR_SECONDS = 0.05  # how often a waiting read checks whether the process is still near its budget


def never() -> bool:
    return False


class ByteGate:
    """Admits work while the bytes that it declares fit under a limit together.

    limit_bytes: the limit. near: whether the process is near its budget; while it is, work is admitted one at a time.
    held_bytes, peak_bytes: bytes that the work under way has declared, now and at the peak.

    >>> gate = ByteGate(100)
    >>> with gate.hold(60):
    ...     gate.held_bytes
    60
    >>> gate.held_bytes, gate.peak_bytes
    (0, 60)
    """

    def __init__(self, limit_bytes: int, near: Callable[[], bool] = never) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self.peak_bytes = 0
        self._near = near
        self._changed = threading.Condition()
        self._closed = False

    @contextmanager
    def hold(self, size_bytes: int) -> Iterator[None]:
        """Wait until ``size_bytes`` fit, and hold them for the block. Raises BudgetExceeded if they are above the limit."""
        if size_bytes > self.limit_bytes:
            raise BudgetExceeded(
                f"a read needs {format_bytes(size_bytes)}, but the plan leaves {format_bytes(self.limit_bytes)} "
                "for reads: give a larger --memory, or use smaller chunks"
            )
        with self._changed:
            while not self._admits(size_bytes):
                self._changed.wait(_NEAR_SECONDS)
            self.held_bytes += size_bytes
            self.peak_bytes = max(self.peak_bytes, self.held_bytes)
        try:
            yield
        finally:
            with self._changed:
                self.held_bytes -= size_bytes
                self._changed.notify_all()

    def _admits(self, size_bytes: int) -> bool:
        if self._closed or not self.held_bytes:  # one read is always admitted, otherwise the run would stop
            return True
        return self.held_bytes + size_bytes <= self.limit_bytes and not self._near()

    def close(self) -> None:
        """Admit all waiting work, because the run is over."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

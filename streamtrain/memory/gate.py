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
    held_bytes, peak_bytes: what is declared by the work under way, and the most that it has been.

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
        """Wait until ``size_bytes`` fit, and hold them for the block. Raises BudgetExceeded for more than the limit, which can
        never fit."""
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
        if self._closed or not self.held_bytes:  # one read may always go on, or nothing would ever be read
            return True
        return self.held_bytes + size_bytes <= self.limit_bytes and not self._near()

    def close(self) -> None:
        """Let all waiting work through, because the run is over."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

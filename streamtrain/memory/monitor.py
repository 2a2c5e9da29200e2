"""Keeps the process within its budget: samples its memory, and sets a limit that the system enforces.

There are three lines of defence behind the plan. Near the budget the gate admits one read at a time, and freed memory is
given back to the system. Over the budget the work is stopped with BudgetExceeded. And because a sample comes too late
for one large allocation, ``RLIMIT_DATA`` is lowered meanwhile: such an allocation, in any learner or reader, fails with a
MemoryError, which becomes BudgetExceeded too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

import numpy as np

from streamtrain.errors import BudgetError, BudgetExceeded
from streamtrain.memory.process import mapped_data_bytes, peak_bytes, release_freed_memory, resident_now
from streamtrain.memory.sizes import format_bytes, predicted_peak, sorted_terms

__all__ = ["Monitor"]

_SAMPLE_SECONDS = 0.01
_NEAR_SHARE = 0.98  # of the budget: above it there is one read at a time
_TRIM_SECONDS = 0.5  # at least, before freed memory is given back again
_JOIN_SECONDS = 1.0
_STACK_BYTES = 1 << 20  # of each new thread, instead of 8 MiB: the limit counts stacks as soon as they are mapped
_STACKS_BYTES = 24 * _STACK_BYTES
_BLAS_BYTES = 2 * (34 << 20)  # buffers of threads that are in BLAS at the same time: mapped memory counts, too


class Monitor:
    """Watches the process during one piece of work. Used as a context manager.

    budget_bytes: the most that the process may take. planned: bytes of the plan's terms, by name. measured: measured bytes
    of terms, where known; for the message. stops: whether going over the budget is an error; otherwise it
    becomes a warning in ``warnings``, and no limit is set. watch: called a hundred times a second, from the thread of the
    monitor.

    A MemoryError inside the block becomes BudgetExceeded.

    >>> with Monitor(10**12, {"baseline": 10**8}) as monitor:
    ...     monitor.check()
    """

    def __init__(
        self, budget_bytes: int, planned: Mapping[str, int], *, measured: Callable[[], Mapping[str, int]] = dict,
        stops: bool = True, watch: Callable[[], object] | None = None,
    ) -> None:  # fmt: skip
        self.budget_bytes = budget_bytes
        self.warnings: list[str] = []
        self._planned, self._measured, self._stops, self._watch = planned, measured, stops, watch
        self._near = self._over = False
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="streamtrain-monitor", daemon=True)
        self._trimmed = time.perf_counter()
        # Stacks and BLAS buffers may use what the plan leaves free of the budget.
        self._most_bytes = max(budget_bytes, predicted_peak(planned) + _STACKS_BYTES + _BLAS_BYTES)

    def near(self) -> bool:
        """Return whether the process is so near its budget that nothing should be read ahead."""
        return self._near

    def over(self) -> bool:
        """Return whether a sample was above the budget. Cheap enough to ask for every batch."""
        return self._over

    def check(self) -> None:
        """Raise BudgetExceeded, or add a warning, if the process took more than the budget since the peak was reset."""
        peak = peak_bytes()
        if not self._over and (peak is None or peak <= self.budget_bytes):
            return
        taken = "more" if peak is None else f"{format_bytes(peak)}, more"
        message = self._message(f"the process took {taken} than the budget of {format_bytes(self.budget_bytes)}")
        if self._stops:
            raise BudgetExceeded(message)
        self.warnings[:] = [message]  # one warning, with the peak so far

    def __enter__(self) -> Self:
        self._thread.start()
        if self._stops:
            _limit.lower(self, self._most_bytes)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join(_JOIN_SECONDS)
        _limit.restore(self)
        if isinstance(error, MemoryError) and not isinstance(error, BudgetError):
            peak, budget = peak_bytes(), format_bytes(self.budget_bytes)
            taken = "" if peak is None else f", of which the process had taken {format_bytes(peak)}"
            failed = f"an allocation failed ({str(error) or type(error).__name__})"
            raise BudgetExceeded(self._message(f"{failed}: does not fit the budget of {budget}{taken}")) from error

    def _message(self, what: str) -> str:
        measured = self._measured()
        width = max(map(len, self._planned), default=0)
        lines = [
            f"  {name:<{width}}  planned {format_bytes(size):>8}"
            + (f"  measured {format_bytes(measured[name]):>8}" if name in measured else "")
            for name, size in sorted_terms(self._planned)
            if size or measured.get(name)
        ]
        total = format_bytes(predicted_peak(self._planned))
        advice = (
            "give a larger --memory; or find out what takes it: `streamtrain profile`, your own learners and readers"
        )
        return "\n".join([f"{what}; planned {total}:", *lines, f"What would help: {advice}."])

    def _run(self) -> None:
        while not self._done.is_set():
            self._sample()
            if self._watch is not None:
                self._watch()
            self._done.wait(_SAMPLE_SECONDS)

    def _sample(self) -> None:
        sizes = resident_now()
        if sizes is None:  # this system cannot measure it
            self._done.set()
            return
        resident, now = sizes[0], time.perf_counter()
        self._near = resident > _NEAR_SHARE * self.budget_bytes
        if self._near and now - self._trimmed > _TRIM_SECONDS:
            self._trimmed = now
            release_freed_memory()
        if resident > self.budget_bytes:
            self._over = True


class _DataLimit:
    """``RLIMIT_DATA`` of this process: the lowest limit that a monitor under way needs, restored after the last of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._limits: dict[Monitor, int] = {}
        self._before = (-1, -1)
        self._stack_bytes = 0

    def lower(self, monitor: Monitor, most_bytes: int) -> None:
        """Let the process grow to ``most_bytes``, and in any case by the size of stacks and BLAS buffers."""
        square = np.zeros((256, 256), np.float32)
        square @ square  # BLAS maps its buffer at its first use; where that fails, it ends the process
        mapped, resident = mapped_data_bytes(), resident_now()
        if mapped is None or resident is None:  # not Linux
            return
        import resource

        with self._lock:
            if not self._limits:
                self._before = resource.getrlimit(resource.RLIMIT_DATA)
                self._stack_bytes = threading.stack_size(_STACK_BYTES)
            self._limits[monitor] = mapped + max(_STACKS_BYTES + _BLAS_BYTES, most_bytes - resident[0])
            self._apply()

    def restore(self, monitor: Monitor) -> None:
        with self._lock:
            if self._limits.pop(monitor, None) is not None:
                self._apply()
                if not self._limits:
                    threading.stack_size(self._stack_bytes)

    def _apply(self) -> None:
        soft, hard = self._before
        import resource  # only on Unix

        limits = [size for size in (*self._limits.values(), soft, hard) if size != resource.RLIM_INFINITY]
        resource.setrlimit(resource.RLIMIT_DATA, (min(limits) if self._limits else soft, hard))


_limit = _DataLimit()

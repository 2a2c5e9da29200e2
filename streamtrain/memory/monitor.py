"""Keeps the process within its budget: samples its memory, and sets a limit that the system enforces.

There are three lines of defence behind the plan. Near the budget the gate admits one read at a time, and freed memory is
given back to the system. Over the budget the work is stopped with BudgetExceeded. And because a sample comes too late
for one large allocation, ``RLIMIT_DATA`` is lowered meanwhile: such an allocation, in any learner or reader, fails with a
MemoryError, which becomes BudgetExceeded too.

`within` holds a whole command to its budget, from before its data are opened; where memory runs short then, it is
BudgetRefused. Once there is a plan, a `Monitor` inside of it takes over.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Self

from threadpoolctl import threadpool_limits

from streamtrain.errors import BudgetError, BudgetExceeded, BudgetRefused
from streamtrain.memory.limits import DATA_LIMIT, STACK_BYTES, is_shortage
from streamtrain.memory.pandas_import import settle_pandas
from streamtrain.memory.process import (
    available_bytes,
    peak_bytes,
    release_freed_memory,
    reset_peak,
    resident_now,
    use_blas,
    use_one_arena,
)
from streamtrain.memory.sizes import format_bytes, parse_bytes, predicted_peak, sorted_terms

__all__ = ["Monitor", "budget_of", "is_below_process", "opening", "require_room", "unlimited", "within"]

_SAMPLE_SECONDS, _JOIN_SECONDS = 0.01, 1.0
_NEAR_SHARE = 0.98  # of the budget: above it there is one read at a time
_TRIM_SECONDS = 0.5  # at least, before freed memory is given back again
_STACKS_BYTES = 24 * STACK_BYTES
_BLAS_BYTES = 2 * (34 << 20)  # buffers of threads that are in BLAS at the same time: mapped memory counts, too
_ASSUMED_AVAILABLE_BYTES = 4 * 10**9
# For opening small data, whatever the budget, so that the plan can say how much is needed: where the process is below its
# budget, and where it is above it already.
_LEAST_OPENING_BYTES, _OPENING_BYTES = 8 << 20, 24 << 20
_SMALL_BYTES = 4 << 20  # of one file: not refused before there is a plan


class Monitor:
    """Watches the process during one piece of work. Used as a context manager.

    budget_bytes: the most that the process may take. planned: bytes of the plan's terms, by name; None while there is no plan
    yet, because the data are being opened: then running short is BudgetRefused. measured: measured bytes of terms, where known;
    for the message. stops: whether going over the budget is an error; otherwise it becomes a warning in ``warnings``, and no
    limit is set. watch: called a hundred times a second, from the thread of the monitor. is_setting: whether another budget can
    be given.

    An error inside the block that means that memory ran short becomes BudgetExceeded. A monitor inside the block of another
    one, in the same thread, takes its place until it is left.

    >>> with Monitor(10**12, {"baseline": 10**8}) as monitor:
    ...     monitor.check()
    """

    def __init__(
        self, budget_bytes: int, planned: Mapping[str, int] | None, *, measured: Callable[[], Mapping[str, int]] = dict,
        stops: bool = True, watch: Callable[[], object] = dict, is_setting: bool = True,
    ) -> None:  # fmt: skip
        self.budget_bytes, self._trimmed = budget_bytes, time.perf_counter()
        self.warnings: list[str] = []
        self._planned, self._measured, self._stops, self._watch = planned, measured, stops, watch
        self._is_setting, self._done = is_setting, threading.Event()
        self._near = self._over = self._rests = False
        self._failed: Exception | None = None  # the error of a sample
        self._thread = threading.Thread(target=self._run, name="streamtrain-monitor", daemon=True)

    def budget(self, memory: float | str | None, *, stops: bool) -> None:
        """Change the budget, and whether going over it is an error."""
        self.budget_bytes, self._stops = budget_of(memory), stops
        DATA_LIMIT.release(self)
        self._hold()

    @property
    def _advice(self) -> str:
        """What would help, in words."""
        if not self._is_setting:
            return "a machine with more free memory"
        if self._planned is None:
            return "a larger --memory, fewer columns, or smaller files"
        return "give a larger --memory; or find out what takes it: `streamtrain profile`, your own learners and readers"

    def near(self) -> bool:
        """Return whether the process is so near its budget that nothing should be read ahead."""
        return self._near

    def over(self) -> bool:
        """Return whether a sample was above the budget, or failed. Cheap enough to ask for every batch."""
        return self._over

    def check(self) -> None:
        """Raise an error, or add a warning, if the process took more than the budget since the peak was reset."""
        peak = peak_bytes()
        is_above = peak is not None and peak > self.budget_bytes
        if not self._over and not is_above:
            return
        taken = "more" if peak is None else f"{format_bytes(peak)}, more"
        what = f"the process took {taken} than the budget of {format_bytes(self.budget_bytes)}"
        what += "" if self._planned is not None else " while the data were opened"
        error = self._error(what) if is_above or self._failed is None else self.shortage(self._failed)
        if self._stops:
            raise error
        self.warnings[:] = [str(error)]  # one warning, with the peak so far

    def require(self, now: int, more_bytes: int, name: str, later_bytes: int) -> None:
        """Raise an error if ``more_bytes`` beside the resident bytes of ``now`` are more than the budget, and not small: the
        plan says how much is needed in all."""
        most = self.budget_bytes if self._planned is not None else self._most_to_open(now)
        if not self._stops or more_bytes <= _SMALL_BYTES or now + more_bytes <= most:
            return
        what = f"{name} takes {format_bytes(more_bytes)} beside the {format_bytes(now)} that the process holds"
        least = -(-(now + more_bytes + later_bytes) // 10**6)
        enough = f"--memory {least}MB or more" if self._is_setting else self._advice
        raise self._error(f"{what}: more than the budget of {format_bytes(self.budget_bytes)}", enough)

    def shortage(self, error: BaseException, name: str = "the data") -> BudgetError:
        """The error to raise where memory ran short. name: what was being opened, if there is no plan yet."""
        failed = f"an allocation failed ({' '.join(str(error).split())[:300] or type(error).__name__})"
        peak, budget = peak_bytes(), format_bytes(self.budget_bytes)
        taken = "" if peak is None else f", of which the process had taken {format_bytes(peak)}"
        when = "" if self._planned is not None else f"memory ran short while {name} was opened: "
        return self._error(f"{when}{failed}: does not fit the budget of {budget}{taken}")

    def __enter__(self) -> Self:
        self._outer = _running()
        if self._outer is not None and self._planned is not None and self.budget_bytes <= self._outer.budget_bytes:
            self._outer.check()  # what it was opened with may not have fitted
        self._thread.start()
        if self._outer is None:
            use_blas()
        self._hold()
        if self._outer is not None:
            self._outer._pause()
        self._token = _current.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        is_short = isinstance(error, Exception) and not isinstance(error, BudgetError) and is_shortage(error)
        _current.reset(self._token)
        self._done.set()
        self._thread.join(_JOIN_SECONDS)
        DATA_LIMIT.release(self)  # first: memory may be short for what follows
        if self._outer is not None and not self._outer._done.is_set():
            self._outer._hold()
        if is_short and error is not None:
            raise self.shortage(error) from error

    def _hold(self) -> None:
        """Set the limit of the system."""
        self._rests = False
        if not self._stops:
            return
        most, (now, _) = self.budget_bytes, resident_now() or (0, 0)
        if self._planned is None:
            most = self._most_to_open(now)
        else:
            # Stacks and BLAS buffers may use what the plan leaves free of the budget, and are there in any case.
            most = max(most, max(now, predicted_peak(self._planned)) + _STACKS_BYTES + _BLAS_BYTES)
        DATA_LIMIT.hold(self, most, is_opening=self._planned is None)

    def _most_to_open(self, now: int) -> int:
        """The resident memory that may be taken while there is no plan yet. now: that which is taken."""
        return max(self.budget_bytes, now + (_LEAST_OPENING_BYTES if now < self.budget_bytes else _OPENING_BYTES))

    def _pause(self) -> None:
        self._rests = True
        DATA_LIMIT.release(self)

    def _error(self, what: str, advice: str | None = None) -> BudgetError:
        advice = advice or self._advice
        if self._planned is None:
            return BudgetRefused(f"{what}. Nothing was trained. What would help: {advice}.")
        planned, measured = self._planned, self._measured()
        width = max(map(len, planned), default=0)
        lines = [
            f"  {name:<{width}}  planned {format_bytes(size):>8}"
            + (f"  measured {format_bytes(measured[name]):>8}" if name in measured else "")
            for name, size in sorted_terms(planned)
            if size or measured.get(name)
        ]
        what = f"{what}; planned {format_bytes(predicted_peak(planned))}:"
        return BudgetExceeded("\n".join([what, *lines, f"What would help: {advice}."]))

    def _run(self) -> None:
        while not self._done.is_set():
            try:
                if not self._rests:
                    self._sample()
                    self._watch()
                self._done.wait(_SAMPLE_SECONDS)
            except Exception as error:  # where memory runs short, a sample fails too
                self._failed, self._over = error, True
                time.sleep(_SAMPLE_SECONDS)

    def _sample(self) -> None:
        if (sizes := resident_now()) is None:  # this system cannot measure it
            self._done.set()
            return
        (resident, anonymous), now = sizes, time.perf_counter()
        if self._planned is None:
            DATA_LIMIT.follow(resident - anonymous)
        self._near = resident > _NEAR_SHARE * self.budget_bytes
        if self._near and now - self._trimmed > _TRIM_SECONDS:
            self._trimmed = now
            release_freed_memory()
        self._over |= resident > self.budget_bytes


_current: ContextVar[Monitor | None] = ContextVar("monitor", default=None)


def _running() -> Monitor | None:
    """The innermost monitor that is not left yet."""
    monitor = _current.get()
    return None if monitor is None or monitor._done.is_set() else monitor


@contextmanager
def within(memory: float | str | None = None, *, stops: bool = True, is_setting: bool = True) -> Iterator[Monitor]:
    """Hold the process to a budget from before the first file is opened: BudgetRefused where memory runs short.

    memory: the budget, as in `fit`; by default half of what is available. stops: whether going over it is an error.
    is_setting: whether the caller can give another budget. The peak is reset, and BLAS and other pools of threads run on one
    thread each for the block: the cores are for the reads, and sums do not depend on their number.
    """
    use_one_arena()
    if "pyarrow" in sys.modules:
        settle_pandas()
    reset_peak()
    with threadpool_limits(1), Monitor(budget_of(memory), None, stops=stops, is_setting=is_setting) as monitor:
        yield monitor


@contextmanager
def opening(name: str) -> Iterator[None]:
    """Say what is being opened, in the error of a shortage; without a `Monitor` around it errors stay as they are."""
    monitor = _running()
    settle_pandas()
    try:
        yield
    except Exception as error:
        if monitor is None or isinstance(error, BudgetError) or not is_shortage(error):
            raise
        raise monitor.shortage(error, name) from error


@contextmanager
def unlimited() -> Iterator[None]:
    """Lift the limit of the system: while plans are tried, and models of many sizes are made for them; and while a library
    starts a thread. It would count their arrays, and its stack, which are mapped but hardly touched."""
    monitor = _running()
    if monitor is None:
        yield
        return
    DATA_LIMIT.release(monitor)
    try:
        yield
    finally:
        monitor._hold()


def require_room(more_bytes: int, name: str, later_bytes: int = 0) -> None:
    """Raise an error if what is about to be opened takes more than the budget leaves; without a `Monitor` do nothing.

    more_bytes: what it takes beside what the process holds. name: what it is. later_bytes: what training with it takes in
    addition, for the budget that the error names.
    """
    monitor, resident = _running(), resident_now()
    if monitor is not None and resident is not None:
        monitor.require(resident[0], more_bytes, name, later_bytes)


def is_below_process(memory: float | str | None) -> bool:
    """Whether this budget is below what the process takes before anything is opened: then nothing can hold it."""
    resident = resident_now()
    return memory is not None and resident is not None and parse_bytes(memory) < resident[0] + _OPENING_BYTES


def budget_of(memory: float | str | None) -> int:
    """The budget in bytes: as given, or half of the memory that is available."""
    if memory is not None:
        return parse_bytes(memory)
    available = available_bytes()
    return (_ASSUMED_AVAILABLE_BYTES if available is None else available) // 2

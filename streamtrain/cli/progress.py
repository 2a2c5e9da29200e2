"""The progress of a command on stderr: a bar on a terminal, otherwise a line every few seconds. Never on stdout."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

from streamtrain.errors import printable
from streamtrain.memory.sizes import format_bytes

if TYPE_CHECKING:
    from streamtrain.train.progress import Progress

__all__ = ["FitLine", "RowsLine"]

_LINE_SECONDS = 5.0  # between two lines where stderr is no terminal
_BAR_SECONDS = 0.1  # between two drawings of the bar
_BAR_COLUMNS = 10  # so that the line fits into 80 columns


class _Bar:
    """A bar and a text on a terminal, drawn from the thread that calls: it needs no thread of its own."""

    def __init__(self) -> None:
        from rich.console import Console  # it is imported only if stderr is a terminal
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column

        line = Column(no_wrap=True, overflow="ellipsis")
        columns = (
            BarColumn(bar_width=_BAR_COLUMNS),
            TextColumn("{task.fields[text]}", markup=False, table_column=line),
        )
        self._progress = Progress(*columns, console=Console(stderr=True), auto_refresh=False, transient=True)
        self._task = self._progress.add_task("", total=None, text="")

    def open(self) -> None:
        self._progress.start()

    def show(self, share: float | None, text: str) -> None:
        self._progress.update(self._task, completed=share or 0.0, total=None if share is None else 1.0, text=text)
        self._progress.refresh()

    def close(self) -> None:
        self._progress.stop()


class _Lines:
    """A line of text each time."""

    def open(self) -> None: ...
    def close(self) -> None: ...

    def show(self, share: float | None, text: str) -> None:
        if share is not None and sys.stderr is not None:
            print(printable(text), file=sys.stderr, flush=True)


class _Shown:
    """Shows progress while its context lasts. If the terminal closes, only the display ends."""

    _first = ""  # what the bar says before the first call

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._started = clock, clock()
        self._terminal = sys.stderr is not None and sys.stderr.isatty()
        self._display: _Bar | _Lines = _Bar() if self._terminal else _Lines()
        self._interval = _BAR_SECONDS if self._terminal else _LINE_SECONDS
        self._next = self._started + (0.0 if self._terminal else self._interval)

    def __enter__(self) -> Self:
        with suppress(OSError):
            self._display.open()
            if self._first:
                self._display.show(None, self._first)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._display.close()

    def _is_due(self, share: float) -> bool:
        return self._clock() >= self._next or (self._terminal and share >= 1)

    def _show(self, share: float, *parts: str) -> None:
        self._next = self._clock() + self._interval
        with suppress(OSError):
            self._display.show(share, "  ".join(part for part in parts if part))


class FitLine(_Shown):
    """Epoch, share done, speed, time left, loss, and memory used of the budget."""

    _first = "reading metadata and the target"

    def __call__(self, now: Progress) -> None:
        share = min(1.0, now.rows_seen / max(1, now.rows_total))
        if not self._is_due(share):
            return
        speed = now.rows_seen / now.seconds if now.seconds else 0.0
        memory = ""
        if now.resident_bytes is not None:
            memory = f"{format_bytes(now.resident_bytes)} of {format_bytes(now.budget_bytes)}"
        self._show(
            share,
            f"{'validating ' if now.stage == 'validate' else ''}epoch {min(now.epoch + 1, now.epochs)}/{now.epochs}",
            f"{share:.0%}",
            f"{_short(speed)} rows/s",
            _left(share, now.seconds),
            "" if now.loss is None else f"loss {now.loss:.4f}",
            memory,
        )


class RowsLine(_Shown):
    """Rows done of all rows. what: as in ``rows made``. total: all rows, if the calls do not pass it."""

    def __init__(self, what: str, total: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._what, self._total = what, total

    def __call__(self, done: int, total: int | None = None) -> None:
        self._total = total or self._total
        share = min(1.0, done / max(1, self._total))
        if self._is_due(share):
            left = _left(share, self._clock() - self._started)
            self._show(share, f"{share:.0%}", f"{done:,} of {self._total:,} {self._what}", left)


def _left(share: float, seconds: float) -> str:
    """The time left at the speed so far; nothing in the first second."""
    if not share or seconds < 1:
        return ""
    minutes, left = divmod(int(seconds * (1 - share) / share), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{left:02d} left" if hours else f"{minutes}:{left:02d} left"


def _short(number: float) -> str:
    """A number in three digits.

    >>> _short(950.2), _short(12_345), _short(1_234_567)
    ('950', '12.3k', '1.23M')
    """
    for unit in ("", "k", "M"):
        if number < 999.5 or unit == "M":
            return f"{number:.3g}{unit}"
        number /= 1000
    raise AssertionError

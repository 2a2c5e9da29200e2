"""The live line on a terminal: on stderr, and only where that is a terminal."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from streamtrain.errors import printable
from streamtrain.memory.sizes import format_bytes
from streamtrain.train.trainer import Progress

__all__ = ["FitLine", "RowsLine"]


class _Line:
    def __init__(self) -> None:
        self._live = (
            Live(console=Console(stderr=True), transient=True, auto_refresh=False)
            if sys.stderr is not None and sys.stderr.isatty()
            else None
        )

    def __enter__(self) -> _Line:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """Something that stays to be read, on a terminal or not."""
        console = (
            self._live.console if self._live is not None else Console(stderr=True, highlight=False, soft_wrap=True)
        )
        console.print(Text(printable(text)))

    def show(self, text: str) -> None:
        if self._live is not None:
            with suppress(OSError):
                self._live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)


def _left(done: int, total: int, seconds: float) -> str:
    """Time left at the speed so far, once there is one."""
    if not done or seconds < 1:
        return ""
    left = int(seconds * max(0, total - done) / done)
    return f"{left // 60}:{left % 60:02d} left"


class FitLine(_Line):
    """Share done, speed, time left, loss, memory of the budget: within 80 columns."""

    def __enter__(self) -> FitLine:
        super().__enter__()
        self.show("reading metadata and the target")
        return self

    def __call__(self, now: Progress) -> None:
        if now.message is not None:
            self.say(now.message)
            return
        speed = now.rows_seen / now.seconds if now.seconds else 0.0
        parts = [
            f"epoch {now.epoch + 1}",
            f"{100 * now.rows_seen / max(1, now.rows_total):3.0f} %",
            f"{speed:,.0f} rows/s",
            _left(now.rows_seen, now.rows_total, now.seconds),
            "" if now.loss is None else f"loss {now.loss:.4f}",
            "" if now.resident_bytes is None
            else f"{format_bytes(now.resident_bytes)} of {format_bytes(now.budget_bytes)}",
        ]  # fmt: skip
        self.show("  ".join(part for part in parts if part))


class RowsLine(_Line):
    """Rows done of rows to do, which may be told later."""

    def __init__(self, what: str, total: int = 0) -> None:
        super().__init__()
        self._what, self._total, self._started = what, total, time.perf_counter()

    def __enter__(self) -> RowsLine:
        super().__enter__()
        return self

    def __call__(self, done: int, total: int | None = None) -> None:
        self._total = total or self._total
        left = _left(done, self._total, time.perf_counter() - self._started)
        self.show(f"{done:,} of {self._total:,} {self._what}  {left}")

"""Delays Ctrl-C until a step is complete, so that a step is done completely or not at all."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["Interrupts", "noted"]

_UNHANDLED = (signal.SIGTERM, signal.SIG_DFL)


class _Terminated(KeyboardInterrupt):
    """SIGTERM without a handler: it ends the process after the block."""


class Interrupts:
    """Delays SIGINT and SIGTERM while a step is under way (`whole`). Use it as a context.

    Between steps, and at the end of a step, a signal goes to the handler that was installed before, which raises
    KeyboardInterrupt. SIGTERM without a handler raises it too, and then ends the process at the end of the context.

    is_whole: whether the last step ran to its end.

    Ignored signals stay ignored. Python delivers signals to the main thread: in other threads this does nothing.

    >>> with Interrupts() as interrupts:
    ...     try:
    ...         with interrupts.whole():
    ...             signal.raise_signal(signal.SIGINT)
    ...             print("the step goes on")
    ...     except KeyboardInterrupt:
    ...         print("interrupted")
    the step goes on
    interrupted
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._busy, self.is_whole = False, True
        self._pending: tuple[int, FrameType | None] | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                before = signal.getsignal(number)  # None: C code installed it; signal.Handlers: ignored, or the default
                if not isinstance(before, signal.Handlers | None) or (number, before) == _UNHANDLED:
                    self._before[number] = before
                    signal.signal(number, self._received)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            if signal.getsignal(number) == self._received:
                signal.signal(number, before)
        if isinstance(error, _Terminated):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTERM)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Run the block to its end; a signal that arrives meanwhile is handled after it."""
        self._busy, self.is_whole = True, False
        try:
            yield
            self.is_whole = True
        finally:
            self._busy = False
        if self._pending is not None:
            pending, self._pending = self._pending, None
            self._deliver(*pending)

    def _received(self, number: int, frame: FrameType | None) -> None:
        if self._busy:
            self._pending = number, frame
        else:
            self._deliver(number, frame)

    def _deliver(self, number: int, frame: FrameType | None) -> None:
        handler = self._before[number]
        if isinstance(handler, signal.Handlers):
            signal.signal(number, handler)  # a second SIGTERM ends the process at once
            raise _Terminated
        handler(number, frame)


@contextmanager
def noted(note: Callable[[], str | None]) -> Iterator[None]:
    """Add a note, if there is one, to a KeyboardInterrupt that leaves the block. Tracebacks show notes."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if (text := note()) is not None:
            interrupt.add_note(text)
        raise

"""Ctrl-C between two steps: what a step changes is changed whole, or not at all."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["Interrupts"]

_UNHANDLED = (signal.SIGTERM, signal.SIG_DFL)


class _Terminated(KeyboardInterrupt):
    """SIGTERM, where nobody handles it: the process ends by it, once what is under way was put away."""


class Interrupts:
    """Holds SIGINT and SIGTERM back while a step is under way (`whole`), as a context. Between steps, and once a step is
    over, they do what they did before: they are handed to the handler that was set, which raises KeyboardInterrupt. SIGTERM
    that nobody handles raises it too, and ends the process when the context is left.

    is_whole: whether the last step came to its end.

    Signals that are ignored stay so. Python hands signals to the main thread: elsewhere this does nothing.

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
                before = signal.getsignal(number)  # signal.Handlers are no functions, None is one that C set
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
        """What is done in this block is done to its end; a signal that came meanwhile is handed on then."""
        self._busy, self.is_whole = True, False
        try:
            yield
            self.is_whole = True
        finally:
            self._busy = False
        if self._pending is not None:
            pending, self._pending = self._pending, None
            self._hand_on(*pending)

    def _received(self, number: int, frame: FrameType | None) -> None:
        if self._busy:
            self._pending = number, frame
        else:
            self._hand_on(number, frame)

    def _hand_on(self, number: int, frame: FrameType | None) -> None:
        handler = self._before[number]
        if isinstance(handler, signal.Handlers):
            signal.signal(number, handler)  # a second one does not wait
            raise _Terminated
        handler(number, frame)

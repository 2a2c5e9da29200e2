"""The timeline of a profile: what the process took at every moment, sampled in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from streamtrain.memory import resident_now

__all__ = ["Recorder"]

_SECONDS = 0.02  # between two moments, at first
_MOST = 2000  # moments; beyond that every second one is dropped, and the next come half as often
_JOIN_SECONDS = 1.0


class Recorder:
    """Records as long as its context lasts. ``moments`` are dicts with ``seconds`` since the start, ``stage``, ``rows``,
    and in bytes ``resident_bytes``, ``anonymous_bytes``, ``arrow_bytes``, ``window_bytes``, ``reading_bytes``.

    stage: what the process is doing; set it as it changes. gauges: what of the moment only others know.

    >>> with Recorder() as recorder:
    ...     recorder.stage = "train"
    >>> [moment["stage"] for moment in recorder.moments][-1]
    'train'
    """

    def __init__(self) -> None:
        self.moments: list[dict[str, Any]] = []
        self.stage = "open"
        self.gauges: Callable[[], Mapping[str, int]] = dict
        self.started = time.perf_counter()
        self._every = _SECONDS
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="streamtrain-recorder", daemon=True)

    def most(self, name: str, stage: str) -> int | None:
        """The most of a size in a stage."""
        sizes = [m[name] for m in self.moments if m["stage"] == stage and m[name] is not None]
        return max(sizes, default=None)

    def __enter__(self) -> Self:
        self._record()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join(_JOIN_SECONDS)
        self._record()

    def _run(self) -> None:
        while not self._done.wait(self._every):
            self._record()
            if len(self.moments) >= _MOST:
                self.moments = self.moments[::2]
                self._every *= 2

    def _record(self) -> None:
        resident, anonymous = resident_now() or (None, None)
        sizes = {"rows": 0, "window_bytes": 0, "reading_bytes": 0, **self.gauges()}
        self.moments.append(
            {
                "seconds": round(time.perf_counter() - self.started, 3),
                "stage": self.stage,
                "resident_bytes": resident,
                "anonymous_bytes": anonymous,
                "arrow_bytes": pa.default_memory_pool().bytes_allocated(),
            }
            | sizes
        )

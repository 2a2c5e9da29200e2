"""The timeline of a profile: the memory of the process over time, sampled by a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from streamtrain.memory.process import resident_now

__all__ = ["Recorder"]

_SECONDS = 0.02  # between two moments, at first
_MOST = 2000  # moments: when there are more, the smaller of every two is dropped, and the interval doubles
_JOIN_SECONDS = 1.0


class Recorder:
    """A context that records moments. Each of ``moments`` is a dict with ``seconds`` since the start, ``stage``, ``rows`` and
    the sizes ``resident_bytes``, ``anonymous_bytes``, ``arrow_bytes``, ``window_bytes`` and ``reading_bytes``.

    stage: the present stage; set it when that changes. gauges: returns rows, and the bytes of windows and reads.

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
        self._counted, self._most_arrow = pa.default_memory_pool().max_memory() or 0, 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="streamtrain-recorder", daemon=True)

    @property
    def arrow_bytes(self) -> int:
        """The most that Arrow held: the maximum of its pool where that grew meanwhile, otherwise the most of all samples."""
        counted = pa.default_memory_pool().max_memory()
        return int(counted) if counted is not None and counted > self._counted else self._most_arrow

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
                pairs = zip(self.moments[::2], self.moments[1::2], strict=False)
                self.moments = [max(pair, key=_resident_bytes) for pair in pairs]
                self._every *= 2

    def _record(self) -> None:
        resident, anonymous = resident_now() or (None, None)
        arrow = pa.default_memory_pool().bytes_allocated()
        self._most_arrow = max(self._most_arrow, arrow)
        sizes = {"rows": 0, "window_bytes": 0, "reading_bytes": 0, **self.gauges()}
        self.moments.append(
            {
                "seconds": round(time.perf_counter() - self.started, 3),
                "stage": self.stage,
                "resident_bytes": resident,
                "anonymous_bytes": anonymous,
                "arrow_bytes": arrow,
            }
            | sizes
        )


def _resident_bytes(moment: Mapping[str, Any]) -> int:
    return int(moment["resident_bytes"] or 0)

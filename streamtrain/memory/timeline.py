"""The memory of a process over time, in a record that stays small however long a run is."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.memory.process import resident_now

__all__ = ["MOST_MOMENTS", "Timeline"]

MOST_MOMENTS = 512  # moments: above that the smaller of every two is dropped, and the interval doubles
_FIRST_SECONDS = 0.2  # between two moments, at first
_STAGES = ("train", "validate")
_GAUGES = ("rows", "window_bytes", "reading_bytes")
_SIZES = ("resident_bytes", "anonymous_bytes", "arrow_bytes")
_COLUMNS = ("milliseconds", "stage", *_SIZES, *_GAUGES)
_UNKNOWN, _MAX_NUMBER = -1, 1 << 60


class Timeline:
    """At most 512 moments of a run, in 33 kB. The first are 0.2 seconds apart. Whenever the record is full, of every two
    moments the one with less resident memory is dropped, and the interval doubles. A resumed run continues the record
    (``state_dict``). One thread may record while another one reads.

    >>> timeline = Timeline()
    >>> timeline.record(0.0, "train", {"rows": 0, "window_bytes": 4_000})
    >>> timeline.is_due(0.1), timeline.is_due(0.2)
    (False, True)
    >>> [(moment["seconds"], moment["stage"], moment["window_bytes"]) for moment in timeline.moments()]
    [(0.0, 'train', 4000)]
    """

    def __init__(self) -> None:
        self._moments = np.zeros((MOST_MOMENTS, len(_COLUMNS)), np.int64)
        self._count, self._interval, self._next = 0, _FIRST_SECONDS, 0.0
        self._lock = threading.Lock()

    def is_due(self, seconds: float) -> bool:
        """Whether it is time for another moment. seconds: since the run began."""
        return seconds >= self._next

    def record(self, seconds: float, stage: str, gauges: Mapping[str, int]) -> None:
        """Add this moment.

        stage: ``"train"`` or ``"validate"``. gauges: ``rows`` learned so far, ``window_bytes`` of the window buffers,
        ``reading_bytes`` of the reads that are under way.
        """
        resident, anonymous = resident_now() or (_UNKNOWN, _UNKNOWN)
        sizes = resident, anonymous, pa.default_memory_pool().bytes_allocated()
        others = (gauges.get(name, 0) for name in _GAUGES)
        with self._lock:
            if self._count == MOST_MOMENTS:
                self._halve()
            self._moments[self._count] = (round(seconds * 1000), _STAGES.index(stage), *sizes, *others)
            self._count, self._next = self._count + 1, seconds + self._interval

    def _halve(self) -> None:
        pairs = self._moments.reshape(MOST_MOMENTS // 2, 2, -1)
        larger = np.argmax(pairs[:, :, _COLUMNS.index("resident_bytes")], axis=1)
        self._moments[: MOST_MOMENTS // 2] = pairs[np.arange(MOST_MOMENTS // 2), larger]
        self._count, self._interval = MOST_MOMENTS // 2, 2 * self._interval

    def moments(self) -> list[dict[str, Any]]:
        """The record, oldest moment first: ``seconds``, ``stage``, sizes in bytes and ``rows``; None for what could not be
        measured."""
        found = []
        for milliseconds, stage, *numbers in self.state_dict()["moments"].tolist():
            known = (None if number == _UNKNOWN else number for number in numbers)
            when: dict[str, Any] = {"seconds": milliseconds / 1000, "stage": _STAGES[stage]}
            found.append(when | dict(zip(_COLUMNS[2:], known, strict=True)))
        return found

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """The record, for a checkpoint: ``moments``, int64, shape (moments, 8); and ``clock``, the seconds between two moments
        and when the next one is due, float64, shape (2,)."""
        with self._lock:
            return {"moments": self._moments[: self._count].copy(), "clock": np.array([self._interval, self._next])}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue a record. Raises ValueError or LookupError for anything that ``state_dict`` did not return."""
        moments, clock = np.asarray(state["moments"]), np.asarray(state["clock"])
        if moments.dtype != np.int64 or moments.shape[1:] != (len(_COLUMNS),) or len(moments) > MOST_MOMENTS:
            raise ValueError(f"a timeline of shape {moments.shape}, {moments.dtype}")
        if clock.shape != (2,) or not clock[0] > 0 or not np.isfinite(clock).all():
            raise ValueError(f"a timeline whose clock is {clock}")
        if len(moments) and (moments.min() < _UNKNOWN or moments.max() >= _MAX_NUMBER):
            raise ValueError("a timeline with an impossible number")
        if len(moments) and not 0 <= moments[:, 1].min() <= moments[:, 1].max() < len(_STAGES):
            raise ValueError("a timeline with an unknown stage")
        self._count, (self._interval, self._next) = len(moments), clock.tolist()
        self._moments[: self._count] = moments

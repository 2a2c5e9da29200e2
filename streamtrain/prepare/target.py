"""A regression target in units of its own standard deviation, by running statistics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.errors import BadValueError

__all__ = ["TargetScale"]

Floats = NDArray[np.float32]


class TargetScale:
    """Map targets to mean 0 and standard deviation 1, and predictions back.

    The mean and the sum of squared deviations are merged batch by batch in float64 (Chan, Golub & LeVeque 1983). A
    target that never changed maps to 0 and back to itself.

    >>> scale = TargetScale()
    >>> y = np.array([10, 20, 30, 40], np.float32)
    >>> scale.observe(y)
    >>> scale.transform(y).astype(float).round(2).tolist()
    [-1.34, -0.45, 0.45, 1.34]
    >>> scale.inverse(scale.transform(y)).round().tolist()
    [10.0, 20.0, 30.0, 40.0]
    """

    def __init__(self) -> None:
        self._rows, self._mean, self._m2 = 0, 0.0, 0.0

    @property
    def deviation(self) -> float:
        """Standard deviation of the targets seen (population, in the target's unit)."""
        return math.sqrt(self._m2 / self._rows) if self._rows else 0.0

    def observe(self, y: NDArray[Any]) -> None:
        """Update the statistics from targets of shape (rows,), float32.

        Raises BadValueError, and changes nothing, if a value is not finite.
        """
        if not len(y):
            return
        centred = y.astype(np.float64)
        mean = float(np.add.reduce(centred)) / len(y)
        if not math.isfinite(mean):
            row = int(np.flatnonzero(~np.isfinite(y))[0])
            raise BadValueError(f"the target is {y[row]} at row {row}; wanted a finite number", row=row)
        centred -= mean
        before, self._rows = self._rows, self._rows + len(y)
        delta = mean - self._mean
        self._mean += delta * len(y) / self._rows
        self._m2 += float(np.dot(centred, centred)) + delta * delta * before * len(y) / self._rows

    def transform(self, y: NDArray[Any]) -> Floats:
        """Targets of shape (rows,) -> (y - mean) / deviation, a new float32 array."""
        deviation = self.deviation
        scaled: Floats = ((y - np.float64(self._mean)) * (1 / deviation if deviation else 0.0)).astype(np.float32)
        return scaled

    def inverse(self, predictions: NDArray[Any]) -> Floats:
        """Predictions of shape (rows,) in the target's own unit, a new float32 array."""
        restored: Floats = (predictions * np.float64(self.deviation) + self._mean).astype(np.float32)
        return restored

    @property
    def state_bytes(self) -> int:
        """Bytes that the state takes: three numbers."""
        return 24

    def state_dict(self) -> dict[str, int | float]:
        """The state: rows, mean and sum of squared deviations."""
        return {"rows": self._rows, "mean": self._mean, "m2": self._m2}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that ``state_dict`` returned."""
        self._rows, self._mean, self._m2 = int(state["rows"]), float(state["mean"]), float(state["m2"])

"""Scales a regression target by running statistics, and predictions back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.errors import BadValueError, UsageError
from streamtrain.state import checked, require_sound

__all__ = ["TARGET_SCALES", "TargetScale"]

Floats = NDArray[np.float32]
TARGET_SCALES = ("deviation", "mean")


class TargetScale:
    """Map targets to mean 0 and standard deviation 1, and predictions back.

    targets: how many; several have shape (rows, targets), and each has its own scale. target_scale: ``"deviation"``, or
    ``"mean"`` for counts (Poisson): these are only divided by their mean, so they stay at or above 0.

    The mean and the sum of squared deviations are merged batch by batch in float64 (Chan, Golub & LeVeque 1983). A constant
    target maps to 0 and back to itself.

    >>> scale = TargetScale()
    >>> y = np.array([10, 20, 30, 40], np.float32)
    >>> scale.observe(y)
    >>> scale.transform(y).astype(float).round(2).tolist()
    [-1.34, -0.45, 0.45, 1.34]
    >>> scale.inverse(scale.transform(y)).round().tolist()
    [10.0, 20.0, 30.0, 40.0]
    """

    def __init__(self, targets: int = 1, target_scale: str = "deviation") -> None:
        if targets < 1:
            raise UsageError(f"targets is {targets}; must be at least 1")
        if target_scale not in TARGET_SCALES:
            raise UsageError(f"target_scale is {target_scale!r}; must be one of {', '.join(TARGET_SCALES)}")
        self.targets, self.target_scale = targets, target_scale
        self._rows = 0
        shape = () if targets == 1 else (targets,)
        self._mean, self._m2 = np.zeros(shape), np.zeros(shape)

    @property
    def deviation(self) -> NDArray[np.float64]:
        """The standard deviation of the targets so far (population, in the target's unit), shape () or (targets,)."""
        return np.asarray(np.sqrt(self._m2 / max(1, self._rows)))

    @property
    def _shift(self) -> NDArray[np.float64]:
        return self._mean if self.target_scale == "deviation" else np.zeros_like(self._mean)

    @property
    def _size(self) -> NDArray[np.float64]:
        return self.deviation if self.target_scale == "deviation" else self._mean

    def observe(self, y: NDArray[Any]) -> None:
        """Update the statistics from targets of shape (rows,) or (rows, targets), float32.

        Raises BadValueError, and changes nothing, if a value is not finite, or below 0 with ``"mean"``.
        """
        if not len(y):
            return
        centred = y.astype(np.float64)
        mean = np.add.reduce(centred, axis=0) / len(y)
        if not np.isfinite(mean).all():
            row = int(np.argwhere(~np.isfinite(y))[0][0])
            raise BadValueError(f"the target is {y[row]} at row {row}; expected a finite number", row=row)
        if self.target_scale == "mean" and y.min() < 0:
            row = int(np.argwhere(y < 0)[0][0])
            raise BadValueError(f"the target is {y[row]}; the loss is for counts, which are 0 or more", row=row)
        centred -= mean
        before, self._rows = self._rows, self._rows + len(y)
        delta = mean - self._mean
        self._mean = self._mean + delta * (len(y) / self._rows)
        squares = np.add.reduce(centred * centred, axis=0)
        self._m2 = self._m2 + squares + delta * delta * (before * len(y) / self._rows)

    def transform(self, y: NDArray[Any]) -> Floats:
        """Return ``(y - mean) / deviation``, a new float32 array of the same shape."""
        size = self._size
        factor = np.divide(1, size, out=np.zeros_like(size), where=size > 0)
        scaled: Floats = ((y - self._shift) * factor).astype(np.float32)
        return scaled

    def inverse(self, predictions: NDArray[Any]) -> Floats:
        """Return predictions in the target's own unit, a new float32 array of the same shape."""
        with np.errstate(over="ignore"):
            restored: Floats = (predictions * self._size + self._shift).astype(np.float32)
        return restored

    @property
    def state_bytes(self) -> int:
        """Bytes of the state: rows, and two numbers for each target."""
        return 8 + 16 * self.targets

    def state_dict(self) -> dict[str, Any]:
        """Return rows, mean and sum of squared deviations; copies."""
        return {"rows": self._rows, "mean": self._mean.copy(), "m2": self._m2.copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that ``state_dict`` returned. Raises ValueError for one of another shape, and for numbers that
        no targets have."""
        own = checked(state, self.state_dict())
        require_sound(own, {"rows": 0, "m2": 0} | ({"mean": 0} if self.target_scale == "mean" else {}))
        self._rows, self._mean, self._m2 = int(own["rows"]), own["mean"], own["m2"]

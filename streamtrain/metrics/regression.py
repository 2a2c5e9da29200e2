"""Metrics of predicted numbers."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from streamtrain.metrics.blocks import Blocks, Doubles, Floats, ratio, total, weight_of
from streamtrain.state import require_sound

__all__ = ["Regression"]


class Regression(Blocks):
    """Mean squared error (``loss``), its root, mean absolute error, and the share of variance explained (``r2``).

    The target's variance is merged block by block (Chan, Golub & LeVeque 1983), so that an offset costs no digits.

    >>> metrics = Regression()
    >>> metrics.update(np.array([1, 2, 3], np.float32), np.array([1, 2, 5], np.float32))
    >>> {name: round(value, 4) for name, value in metrics.result().items()}
    {'loss': 1.3333, 'rmse': 1.1547, 'mae': 0.6667, 'r2': -1.0}
    """

    higher_is_better: ClassVar[dict[str, bool]] = {"loss": False, "rmse": False, "mae": False, "r2": True}

    def __init__(self) -> None:
        super().__init__(values=2, totals=5)

    def update(
        self, targets: NDArray[Any], predictions: NDArray[np.float32], weights: NDArray[Any] | None = None
    ) -> None:
        """Add rows. targets, predictions: shape (rows,), in the same unit."""
        self._push(weights, targets, predictions)

    def _score(self, weights: Floats | None, *values: Floats) -> Doubles:
        """Return weight, sums of squared and absolute errors, and the targets' mean and sum of squared deviations."""
        targets, predictions = values[0].astype(np.float64), values[1]
        weight = weight_of(targets, weights)
        error = targets - predictions
        mean = total(targets, weights) / weight if weight else 0.0
        deviations = total((targets - mean) ** 2, weights)
        return np.array([weight, total(error**2, weights), total(np.abs(error), weights), mean, deviations])

    def _merge(self, totals: Doubles, block: Doubles) -> Doubles:
        merged = totals + block
        share = block[0] / merged[0] if merged[0] else 0.0
        delta = block[3] - totals[3]
        merged[3] = totals[3] + delta * share
        merged[4] += delta**2 * totals[0] * share
        return merged

    def _require_possible(self, totals: NDArray[Any], pending: NDArray[Any]) -> None:
        require_sound({"totals": totals[[0, 1, 2, 4]]}, {"totals": 0})

    def result(self) -> dict[str, float | None]:
        """Return loss, rmse, mae and r2; r2 is None where all targets are the same."""
        weight, squared, absolute, _, deviations = self._all()
        loss, unexplained = ratio(squared, weight), ratio(squared, deviations)
        return {
            "loss": loss,
            "rmse": None if loss is None else math.sqrt(loss),
            "mae": ratio(absolute, weight),
            "r2": None if unexplained is None else 1 - unexplained,
        }

    def loss(self) -> float | None:
        """Return ``result()["loss"]``."""
        return self.result()["loss"]

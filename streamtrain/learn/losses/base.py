"""What a loss is, and what all losses share: updates that respect the weight of a row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from streamtrain.errors import UsageError

__all__ = ["Invariant", "Loss", "regression_outputs"]

Floats = NDArray[np.float32]
Wide = NDArray[np.float64]

_SHORT = 1e-100  # a path is at least this long, so that it can be divided by


class Loss(Protocol):
    """One loss.

    name: as in ``LOSSES``. task: "classify" or "regress". default_learning_rate: the rate that suits adaptive optimizers,
    found by one pass of `normalized` over hold-outs (squared, logistic, softmax) and generated standardised tables. curvature:
    an upper bound of the loss's second derivative by a margin, or a substitute; gradient descent is stable up to
    2 / (curvature * mean squared length of a row). target_scale: how a regression target is scaled before it is learned from:
    "deviation": to mean 0 and standard deviation 1; "mean": divided by its mean; None: not at all (classes).

    Targets have the shape of the margin; for softmax, the shape (rows,). Classes are numbers from 0.
    """

    @property
    def name(self) -> str: ...

    @property
    def task(self) -> Literal["classify", "regress"]: ...

    @property
    def default_learning_rate(self) -> float: ...

    @property
    def curvature(self) -> float: ...

    @property
    def target_scale(self) -> Literal["deviation", "mean"] | None: ...

    def outputs(self, classes: int, targets: int = 1) -> int:
        """Margins per row for so many classes (0: regression) and targets. Raises UsageError if the loss does not fit."""

    def predict(self, margin: Floats) -> Floats:
        """Predictions of the margin's shape; may overwrite the margin."""

    def gradient(self, margin: Floats, targets: NDArray[Any]) -> Floats:
        """Derivative of each row's loss by its margin, of the margin's shape; may overwrite the margin."""

    def mean(self, margin: Floats, targets: NDArray[Any]) -> float:
        """Mean loss of the rows (and targets); does not change the margin."""

    def invariant(self, margin: Floats, targets: NDArray[Any], weights: Floats, reach: Floats) -> Floats:
        """Slopes that respect the rows' weights, of the margin's shape; does not change the margin. See `Invariant`."""


class Invariant(ABC):
    """Importance-invariant slopes (Karampatziakis & Langford, "Online importance weight aware updates", UAI 2011)."""

    def invariant(self, margin: Floats, targets: NDArray[Any], weights: Floats, reach: Floats) -> Floats:
        """The slopes that move each margin according to its row's weight, and never past the minimum of its loss.

        weights: shape (rows,), at least 0. reach: how far a slope of 1 moves the margin of its own row (rate * |x|^2), shape
        (rows,), at least 0. Returns slopes of the margin's shape, float32, for use in place of weight * gradient.

        A row of weight 2 is not one step of twice the length but two steps, and a weight of 1 is many small steps: in the
        limit the margin m(t) follows ``dm/dt = -reach * gradient(m)`` for t from 0 to the weight. The slope is ``(m(0) -
        m(weight)) / reach``, which is the weight times the mean gradient along the path; with a reach of 0 the margin
        stays, and the slope is weight * gradient. Computed in float64.
        """
        wide = margin.astype(np.float64)
        columns = (-1, *[1] * (wide.ndim - 1))
        weight = weights.astype(np.float64).reshape(columns)
        length = np.maximum(weight * reach.astype(np.float64).reshape(columns), _SHORT)
        slopes: Wide = weight * self._mean_slope(wide, targets, length)
        return slopes.astype(np.float32)

    @abstractmethod
    def _mean_slope(self, margin: Wide, targets: NDArray[Any], length: Wide) -> Wide:
        """Mean gradient along the path dm/dt = -gradient(m) from the margin, for t from 0 to the length, which is above 0
        and of the margin's shape or (rows, 1)."""


def regression_outputs(name: str, classes: int, targets: int) -> int:
    """One margin a target. Raises UsageError if there are classes."""
    if classes:
        raise UsageError(f"loss {name!r} is for regression; there are {classes} classes (try 'logistic', 'softmax')")
    return targets

"""Losses: what a margin predicts, and how it should move.

A margin is what a linear model computes: ``X @ weights + intercept``. It has shape (rows,), or (rows, classes) for
softmax. A loss keeps nothing. Its methods may overwrite the margin that they are given, which saves a pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamtrain.errors import UsageError

__all__ = ["LOSSES", "Logistic", "Loss", "Softmax", "Squared", "get_loss"]

Floats = NDArray[np.float32]

_HALF = np.array(0.5, np.float32)  # numpy takes an array faster than a scalar


class Loss(Protocol):
    """One loss.

    name: as in the registry. pace: the step that suits adaptive rules. curvature: an upper bound of the loss's second
    derivative by a margin; gradient descent is stable up to 2 / (curvature * mean squared length of a row).
    """

    @property
    def name(self) -> str: ...

    @property
    def pace(self) -> float: ...

    @property
    def curvature(self) -> float: ...

    def outputs(self, classes: int) -> int:
        """Margins per row for so many classes (0: regression). Raises UsageError if the loss does not fit."""

    def predict(self, margin: Floats) -> Floats:
        """Predictions of the margin's shape; overwrites the margin."""

    def gradient(self, margin: Floats, targets: NDArray[Any]) -> Floats:
        """Derivative of each row's loss by its margin, of the margin's shape; overwrites the margin."""

    def mean(self, margin: Floats, targets: NDArray[Any]) -> float:
        """Mean loss of the rows; leaves the margin alone."""


@dataclass(frozen=True)
class Squared:
    """Half the squared error: (margin - y)^2 / 2, so that the gradient is the error.

    >>> Squared().gradient(np.array([1.0, 2.0], np.float32), np.array([3.0, 2.0], np.float32)).tolist()
    [-2.0, 0.0]
    """

    name: str = "squared"
    pace: float = 0.6
    curvature: float = 1.0

    def outputs(self, classes: int) -> int:
        """One margin, no classes."""
        if classes:
            raise UsageError(
                f"loss 'squared' is for regression; there are {classes} classes (try 'logistic', 'softmax')"
            )
        return 1

    def predict(self, margin: Floats) -> Floats:
        """The margin itself."""
        return margin

    def gradient(self, margin: Floats, targets: NDArray[Any]) -> Floats:
        """margin - y."""
        np.subtract(margin, targets, out=margin, casting="same_kind")
        return margin

    def mean(self, margin: Floats, targets: NDArray[Any]) -> float:
        """Mean of (margin - y)^2 / 2."""
        return float(np.mean((margin.astype(np.float64) - targets) ** 2) / 2)


@dataclass(frozen=True)
class Logistic:
    """Log-loss of two classes: log(1 + exp(-margin)) for the second class, log(1 + exp(margin)) for the first.

    >>> Logistic().predict(np.array([0.0, 100.0, -1e9], np.float32)).tolist()
    [0.5, 1.0, 0.0]
    """

    name: str = "logistic"
    pace: float = 0.7
    curvature: float = 0.25

    def outputs(self, classes: int) -> int:
        """One margin, two classes."""
        if classes != 2:
            raise UsageError(f"loss 'logistic' wants 2 classes; there are {classes} (0 means regression)")
        return 1

    def predict(self, margin: Floats) -> Floats:
        """Probability of the second class, by 1 / (1 + exp(-m)) = (1 + tanh(m / 2)) / 2, which cannot overflow."""
        margin *= _HALF
        np.tanh(margin, out=margin)
        margin *= _HALF
        margin += _HALF
        return margin

    def gradient(self, margin: Floats, targets: NDArray[Any]) -> Floats:
        """Probability of the second class - target, for targets 0 and 1."""
        self.predict(margin)
        margin -= targets.astype(np.float32)
        return margin

    def mean(self, margin: Floats, targets: NDArray[Any]) -> float:
        """Mean of log(1 + exp(margin)) - target * margin."""
        wide = margin.astype(np.float64)
        return float(np.mean(np.logaddexp(0, wide) - targets * wide))


@dataclass(frozen=True)
class Softmax:
    """Log-loss of many classes: log(sum(exp(margins))) - margin of the target's class.

    >>> Softmax().predict(np.array([[0.0, 0.0], [1e9, 0.0]], np.float32)).tolist()
    [[0.5, 0.5], [1.0, 0.0]]
    """

    name: str = "softmax"
    pace: float = 2.0
    curvature: float = 0.5

    def outputs(self, classes: int) -> int:
        """One margin a class."""
        if classes < 2:
            raise UsageError(f"loss 'softmax' wants at least 2 classes; there are {classes} (0 means regression)")
        return classes

    def predict(self, margin: Floats) -> Floats:
        """exp(margin) / sum(exp(margins)), shape (rows, classes)."""
        margin -= np.maximum.reduce(margin, axis=1, keepdims=True)
        np.exp(margin, out=margin)
        margin /= np.add.reduce(margin, axis=1, keepdims=True)
        return margin

    def gradient(self, margin: Floats, targets: NDArray[Any]) -> Floats:
        """Probabilities, less 1 at the target's class."""
        self.predict(margin)
        margin[np.arange(len(margin)), targets] -= 1
        return margin

    def mean(self, margin: Floats, targets: NDArray[Any]) -> float:
        """Mean of log(sum(exp(margins))) - margin of the target's class."""
        wide = margin.astype(np.float64)
        return float(np.mean(np.logaddexp.reduce(wide, axis=1) - wide[np.arange(len(wide)), targets]))


LOSSES: dict[str, Loss] = {loss.name: loss for loss in (Squared(), Logistic(), Softmax())}


def get_loss(loss: str | Loss) -> Loss:
    """The loss of that name. Raises UsageError for an unknown one."""
    if not isinstance(loss, str):
        return loss
    if loss not in LOSSES:
        raise UsageError(f"unknown loss {loss!r}; wanted one of {', '.join(sorted(LOSSES))}")
    return LOSSES[loss]

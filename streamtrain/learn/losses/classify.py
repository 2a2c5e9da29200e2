"""Losses of classes: logistic, hinge, softmax."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from streamtrain.errors import DataError, UsageError
from streamtrain.kernels.functions import exp, log, sigmoid, softmax, softplus
from streamtrain.learn.losses.base import Floats, Invariant, Wide
from streamtrain.learn.losses.importance_paths import logistic_gain, softmax_fall

__all__ = ["Hinge", "Logistic", "Softmax"]


@dataclass(frozen=True)
class Logistic(Invariant):
    """Log-loss of two classes: log(1 + exp(-margin)) for the second class, log(1 + exp(margin)) for the first.

    >>> Logistic().predict(np.array([0.0, 100.0, -1e9], np.float32)).tolist()
    [0.5, 1.0, 1.8048514720778033e-35]
    """

    name: ClassVar[str] = "logistic"
    task: ClassVar[Literal["classify"]] = "classify"
    target_scale: ClassVar[None] = None
    default_learning_rate: ClassVar[float] = 0.7
    curvature: ClassVar[float] = 0.25

    def outputs(self, classes: int, targets: int = 1) -> int:
        """One margin a target, two classes."""
        return _two_classes(self.name, classes, targets)

    def predict(self, margin: Floats) -> Floats:
        """Probability of the second class, 1 / (1 + exp(-margin)); margins beyond 80 count as 80."""
        return _sigmoid(margin)

    def gradient(self, margin: Floats, targets: NDArray[Any]) -> Floats:
        """Probability of the second class - target, for targets 0 and 1."""
        slope = _sigmoid(margin)
        slope -= targets.astype(np.float32)
        return slope

    def mean(self, margin: Floats, targets: NDArray[Any]) -> float:
        """Mean of log(1 + exp(margin)) - target * margin."""
        wide = margin.astype(np.float64)
        return float(np.mean(softplus(wide) - targets * wide))

    def _mean_slope(self, margin: Wide, targets: NDArray[Any], length: Wide) -> Wide:
        """How far the margin moves towards the target's side: see `logistic_gain`."""
        side = _sides(targets)
        return -side * logistic_gain(side * margin, length) / length


@dataclass(frozen=True)
class Hinge(Invariant):
    """The loss of support vector machines (Cortes & Vapnik 1995): max(0, 1 - side * margin), with side -1 for the first
    class and 1 for the second; gradient 0 where side * margin is 1.

    There is no second derivative. The curvature of the mean loss over many rows is used instead, which is the density of
    their margins at the kink: below 0.5 if the margins of a class scatter with a deviation of 0.8 or more.

    >>> Hinge().gradient(np.array([0.0, 2.0, 2.0], np.float32), np.array([1, 1, 0])).tolist()
    [-1.0, 0.0, 1.0]
    """

    name: ClassVar[str] = "hinge"
    task: ClassVar[Literal["classify"]] = "classify"
    target_scale: ClassVar[None] = None
    default_learning_rate: ClassVar[float] = 0.7
    curvature: ClassVar[float] = 0.5

    def outputs(self, classes: int, targets: int = 1) -> int:
        """One margin a target, two classes."""
        return _two_classes(self.name, classes, targets)

    def predict(self, margin: Floats) -> Floats:
        """A score from 0 to 1, above 1/2 for the second class: 1 / (1 + exp(-margin)). It ranks rows; it is not a
        probability, as hinge loss does not estimate one."""
        return _sigmoid(margin)

    def gradient(self, margin: Floats, targets: NDArray[Any]) -> Floats:
        """-side where side * margin is below 1, else 0."""
        side = _sides(targets)
        np.copyto(margin, np.where(side * margin < 1, -side, 0), casting="same_kind")
        return margin

    def mean(self, margin: Floats, targets: NDArray[Any]) -> float:
        """Mean of max(0, 1 - side * margin)."""
        return float(np.mean(np.maximum(0, 1 - _sides(targets) * margin)))

    def _mean_slope(self, margin: Wide, targets: NDArray[Any], length: Wide) -> Wide:
        """The gradient until side * margin is 1, and then 0."""
        side = _sides(targets).astype(np.float64)
        slope: Wide = -side * np.clip((1 - side * margin) / length, 0, 1)
        return slope


@dataclass(frozen=True)
class Softmax(Invariant):
    """Log-loss of many classes: log(sum(exp(margins))) - margin of the target's class.

    >>> Softmax().predict(np.array([[0.0, 0.0], [1e9, 0.0]], np.float32)).tolist()
    [[0.5, 0.5], [1.0, 0.0]]
    """

    name: ClassVar[str] = "softmax"
    task: ClassVar[Literal["classify"]] = "classify"
    target_scale: ClassVar[None] = None
    default_learning_rate: ClassVar[float] = 2.0
    curvature: ClassVar[float] = 0.5

    def outputs(self, classes: int, targets: int = 1) -> int:
        """One margin a class, one target."""
        if classes < 2:
            raise UsageError(f"loss 'softmax' needs at least 2 classes; there are {classes} (0 means regression)")
        if targets != 1:
            raise UsageError(f"loss 'softmax' learns one target; there are {targets} (fit one model for each)")
        return classes

    def predict(self, margin: Floats) -> Floats:
        """exp(margin) / sum(exp(margins)), shape (rows, classes)."""
        margin = np.ascontiguousarray(margin, np.float32)
        softmax(margin)
        return margin

    def gradient(self, margin: Floats, targets: NDArray[Any]) -> Floats:
        """Probabilities, minus 1 for the target's class."""
        if np.shape(targets) != margin.shape[:1]:
            raise DataError(f"targets have shape {np.shape(targets)}; expected ({len(margin)},), one class a row")
        margin = np.ascontiguousarray(margin, np.float32)
        softmax(margin, np.ascontiguousarray(targets, np.int32))
        return margin

    def mean(self, margin: Floats, targets: NDArray[Any]) -> float:
        """Mean of log(sum(exp(margins))) - margin of the target's class."""
        wide = margin.astype(np.float64)
        top = wide.max(axis=1)
        log_sum = top + log(exp(wide - top[:, None]).sum(axis=1))
        return float(np.mean(log_sum - wide[np.arange(len(wide)), targets]))

    def _mean_slope(self, margin: Wide, targets: NDArray[Any], length: Wide) -> Wide:
        """By sub-steps, as there is no closed form: see `softmax_fall`. Short paths take 2 of them, long ones 12."""
        fall, short = np.empty_like(margin), length[:, 0] <= 1
        for part, steps in ((short, 2), (~short, 12)):
            if part.any():
                fall[part] = softmax_fall(margin[part], targets[part], length[part, 0], steps)
        return fall / length


def _two_classes(name: str, classes: int, targets: int) -> int:
    """One margin a target. Raises UsageError if the classes are not two."""
    if classes != 2:
        raise UsageError(f"loss {name!r} needs 2 classes; there are {classes} (0 means regression)")
    return targets


def _sides(targets: NDArray[Any]) -> Floats:
    """-1 for class 0, 1 for class 1."""
    return targets.astype(np.float32) * 2 - 1


def _sigmoid(margin: Floats) -> Floats:
    """1 / (1 + exp(-margin)); may overwrite the margin."""
    margin = np.ascontiguousarray(margin, np.float32)
    sigmoid(margin)
    return margin

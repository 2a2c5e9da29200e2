"""Losses of numbers: squared, Huber, quantile, Poisson."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from streamtrain.errors import UsageError
from streamtrain.kernels.functions import exp, expm1, log, log1p
from streamtrain.learn.losses.base import Floats, Invariant, Wide, regression_outputs

__all__ = ["Huber", "Poisson", "Quantile", "Squared"]


@dataclass(frozen=True)
class Squared(Invariant):
    """Half the squared error: (margin - y)^2 / 2, so that the gradient is the error.

    >>> Squared().gradient(np.array([1.0, 2.0], np.float32), np.array([3.0, 2.0], np.float32)).tolist()
    [-2.0, 0.0]
    """

    name: ClassVar[str] = "squared"
    task: ClassVar[Literal["regress"]] = "regress"
    target_scale: ClassVar[Literal["deviation"]] = "deviation"
    default_learning_rate: ClassVar[float] = 0.6
    curvature: ClassVar[float] = 1.0

    def outputs(self, classes: int, targets: int = 1) -> int:
        """One margin a target, no classes."""
        return regression_outputs(self.name, classes, targets)

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

    def _mean_slope(self, margin: Wide, targets: NDArray[Any], length: Wide) -> Wide:
        """The error decays: (margin - y) * (1 - exp(-length)) / length."""
        error: Wide = margin - targets
        return error * _decay(length)


@dataclass(frozen=True)
class Huber(Invariant):
    """Squared near the target, linear far from it (Huber 1964): outliers pull with a bounded force.

    With the error e = margin - y: e^2 / 2 where |e| <= delta, delta * (|e| - delta / 2) beyond. delta: in
    standard deviations of the target; the default keeps 95 % of the efficiency of squared
    loss where errors are normal with deviation 1.

    >>> Huber(delta=1.0).gradient(np.array([0.5, 9.0, -9.0], np.float32), np.zeros(3, np.float32)).tolist()
    [0.5, 1.0, -1.0]
    """

    delta: float = 1.345

    name: ClassVar[str] = "huber"
    task: ClassVar[Literal["regress"]] = "regress"
    target_scale: ClassVar[Literal["deviation"]] = "deviation"
    default_learning_rate: ClassVar[float] = 0.6
    curvature: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.delta < math.inf:
            raise UsageError(f"loss 'huber': delta is {self.delta}: must be above 0, and finite")

    def outputs(self, classes: int, targets: int = 1) -> int:
        """One margin a target, no classes."""
        return regression_outputs(self.name, classes, targets)

    def predict(self, margin: Floats) -> Floats:
        """The margin itself."""
        return margin

    def gradient(self, margin: Floats, targets: NDArray[Any]) -> Floats:
        """margin - y, cut to -delta and delta."""
        np.subtract(margin, targets, out=margin, casting="same_kind")
        np.clip(margin, -self.delta, self.delta, out=margin)
        return margin

    def mean(self, margin: Floats, targets: NDArray[Any]) -> float:
        """Mean loss, by the formula of the class."""
        far = np.abs(margin.astype(np.float64) - targets)
        near = np.minimum(far, self.delta)
        return float(np.mean(near * (far - near / 2)))

    def _mean_slope(self, margin: Wide, targets: NDArray[Any], length: Wide) -> Wide:
        """delta on the straight part of the path, then the decay of squared loss."""
        error: Wide = margin - targets
        near = np.minimum(np.abs(error), self.delta)
        straight = np.minimum((np.abs(error) - near) / self.delta / length, 1)  # part of the path
        rest = 1 - straight
        return np.copysign(straight * self.delta + rest * near * _decay(rest * length), error)


@dataclass(frozen=True)
class Quantile(Invariant):
    """Pinball loss (Koenker & Bassett 1978): predicts a quantile of the targets, by default the median.

    quantile * (y - margin) if the margin is below y, (1 - quantile) * (margin - y) above; gradient 0 at y. There is no
    second derivative. The curvature of the mean loss over many rows is used instead, which is the density of their targets
    at the margin: below 0.5 if these scatter about it with a deviation of 0.8 or more.

    >>> Quantile(quantile=0.75).gradient(np.array([-1.0, 0.0, 1.0], np.float32), np.zeros(3, np.float32)).tolist()
    [-0.75, 0.0, 0.25]
    """

    quantile: float = 0.5

    name: ClassVar[str] = "quantile"
    task: ClassVar[Literal["regress"]] = "regress"
    target_scale: ClassVar[Literal["deviation"]] = "deviation"
    default_learning_rate: ClassVar[float] = 0.5
    curvature: ClassVar[float] = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.quantile < 1:
            raise UsageError(f"loss 'quantile': quantile is {self.quantile}: must be above 0 and below 1")

    def outputs(self, classes: int, targets: int = 1) -> int:
        """One margin a target, no classes."""
        return regression_outputs(self.name, classes, targets)

    def predict(self, margin: Floats) -> Floats:
        """The margin itself."""
        return margin

    def gradient(self, margin: Floats, targets: NDArray[Any]) -> Floats:
        """1 - quantile above y, -quantile below."""
        np.copyto(margin, self._slope(margin - targets), casting="same_kind")
        return margin

    def mean(self, margin: Floats, targets: NDArray[Any]) -> float:
        """Mean loss, by the formula of the class."""
        error = margin.astype(np.float64) - targets
        return float(np.mean(error * self._slope(error)))

    def _mean_slope(self, margin: Wide, targets: NDArray[Any], length: Wide) -> Wide:
        """The gradient until the margin is at y, and then 0."""
        error: Wide = margin - targets
        slope = self._slope(error)
        return np.copysign(np.minimum(np.abs(slope), np.abs(error) / length), slope)

    def _slope(self, error: NDArray[Any]) -> Wide:
        """Gradient at margin - y."""
        slope: Wide = (1 - self.quantile) * (error > 0) - self.quantile * (error < 0)
        return slope


@dataclass(frozen=True)
class Poisson(Invariant):
    """Counts and other targets that are at least 0: exp(margin) - y * margin, the likelihood of a Poisson distribution
    with mean exp(margin), up to a constant (Nelder & Wedderburn 1972).

    Above a margin of 20 the loss continues as a straight line, so that exp cannot overflow; targets are learned in units of
    their mean, and exp(20) is 5e8 times the mean. The second derivative, exp(margin), has no useful bound; the stated one
    holds up to 4 times the mean. Targets below 0 have no best margin: refuse them first.

    >>> Poisson().predict(np.log(np.array([1.0, 8.0], np.float32))).round(3).tolist()
    [1.0, 8.0]
    """

    name: ClassVar[str] = "poisson"
    task: ClassVar[Literal["regress"]] = "regress"
    target_scale: ClassVar[Literal["mean"]] = "mean"
    default_learning_rate: ClassVar[float] = 0.5
    curvature: ClassVar[float] = 4.0
    limit: ClassVar[float] = 20.0  # of the margin

    def outputs(self, classes: int, targets: int = 1) -> int:
        """One margin a target, no classes."""
        return regression_outputs(self.name, classes, targets)

    def predict(self, margin: Floats) -> Floats:
        """exp(margin), at most exp(20)."""
        np.minimum(margin, self.limit, out=margin)
        margin[...] = exp(margin)
        return margin

    def gradient(self, margin: Floats, targets: NDArray[Any]) -> Floats:
        """exp(margin) - y."""
        self.predict(margin)
        np.subtract(margin, targets, out=margin, casting="same_kind")
        return margin

    def mean(self, margin: Floats, targets: NDArray[Any]) -> float:
        """Mean of exp(margin) - y * margin; above 20, exp goes on along its tangent."""
        wide = margin.astype(np.float64)
        near = np.minimum(wide, self.limit)
        return float(np.mean(exp(near) * (1 + wide - near) - targets * wide))

    def _mean_slope(self, margin: Wide, targets: NDArray[Any], length: Wide) -> Wide:
        """exp(20) - y on the straight part of the path; then u = exp(-margin) follows du/dt = 1 - y * u, so that the margin
        falls by log(1 + (exp(margin) - y) * (1 - exp(-y * t)) / y), and by the limit of that for y = 0."""
        y = targets.astype(np.float64)
        near = np.minimum(margin, self.limit)
        steep = np.maximum(float(exp(self.limit)) - y, 1)
        straight = np.minimum((margin - near) / steep / length, 1)  # part of the path
        rest = 1 - straight
        curved = np.maximum(rest * length, 1e-100)  # what is left of the path
        times = curved * _decay(y * curved)  # (1 - exp(-y * t)) / y
        step = (exp(near) - y) * times
        # Where 1 + step is about 0, far below log(y), it is the sum of two small exponentials.
        one, other = near + log(times), -y * curved
        small = np.maximum(one, other) + log1p(exp(-np.abs(one - other)))
        fall = np.where(step < -0.5, small, log1p(np.maximum(step, -0.5)))
        return straight * steep + rest * fall / curved


def _decay(length: Wide) -> Wide:
    """Mean of exp(-t) for t from 0 to the length: (1 - exp(-length)) / length, and 1 for 0."""
    short = np.maximum(length, 1e-100)
    return -expm1(-short) / short

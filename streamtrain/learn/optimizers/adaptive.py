"""Optimizers with a rate for each weight, by the gradients of that weight so far: adagrad, normalized, adam, ftrl."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from streamtrain.kernels.functions import expm1, log
from streamtrain.learn.losses import Loss
from streamtrain.learn.optimizers.base import Floats, Like, State, StreamStats
from streamtrain.learn.penalties import Penalty

__all__ = ["Adagrad", "Adam", "Ftrl", "Normalized", "gathered"]

_TINY = np.array(1e-30, np.float32)  # under a root, so that 0 / 0 is 0; numpy takes an array faster than a scalar


@dataclass(frozen=True)
class Adagrad:
    """Adaptive subgradients (Duchi, Hazan & Singer 2011): ``w -= learning_rate * g / sqrt(sum of g^2)``, this g included.

    slots: the prior of a slot of the sparse part, in rows. ``slots * noise`` is added to its sum of squares, as if the slot had
    occurred in so many rows before. Without a prior the first row would move the slot's weight a whole step, however small its
    gradient, and a value that occurs a few times would be learned by heart. prior: the same for all other weights; so small
    that it matters only if a first gradient is mere rounding error.

    >>> weights, state = np.zeros(2, np.float32), {"squares": np.zeros(2, np.float32)}
    >>> Adagrad().update(np.array([3, -4], np.float32), weights, state, 0.5, StreamStats(power=4.0), Penalty())
    >>> weights.tolist()
    [-0.5, 0.5]
    """

    slots: float = 3.0
    prior: float = 1e-8
    name: ClassVar[str] = "adagrad"
    fields: ClassVar[dict[str, Like]] = {"squares": "square"}
    penalises: ClassVar[bool] = False
    scratch_arrays: ClassVar[int] = 2

    def default_learning_rate(self, loss: Loss) -> float:
        """A third of the loss's default."""
        return loss.default_learning_rate / 3

    def for_slots(self) -> Adagrad:
        """This optimizer with the prior for slots."""
        return replace(self, prior=self.slots)

    def scale(self, learning_rate: float, stats: StreamStats) -> float:
        """The numerator of the rate."""
        return learning_rate

    def under_root(self, stats: StreamStats) -> np.float32:
        """What is added to the sums of squared gradients: the prior."""
        return np.float32(self.prior * stats.noise + _TINY)

    def rate(self, state: State, learning_rate: float, stats: StreamStats) -> Floats:
        """The learning rate over the root of the sum of squared gradients; 0 before a weight's first gradient."""
        squares = state["squares"]
        rate = _per_root(self.scale(learning_rate, stats), squares, self.under_root(stats))
        rate *= squares > 0
        return rate

    def update(
        self,
        gradient: Floats,
        weights: Floats,
        state: State,
        learning_rate: float,
        stats: StreamStats,
        penalty: Penalty,
    ) -> None:
        """Add the squared gradient to the sums, then move the weights."""
        squares = state["squares"]
        squares += gradient * gradient
        gradient *= _per_root(self.scale(learning_rate, stats), squares, self.under_root(stats))
        weights -= gradient


@dataclass(frozen=True)
class Normalized(Adagrad):
    """Normalised adaptive gradient (Ross, Mineiro & Langford, "Normalized online learning", 2013), by mini-batch.

    ``w -= learning_rate / sqrt(power) * g / sqrt(sum of g^2)``: the sum of squares takes out the scale of each gradient,
    and the mean squared length of a row the number of columns. The normalisation of each column is left to
    ``prepare.Standardize``, which also takes out offsets; an optimizer cannot.

    >>> weights, state = np.zeros(2, np.float32), {"squares": np.zeros(2, np.float32)}
    >>> Normalized().update(np.array([3, -4], np.float32), weights, state, 0.5, StreamStats(power=4.0), Penalty())
    >>> weights.tolist()
    [-0.25, 0.25]
    """

    name: ClassVar[str] = "normalized"

    def default_learning_rate(self, loss: Loss) -> float:
        """The loss's default."""
        return loss.default_learning_rate

    def scale(self, learning_rate: float, stats: StreamStats) -> float:
        """The learning rate, divided by the root mean squared length of a row."""
        return learning_rate / math.sqrt(stats.power)


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba 2015): running means m of the gradient and v of its square, both corrected for their start.

    ``w -= learning_rate / sqrt(1 + steps / 100) * m / (sqrt(v) + 1e-8)``. The means of a slot do not
    change while it does not occur.

    >>> weights, state = np.zeros(2, np.float32), {name: np.zeros(2, np.float32) for name in Adam().fields}
    >>> state["steps"] = np.ones(())
    >>> Adam().update(np.array([3, -4], np.float32), weights, state, 0.5, StreamStats(), Penalty())
    >>> weights.round(2).tolist()
    [-0.5, 0.5]
    """

    beta1: float = 0.9
    beta2: float = 0.999
    name: ClassVar[str] = "adam"
    fields: ClassVar[dict[str, Like]] = {"mean": "gradient", "squares": "square"}
    penalises: ClassVar[bool] = False
    scratch_arrays: ClassVar[int] = 2

    def for_slots(self) -> Adam:
        """The optimizer itself: slots need no other one."""
        return self

    def default_learning_rate(self, loss: Loss) -> float:
        """0.05 for every loss: the gradient's scale cancels."""
        return 0.05

    def rate(self, state: State, learning_rate: float, stats: StreamStats) -> Floats:
        """The learning rate, falling with the steps, over the root of the mean squared gradient."""
        squares, steps = state["squares"], np.maximum(state["steps"], 1).astype(np.float64)
        of_mean, of_squares = gathered((self.beta1, self.beta2), steps)
        rate: Floats = squares * (1 / of_squares).astype(np.float32)
        np.sqrt(rate, out=rate)
        rate += np.float32(1e-8)
        np.divide(
            (learning_rate / (of_mean * np.sqrt(1 + steps / 100))).astype(np.float32),
            rate,
            out=rate,
        )
        rate *= squares > 0
        return rate

    def update(
        self,
        gradient: Floats,
        weights: Floats,
        state: State,
        learning_rate: float,
        stats: StreamStats,
        penalty: Penalty,
    ) -> None:
        """Update both running means, then move the weights."""
        mean, squares = state["mean"], state["squares"]
        squares += (gradient * gradient - squares) * np.float32(1 - self.beta2)
        mean += (gradient - mean) * np.float32(1 - self.beta1)
        np.multiply(mean, self.rate(state, learning_rate, stats), out=gradient)
        weights -= gradient


@dataclass(frozen=True)
class Ftrl:
    """Follow the proximally regularised leader (McMahan et al. 2013, "Ad click prediction"), by mini-batch.

    With n the sum of g^2, ``z += g - (sqrt(n) - sqrt(n before)) / learning_rate * w``, and then ``w = 0`` where ``|z| <= L1``,
    else ``w = -(z - sign(z) * L1) / ((beta + sqrt(n)) / learning_rate + L2)``. L1 and L2 are the penalties of all batches
    so far, ``batches * l1`` and ``batches * l2`` (as in McMahan 2011), so that l1 and l2 mean what they do elsewhere.
    A slot keeps its weight while it does not occur; the penalties of the batches in between are applied when it occurs again.

    >>> weights, state = np.zeros(2, np.float32), {name: np.zeros(2, np.float32) for name in Ftrl().fields}
    >>> Ftrl(beta=1.0).update(np.array([3, -0.5], np.float32), weights, state, 1.0, StreamStats(batches=1), Penalty(l1=1.0))
    >>> weights.tolist()
    [-0.5, 0.0]
    """

    beta: float = 1e-3
    name: ClassVar[str] = "ftrl"
    fields: ClassVar[dict[str, Like]] = {"sums": "gradient", "squares": "square"}
    penalises: ClassVar[bool] = True
    scratch_arrays: ClassVar[int] = 3

    def for_slots(self) -> Ftrl:
        """The optimizer itself: slots need no other one."""
        return self

    def default_learning_rate(self, loss: Loss) -> float:
        """The default of `Adagrad`, which equals FTRL without penalties."""
        return loss.default_learning_rate / 3

    def rate(self, state: State, learning_rate: float, stats: StreamStats) -> Floats:
        """The rate of the formula without penalties, which only shorten a step."""
        squares = state["squares"]
        return np.float32(learning_rate) / (np.sqrt(squares) + np.float32(self.beta)) * (squares > 0)

    def update(
        self,
        gradient: Floats,
        weights: Floats,
        state: State,
        learning_rate: float,
        stats: StreamStats,
        penalty: Penalty,
    ) -> None:
        """Update both sums, then compute the weights from them."""
        sums, squares = state["sums"], state["squares"]
        room = np.sqrt(squares)
        squares += gradient * gradient
        root = np.sqrt(squares)
        np.subtract(root, room, out=room)
        room /= np.float32(learning_rate)
        room *= weights
        sums += gradient
        sums -= room
        root += np.float32(self.beta)
        root /= np.float32(learning_rate)
        root += stats.batches * penalty.l2 * penalty.on
        np.abs(sums, out=room)
        room -= stats.batches * penalty.l1 * penalty.on
        np.maximum(room, 0, out=room)
        room /= root
        np.copysign(room, np.negative(sums, out=root), out=weights)
        weights += 0  # no negative zeros: the same weights are the same bits


def gathered(betas: tuple[float, ...], steps: NDArray[Any]) -> NDArray[np.float64]:
    """The weights that running means have gathered after so many steps, 1 - beta^steps, for each beta."""
    weights: NDArray[np.float64] = -expm1(np.multiply.outer(_logs(betas), steps))
    return weights


@functools.cache
def _logs(betas: tuple[float, ...]) -> NDArray[np.float64]:
    return log(betas)


def _per_root(scale: float, squares: Floats, more: np.float32) -> Floats:
    """scale / sqrt(squares + more), a new array."""
    root = squares + more
    np.sqrt(root, out=root)
    np.divide(np.array(scale, np.float32), root, out=root)
    return root

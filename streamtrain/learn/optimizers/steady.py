"""Optimizers with one rate for all weights: sgd and momentum."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from streamtrain.learn.losses import Loss
from streamtrain.learn.optimizers.base import Floats, Like, State, StreamStats
from streamtrain.learn.penalties import Penalty

__all__ = ["Momentum", "Sgd"]

_PACE_ROWS = 1e5  # rows after which a schedule slows down


@dataclass(frozen=True)
class Sgd:
    """Stochastic gradient descent: ``w -= learning_rate / power * decay * g``.

    Dividing by the mean squared length of a row is the normalisation of NLMS (Nagumo & Noda 1967). decay, by schedule: 1
    (constant), 1 / sqrt(1 + rows / 100,000) (sqrt) or 1 / (1 + rows / 100,000) (inverse; Robbins & Monro 1951): counted in
    rows, so that more epochs can be added later.

    >>> weights, stats = np.zeros(2, np.float32), StreamStats(rows=300_000, batches=1, power=4.0)
    >>> Sgd().update(np.array([2, -4], np.float32), weights, {}, 1.0, stats, Penalty())
    >>> weights.tolist()
    [-0.25, 0.5]
    """

    schedule: str = "sqrt"
    name: ClassVar[str] = "sgd"
    fields: ClassVar[dict[str, Like]] = {}
    penalises: ClassVar[bool] = False
    scratch_arrays: ClassVar[int] = 0

    def for_slots(self) -> Sgd:
        """The optimizer itself: slots need no other one."""
        return self

    def default_learning_rate(self, loss: Loss) -> float:
        """Half of the largest stable rate, whatever the columns are."""
        return 1 / loss.curvature

    def rate(self, state: State, learning_rate: float, stats: StreamStats) -> np.float32:
        """One rate for all weights: learning_rate / power * decay."""
        return np.float32(learning_rate / stats.power * _decay(self.schedule, stats))

    def update(
        self,
        gradient: Floats,
        weights: Floats,
        state: State,
        learning_rate: float,
        stats: StreamStats,
        penalty: Penalty,
    ) -> None:
        """Subtract the gradient, times the rate, from the weights."""
        gradient *= self.rate(state, learning_rate, stats)
        weights -= gradient


@dataclass(frozen=True)
class Momentum:
    """Heavy ball (Polyak 1964): ``v = beta * v - learning_rate / power * decay * g``, ``w += v``; decay as of `Sgd`.

    A gradient finally moves a weight by ``1 / (1 - beta)`` times its first step. The weight of a slot keeps moving, and
    slows down, only in batches in which the slot occurs.

    >>> weights, state = np.zeros(1, np.float32), {"velocity": np.zeros(1, np.float32)}
    >>> for gradient in (1, 0, 0):
    ...     Momentum(beta=0.5).update(np.full(1, gradient, np.float32), weights, state, 1.0, StreamStats(power=1.0), Penalty())
    >>> weights.tolist()
    [-1.75]
    """

    schedule: str = "sqrt"
    beta: float = 0.9
    name: ClassVar[str] = "momentum"
    fields: ClassVar[dict[str, Like]] = {"velocity": "weight"}
    penalises: ClassVar[bool] = False
    scratch_arrays: ClassVar[int] = 0

    def for_slots(self) -> Momentum:
        """The optimizer itself: slots need no other one."""
        return self

    def default_learning_rate(self, loss: Loss) -> float:
        """The rate with which a gradient finally moves a weight as far as `Sgd` does."""
        return (1 - self.beta) / loss.curvature

    def rate(self, state: State, learning_rate: float, stats: StreamStats) -> np.float32:
        """The rate by which a gradient finally moves a weight."""
        return np.float32(learning_rate / stats.power * _decay(self.schedule, stats) / (1 - self.beta))

    def update(
        self,
        gradient: Floats,
        weights: Floats,
        state: State,
        learning_rate: float,
        stats: StreamStats,
        penalty: Penalty,
    ) -> None:
        """Slow the velocity down, subtract the gradient from it, and add it to the weights."""
        velocity = state["velocity"]
        velocity *= np.float32(self.beta)
        gradient *= np.float32(learning_rate / stats.power * _decay(self.schedule, stats))
        velocity -= gradient
        weights += velocity


def _decay(schedule: str, stats: StreamStats) -> float:
    if schedule == "constant":
        return 1.0
    slower = 1 + stats.rows / _PACE_ROWS
    return 1 / slower if schedule == "inverse" else 1 / math.sqrt(slower)

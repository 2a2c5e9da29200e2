"""What an optimizer is, and what it may know of the stream."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from streamtrain.learn.losses import Loss
from streamtrain.learn.penalties import Penalty

__all__ = ["Floats", "Like", "Optimizer", "State", "StreamStats"]

Floats = NDArray[np.float32]
State = Mapping[str, NDArray[Any]]


@dataclass(slots=True)
class StreamStats:
    """What an optimizer may know of the stream so far. It never knows how much is still to come.

    rows, batches: learned so far, this batch included. measured: the rows that were measured for ``power``.
    power: the mean squared length of a row, intercept and sparse part included. The curvature of a loss along its gradient
    grows with it, so the larger the power, the smaller is a stable learning rate. noise: how much one row adds to the square
    of a gradient, as a mean over the batches: the sum of the rows' squared slopes, divided by the square of their number.
    """

    rows: int = 0
    batches: int = 0
    measured: int = 0
    power: float = 0.0
    noise: float = 0.0

    def measure(self, squares: float, rows: int) -> None:
        """Add ``rows`` rows, whose squared lengths add up to ``squares``, to the power. Ignored if the sum overflowed."""
        if not math.isfinite(squares):
            return
        self.measured += rows
        self.power += (squares / rows + 1 - self.power) * rows / self.measured

    def add_noise(self, squares: float, rows: int) -> None:
        """Add a batch of ``rows`` rows, whose squared slopes add up to ``squares``, to the noise. Ignored if the sum
        overflowed."""
        if math.isfinite(squares):
            self.noise += (squares / rows**2 - self.noise) / self.batches


Like = Literal["weight", "gradient", "square"]
"""What an array is proportional to: to weights, to gradients, or to the squares of gradients."""


class Optimizer(Protocol):
    """One optimizer.

    name: as in ``OPTIMIZERS``. fields: the arrays that it keeps for each weight, zero before the first step, by name; with what
    each is like, which tells how it continues with more classes (see `streamtrain.learn.new_classes`).
    penalises: whether penalties are part of its formula; if not, they are applied after it, as proximal steps with its rate.
    scratch_arrays: how many arrays of the weights' shape its methods allocate at most, the returned one included.

    Its methods get ``state``: arrays of the weights' shape by field, and under ``steps`` how many steps the weights have
    taken, one number for all or one for each weight. The weight of a slot takes a step only when the slot occurs in a batch.
    """

    @property
    def name(self) -> str: ...

    @property
    def fields(self) -> Mapping[str, Like]: ...

    @property
    def penalises(self) -> bool: ...

    @property
    def scratch_arrays(self) -> int: ...

    def default_learning_rate(self, loss: Loss) -> float:
        """The learning rate that suits a loss."""

    def for_slots(self) -> Optimizer:
        """The optimizer for the slots of a sparse part; many of them occur only a few times."""

    def rate(self, state: State, learning_rate: float, stats: StreamStats) -> Floats | np.float32:
        """The effective learning rate: one number, or a new array of the weights' shape; 0 for a weight before its first
        gradient."""

    def update(
        self,
        gradient: Floats,
        weights: Floats,
        state: State,
        learning_rate: float,
        stats: StreamStats,
        penalty: Penalty,
    ) -> None:
        """Change weights and state in place; ``steps`` counts this step already. The gradient may be overwritten. ``penalty``
        is for an optimizer that `penalises`."""

"""What an optimizer is, and what it may know."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamtrain.learn.losses import Loss
from streamtrain.learn.penalties import Penalty

__all__ = ["Floats", "Optimizer", "State", "StreamStats"]

Floats = NDArray[np.float32]
State = Mapping[str, NDArray[Any]]


@dataclass(slots=True)
class StreamStats:
    """What an optimizer may know of the stream so far: never how much is still to come.

    rows, batches: learned so far, this batch included. measured: rows that went into power.
    power: mean squared length of a row, intercept and sparse part included; the curvature of a loss along its gradient
    grows with it, so a stable step shrinks with it. noise: mean over the batches of what one row adds to the square of a
    gradient: the mean squared slope of its rows, over the number of rows squared.
    """

    rows: int = 0
    batches: int = 0
    measured: int = 0
    power: float = 0.0
    noise: float = 0.0

    def measure(self, squares: float, rows: int) -> None:
        """Take ``rows`` rows, whose squared lengths add up to ``squares``, into the power; unless that overflowed."""
        if not math.isfinite(squares):
            return
        self.measured += rows
        self.power += (squares / rows + 1 - self.power) * rows / self.measured

    def hear(self, squares: float, rows: int) -> None:
        """Take the squared slopes of the batch's rows, which add up to ``squares``, into the noise; likewise."""
        if math.isfinite(squares):
            self.noise += (squares / rows**2 - self.noise) / self.batches


class Optimizer(Protocol):
    """One optimizer.

    name: as in the registry. fields: names of what it remembers of each weight; zero before the first step.
    penalises: whether penalties are part of its formula. If not, they are paid after it, in steps of its rate.
    scratch_arrays: arrays of the weights' shape that its methods take in scratch_arrays, the one that they return included.

    Its methods get ``state``, arrays of the weights' shape by field; and, under ``steps``, how many steps the weights have
    taken, one number for all or of the weights' shape. A sparse weight takes a step only when a batch touches it.
    """

    @property
    def name(self) -> str: ...

    @property
    def fields(self) -> tuple[str, ...]: ...

    @property
    def penalises(self) -> bool: ...

    @property
    def scratch_arrays(self) -> int: ...

    def default_learning_rate(self, loss: Loss) -> float:
        """The step that suits a loss."""

    def for_slots(self) -> Optimizer:
        """The optimizer for weights of a sparse part, many of which are touched a few times only."""

    def rate(self, state: State, learning_rate: float, stats: StreamStats) -> Floats | np.float32:
        """How far a unit of gradient moves a weight, all told, as far as is known: 0 where none was seen. For all, or of the
        weights' shape, and the caller's."""

    def update(
        self,
        gradient: Floats,
        weights: Floats,
        state: State,
        learning_rate: float,
        stats: StreamStats,
        penalty: Penalty,
    ) -> None:
        """Move the weights and change the state, both in place; this step counts in ``steps`` already. The gradient may be
        overwritten. ``penalty`` is for an optimizer that penalises."""

"""One step of many weights: the optimizer's move, the penalties, the average."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.learn.optimizers import Optimizer, StreamStats
from streamtrain.learn.penalties import Penalty

__all__ = ["FORGET", "Update"]

Floats = NDArray[np.float32]
State = Mapping[str, NDArray[Any]]

FORGET = 4.0  # of the average: weights count by about (step number)^(FORGET - 1), so early steps are forgotten


@dataclass(frozen=True)
class Update:
    """How weights move. Keeps nothing: ``state`` holds arrays by field, all of the weights' shape, zero at first.

    averages: whether a running average is kept, ``A += (W - A) * min(1, 4 / (n + 3))`` at a weight's n-th step.
    """

    optimizer: Optimizer
    learning_rate: float
    penalty: Penalty
    averages: bool

    @cached_property
    def pays(self) -> bool:
        """Whether penalties are paid after the optimizer's move: there are some, and the optimizer does not see to them."""
        return bool(self.penalty.l1 or self.penalty.l2) and not self.optimizer.penalises

    @property
    def fields(self) -> tuple[str, ...]:
        """The names in a state, in this order."""
        average, debts = ("average",) if self.averages else (), self.penalty.fields if self.pays else ()
        return ("weights", *average, *self.optimizer.fields, "steps", *debts)

    @property
    def scratch_arrays(self) -> int:
        """Arrays of the weights' shape that a step takes in passing."""
        return max(self.optimizer.scratch_arrays, self.penalty.scratch_arrays if self.pays else 0)

    def rate(self, state: State, clock: StreamStats) -> Floats | np.float32:
        """See `Optimizer.rate`."""
        return self.optimizer.rate(state, self.learning_rate, clock)

    def move(self, gradient: Floats, state: State, clock: StreamStats) -> None:
        """Take a step down the gradient, which is overwritten. Changes the state in place."""
        weights, steps = state["weights"], state["steps"]
        steps += 1
        self.optimizer.update(gradient, weights, state, self.learning_rate, clock, self.penalty)
        if self.pays:
            self.penalty.pay(weights, self.rate(state, clock), state)
        if self.averages:
            average = state["average"]
            np.subtract(weights, average, out=gradient)
            gradient *= np.asarray(np.minimum(1.0, FORGET / (steps + (FORGET - 1))), np.float32)
            average += gradient
            if self.penalty.l1:  # what is exactly zero predicts as such
                average *= (weights != 0) | (self.penalty.on == 0)

    def settle(self, state: State, clock: StreamStats) -> None:
        """Pay for the batches between the last step and this one, which the clock counts already: a weight that is seldom
        touched pays as often as any. ``last`` in the state is the batch of the last step, and is renewed."""
        if self.pays:
            missed = clock.batches - 1 - state["last"]
            self.penalty.pay(state["weights"], self.rate(state, clock), state, np.maximum(missed, 0))
            state["last"][...] = clock.batches

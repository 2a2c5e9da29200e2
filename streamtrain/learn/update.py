"""One step of many weights: the optimizer's update, the penalties, the average."""

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

FORGET = 4.0  # of the average: step n has a weight of about n^(FORGET - 1), so early steps are forgotten


@dataclass(frozen=True)
class Update:
    """Changes weights by a gradient: the optimizer's update, then the penalties, then the running average. The object keeps
    nothing; the caller passes ``state``, a mapping from the names in `fields` to arrays of the same shape as the weights, which
    are zero before the first step.

    averages: whether a running average A of each weight W is kept for prediction. After the n-th step of that weight
    (n = 1, 2, ...) ``A += (W - A) * 4 / (n + 3)``, so that early steps are soon forgotten.
    """

    optimizer: Optimizer
    learning_rate: float
    penalty: Penalty
    averages: bool

    @cached_property
    def applies_penalty(self) -> bool:
        """Whether a penalty is applied after the optimizer's update: there is one, and the optimizer does not apply it
        itself."""
        return bool(self.penalty.l1 or self.penalty.l2) and not self.optimizer.penalises

    @property
    def fields(self) -> tuple[str, ...]:
        """The names in a state, in this order."""
        average, penalties = ("average",) if self.averages else (), self.penalty.fields if self.applies_penalty else ()
        return ("weights", *average, *self.optimizer.fields, "steps", *penalties)

    @property
    def scratch_arrays(self) -> int:
        """How many arrays of the weights' shape a step allocates at most."""
        return max(self.optimizer.scratch_arrays, self.penalty.scratch_arrays if self.applies_penalty else 0)

    def rate(self, state: State, stats: StreamStats) -> Floats | np.float32:
        """The effective learning rate, see `Optimizer.rate`."""
        return self.optimizer.rate(state, self.learning_rate, stats)

    def move(self, gradient: Floats, state: State, stats: StreamStats) -> None:
        """Take a step down the gradient. Changes the state in place and overwrites the gradient."""
        weights, steps = state["weights"], state["steps"]
        steps += 1
        self.optimizer.update(gradient, weights, state, self.learning_rate, stats, self.penalty)
        if self.applies_penalty:
            self.penalty.apply(weights, self.rate(state, stats), state)
        if self.averages:
            average = state["average"]
            np.subtract(weights, average, out=gradient)
            gradient *= np.asarray(np.minimum(1.0, FORGET / (steps + (FORGET - 1))), np.float32)
            average += gradient
            if self.penalty.l1:  # a weight that is exactly zero predicts as zero
                average *= (weights != 0) | (self.penalty.on == 0)

    def regularise_lazily(self, state: State, stats: StreamStats) -> None:
        """Apply the penalties of the batches since each weight's last step, so that a weight that seldom occurs is
        penalised as often as any other. The present batch, which ``stats`` counts already, is not among them. ``last`` in
        the state is the batch of the last step; it is set to the present one."""
        if self.applies_penalty:
            missed = stats.batches - 1 - state["last"]
            self.penalty.apply(state["weights"], self.rate(state, stats), state, np.maximum(missed, 0))
            state["last"][...] = stats.batches

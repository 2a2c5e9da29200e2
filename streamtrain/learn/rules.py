"""Update rules: from a gradient to the change of the weights.

A rule is a value; what it remembers is another value, made by ``init`` and changed by ``update``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from streamtrain.errors import UsageError
from streamtrain.learn.losses import Loss

__all__ = ["RULES", "Adam", "Clock", "Nag", "Rule", "Sgd", "get_rule"]

Floats = NDArray[np.float32]
State = dict[str, Floats]


@dataclass(slots=True)
class Clock:
    """What a rule may know of the stream so far: never how much is still to come.

    rows, batches: learned so far, this batch included. measured: rows that went into power.
    power: mean squared length of a row, intercept included; the
    curvature of a loss along its gradient grows with it, so a stable step shrinks with it.
    """

    rows: int = 0
    batches: int = 0
    measured: int = 0
    power: float = 0.0

    def measure(self, squares: float, rows: int) -> None:
        """Take ``rows`` rows, whose squared lengths add up to ``squares``, into the power."""
        self.measured += rows
        self.power += (squares / rows + 1 - self.power) * rows / self.measured


class Rule(Protocol):
    """One update rule.

    name: as in the registry.
    """

    @property
    def name(self) -> str: ...

    def default_step(self, loss: Loss) -> float:
        """The step that suits a loss."""

    def init(self, shape: tuple[int, ...]) -> State:
        """What the rule remembers, for weights of that shape, before the first batch; room to work in under names that
        begin with ``_``, which is not part of the state."""

    def update(self, gradient: Floats, state: State, step: float, clock: Clock) -> Floats | np.float32:
        """Turn the gradient into what is to be subtracted from the weights, **in place**, and change the state.

        Returns the rate: the factor between the two, per weight or for all, which a proximal step for L1 needs. It is
        valid until the next call.
        """


@dataclass(frozen=True)
class Nag:
    """Normalised adaptive gradient (Ross, Mineiro & Langford, "Normalized online learning", 2013), by mini-batch.

    ``w -= step / sqrt(power) * g / sqrt(sum of g^2)``: the adaptive sum takes out the scale of each gradient, and the
    mean squared length of a row their number. The normalisation of each column is left to ``prepare.Standardize``,
    which also takes out offsets; a rule cannot.

    >>> rule, g = Nag(), np.array([3.0, -4.0], np.float32)
    >>> _ = rule.update(g, rule.init((2,)), step=1.0, clock=Clock(rows=1, batches=1, power=4.0))
    >>> g.tolist()
    [0.5, -0.5]
    """

    name: str = "nag"

    def default_step(self, loss: Loss) -> float:
        """The loss's pace."""
        return loss.pace

    def init(self, shape: tuple[int, ...]) -> State:
        """The sums of squared gradients, and room for the rate."""
        return {"squares": np.full(shape, 1e-30, np.float32), "_rate": np.zeros(shape, np.float32)}

    def update(self, gradient: Floats, state: State, step: float, clock: Clock) -> Floats:
        """See the class."""
        squares, rate = state["squares"], state["_rate"]
        np.multiply(gradient, gradient, out=rate)
        squares += rate
        np.sqrt(squares, out=rate)
        np.divide(np.array(step / math.sqrt(clock.power), np.float32), rate, out=rate)
        gradient *= rate
        return rate


@dataclass(frozen=True)
class Sgd:
    """Stochastic gradient descent: ``w -= step / power / sqrt(1 + rows / 100,000) * g``.

    Dividing by the mean squared length of a row is the normalisation of NLMS (Nagumo & Noda 1967); the decrease is
    counted in rows, so that more epochs can be added later.
    """

    name: str = "sgd"

    def default_step(self, loss: Loss) -> float:
        """Half of what is stable, whatever the columns."""
        return 1 / loss.curvature

    def init(self, shape: tuple[int, ...]) -> State:
        """Nothing."""
        return {}

    def update(self, gradient: Floats, state: State, step: float, clock: Clock) -> np.float32:
        """See the class."""
        rate = np.float32(step / clock.power / math.sqrt(1 + clock.rows / 1e5))
        gradient *= rate
        return rate


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba, 2015): running means of gradient and squared gradient, both corrected for their start.

    ``w -= step / sqrt(1 + batches / 100) * m / (sqrt(v) + 1e-8)``.
    """

    name: str = "adam"
    beta1: float = 0.9
    beta2: float = 0.999

    def default_step(self, loss: Loss) -> float:
        """The same for all: the gradient's scale cancels."""
        return 0.05

    def init(self, shape: tuple[int, ...]) -> State:
        """The two running means, and room for the rate."""
        return {name: np.zeros(shape, np.float32) for name in ("mean", "squares", "_rate")}

    def update(self, gradient: Floats, state: State, step: float, clock: Clock) -> Floats:
        """See the class."""
        mean, squares, rate = state["mean"], state["squares"], state["_rate"]
        np.multiply(gradient, gradient, out=rate)
        rate -= squares
        rate *= np.float32(1 - self.beta2)
        squares += rate
        gradient -= mean
        gradient *= np.float32(1 - self.beta1)
        mean += gradient
        np.multiply(squares, np.float32(1 / (1 - self.beta2**clock.batches)), out=rate)
        np.sqrt(rate, out=rate)
        rate += np.float32(1e-8)
        step /= (1 - self.beta1**clock.batches) * math.sqrt(1 + clock.batches / 100)
        np.divide(np.float32(step), rate, out=rate)
        np.multiply(mean, rate, out=gradient)
        return rate


RULES: dict[str, Rule] = {rule.name: rule for rule in (Nag(), Sgd(), Adam())}


def get_rule(rule: str | Rule) -> Rule:
    """The rule of that name. Raises UsageError for an unknown one."""
    if not isinstance(rule, str):
        return rule
    if rule not in RULES:
        raise UsageError(f"unknown rule {rule!r}; wanted one of {', '.join(sorted(RULES))}")
    return RULES[rule]

"""Linear models: any loss, any update rule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.batch import Batch
from streamtrain.errors import UsageError
from streamtrain.kernels import COMPILED, LinearStep
from streamtrain.learn.losses import Loss, get_loss
from streamtrain.learn.penalties import shrink
from streamtrain.learn.rules import Clock, Nag, Rule, get_rule

__all__ = ["Linear"]

Floats = NDArray[np.float32]

_FORGET = 4.0  # of the average: weights count by about (batch number)^(_FORGET - 1), so early steps are forgotten


class Linear:
    """A linear model: ``margin = X @ weights + intercept``, learned by mini-batch gradients of the mean loss.

    features: columns of X. classes: 0 for regression. loss: a name of ``LOSSES`` or a ``Loss``; by default squared,
    logistic or softmax, by the number of classes. rule: a name of ``RULES`` or a ``Rule``. step: of the rule; default:
    what suits rule and loss. l1, l2: added to the mean loss, ``l1 * |w| + l2 / 2 * w^2``; the intercept is
    not penalised. average: predict by a running average of the weights, ``A += (W - A) * min(1, 4 / (n + 3))`` at batch
    n (polynomial-decay averaging, Shamir & Zhang 2013).

    Columns should have comparable scales: see ``prepare.Standardize``.

    >>> X = np.array([[-1.0], [1.0]], np.float32)
    >>> model = Linear(1, 2)
    >>> for _ in range(100):
    ...     model.learn(Batch(X, np.array([0, 1], np.int32), None, np.arange(2)))
    >>> (model.predict(X) > 0.5).tolist()
    [False, True]
    """

    def __init__(
        self,
        features: int,
        classes: int = 0,
        *,
        loss: str | Loss | None = None,
        rule: str | Rule = "nag",
        step: float | None = None,
        l1: float = 0.0,
        l2: float = 0.0,
        average: bool = True,
    ) -> None:
        for name, value, least in (("features", features, 1), ("classes", classes, 0), ("l1", l1, 0), ("l2", l2, 0)):
            if not (value >= least and math.isfinite(value)):
                raise UsageError(f"{name} is {value}: must be at least {least}, and finite")
        if step is not None and not 0 < step < math.inf:
            raise UsageError(f"step is {step}: must be above 0, and finite")
        self.features, self.classes = features, classes
        self.loss = get_loss(loss or {0: "squared", 2: "logistic"}.get(classes, "softmax"))
        self.rule = get_rule(rule)
        self.step_size = self.rule.default_step(self.loss) if step is None else step
        self.l1, self.l2 = l1, l2
        outputs = self.loss.outputs(classes)
        # The intercept is the last row, so that one call updates everything; one output is a vector, for gemv.
        shape: tuple[int, ...] = (features + 1,) if outputs == 1 else (features + 1, outputs)
        self._weights = np.zeros(shape, np.float32)
        self._average = np.zeros(shape, np.float32) if average else self._weights
        self._gradient = np.zeros(shape, np.float32)
        self._rule_state = self.rule.init(shape)
        self._penalty = np.zeros((2 if l1 else 0, features, *shape[1:]), np.float32)  # owed and paid
        self._ones = np.ones(0, np.float32)
        self._clock = Clock()
        self._fused: LinearStep | None = None
        self.diverged = False

    @property
    def weights(self) -> Floats:
        """The weights that predict, shape (features,) or (features, classes), float32."""
        return self._average[:-1]

    @property
    def intercept(self) -> Floats:
        """The intercept that predicts, shape () or (classes,), float32."""
        return np.asarray(self._average[-1])

    def predict(self, X: Floats) -> Floats:
        """Predictions for X, shape (rows, features): see ``Learner.predict``."""
        return self.loss.predict(_margin(X, self._average))

    def learn(self, batch: Batch) -> None:
        """Take one step down the gradient of the batch's mean loss, weighted by the batch's weights if it has them."""
        X, rows = batch.features, len(batch)
        if not rows:
            return
        slope: NDArray[Any] = self.loss.gradient(_margin(X, self._weights), batch.targets)
        if len(self._ones) != rows:
            self._ones = np.ones(rows, np.float32)
        total = float(rows)
        if batch.weights is not None:
            slope *= batch.weights if slope.ndim == 1 else batch.weights[:, None]
            total = float(np.add.reduce(batch.weights, dtype=np.float64))
            if not total > 0:
                return
        gradient = self._gradient
        np.dot(X.T, slope, out=gradient[:-1])
        gradient[-1] = np.dot(self._ones, slope)
        clock = self._tick(rows)
        if _measures(clock):  # a pass over X costs a fifth
            clock.measure(float(np.vdot(X, X)), rows)
        self._descend(total)

    @property
    def fuses(self) -> bool:
        """Whether `step` can do the work of preparation, `predict` and `learn` in one pass over the rows."""
        return self._weights.ndim == 1 and self.loss.name in ("logistic", "squared")

    def step(self, batch: Batch, maps: Floats) -> tuple[Floats, Floats]:
        """Prepare the rows of a batch in place, predict and learn, in one pass (see `kernels.LinearStep`).

        maps: centre, shift and scale of the preparation, shape (3, features), float32. The centre must be the shift.
        Returns the predictions from before the step, shape (rows,), and the sums of the raw rows about the centre.
        Where the gradient is not finite nothing is learned and ``diverged`` is set: unless the sums say that the rows
        are to blame, the weights are.
        """
        rows, weights = len(batch), batch.weights
        targets = batch.targets.astype(np.float32, copy=False)
        scores, gradient, sums = self._fused_for(maps)(batch.features, targets, weights)
        total = float(rows) if weights is None else float(np.add.reduce(weights, dtype=np.float64))
        self.diverged = not math.isfinite(np.add.reduce(gradient))
        if total > 0 and not self.diverged:
            self._learn(gradient, sums, maps, rows, total)
        return scores, sums

    def _learn(self, gradient: Floats, sums: Floats, maps: Floats, rows: int, total: float) -> None:
        """What is left of a step once the rows have been looked at."""
        clock = self._tick(rows)
        if _measures(clock):
            squares = sums[1] * np.square(maps[2], dtype=np.float64)
            clock.measure(float(np.add.accumulate(squares)[-1]), rows)  # one by one, as `run` does
        self._gradient[:] = gradient
        self._descend(total)

    @property
    def runs(self) -> bool:
        """Whether `run` can take many batches at a time."""
        averaged = self._average is not self._weights
        return COMPILED and self.fuses and isinstance(self.rule, Nag) and averaged and not self.l1

    def run(
        self, batch: Batch, size: int, maps: Floats, block: NDArray[np.float64]
    ) -> tuple[int, Floats, Floats | None]:
        """`step` for many batches of ``size`` rows that stand one after the other, without weights; to the same bits.

        block: gets the sums of each batch, shape (2, features), float64. Returns the batches learned, their predictions,
        and None; or, where a batch had sums or a gradient that are not finite, its predictions too and its sums, which
        are not in ``block``. It is learned from, unless ``diverged``.
        """
        clock = self._clock
        counts = np.array([clock.rows, clock.batches, clock.measured, clock.power])
        targets = batch.targets.astype(np.float32, copy=False)
        done, scores, gradient, sums = self._fused_for(maps).run(
            batch.features, size, targets, self._rule_state["squares"], counts, block,
            step=self.step_size, l2=self.l2, forget=_FORGET,
        )  # fmt: skip
        rows, batches, measured, power = counts.tolist()
        self._clock = Clock(int(rows), int(batches), int(measured), power)
        if done * size >= len(batch):
            return done, scores, None
        odd = min(size, len(batch) - done * size)
        self.diverged = not math.isfinite(np.add.reduce(gradient))
        if not self.diverged:
            self._learn(gradient, sums, maps, odd, float(odd))
        return done, scores[: done * size + odd], sums

    def _fused_for(self, maps: Floats) -> LinearStep:
        if self._fused is None or self._fused.maps is not maps:
            self._fused = LinearStep(maps, self._average, self._weights, logistic=self.loss.name == "logistic")
        return self._fused

    def _descend(self, total: float) -> None:
        """Turn the summed gradient into a step; ``total`` is the weight of the rows."""
        gradient, weights, clock = self._gradient, self._weights, self._clock
        gradient *= np.array(1 / total, np.float32)
        if self.l2:
            gradient[:-1] += np.float32(self.l2) * weights[:-1]
        rate = self.rule.update(gradient, self._rule_state, self.step_size, clock)
        weights -= gradient
        if self.l1:
            by = np.float32(self.l1) * (rate[:-1] if isinstance(rate, np.ndarray) else rate)
            shrink(weights[:-1], by, *self._penalty)
        if self._average is not weights:
            np.subtract(weights, self._average, out=gradient)
            gradient *= np.array(min(1.0, _FORGET / (clock.batches + _FORGET - 1)), np.float32)
            self._average += gradient
            if self.l1:
                self._average[:-1] *= weights[:-1] != 0

    def _tick(self, rows: int) -> Clock:
        """Count the batch."""
        clock = self._clock
        clock.rows += rows
        clock.batches += 1
        return clock

    @property
    def state_bytes(self) -> int:
        """Bytes of weights, their average, the gradient, what the rule remembers, and what penalties need."""
        arrays = {id(array): array.nbytes for array in (self._weights, self._average, self._gradient)}
        passing = self._weights.nbytes * (5 if self.l1 else 1 if self.l2 else 0)
        kept = self._penalty.nbytes + sum(array.nbytes for array in self._rule_state.values())
        return sum(arrays.values()) + kept + passing

    def state_dict(self) -> dict[str, NDArray[Any] | int | float]:
        """Weights, average, what the rule remembers (``rule.*``) and the clock; copies."""
        clock = self._clock
        state: dict[str, NDArray[Any] | int | float] = {
            f"rule.{name}": array.copy() for name, array in self._rule_state.items() if not name.startswith("_")
        }
        if self._average is not self._weights:
            state["average"] = self._average.copy()
        state["weights"] = self._weights.copy()
        if self.l1:
            state["penalty"] = self._penalty.copy()
        return state | asdict(clock)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that ``state_dict`` returned."""
        self._weights[...] = state["weights"]
        if self._average is not self._weights:
            self._average[...] = state["average"]
        if self.l1:
            self._penalty[...] = state["penalty"]
        for name, array in self._rule_state.items():
            if not name.startswith("_"):
                array[...] = state[f"rule.{name}"]
        rows, batches, measured = (int(state[name]) for name in ("rows", "batches", "measured"))
        self._clock = Clock(rows, batches, measured, float(state["power"]))


def _measures(clock: Clock) -> bool:
    """Whether this batch's mean squared length is measured: of the first and every eighth."""
    return clock.batches <= 32 or clock.batches % 8 == 0


def _margin(X: Floats, weights: Floats) -> Floats:
    """X @ weights + intercept, a new array."""
    margin: Floats = np.dot(X, weights[:-1])
    margin += weights[-1]
    return margin

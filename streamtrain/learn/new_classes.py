"""More classes for a linear model: the state of a model with more classes than the one that it continues.

- Known classes keep their weights, in their new positions, so their predictions stay in the same proportions.
- A new class gets the mean of the others. Softmax does not change if a number is added to all margins of a row, so the mean,
  not zero, is neutral. By Jensen's inequality such a margin is at most that of an equal share. The intercept is
  lowered by ``log((rows + classes) / classes)``, so that no row gives the class more than ``1 / (rows + classes)``: a fair
  estimate for a class that did not occur in so many rows. At most 1,000 rows count: optimizers with one rate for all weights
  would take very long to correct a lower estimate.
- Its sums of squares are the mean of the others as it was after 4 steps. With the whole sums its first steps would be
  too short; with none, a tiny gradient would move it a whole step.
- Running averages of weights, and Adam, continue from step 4. With a long past, predictions would hardly notice the new
  class: so after 1 % more batches an average has changed by 4 %.
- It gets no L1 penalty for batches before its time.

Two classes by logistic loss become two by softmax: margins -m/2 and m/2 mean the same. The slopes are those of logistic loss,
with the other sign for the first class. So squares, steps and total penalties stay the same, gradients and applied penalties
change their sign for the first class, and weights, averages and velocities are halved. The sums of `Ftrl` are computed from its
weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.errors import UsageError
from streamtrain.kernels.functions import log
from streamtrain.learn.fused import Linear
from streamtrain.learn.losses import Logistic
from streamtrain.learn.optimizers import Adagrad, Adam, Ftrl, StreamStats
from streamtrain.learn.optimizers.adaptive import gathered
from streamtrain.learn.optimizers.base import Like
from streamtrain.learn.penalties import Penalty
from streamtrain.learn.sparse_weights import SparseWeights
from streamtrain.learn.update import Update

__all__ = ["widened"]

State = Mapping[str, NDArray[Any]]

_STEPS = 4  # from which averages continue
_ROWS = 1000  # rows without a class that count at most
_BLOCK_SLOTS = 1 << 14  # widened at once
_OWN: dict[str, Like] = {
    "weights": "weight", "average": "weight", "l1_applied": "gradient", "l1_total": "square", "steps": "square",
    "last": "square",
}  # what an update keeps beside the fields of its optimizer  # fmt: skip
_FRESH = ("l1_total", "l1_applied")  # zero for a new class, which has the mean of everything else
_STATS = ("rows", "batches", "measured", "power", "noise")


def widened(state: dict[str, Any], old: Linear, new: Linear, positions: Sequence[int]) -> dict[str, Any]:
    """The state of the new model, from that of the old one, which is taken apart. positions: of the old classes among the
    new ones. Raises UsageError for an optimizer that remembers something that nothing here knows."""
    update = Update(new.optimizer, new.learning_rate, Penalty(new.l1, new.l2), new.average)
    fields = SparseWeights(0, 1, update).fields
    likes = _OWN | dict(new.optimizer.fields)
    unknown = {*state, *fields} - {*likes, *_STATS, "sparse"}
    if unknown:
        raise UsageError(
            f"optimizer {new.optimizer.name!r} remembers {sorted(unknown)[0]!r}, and nothing says what that is for a new "
            "class: fit a new run"
        )
    stats = StreamStats(**{name: state[name] for name in _STATS})
    widening = _Widening(new, stats, np.array(positions), new.classes, isinstance(old.loss, Logistic))
    dense = {name: state.pop(name) for name in update.fields}
    shape = (len(dense["weights"]), new.classes)
    wide: dict[str, Any] = {name: np.empty(shape, np.float32) for name in dense} | {"steps": np.empty(())}
    widening.widen(dense, wide, dense=True)
    table = state.pop("sparse", None)
    if table is not None:
        wide["sparse"] = np.empty((*table.shape[:2], new.classes), np.float32)
        for start in range(0, len(table), _BLOCK_SLOTS):
            part, into = table[start : start + _BLOCK_SLOTS], wide["sparse"][start : start + _BLOCK_SLOTS]
            views = [{name: array[:, i] for i, name in enumerate(fields)} for array in (part, into)]
            widening.widen(*views, dense=False)
    return wide | state


@dataclass(frozen=True)
class _Widening:
    """From arrays of the known classes to those of all classes. positions: of the known classes among all of them. two: whether
    one output stands for two known classes."""

    learner: Linear
    stats: StreamStats
    positions: NDArray[np.int64]
    classes: int
    two: bool

    def widen(self, old: State, new: State, *, dense: bool) -> None:
        """Fill new arrays by field, shape (weights, classes), from old ones. dense: the last weight is the intercept, and there
        is one number of steps for all."""
        optimizer, added = self.learner.optimizer, np.setdiff1d(np.arange(self.classes), self.positions)
        for name, value in old.items():
            if value.ndim == 0:
                new[name][...] = value
                continue
            known = _halves(value, (_OWN | dict(optimizer.fields))[name]) if self.two else value
            new[name][:, self.positions] = known
            mean = np.zeros(len(known)) if name in _FRESH else known.mean(axis=1, dtype=np.float64)
            new[name][:, added] = mean[:, None]
        steps = new["steps"]
        if isinstance(optimizer, Adagrad | Ftrl):  # a sum; that of Adam is a mean
            new["squares"][:, added] *= _STEPS / np.maximum(steps if dense else steps[:, added], _STEPS)
        if dense:
            known_classes = len(self.positions)
            lower = float(log((min(self.stats.rows, _ROWS) + known_classes) / known_classes))
            for name in ("weights", "average"):
                if name in new:
                    new[name][-1, added] -= lower
        if isinstance(optimizer, Ftrl):
            self._sum(optimizer, new, slice(None) if self.two else added, dense)
        if isinstance(optimizer, Adam):
            for name, beta in (("mean", optimizer.beta1), ("squares", optimizer.beta2)):
                new[name][...] *= _correction(beta, np.minimum(steps, _STEPS)) / _correction(beta, steps)
        steps[...] = np.minimum(steps, _STEPS)

    def _sum(self, optimizer: Ftrl, state: State, outputs: Any, dense: bool) -> None:
        """Set the sums to those that make the weights. Many sums make a weight of 0: there they stay as they are."""
        learner, on = self.learner, np.ones((len(state["weights"]), 1), np.float32)
        on[-1] = not dense
        weights, batches = state["weights"][:, outputs], self.stats.batches
        room = (np.sqrt(state["squares"][:, outputs]) + optimizer.beta) / learner.learning_rate
        room = room + batches * learner.l2 * on
        made = -weights * room - np.sign(weights) * batches * learner.l1 * on
        state["sums"][:, outputs] = np.where(weights != 0, made, state["sums"][:, outputs])


def _halves(value: NDArray[Any], like: Like) -> NDArray[Any]:
    """The values of two classes, shape (weights, 2), from those of the one output that stood for both."""
    first = value if like == "square" else 0 - value
    both: NDArray[Any] = np.stack([first, value], axis=1)
    return both / 2 if like == "weight" else both


def _correction(beta: float, steps: NDArray[Any]) -> NDArray[np.float64]:
    """The weight that a running mean has gathered after so many steps; 1 before the first step, where the mean is 0."""
    share = gathered((beta,), np.asarray(steps, np.float64))[0]
    return np.where(share > 0, share, 1.0)

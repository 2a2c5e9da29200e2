"""A warm start: a new model goes on from what an older one has learned, and may know more classes.

With the same classes the state is taken as it is, to the same bits. New classes widen it, whatever the optimizer:

- Known classes keep their weights, in their new places: their predictions stay in the same proportions.
- A new class gets the mean of the others. Softmax does not change if a number is added to all margins of a row; so the mean,
  not zero, is what says nothing. By Jensen's inequality such a margin is at most that of an equal share. The intercept is
  lowered by ``log((rows + classes) / classes)``, so that no row gives the class more than ``1 / (rows + classes)``: what is
  fair to say of what was not seen in so many rows; but of more than 1,000 rows no more is made than of 1,000, as those with
  one rate for all would take very long to learn that it is wrong.
- Its sums of squares are the mean of the others as it was after 4 steps. With the whole sums its first steps would be as short
  as those of classes that are almost known, with none a gradient of next to nothing would move it a whole step.
- Running averages of weights, and Adam, count on from 4 steps. With a long past predictions would hear nothing of the new
  class: after 1 % more batches an average has changed by 4 %.
- It owes no L1 for batches that it was not there for.

Two classes by logistic loss become two by softmax: margins -m/2 and m/2 mean the same. The slopes by them are those of
logistic loss, but for the sign: so squares, steps and debts are the same, gradients and what was paid change sign for the first
class, weights, averages and velocities are halved. The sums of `Ftrl` are those that make its weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.columns.layout import Layout
from streamtrain.columns.target import Target
from streamtrain.errors import UsageError
from streamtrain.learn import Linear, StreamStats
from streamtrain.learn.losses import Logistic, Softmax
from streamtrain.learn.optimizers import Adagrad, Adam, Ftrl
from streamtrain.learn.penalties import Penalty
from streamtrain.learn.sparse_weights import SparseWeights
from streamtrain.learn.update import Update
from streamtrain.model.model import Model, shape_of_rows

__all__ = ["require_target", "start_from"]

State = Mapping[str, NDArray[Any]]

_STEPS = 4  # to count on from
_ROWS = 1000  # without a class, of which something is made
_BLOCK_SLOTS = 1 << 14  # widened at once
_HALVED, _SIGNED = ("weights", "average", "velocity"), ("mean", "sums", "paid")  # of two classes: see above
_SAME = ("squares", "steps", "owed", "last")
_FRESH = ("owed", "paid")  # zero for a new class; it has the mean of all else
_CLOCK = ("rows", "batches", "measured", "power", "noise")


def start_from(new: Model, old: Model) -> None:
    """Load what the old model has learned into a new one, made for the same columns and with the same settings, but for step
    and penalties; its target may have more classes. In passing it takes the old state once, and the new one once.

    Raises UsageError, and changes nothing, where the new model cannot go on from the old one.

    >>> import pyarrow as pa
    >>> from streamtrain.columns.choose import choose_role
    >>> from streamtrain.learn.settings import LinearSettings
    >>> columns = (choose_role(pa.field("x", pa.float32())),)
    >>> old, new = (Model(Layout(columns, Target("y", "classify", c)), LinearSettings()) for c in ("ac", "abc"))
    >>> start_from(new, old)
    >>> new.learner.intercept.round(2).tolist()
    [0.0, 0.0, 0.0]
    """
    require_target(new.target, old, None if new.settings is None else new.settings.loss)
    _require_same_columns(new.layout, old.layout)
    _require_same_settings(new, old)
    state = old.state_dict()
    if new.target.kinds > old.target.kinds:
        names = [name for name in state if name.startswith("learner.")]
        widened = _widened({name.removeprefix("learner."): state.pop(name) for name in names}, new, old)
        state |= {f"learner.{name}": value for name, value in widened.items()}
    new.load_state_dict(state)


def require_target(target: Target, old: Model, loss: str | None = None) -> None:
    """Raise UsageError unless a model of this target can go on from the old one. loss: as asked for the new model. For who
    wants to know before there is a new model."""
    if (target.names, target.task) != (old.target.names, old.task):
        raise UsageError(
            f"the old run learned to {old.task} {_listed(old.target.names)}; asked is to {target.task} "
            f"{_listed(target.names)}: give the same --target and --task, or fit a new run"
        )
    for known, found in zip(old.target.several, target.several, strict=True):
        if known.offset != found.offset:
            raise UsageError(
                f"target {known.name!r} is counted from {known.offset:g} in the old run, here from {found.offset:g}: "
                "survey the data with the old run's target"
            )
        there = set(found.classes)
        if lost := [c for c in known.classes if c not in there]:
            raise UsageError(
                f"target {known.name!r}: the old run knows {_listed(lost)}, which is not among the classes here "
                f"({_listed(found.classes)}): name all of them in --classes"
            )
        if len(there) == len(known.classes) and found.classes != known.classes:
            raise UsageError(
                f"target {known.name!r}: the classes stand in another order than in the old run: sort them"
            )
    if target.kinds == old.target.kinds:
        return
    before = old.learner.loss if isinstance(old.learner, Linear) else None
    if before is not None and not isinstance(before, Logistic | Softmax):
        raise UsageError(
            f"the old run's loss is {before.name!r}, which is for two classes; now there are {target.kinds} "
            f"({_listed(target.classes)}): leave the rows of new classes out, or fit a new run with --loss softmax"
        )
    if loss not in (None, "softmax"):
        raise UsageError(
            f"--loss {loss}: is for two classes; now there are {target.kinds} ({_listed(target.classes)}): give --loss "
            "softmax, which goes on from logistic, or leave the rows of new classes out"
        )


def _require_same_columns(new: Layout, old: Layout) -> None:
    if shape_of_rows(new) != shape_of_rows(old) or new.features != old.features:
        raise UsageError(
            f"the old run learned from {_columns(old)}; asked are {_columns(new)}: give the same --features, --as and --cross, "
            "in the same order"
        )
    for mine, its in zip(new.columns, old.columns, strict=True):
        if mine.offset != its.offset and mine.type == its.type:
            raise UsageError(
                f"feature {mine.name!r} is counted from {its.offset:g} in the old run, here from {mine.offset:g}: take the "
                "layout from the old model"
            )


def _require_same_settings(new: Model, old: Model) -> None:
    mine, its = new.learner, old.learner
    if new.settings is None or old.settings is None or not (isinstance(mine, Linear) and isinstance(its, Linear)):
        raise UsageError("a learner that was passed in: only its owner knows how it goes on; load its state yourself")
    wider = new.target.kinds > old.target.kinds
    asked = {
        "--hash-bits": (new.preparation.slots.bits, old.preparation.slots.bits),
        "--optimizer": (mine.optimizer.name, its.optimizer.name),
        "--learning-rate-schedule": (new.settings.learning_rate_schedule, old.settings.learning_rate_schedule),
        "--loss": (None, None) if wider else (str(mine.loss), str(its.loss)),
        "average": (new.settings.average, old.settings.average),
        "--l1": (_size(mine.l1), _size(its.l1)),  # penalties remember something of each weight
        "--l2": (_size(mine.l2), _size(its.l2)),
    }
    if (
        isinstance(mine.optimizer, Ftrl) and mine.loss == its.loss
    ):  # these are part of how its weights follow from its sums
        asked |= {
            "--learning-rate": (mine.learning_rate, its.learning_rate),
            "--l1": (mine.l1, its.l1),
            "--l2": (mine.l2, its.l2),
        }
    for name, (here, there) in asked.items():
        if here != there:
            raise UsageError(
                f"the old run has {name} {there}; asked is {here}: a run that continues it must have the same"
            )


def _size(penalty: float) -> str:
    return "above 0" if penalty else "0"


def _widened(state: dict[str, Any], new: Model, old: Model) -> dict[str, Any]:
    """A learner's state for more classes. Takes the old state apart."""
    learner, settings = new.learner, new.settings
    assert isinstance(learner, Linear) and settings is not None and isinstance(old.learner, Linear)
    descent = Update(learner.optimizer, learner.learning_rate, Penalty(learner.l1, learner.l2), settings.average)
    fields = SparseWeights(0, 1, descent).fields
    unknown = {*state, *fields} - {*_HALVED, *_SIGNED, *_SAME, *_CLOCK, "sparse"}
    if unknown:
        raise UsageError(
            f"optimizer {learner.optimizer.name!r} remembers {sorted(unknown)[0]!r}, and nobody said what that is for a new "
            "class: fit "
            "a new run"
        )
    order, classes = {c: place for place, c in enumerate(new.classes)}, len(new.classes)
    widening = _Widening(
        learner, StreamStats(**{n: state[n] for n in _CLOCK}), np.array([order[c] for c in old.classes]), classes,
        isinstance(old.learner.loss, Logistic),
    )  # fmt: skip
    dense = {name: state.pop(name) for name in descent.fields}
    shape = (len(dense["weights"]), classes)
    wide: dict[str, Any] = {name: np.empty(shape, np.float32) for name in dense} | {"steps": np.empty(())}
    widening.widen(dense, wide, dense=True)
    table = state.pop("sparse", None)
    if table is not None:
        wide["sparse"] = np.empty((*table.shape[:2], classes), np.float32)
        for start in range(0, len(table), _BLOCK_SLOTS):
            part, into = table[start : start + _BLOCK_SLOTS], wide["sparse"][start : start + _BLOCK_SLOTS]
            views = [{name: array[:, i] for i, name in enumerate(fields)} for array in (part, into)]
            widening.widen(*views, dense=False)
    return wide | state


@dataclass(frozen=True)
class _Widening:
    """From arrays of known classes to those of all. places: of the known ones among all. two: there is one output for both."""

    learner: Linear
    clock: StreamStats
    places: NDArray[np.int64]
    classes: int
    two: bool

    def widen(self, old: State, new: State, *, dense: bool) -> None:
        """Fill new arrays by field, shape (weights, classes), from old ones. dense: the last weight is the intercept, and there
        is one number of steps for all."""
        optimizer, added = self.learner.optimizer, np.setdiff1d(np.arange(self.classes), self.places)
        for name, value in old.items():
            if value.ndim == 0:
                new[name][...] = value
                continue
            known = _halves(name, value) if self.two else value
            new[name][:, self.places] = known
            mean = np.zeros(len(known)) if name in _FRESH else known.mean(axis=1, dtype=np.float64)
            new[name][:, added] = mean[:, None]
        steps = new["steps"]
        if isinstance(optimizer, Adagrad | Ftrl):  # a sum; that of Adam is a mean
            new["squares"][:, added] *= _STEPS / np.maximum(steps if dense else steps[:, added], _STEPS)
        if dense:
            known_classes = len(self.places)
            lower = math.log((min(self.clock.rows, _ROWS) + known_classes) / known_classes)
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
        """The sums that make the weights, in place; where these are 0, there are many such sums, and they stay."""
        learner, on = self.learner, np.ones((len(state["weights"]), 1), np.float32)
        on[-1] = not dense
        weights, batches = state["weights"][:, outputs], self.clock.batches
        room = (
            np.sqrt(state["squares"][:, outputs]) + optimizer.beta
        ) / learner.learning_rate + batches * learner.l2 * on
        made = -weights * room - np.sign(weights) * batches * learner.l1 * on
        state["sums"][:, outputs] = np.where(weights != 0, made, state["sums"][:, outputs])


def _halves(name: str, value: NDArray[Any]) -> NDArray[Any]:
    """Of one output what its two classes have, shape (weights, 2)."""
    first = 0 - value if name in (*_HALVED, *_SIGNED) else value
    both: NDArray[Any] = np.stack([first, value], axis=1)
    return both / 2 if name in _HALVED else both


def _correction(beta: float, steps: NDArray[Any]) -> NDArray[np.float64]:
    """How much of a mean is there after so many steps; 1 for none, where it is 0."""
    found: NDArray[np.float64] = 1 - beta ** np.asarray(steps, np.float64)
    return np.where(found > 0, found, 1.0)


def _listed(values: Any) -> str:
    values = list(values)
    more = f" and {len(values) - 10:,} more" if len(values) > 10 else ""
    return ", ".join(map(repr, values[:10])) + more


def _columns(layout: Layout) -> str:
    names = [f"{column.name} ({column.role})" for column in layout.columns] + [":".join(c) for c in layout.crosses]
    more = f" and {len(names) - 10:,} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more

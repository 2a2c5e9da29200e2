"""Linear models, batch by batch: any loss, any optimizer, dense and sparse features."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.batch import Batch, Sparse
from streamtrain.errors import DataError, UsageError
from streamtrain.kernels.products import gradients, margins, reach, squares
from streamtrain.learn.losses import Loss, get_loss
from streamtrain.learn.optimizers import Optimizer, StreamStats, get_optimizer, parameters_of
from streamtrain.learn.penalties import Penalty
from streamtrain.learn.sparse_weights import Gathered, SparseWeights
from streamtrain.learn.update import Update
from streamtrain.state import Form, forms_of, require_sound

__all__ = ["PlainLinear", "is_measured"]

Floats = NDArray[np.float32]


_STATS_BYTES = 5 * 8


class PlainLinear:
    """A linear model without the compiled steps that `Linear` adds."""

    def __init__(
        self,
        features: int,
        classes: int = 0,
        *,
        slots: int = 0,
        targets: int = 1,
        loss: str | Loss | None = None,
        optimizer: str | Optimizer = "normalized",
        learning_rate: float | None = None,
        l1: float = 0.0,
        l2: float = 0.0,
        average: bool = True,
        learning_rate_schedule: str = "sqrt",
        **parameters: float | None,
    ) -> None:
        for name, value, least in (
            ("features", features, 0), ("classes", classes, 0), ("slots", slots, 0), ("targets", targets, 1),
            ("l1", l1, 0), ("l2", l2, 0),
        ):  # fmt: skip
            if not (value >= least and math.isfinite(value)):
                raise UsageError(f"{name} is {value}: must be at least {least}, and finite")
        if not features + slots:
            raise UsageError("features is 0 and slots is 0: a model needs one of them")
        if learning_rate is not None and not 0 < learning_rate < math.inf:
            raise UsageError(f"learning_rate is {learning_rate}: must be above 0, and finite")
        self.features, self.classes, self.slots, self.targets = features, classes, slots, targets
        given = {name: value for name, value in parameters.items() if value is not None}
        own = {name: given.pop(name) for name in parameters_of(optimizer) if name in given}
        self.loss = get_loss(loss or {0: "squared", 2: "logistic"}.get(classes, "softmax"), **given)
        self.optimizer = get_optimizer(optimizer, learning_rate_schedule, **own)
        self.learning_rate = self.optimizer.default_learning_rate(self.loss) if learning_rate is None else learning_rate
        self.l1, self.l2, self.average = l1, l2, average
        outputs = self.loss.outputs(classes, targets)
        # The intercept is the last row, so that one call updates everything; one output is a vector.
        shape = (features + 1, outputs)[: 1 + (outputs > 1)]
        penalty = Penalty(l1, l2, _but_last(features, len(shape))) if l1 or l2 else Penalty()
        self._update = Update(self.optimizer, self.learning_rate, penalty, average)
        self._dense: dict[str, NDArray[Any]] = {name: np.zeros(shape, np.float32) for name in self._update.fields}
        self._dense["steps"] = np.zeros(())
        self._gradient = np.zeros(shape, np.float32)
        self._weights, self._average = self._dense["weights"], self._dense["average" if average else "weights"]
        slot_update = Update(self.optimizer.for_slots(), self.learning_rate, Penalty(l1, l2), average)
        self._sparse_weights = SparseWeights(slots, outputs, slot_update) if slots else None
        self._stats = StreamStats()

    @property
    def weights(self) -> Floats:
        """The weights that predict, shape (features,) or (features, outputs), float32."""
        return self._average[:-1]

    @property
    def intercept(self) -> Floats:
        """The intercept that predicts, shape () or (outputs,), float32."""
        return np.asarray(self._average[-1])

    @property
    def sparse_weights(self) -> Floats:
        """The weights of the sparse part that predict, shape (slots,) or (slots, outputs), float32."""
        none = np.zeros((0, *self._average.shape[1:]), np.float32)
        return none if self._sparse_weights is None else self._sparse_weights.predicting

    @property
    def slots_used(self) -> int:
        """How many slots are part of a state: those up to the highest that occurred. Can be set to more, not to fewer."""
        return 0 if self._sparse_weights is None else self._sparse_weights.used

    @slots_used.setter
    def slots_used(self, slots: int) -> None:
        if self._sparse_weights is not None:
            self._sparse_weights.used = max(self._sparse_weights.used, min(slots, self.slots))

    def predict(self, X: Floats, sparse: Sparse | None = None) -> Floats:
        """Predictions for X, shape (rows, features), and the sparse part: see ``Learner.predict``."""
        margin = margins(self._require_features(X), self._average)
        if sparse is not None:
            margin += self._require_slots(sparse).margins(sparse)
        return self.loss.predict(margin)

    def learn(self, batch: Batch) -> None:
        """Take one step down the gradient of the batch's mean loss. Rows may have weights: see `Linear`."""
        batch = _weighing(batch)
        X, rows, sparse = self._require_features(batch.features), len(batch), batch.sparse
        if not rows:
            return
        sparse_weights = None if sparse is None else self._require_slots(sparse)
        stats = self._count(rows)
        if is_measured(stats):  # this pass over X would cost a fifth of the step
            stats.measure(squares(X) + _squares(sparse), rows)
        gathered = None if sparse is None or sparse_weights is None else sparse_weights.gather(sparse, stats)
        margin = margins(X, self._weights)
        if gathered is not None:
            margin += gathered.margins(rows)
        if batch.weights is None:
            slope = self.loss.gradient(margin, batch.targets)
        else:
            slope = self.loss.invariant(margin, batch.targets, batch.weights, self._reach(X, gathered))
        slope = np.ascontiguousarray(slope, np.float32)
        if slope.shape != margin.shape:
            raise DataError(f"the gradient of the loss has shape {slope.shape}; the margin's is {margin.shape}")
        stats.add_noise(squares(slope) * rows / slope.size, rows)
        gradients(X, slope, self._gradient)
        self._move(rows)
        if gathered is not None and sparse_weights is not None:
            gradient = gathered.gradient(slope)
            gradient *= np.array(1 / rows, np.float32)
            sparse_weights.move(gathered, gradient, stats)

    def _reach(self, X: Floats, gathered: Gathered | None) -> Floats:
        """How far a slope of 1 moves the margin of its own row, by the rates from before the batch; shape (rows,). With
        several outputs, the mean over them."""
        rate = _per_weight(self._update.rate(self._dense, self._stats))
        found = reach(X, rate) if rate.ndim else reach(X, None) * rate
        if gathered is not None and self._sparse_weights is not None:
            slots = _per_weight(self._sparse_weights.update.rate(gathered.state, self._stats))
            found += gathered.reach(np.broadcast_to(slots, len(gathered.slots)), len(X))
        return found / np.float32(len(X))

    def _move(self, rows: int) -> None:
        """Take a step down the mean gradient, from the sum in ``_gradient``."""
        self._gradient *= np.array(1 / rows, np.float32)
        self._update.move(self._gradient, self._dense, self._stats)

    def _count(self, rows: int) -> StreamStats:
        """Count a batch of so many rows; return the counts."""
        stats = self._stats
        stats.rows += rows
        stats.batches += 1
        return stats

    def _require_features(self, X: Floats) -> Floats:
        """The rows as the kernels take them: contiguous, float32. Raises DataError for another number of columns."""
        if X.ndim != 2 or X.shape[1] != self.features:
            raise DataError(f"X has shape {X.shape}; the model was made for {self.features} features")
        return np.ascontiguousarray(X, np.float32)

    def _require_slots(self, sparse: Sparse) -> SparseWeights:
        """The weights of the sparse part. Raises DataError if the sparse part has more columns than the model has slots."""
        if self._sparse_weights is None or sparse.width > self.slots:
            raise DataError(f"the sparse part has {sparse.width} columns; the model was made for {self.slots} slots")
        return self._sparse_weights

    @property
    def _scratch_arrays(self) -> int:
        """How many arrays of the weights' shape a step allocates at most."""
        return self._update.scratch_arrays

    @property
    def state_bytes(self) -> int:
        """Bytes of the weights, their average, the gradient, and what optimizer and penalties keep or allocate in a step. All
        slots count, though those that never occurred take no memory."""
        dense = sum(
            array.nbytes for array in (*self._dense.values(), self._gradient, np.asarray(self._update.penalty.on))
        )
        sparse_bytes = 0 if self._sparse_weights is None else self._sparse_weights.array.nbytes
        return dense + self._scratch_arrays * self._weights.nbytes + sparse_bytes + _STATS_BYTES

    def state_dict(self) -> dict[str, NDArray[Any] | int | float]:
        """Copies of the weights, their average, what optimizer and penalties remember, the used slots (``sparse``),
        and the counts of `StreamStats`."""
        state: dict[str, Any] = {name: array.copy() for name, array in self._dense.items()}
        if self._sparse_weights is not None:
            state["sparse"] = self._sparse_weights.state()
        return state | asdict(self._stats)

    def forms(self) -> dict[str, Form]:
        """The forms of the state."""
        sparse = self._sparse_weights
        own = forms_of(self._dense | asdict(StreamStats()))
        return own if sparse is None else own | {"sparse": Form("<f4", sparse.array.shape, loose=0)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that ``state_dict`` returned. Changes nothing and raises KeyError for an incomplete state,
        DataError for the state of a model of another shape, ValueError for numbers that no model has."""
        rows, batches, measured = (int(state[name]) for name in ("rows", "batches", "measured"))
        stats = StreamStats(rows, batches, measured, float(state["power"]), float(state["noise"]))
        more = set(state) - {*self._dense, *asdict(stats), *(("sparse",) if self._sparse_weights is not None else ())}
        if more:
            raise DataError(
                f"the state has {sorted(more)[0]!r}, which this model does not have: it belongs to another optimizer"
            )
        for name, array in self._dense.items():
            if np.shape(state[name]) != array.shape:
                raise DataError(f"the state's {name} has shape {np.shape(state[name])}; the model's has {array.shape}")
        self._require_possible(state, stats)
        if self._sparse_weights is not None:
            self._sparse_weights.load(state["sparse"])
        for name, array in self._dense.items():
            array[...] = state[name]
        self._stats = stats

    def _require_possible(self, state: Mapping[str, Any], stats: StreamStats) -> None:
        """Raise ValueError for a state that learning cannot have made."""
        squares = [name for name, like in self.optimizer.fields.items() if like == "square"]
        dense = {name: value for name, value in state.items() if name != "sparse"}
        require_sound(dense, dict.fromkeys((*asdict(stats), *squares, "steps", "l1_total"), 0.0))
        if stats.measured > stats.rows or stats.batches > stats.rows or (stats.batches and not stats.power):
            raise ValueError("the state's counts of rows and batches contradict each other")


def is_measured(stats: StreamStats) -> bool:
    """Whether the squared lengths of this batch's rows are measured: those of the first 32 batches and of every eighth."""
    return stats.batches <= 32 or stats.batches % 8 == 0


def _weighing(batch: Batch) -> Batch:
    """The batch without rows of weight 0."""
    if batch.weights is None or batch.weights.all():
        return batch
    keep, sparse = batch.weights != 0, batch.sparse
    if sparse is not None:
        counts = np.diff(sparse.indptr)
        entries = np.repeat(keep, counts)
        indptr = np.concatenate([[0], np.cumsum(counts[keep])])
        values = None if sparse.values is None else sparse.values[entries]
        sparse = Sparse(indptr, sparse.indices[entries], values, sparse.width)
    rows = np.flatnonzero(keep)
    return Batch(batch.features[keep], batch.targets[keep], batch.weights[keep], rows, batch.held_out, sparse)


def _per_weight(rate: Floats | np.float32) -> Floats:
    """The rate of each weight, or of all, shape () or (weights,): the mean over the outputs."""
    mean: Floats = rate.mean(axis=1) if rate.ndim == 2 else np.asarray(rate)
    return mean


def _squares(sparse: Sparse | None) -> float:
    """The sum of all squared values, 0 without a sparse part."""
    if sparse is None:
        return 0.0
    return float(len(sparse.indices) if sparse.values is None else squares(sparse.values))


def _but_last(features: int, dimensions: int) -> Floats:
    """1 for each feature, 0 for the intercept."""
    on = np.ones((features + 1, 1)[:dimensions], np.float32)
    on[-1] = 0
    return on

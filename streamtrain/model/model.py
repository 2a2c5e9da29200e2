"""A model: which columns, how they are prepared, the learner, and what its numbers mean."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.batch import Batch, Sparse
from streamtrain.columns.layout import Layout
from streamtrain.columns.target import Target
from streamtrain.errors import BadValueError, ColumnError, DataError, DivergedError, RunError
from streamtrain.learn import Learner, Linear
from streamtrain.learn.settings import LinearSettings
from streamtrain.model.describe import describe_layout, layout_of
from streamtrain.model.files import FORMAT, naming_damage, read_description, read_state, write_files
from streamtrain.prepare import Preparation, Shape, TargetScale, default_hash_bits
from streamtrain.prepare.settings import PreparationSettings
from streamtrain.state import part
from streamtrain.storage.arrow import pick

__all__ = ["Model", "diverged", "load_model", "shape_of_rows"]

Floats = NDArray[np.float32]


def shape_of_rows(layout: Layout) -> Shape:
    """What a row of a layout holds, as the preparation wants it."""
    crosses = tuple(tuple(layout.hashes[name] for name in cross) for cross in layout.crosses)
    return Shape(tuple(layout.slots), tuple(layout.hashes), layout.categories, crosses, tuple(layout.texts))


class Model:
    """Preparation and learner together, for rows as the loader gives them.

    layout: the columns that it was made for. learner: how to make one, or anything with the `Learner` protocol, which is
    fed prepared features, and cannot be saved. prepared: settings of the preparation.
    """

    def __init__(
        self, layout: Layout, learner: LinearSettings | Learner, prepared: PreparationSettings | None = None
    ) -> None:
        if layout.target is None:
            raise ColumnError("a model needs a target")
        self.layout, self.prepared = layout, prepared or PreparationSettings()
        self.target: Target = layout.target
        shape, targets, kinds = shape_of_rows(layout), len(layout.target.names), layout.target.kinds
        bits = self.prepared.hash_bits
        bits = default_hash_bits(shape, kinds if kinds > 2 else targets) if bits is None else bits
        self.preparation = Preparation(shape, bits, self.prepared.infinities)
        self.settings = learner if isinstance(learner, LinearSettings) else None
        self.learner: Learner
        if isinstance(learner, LinearSettings):
            self.learner = learner.make(layout.width, kinds, self.preparation.slots.width, targets)
        else:
            self.learner = learner
        parameters = inspect.signature(self.learner.predict).parameters
        self._sparse = isinstance(self.learner, Linear) or "sparse" in parameters
        if shape.sparse and not self._sparse:
            names = [*layout.hashes, *layout.texts]
            raise ColumnError(
                f"the learner takes numbers only, but {names[0]!r} is a category or text: leave such columns out, or give its "
                "predict a parameter `sparse`"
            )
        unit = self.learner.loss.unit if isinstance(self.learner, Linear) else "deviation"
        self._scale = TargetScale(targets, unit or "deviation") if self.target.task == "regress" else None
        self._class_weights = np.array(self.prepared.class_weights, np.float32)
        self._as_it_is = np.repeat(np.array([0, 0, 1], np.float32), layout.width).reshape(3, -1)
        self._unused = np.zeros((2, layout.width))

    @property
    def task(self) -> str:
        return self.target.task

    @property
    def classes(self) -> tuple[Any, ...]:
        """The classes, in the order of their probabilities; empty for regression, and for several targets."""
        return self.target.classes

    # -- learning ------------------------------------------------------------------------------------------------------

    def train(self, batch: Batch, size: int | None = None) -> Floats:
        """Predict, then learn, rows as the loader gives them, whose features may be prepared in place.

        size: rows of one batch, where these are several that stand one after the other.
        Returns the predictions that were made before anything was learned from a batch's targets (see `predict`).
        Raises BadValueError for features that are not finite, DivergedError where the model's numbers are not.
        """
        size, found, start = size or len(batch), [], 0
        batch = self._weighted(batch)
        while start < len(batch):
            stop = min(len(batch), start + size * self._batches_at_once(batch, start, size))
            part = batch if stop - start == len(batch) else batch.part(start, stop)
            try:
                found.append(self._train_run(part, size) if stop - start > size else self._train_heavy(part))
            except BadValueError as error:
                raise error.further(start) from None
            start += len(found[-1])
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _train_heavy(self, batch: Batch) -> Floats:
        """Learn the rows that weigh something; the others are as if they were not there, and their predictions are 0."""
        if batch.weights is None or (batch.weights == 1).all():  # rows that weigh 1 are rows without a weight
            return self._train_one(batch if batch.weights is None else replace(batch, weights=None))
        if batch.weights.all():
            return self._train_one(batch)
        rows, outputs = np.flatnonzero(batch.weights), self.layout.outputs
        predictions = np.zeros((len(batch), outputs)[: 1 + (outputs > 1)], np.float32)
        try:
            predictions[rows] = self._train_one(batch.take(rows)) if len(rows) else 0
        except BadValueError as error:
            raise error if error.row is None else error.further(int(rows[error.row]) - error.row) from None
        return predictions

    def _weighted(self, batch: Batch) -> Batch:
        """The batch with the weights of its rows' classes."""
        if not len(self._class_weights):
            return batch
        weights: Floats = self._class_weights[batch.targets]
        return replace(batch, weights=weights if batch.weights is None else weights * batch.weights)

    def _batches_at_once(self, batch: Batch, start: int, size: int) -> int:
        """How many batches can be learned in one call: as many as the preparation stays the same for."""
        learner, numbers = self.learner, self.preparation.numbers
        if self._scale is not None or batch.weights is not None or numbers.maps is None:
            return 1
        if not (isinstance(learner, Linear) and learner.runs):
            return 1
        most = max(1, -(-numbers.rows_to_renewal // size))
        return 1 if numbers.has_new_columns(batch.features[start : start + most * size]) else most

    def _train_run(self, batch: Batch, size: int) -> Floats:
        """Learn several batches in one call; fewer where one of them has to be looked at."""
        learner, numbers = self.learner, self.preparation.numbers
        assert isinstance(learner, Linear) and numbers.maps is not None
        complete, missing = self.preparation.complete(batch, learn=True)
        done, predictions, sums = learner.run(complete, size, numbers.maps, numbers.block)
        learned = min(len(batch), done * size)
        numbers.added(learned, None if missing is None else missing[:learned])
        if sums is None:
            return predictions
        odd = slice(learned, len(predictions))
        if missing is not None:  # as they were: the rows behind come again
            batch.features[odd.stop :][missing[odd.stop :]] = np.nan
        if not self.preparation.looks and self.preparation.look(batch.features[odd]):
            return predictions[:learned]  # something is missing in this batch, of which nothing was learned
        try:
            numbers.update_from_sums(sums, batch.features[odd], None if missing is None else missing[odd])
        except BadValueError as error:
            raise error.further(learned) from None
        if learner.diverged:
            raise diverged("the gradient")
        return predictions

    def _train_one(self, batch: Batch) -> Floats:
        learner, scale = self.learner, self._scale
        plain = isinstance(learner, Linear) and batch.weights is None
        trusted = self.preparation.is_settled(batch.features)
        if plain and trusted and isinstance(learner, Linear) and (learner.runs or self._fuses(learner)):
            scaled = batch if scale is None else replace(batch, targets=scale.transform(batch.targets))
            predictions = self._train_run(scaled, len(batch)) if learner.runs else self._train_fused(scaled)
            if scale is not None and len(predictions):
                predictions = scale.inverse(predictions)
                scale.observe(batch.targets)
            return predictions
        prepared = self.preparation.learn(batch)
        if scale is not None:
            if not trusted:
                scale.observe(batch.targets)
            prepared = replace(prepared, targets=scale.transform(prepared.targets))
        if plain and isinstance(learner, Linear) and learner.runs:
            done, predictions, _ = learner.run(prepared, len(prepared), self._as_it_is, self._unused)
            if not done:
                raise diverged("the gradient")
            return predictions if scale is None else scale.inverse(predictions)
        predictions = self._predict_prepared(prepared.features, prepared.sparse)
        learner.learn(prepared if self._sparse else replace(prepared, sparse=None))
        if scale is not None and trusted:
            scale.observe(batch.targets)
        return predictions

    def _fuses(self, learner: Linear) -> bool:
        return learner.fuses and not self.preparation.shape.sparse and not self.preparation.looks

    def _train_fused(self, batch: Batch) -> Floats:
        """`train` in one pass over the rows, by maps that do not know this batch yet; none of them where some number is
        missing, which shows in it."""
        learner, preparation = self.learner, self.preparation
        assert isinstance(learner, Linear) and preparation.numbers.maps is not None
        predictions, sums = learner.step(batch, preparation.numbers.maps)
        if learner.diverged and preparation.look(batch.features):
            return predictions[:0]
        preparation.numbers.update_from_sums(sums, batch.features)
        if learner.diverged:
            raise diverged("the gradient")
        return predictions

    # -- predicting ----------------------------------------------------------------------------------------------------

    def _predict_prepared(self, features: Floats, sparse: Sparse | None) -> Floats:
        predictions = self.learner.predict(features, sparse) if self._sparse else self.learner.predict(features)
        if self.target.kinds == 2 and not self.target.parts and np.ndim(predictions) == 2:
            predictions = np.ascontiguousarray(predictions[:, 1])
        if not isinstance(self.learner, Linear):
            _require_predictions(predictions, len(features), self.layout.outputs)
        return predictions if self._scale is None else self._scale.inverse(predictions)

    def predict(self, batch: Batch) -> Floats:
        """Predictions for a batch as the loader gives it, whose features are prepared in place: in the target's unit,
        shape (rows,), for regression; shape (rows,), the probability of the second class, for two; (rows, classes). For
        several targets shape (rows, targets).

        Raises BadValueError for features that are infinite, unless the preparation does something with them.
        """
        prepared = self.preparation.apply(batch)
        return self._predict_prepared(prepared.features, prepared.sparse)

    def require_finite(self) -> None:
        """Raise DivergedError if a number of the learner's state is not finite."""
        for name, value in self.learner.state_dict().items():
            if np.asarray(value).dtype.kind == "f" and not np.isfinite(value).all():
                raise diverged(f"the learner's {name}")

    # -- other data ----------------------------------------------------------------------------------------------------

    def layout_for(self, schema: pa.Schema, *, with_target: bool) -> Layout:
        """The same columns in other data. Raises ColumnError where they are not there, or are something else."""
        crossed = {name for cross in self.layout.crosses for name in cross}
        own = self.layout.columns
        columns = [
            column.becomes.same(column, pick(schema, column.name, "features"), crossed=column.name in crossed)
            for column in own
        ]
        target = weight = None
        if with_target:
            for name in self.target.names:
                pick(schema, name, "target")
            target, weight = self.target, self.layout.weight if self.layout.weight in schema.names else None
        return Layout.of(schema, columns, target, weight, self.layout.crosses)

    # -- files ---------------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write ``model.safetensors`` and ``model.json`` to an existing folder. Raises RunError for a learner that was
        passed in: only its owner knows how to make it again."""
        write_files(Path(folder), self.describe(), self.state_dict())

    def describe(self) -> dict[str, Any]:
        """All that is text or a setting of a model, for JSON. Raises RunError for a learner that was passed in."""
        if self.settings is None:
            raise RunError("a learner that was passed in cannot be saved: keep its state_dict() yourself")
        return {
            "format": FORMAT,
            "learner": "linear",
            "settings": asdict(self.settings),
            "preparation": asdict(self.prepared) | {"hash_bits": self.preparation.slots.bits},
            **describe_layout(self.layout),
        }

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> Model:
        """A fresh model as it was described. Raises errors of all kinds for what `describe` did not make."""
        layout, asked = layout_of(description), dict(description["preparation"])
        asked["class_weights"] = tuple(asked["class_weights"])
        return cls(layout, LinearSettings(**description["settings"]), PreparationSettings(**asked))

    # -- state ---------------------------------------------------------------------------------------------------------

    @property
    def state_bytes(self) -> int:
        """Bytes of everything that learning changes, as they are at most."""
        return self.learner.state_bytes + self.preparation.state_bytes

    def state_dict(self) -> dict[str, Any]:
        """Everything that learning changes."""
        state = {f"learner.{k}": v for k, v in self.learner.state_dict().items()}
        state |= {f"preparation.{k}": v for k, v in self.preparation.state_dict().items()}
        return state | ({f"target.{k}": v for k, v in self._scale.state_dict().items()} if self._scale else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.learner.load_state_dict(part(state, "learner."))
        self.preparation.load_state_dict(part(state, "preparation."))
        if self._scale is not None:
            self._scale.load_state_dict(part(state, "target."))


def _require_predictions(predictions: Any, rows: int, outputs: int) -> None:
    """What a learner of somebody else's predicts has the shape that the protocol says."""
    wanted = (rows, outputs) if outputs > 1 else (rows,)
    if np.shape(predictions) != wanted:
        raise DataError(f"the learner predicted an array of shape {np.shape(predictions)}; wanted {wanted}")


def diverged(what: str) -> DivergedError:
    """The error for numbers that ran out of bounds while learning."""
    return DivergedError(
        f"the model diverged: {what} is not finite any more: give a smaller --learning-rate, or use --optimizer normalized"
    )


def load_model(run: str | Path) -> Model:
    """The model of a run folder. Raises RunError for a folder that holds none, or one that was damaged."""
    folder = Path(run)
    with naming_damage(folder):
        description = read_description(folder)
        model = Model.of(description)
        model.load_state_dict(read_state(folder, description))
    return model

"""A model: which columns, how they are prepared, the learner, and what its numbers mean; and the files that hold it.

``model.safetensors`` holds every array and number that learning changes, ``model.json`` everything that is text. Neither
can run code, identical weights give identical bytes, and a bit that flipped since is noticed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.batch import Batch
from streamtrain.errors import BadValueError, ColumnError, DataError, DivergedError, RunError
from streamtrain.learn import Learner, Linear
from streamtrain.load import Layout
from streamtrain.prepare import Standardize, TargetScale
from streamtrain.storage.arrow import pick, width
from streamtrain.target import Target

__all__ = ["LinearSettings", "Model", "diverged", "load_model"]

_FORMAT = 1


@dataclass(frozen=True)
class LinearSettings:
    """What was asked of the linear family; None means the default of loss and rule."""

    loss: str | None = None
    rule: str = "nag"
    step: float | None = None
    l1: float = 0.0
    l2: float = 0.0
    average: bool = True

    def make(self, features: int, classes: int) -> Linear:
        return Linear(features, classes, **asdict(self))


class Model:
    """Preparation and learner together, for rows as the loader gives them.

    layout: the columns that it was made for. learner: anything with the `Learner` protocol, fed prepared features.
    settings: how to make the learner again; None for a learner of somebody else's, which cannot be saved.
    """

    def __init__(self, layout: Layout, learner: Learner, settings: LinearSettings | None) -> None:
        if layout.target is None:
            raise ColumnError("a model needs a target")
        self.layout, self.learner, self.settings = layout, learner, settings
        self.target: Target = layout.target
        self.preparation = Standardize(layout.width)
        self._scale = TargetScale() if self.target.task == "regress" else None

    @property
    def task(self) -> str:
        return self.target.task

    @property
    def classes(self) -> tuple[Any, ...]:
        """The classes, in the order of their probabilities; empty for regression."""
        return self.target.classes

    def train(self, batch: Batch, size: int | None = None) -> NDArray[np.float32]:
        """Predict, then learn, rows as the loader gives them, whose features may be prepared in place.

        size: rows of one batch, where these are several that stand one after the other.
        Returns the predictions that were made before anything was learned from a batch's targets (see `predict`).
        Raises BadValueError for features that are not finite, DivergedError where the model's numbers are not.
        """
        size, found, start = size or len(batch), [], 0
        while start < len(batch):
            stop = min(len(batch), start + size * self._batches_at_once(batch, size))
            part = batch if stop - start == len(batch) else batch.part(start, stop)
            try:
                found.append(self._train_run(part, size) if stop - start > size else self._train_one(part))
            except BadValueError as error:
                raise error.further(start) from None
            start += len(found[-1])
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _batches_at_once(self, batch: Batch, size: int) -> int:
        """How many batches can be learned in one call: as many as the preparation stays the same for."""
        learner = self.learner
        if self._scale is not None or batch.weights is not None or self.preparation.maps is None:
            return 1
        if not (isinstance(learner, Linear) and learner.runs):
            return 1
        return max(1, -(-self.preparation.rows_to_renewal // size))

    def _train_run(self, batch: Batch, size: int) -> NDArray[np.float32]:
        """Learn several batches in one call; fewer where one of them has to be looked at."""
        learner, maps = self.learner, self.preparation.maps
        assert isinstance(learner, Linear) and maps is not None
        done, predictions, sums = learner.run(batch, size, maps, self.preparation.block)
        learned = min(len(batch), done * size)
        self.preparation.added(learned)
        if sums is not None:
            try:
                self.preparation.absorb(sums, batch.features[learned : len(predictions)])
            except BadValueError as error:
                raise error.further(learned) from None
            if learner.diverged:
                raise diverged("the gradient")
        return predictions

    def _train_one(self, batch: Batch) -> NDArray[np.float32]:
        maps = self.preparation.maps
        if maps is not None and isinstance(self.learner, Linear) and self.learner.fuses:
            return self._train_fused(self.learner, batch, maps)
        self.preparation.observe(batch.features)
        self.preparation.transform(batch.features)
        predictions = self._predict_prepared(batch.features)
        if self._scale is not None:
            self._scale.observe(batch.targets)
            batch = replace(batch, targets=self._scale.transform(batch.targets))
        self.learner.learn(batch)
        return predictions

    def _train_fused(self, learner: Linear, batch: Batch, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """`train` in one pass over the rows, by maps that do not know this batch yet."""
        targets, scale = batch.targets, self._scale
        if scale is not None:
            batch = replace(batch, targets=scale.transform(targets))
        predictions, sums = learner.step(batch, maps)
        self.preparation.absorb(sums, batch.features)
        if learner.diverged:
            raise diverged("the gradient")
        if scale is None:
            return predictions
        predictions = scale.inverse(predictions)
        scale.observe(targets)
        return predictions

    def _predict_prepared(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        predictions = self.learner.predict(features)
        if len(self.classes) == 2 and np.ndim(predictions) == 2:
            predictions = np.ascontiguousarray(predictions[:, 1])
        if not isinstance(self.learner, Linear):
            _require_predictions(predictions, len(features), len(self.classes))
        return predictions if self._scale is None else self._scale.inverse(predictions)

    def require_finite(self) -> None:
        """Raise DivergedError if a number of the learner's state is not finite."""
        for name, value in self.learner.state_dict().items():
            if np.asarray(value).dtype.kind == "f" and not np.isfinite(value).all():
                raise diverged(f"the learner's {name}")

    def predict(self, batch: Batch) -> NDArray[np.float32]:
        """Predictions for a batch as the loader gives it, whose features are prepared in place: in the target's unit,
        shape (rows,), for regression; shape (rows,), the probability of the second class, for two; (rows, classes).

        Raises BadValueError for features that are not finite.
        """
        finite = np.isfinite(batch.features)
        if not finite.all():
            row, column = (int(i) for i in np.argwhere(~finite)[0])
            raise BadValueError(f"a feature is {batch.features[row, column]}", row=row, column=column)
        self.preparation.transform(batch.features)
        return self._predict_prepared(batch.features)

    def layout_for(self, schema: pa.Schema, *, with_target: bool) -> Layout:
        """The same columns in other data. Raises ColumnError where they are not there, or of another width."""
        types = tuple(pick(schema, name, "features").type for name in self.layout.features)
        for name, kind, own in zip(self.layout.features, types, self.layout.types, strict=True):
            if width(kind) != width(own):
                raise ColumnError(f"feature {name!r} has {width(kind)} numbers a row; the model knows {width(own)}")
        found = Layout.of(schema, self.layout.features, None, None)
        if with_target:
            pick(schema, self.target.name, "target")
            weight = self.layout.weight if self.layout.weight in schema.names else None
            found = Layout.of(schema, self.layout.features, self.target, weight)
        return found.with_origins(self.layout.origins)

    # -- files ---------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that learning changes."""
        state = {f"learner.{k}": v for k, v in self.learner.state_dict().items()}
        state |= {f"preparation.{k}": v for k, v in self.preparation.state_dict().items()}
        return state | ({f"target.{k}": v for k, v in self._scale.state_dict().items()} if self._scale else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.learner.load_state_dict(_part(state, "learner."))
        self.preparation.load_state_dict(_part(state, "preparation."))
        if self._scale is not None:
            self._scale.load_state_dict(_part(state, "target."))

    def save(self, folder: Path) -> None:
        """Write ``model.safetensors`` and ``model.json`` to an existing folder. Raises RunError for a learner that was
        passed in: only its owner knows how to make it again."""
        if self.settings is None:
            raise RunError("a learner that was passed in cannot be saved: keep its state_dict() yourself")
        from safetensors.numpy import save

        tensors = save({name: np.asarray(value) for name, value in self.state_dict().items()})
        (folder / "model.safetensors").write_bytes(tensors)
        layout, target = self.layout, self.target
        description = {
            "format": _FORMAT,
            "sha256": hashlib.sha256(tensors).hexdigest(),
            "learner": "linear",
            "settings": asdict(self.settings),
            "target": {
                "name": target.name,
                "task": target.task,
                "classes": list(target.classes),
                "origin": target.origin,
            },
            "weight": layout.weight,
            "features": [
                {"name": name, "type": str(kind), "shape": _shape(kind), "origin": origin}
                for name, kind, origin in zip(layout.features, layout.types, layout.origins, strict=True)
            ],
        }
        (folder / "model.json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")


def _require_predictions(predictions: Any, rows: int, classes: int) -> None:
    """What a learner of somebody else's predicts has the shape that the protocol says."""
    wanted = (rows, classes) if classes > 2 else (rows,)
    if np.shape(predictions) != wanted:
        raise DataError(f"the learner predicted an array of shape {np.shape(predictions)}; wanted {wanted}")


def diverged(what: str) -> DivergedError:
    """The error for numbers that ran out of bounds while learning."""
    return DivergedError(f"the model diverged: {what} is not finite any more: give a smaller --step, or use --rule nag")


def load_model(run: str | Path) -> Model:
    """The model of a run folder. Raises RunError for a folder that holds none, or one that was damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    folder = Path(run)
    if not (folder / "model.json").is_file():
        what = "has no model.json" if folder.is_dir() else "no such folder"
        raise RunError(f"{run}: not a run ({what}): name the folder that `streamtrain fit --out` wrote")
    try:
        description = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        if description["format"] != _FORMAT:
            raise RunError(f"{run}: model format {description['format']}; this version reads {_FORMAT}")
        target = Target(**{**description["target"], "classes": tuple(description["target"]["classes"])})
        names, types, origins = zip(
            *((f["name"], _kind(f["shape"]), f["origin"]) for f in description["features"]), strict=True
        )
        settings = LinearSettings(**description["settings"])
        layout = Layout(names, types, target, description["weight"], origins)
        model = Model(layout, settings.make(layout.width, len(target.classes)), settings)
        tensors = (folder / "model.safetensors").read_bytes()
        if hashlib.sha256(tensors).hexdigest() != description["sha256"]:
            raise RunError(f"{run}: model.safetensors is not the file that was written: its checksum differs")
        model.load_state_dict(load(tensors))
    except (KeyError, TypeError, ValueError, OSError, SafetensorError) as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"{run}: the model is damaged or incomplete: {error}") from error
    return model


def _part(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _shape(kind: pa.DataType) -> list[int] | None:
    return list(kind.shape) if isinstance(kind, pa.FixedShapeTensorType) else None


def _kind(shape: list[int] | None) -> pa.DataType:
    """A model remembers shapes, not types: any type of number does, the data say which."""
    return pa.float32() if shape is None else pa.fixed_shape_tensor(pa.float32(), shape)

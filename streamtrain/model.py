"""A model: which columns, how they are prepared, the learner, and what its numbers mean; and the files that hold it.

``model.safetensors`` holds every array and number that learning changes, ``model.json`` everything that is text. Neither
can run code, and identical weights give identical bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.batch import Batch
from streamtrain.errors import BadValueError, ColumnError, RunError
from streamtrain.learn import Learner, Linear
from streamtrain.load import Layout
from streamtrain.prepare import Standardize, TargetScale
from streamtrain.storage.arrow import pick, width
from streamtrain.target import Target

__all__ = ["LinearSettings", "Model", "load_model"]

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

    def prepare(self, batch: Batch) -> None:
        """Update the preparation from a batch that is to be learned, and prepare its features in place."""
        self.preparation.observe(batch.features)
        self.preparation.transform(batch.features)

    def predict_prepared(self, batch: Batch) -> NDArray[np.float32]:
        """Predictions for a prepared batch, in the target's unit: shape (rows,) for regression, and for two classes the
        probability of the second; (rows, classes) for more."""
        predictions = self.learner.predict(batch.features)
        return predictions if self._scale is None else self._scale.inverse(predictions)

    def learn_prepared(self, batch: Batch) -> None:
        """Learn from a prepared batch."""
        if self._scale is not None:
            self._scale.observe(batch.targets)
            batch = Batch(batch.features, self._scale.transform(batch.targets), batch.weights, batch.positions)
        self.learner.learn(batch)

    def predict(self, batch: Batch) -> NDArray[np.float32]:
        """Predictions for a batch as the loader gives it, whose features are prepared in place.

        Raises BadValueError for features that are not finite.
        """
        finite = np.isfinite(batch.features)
        if not finite.all():
            row, column = (int(i) for i in np.argwhere(~finite)[0])
            raise BadValueError(f"a feature is {batch.features[row, column]}", row=row, column=column)
        self.preparation.transform(batch.features)
        return self.predict_prepared(batch)

    def layout_for(self, schema: pa.Schema, *, with_target: bool) -> Layout:
        """The same columns in other data. Raises ColumnError where they are not there, or of another width."""
        types = tuple(pick(schema, name, "features").type for name in self.layout.features)
        for name, kind, own in zip(self.layout.features, types, self.layout.types, strict=True):
            if width(kind) != width(own):
                raise ColumnError(f"feature {name!r} has {width(kind)} numbers a row; the model knows {width(own)}")
        found = Layout.of(schema, self.layout.features, None, None)
        if with_target:
            pick(schema, self.target.name, "target")
            found = Layout.of(schema, self.layout.features, self.target, None)
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
        from safetensors.numpy import save_file

        save_file({name: np.asarray(value) for name, value in self.state_dict().items()}, folder / "model.safetensors")
        layout, target = self.layout, self.target
        description = {
            "format": _FORMAT,
            "learner": "linear",
            "settings": asdict(self.settings),
            "target": {"name": target.name, "task": target.task, "classes": list(target.classes)},
            "features": [
                {"name": name, "type": str(kind), "shape": _shape(kind), "origin": origin}
                for name, kind, origin in zip(layout.features, layout.types, layout.origins, strict=True)
            ],
        }
        (folder / "model.json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")


def load_model(run: str | Path) -> Model:
    """The model of a run folder. Raises RunError for a folder that holds none, or one that was damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

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
        layout = Layout(names, types, target, None, origins)
        model = Model(layout, settings.make(layout.width, len(target.classes)), settings)
        model.load_state_dict(load_file(folder / "model.safetensors"))
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

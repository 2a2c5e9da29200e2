"""A model: which columns, how they are prepared, the learner, and what its numbers mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.batch import Batch
from streamtrain.columns.layout import Layout
from streamtrain.columns.target import Target
from streamtrain.errors import ColumnError, RunError, UsageError
from streamtrain.learn.family import LearnerShape, Recipe, recorded_recipe
from streamtrain.learn.learner import Learner, learner_terms, takes_sparse, target_scale
from streamtrain.learn.own_code import Calling, learner_title, state_bytes_of, state_of
from streamtrain.model import tensors
from streamtrain.model.describe import describe_layout, layout_of
from streamtrain.model.files import FORMAT, naming_damage, read_description, read_state, write_files
from streamtrain.model.steps import Steps, diverged
from streamtrain.notebook import count, html_table, one_line
from streamtrain.plan.term import Term
from streamtrain.prepare import Preparation, Shape, TargetScale, default_hash_bits
from streamtrain.prepare.settings import PreparationSettings
from streamtrain.prepare.target_scale import TARGET_UNITS
from streamtrain.state import part
from streamtrain.storage.arrow import pick

__all__ = ["Model", "diverged", "load_model", "shape_of_rows"]

Floats = NDArray[np.float32]


def shape_of_rows(layout: Layout) -> Shape:
    """What a row of a layout contains, as the preparation takes it."""
    crosses = tuple(tuple(layout.hashes[name] for name in cross) for cross in layout.crosses)
    return Shape(tuple(layout.slots), tuple(layout.hashes), layout.categories, crosses, tuple(layout.texts))


class Model:
    """Preparation and learner together, for rows as the loader gives them.

    layout: the columns that it is made for. learner: how to make one (see `learn.family.recipe`), or one that is made
    already, which cannot be saved. prepared: settings of the preparation.
    """

    def __init__(self, layout: Layout, learner: Recipe | Learner, prepared: PreparationSettings | None = None) -> None:
        if layout.target is None:
            raise ColumnError("a model needs a target")
        self.layout, self.prepared = layout, prepared or PreparationSettings()
        self.target: Target = layout.target
        shape, targets, kinds = shape_of_rows(layout), len(layout.target.names), layout.target.kinds
        bits = self.prepared.hash_bits
        bits = default_hash_bits(shape, kinds if kinds > 2 else targets) if bits is None else bits
        self.preparation = Preparation(shape, bits, self.prepared.infinities)
        self.recipe = learner if isinstance(learner, Recipe) else None
        self.learner: Learner
        if isinstance(learner, Recipe):
            self.learner = learner.make(LearnerShape(layout.width, self.preparation.slots.width, kinds, targets))
        else:
            self.learner = learner
        if shape.sparse and not takes_sparse(self.learner):
            names = [*layout.hashes, *layout.texts]
            raise ColumnError(
                f"the learner takes numbers only, but {names[0]!r} is a category or text: leave such columns out, or give its "
                "predict a parameter `sparse`"
            )
        self._scale = _scale_of(self.learner, targets) if self.target.task == "regress" else None
        self._steps = Steps(self.layout, self.preparation, self.learner, self._scale, self.prepared.class_weights)

    def __repr__(self) -> str:
        return one_line(
            self,
            type(self.learner).__name__,
            count(len(self.layout.columns), "column"),
            f"target {self.target.name!r}",
            count(len(self.classes), "class", "classes") if self.classes else self.task,
        )

    def _repr_html_(self) -> str:
        rows = [(column.name, column.type, column.role) for column in self.layout.columns]
        return html_table(repr(self)[1:-1], ("column", "type", "becomes"), rows)

    @property
    def task(self) -> str:
        return self.target.task

    @property
    def classes(self) -> tuple[Any, ...]:
        """The classes, in the order of their probabilities; empty for regression, and for several targets."""
        return self.target.classes

    @property
    def is_fused(self) -> bool:
        """Whether all rows are learned by `Fused.run`, and none by `Learner.learn`."""
        return self._steps.fused is not None and self.layout.weight is None and not self.prepared.class_weights

    def train(self, batch: Batch, size: int | None = None) -> Floats:
        """Predict rows as the loader gives them, then learn them. Their features may be prepared **in place**.

        size: rows of one batch, where ``batch`` holds several that follow one another.
        Returns the predictions from before anything was learned from a batch's targets (see `predict`).
        Raises BadValueError for features that are not finite, DivergedError where the model's numbers are not.
        """
        return self._steps.train(batch, size or len(batch))

    def predict(self, batch: Batch) -> Floats:
        """Predict a batch as the loader gives it. Its features are prepared **in place**.

        Returns an array, float32. Regression: shape (rows,), in the unit of the target. Two classes: shape (rows,), the
        probability of the second. More classes: shape (rows, classes). Several targets: shape (rows, targets).
        Raises BadValueError for features that are infinite, unless the preparation replaces them.
        """
        prepared = self.preparation.apply(batch)
        return self._steps.predict(prepared)

    def require_finite(self) -> None:
        """Raise DivergedError if a number of the learner's state is not finite."""
        for name, value in state_of(self.learner).items():
            if np.asarray(value).dtype.kind == "f" and not np.isfinite(value).all():
                raise diverged(f"the learner's {name}", self.learner)

    # -- other data ----------------------------------------------------------------------------------------------------

    def layout_for(self, schema: pa.Schema, *, with_target: bool) -> Layout:
        """The layout of the same columns in other data. Raises ColumnError where one is missing or of another type."""
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
        """Write ``model.safetensors`` and ``model.json`` to an existing folder. Raises RunError where `describe` does."""
        write_files(Path(folder), self.describe(), self.state_dict())

    def describe(self) -> dict[str, Any]:
        """Everything about the model that is text or a setting, for JSON. Raises RunError for a learner that cannot be saved:
        one that was passed in as an object, one that no other process can import, one whose state is not made of arrays and
        numbers."""
        recipe = self.recipe
        if recipe is None or recipe.name is None:
            raise RunError(
                "the learner cannot be saved: it was passed in as an object, or is defined where nothing can import it"
            )
        if not recipe.is_built_in:
            _require_storable(recipe.name, self.learner)
        return {
            "format": FORMAT,
            **recipe.describe(),
            "preparation": asdict(self.prepared) | {"hash_bits": self.preparation.slots.bits},
            **describe_layout(self.layout),
        }

    @classmethod
    def of(cls, description: Mapping[str, Any], learner: Any = None) -> Model:
        """A fresh model from its description. learner: what the user says that its learner is (see `recorded_recipe`). A
        description that `describe` did not make can raise any error."""
        layout, asked = layout_of(description), dict(description["preparation"])
        asked["class_weights"] = tuple(asked["class_weights"])
        recipe = recorded_recipe(description["learner"], description["settings"], learner)
        return cls(layout, recipe, PreparationSettings(**asked))

    # -- state ---------------------------------------------------------------------------------------------------------

    @property
    def terms(self) -> tuple[Term, ...]:
        """What the memory plan counts for the learner and the preparation."""
        return (*learner_terms(self.learner), *self.preparation.terms)

    @property
    def state_bytes(self) -> int:
        """The most bytes that everything that learning changes can take."""
        return state_bytes_of(self.learner) + self.preparation.state_bytes

    def state_dict(self) -> dict[str, Any]:
        """Everything that learning changes."""
        state = {f"learner.{k}": v for k, v in state_of(self.learner).items()}
        state |= {f"preparation.{k}": v for k, v in self.preparation.state_dict().items()}
        return state | ({f"target.{k}": v for k, v in self._scale.state_dict().items()} if self._scale else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        refused = Calling(self.learner, "load_state_dict refused the state:", "; was its code changed since?")
        with refused:
            self.learner.load_state_dict(part(state, "learner."))
        self.preparation.load_state_dict(part(state, "preparation."))
        if self._scale is not None:
            self._scale.load_state_dict(part(state, "target."))


def _scale_of(learner: Learner, targets: int) -> TargetScale:
    unit = target_scale(learner)
    if unit not in TARGET_UNITS:
        raise UsageError(
            f"{learner_title(learner)}: target_scale is {unit!r}: it must be one of {', '.join(TARGET_UNITS)}"
        )
    return TargetScale(targets, unit)


def _require_storable(name: str, learner: Learner) -> None:
    """Raise RunError unless the state is made of what a file without pickle holds, under names."""
    for key, value in state_of(learner).items():
        if not isinstance(key, str):
            raise RunError(f"--learner {name}: its state_dict() has the key {key!r}: keys must be text")
        with Calling(learner, f"state_dict() has {key!r}, which is not an array:"):
            kind = np.asarray(value).dtype
        if isinstance(value, np.ma.MaskedArray) or not tensors.can_hold(kind):
            what = type(value).__name__ + (f" of {kind}" if isinstance(value, np.ndarray) else "")
            raise RunError(
                f"--learner {name}: its state_dict() has {key!r}, a {what}: a file can hold only arrays and numbers, of at "
                "most 64 bits"
            )


def load_model(run: str | Path, *, learner: Any = None) -> Model:
    """The model of a run folder.

    Parameters
    ----------
    run
        The folder that `fit` wrote.
    learner
        The learner that the model was made with, where that is neither built in nor installed: ``"module:name"``, or the
        class or function itself. Loading such a model runs the code of that module; without this it is refused.

    Raises
    ------
    RunError
        For a folder that holds no model, or a damaged one; and where the learner must be given, or is another.
    """
    folder = Path(run)
    with naming_damage(folder):
        description = read_description(folder)
        model = Model.of(description, learner)
        model.load_state_dict(read_state(folder, description))
    return model

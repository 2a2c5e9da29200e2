"""A model: which columns, how they are prepared, the learner, and what its numbers mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.batch import Batch
from streamtrain.columns.bags import has_values
from streamtrain.columns.layout import Layout
from streamtrain.columns.target import Target
from streamtrain.errors import ColumnError, RunError, UsageError
from streamtrain.learn.family import LearnerShape, Recipe
from streamtrain.learn.learner import Learner, learner_terms, takes_sparse, target_scale
from streamtrain.learn.own_code import Calling, learner_title, state_bytes_of, state_of
from streamtrain.model.describe import describe_layout
from streamtrain.model.files import FORMAT, require_storable, write_files
from streamtrain.model.steps import Steps, diverged
from streamtrain.notebook import count, html_table, one_line
from streamtrain.plan.term import Term
from streamtrain.prepare import Preparation, Shape, TargetScale, default_hash_bits
from streamtrain.prepare.settings import PreparationSettings
from streamtrain.prepare.target_scale import TARGET_SCALES
from streamtrain.state import part
from streamtrain.storage.arrow import pick

__all__ = ["Model", "diverged", "shape_of_learner", "shape_of_rows"]

Floats = NDArray[np.float32]


def shape_of_rows(layout: Layout) -> Shape:
    """The shape of the rows of a layout, for the preparation."""
    crosses = tuple(tuple(layout.hashes[name] for name in cross) for cross in layout.crosses)
    names = layout.number_names, tuple(layout.hashes)
    times = [column for column in layout.columns if column.role == "time" and column.parts[0] == f"{column.name}.age"]
    ages = tuple(layout.tensors[column.name][0] for column in times)
    scaled = tuple(c.name for c in layout.columns if c.role == "bag" and has_values(c.learned_type or c.type))
    return Shape(*names, layout.categories, crosses, tuple(layout.texts), layout.bags, ages, scaled)


def shape_of_learner(layout: Layout, hash_bits: int) -> LearnerShape:
    """What the learner of a model is made for."""
    assert layout.target is not None
    return LearnerShape(layout.width, (1 << hash_bits) + 1, layout.target.kinds, len(layout.target.names))


class Model:
    (
        """Preparation and learner together, for rows as the loader gives them.

    Parameters
    ----------
    layout
        The columns that the model is made for, with a target.
    learner
        How to make the learner (see `recipe`); or a learner, with which the model cannot be saved.
    prepared
        Settings of the preparation.

    Raises
    ------
    ColumnError
        Without a target, and for categories or text if the learner takes numbers only.

    Example
    -------
    >>> import numpy as np
    >>> from streamtrain import Loader, Source
    >>> from streamtrain.learn import recipe
    >>> source = Source.open({"x": np.arange(100.0), "y": np.arange(100) >= 50}, target="y").surveyed()
    >>> model = Model(source.layout, recipe("linear"))
    >>> with Loader(source, source.plan(batch_size=10), epochs=3) as loader:
    ...     for epoch in range(3):
    ...         scores = [model.train(batch) for batch in loader]
    >>> with Loader(source, source.plan(batch_size=100, shuffle=False), epochs=1) as loader:
    ...     (model.predict(next(loader)) > 0.5)[[0, -1]].tolist()
    [False, True]
    """
        ""
    )

    def __init__(self, layout: Layout, learner: Recipe | Learner, prepared: PreparationSettings | None = None) -> None:
        if layout.target is None:
            raise ColumnError("a model needs a target")
        self.layout, self.prepared = layout, prepared or PreparationSettings()
        self.target: Target = layout.target
        shape, targets, kinds = shape_of_rows(layout), len(layout.target.names), layout.target.kinds
        bits = self.prepared.hash_bits
        bits = default_hash_bits(shape, kinds if kinds > 2 else targets) if bits is None else bits
        self.preparation = Preparation(shape, replace(self.prepared, hash_bits=bits))
        self.recipe = learner if isinstance(learner, Recipe) else None
        made = learner.make(shape_of_learner(layout, bits)) if isinstance(learner, Recipe) else learner
        self.learner: Learner = made
        if shape.sparse and not takes_sparse(self.learner):
            names = [*layout.hashes, *layout.texts]
            raise ColumnError(
                f"the learner takes numbers only, but {names[0]!r} is a category, a text or a bag: leave such columns out, or "
                "give its predict a parameter `sparse`"
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
        (
            """Predict rows as the loader gives them, then learn them. Their features may be prepared **in place**.

        Parameters
        ----------
        batch
            One batch, or several successive ones.
        size
            Rows of one batch. Default: all rows are one batch.

        Returns
        -------
        Array, float32
            The predictions from before the batch was learned; for their shape see `predict`.

        Raises
        ------
        BadValueError
            For features that are infinite, unless the preparation replaces them.
        DivergedError
            If the model's numbers are no longer finite.
        """
            ""
        )
        return self._steps.train(batch, size or len(batch))

    def predict(self, batch: Batch) -> Floats:
        (
            """Predict a batch as the loader gives it. Its features are prepared **in place**.

        Returns
        -------
        Array, float32
            Regression: shape (rows,), in the unit of the target. Two classes: shape (rows,), the probability of the second.
            More classes: shape (rows, classes). Several targets: shape (rows, targets).

        Raises
        ------
        BadValueError
            For features that are infinite, unless the preparation replaces them.
        """
            ""
        )
        prepared = self.preparation.apply(batch)
        return self._steps.predict(prepared)

    def require_finite(self) -> None:
        """Raise DivergedError if a number of the learner's state is not finite."""
        for name, value in state_of(self.learner).items():
            if np.asarray(value).dtype.kind == "f" and not np.isfinite(value).all():
                raise diverged(f"the learner's {name}", self.learner)

    # -- other data ----------------------------------------------------------------------------------------------------

    def layout_for(self, schema: pa.Schema, *, with_target: bool) -> Layout:
        """The layout of the same columns in other data.

        Parameters
        ----------
        schema
            Of the other data.
        with_target
            Whether the layout has the target, and the weight if the data have it.

        Returns
        -------
        Layout

        Raises
        ------
        ColumnError
            If a column is missing, or its values mean something else.
        """
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
        """Write ``model.safetensors`` and ``model.json`` to an existing folder.

        Raises
        ------
        RunError
            As `describe`.
        OSError
            If the files cannot be written.
        """
        write_files(Path(folder), self.describe(), self.state_dict())

    def describe(self) -> dict[str, Any]:
        """The description of the model for ``model.json``: its columns, target, learner and settings.

        Returns
        -------
        dict
            As JSON can hold it.

        Raises
        ------
        RunError
            For a learner that cannot be saved: it was passed in as an object, no other process can import it, or its state
            is not made of arrays and numbers.
        """
        recipe = self.recipe
        if recipe is None or recipe.name is None:
            raise RunError(
                "the learner cannot be saved: it was passed in as an object, or is defined where nothing can import it"
            )
        if not recipe.is_built_in:
            require_storable(recipe.name, state_of(self.learner))
        return {
            "format": FORMAT,
            **recipe.describe(),
            "preparation": asdict(self.prepared) | {"hash_bits": self.preparation.vocabulary.bits},
            **describe_layout(self.layout),
        }

    # -- state ---------------------------------------------------------------------------------------------------------

    @property
    def terms(self) -> tuple[Term, ...]:
        """The memory plan's terms for the learner and the preparation."""
        return (*learner_terms(self.learner), *self.preparation.terms)

    @property
    def state_bytes(self) -> int:
        """The largest size of the state, in bytes."""
        return state_bytes_of(self.learner) + self.preparation.state_bytes

    def state_dict(self) -> dict[str, Any]:
        """Everything that learning changes: arrays and numbers by name."""
        state = {f"learner.{k}": v for k, v in state_of(self.learner).items()}
        state |= {f"preparation.{k}": v for k, v in self.preparation.state_dict().items()}
        return state | ({f"target.{k}": v for k, v in self._scale.state_dict().items()} if self._scale else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that ``state_dict`` returned. Raises an error for the state of another model."""
        with Calling(self.learner, "load_state_dict refused the state:", "; was its code changed since?"):
            self.learner.load_state_dict(part(state, "learner."))
        self.preparation.load_state_dict(part(state, "preparation."))
        if self._scale is not None:
            self._scale.load_state_dict(part(state, "target."))


def _scale_of(learner: Learner, targets: int) -> TargetScale:
    unit = target_scale(learner)
    if unit not in TARGET_SCALES:
        raise UsageError(
            f"{learner_title(learner)}: target_scale is {unit!r}: it must be one of {', '.join(TARGET_SCALES)}"
        )
    return TargetScale(targets, unit)

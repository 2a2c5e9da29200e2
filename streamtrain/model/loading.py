"""Load the model of a run folder, or make one from its description. Both may come from anybody: nothing is built before what is
described was found to be possible, and no array is loaded before it was found to be one of the model that is described."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from streamtrain.columns.layout import Layout
from streamtrain.errors import UsageError, WrongFile
from streamtrain.learn.family import KnowsForms, Recipe, recorded_recipe
from streamtrain.memory.monitor import opening
from streamtrain.model.describe import LAYOUT_FIELDS, layout_of
from streamtrain.model.files import FORMAT, naming_damage, read_description, read_state
from streamtrain.model.model import Model, shape_of_learner, shape_of_rows
from streamtrain.model.room import Room
from streamtrain.model.stored import StoredFields, shown_error
from streamtrain.options import check
from streamtrain.prepare import Preparation, TargetScale
from streamtrain.prepare.settings import FEWEST_BITS, MOST_BITS, PreparationSettings
from streamtrain.state import Form, forms_of, prefixed

__all__ = ["Described", "load_model"]

_FIELDS = ("format", "learner", "settings", "preparation", *LAYOUT_FIELDS)
_MAX_NAME = 200  # of a learner
_MAX_WEIGHT = float(np.finfo(np.float32).max)


class Described(NamedTuple):
    """What a description says, checked. Nothing is built yet."""

    layout: Layout
    recipe: Recipe
    prepared: PreparationSettings

    @classmethod
    def of(cls, description: StoredFields, learner: Any = None) -> Described:
        """Check a description. learner: the learner that the user named, or None (see `recorded_recipe`). Raises WrongFile,
        which names the field, for a description that `Model.describe` did not return; RunError for a learner that is not to
        be imported unasked."""
        description.require_only((*_FIELDS, "sha256", "checksum"))
        description.get("format", int, least=FORMAT, most=FORMAT)
        layout = layout_of(description)
        assert layout.target is not None
        prepared = _prepared(description.inner("preparation"), layout.target.kinds)
        name, target = description.get("learner", str), layout.target
        if len(name) > _MAX_NAME:
            raise description.wrong("learner", name, "it must be the name of a learner")
        try:
            recipe = recorded_recipe(name, description.get("settings", dict), learner)
            recipe.check()
            recipe.require_fits(target.name, target.task, target.kinds)
        except UsageError as error:
            raise WrongFile(
                f"{description.path}: its {description.at}settings are wrong: {shown_error(error)}"
            ) from error
        return cls(layout, recipe, prepared)

    def forms(self) -> tuple[dict[str, Form], tuple[str, ...]]:
        """The forms of the state of the model that is described; and how the names of arrays begin of which nothing is known:
        those of a user's own learner."""
        target, bits = self.layout.target, self.prepared.hash_bits
        assert target is not None and bits is not None
        forms = prefixed("preparation.", Preparation.forms(shape_of_rows(self.layout), bits))
        if target.task == "regress":
            forms |= prefixed("target.", forms_of(TargetScale(len(target.names)).state_dict()))
        if not isinstance(self.recipe.family, KnowsForms):
            return forms, ("learner.",)
        shape = shape_of_learner(self.layout, bits)
        return forms | prefixed("learner.", self.recipe.family.forms(shape, self.recipe.settings)), ()

    def make(self) -> Model:
        """A new model, which has learned nothing."""
        return Model(self.layout, self.recipe, self.prepared)


def _prepared(fields: StoredFields, classes: int) -> PreparationSettings:
    fields.require_only(("hash_bits", "infinities", "class_weights"))
    weights = fields.values("class_weights", float, least=0, most=_MAX_WEIGHT)
    if weights and (len(weights) != classes or not any(weights)):
        raise fields.wrong(
            "class_weights", weights, f"it must have one for each of {classes:,} classes, not all of them 0"
        )
    bits = fields.get("hash_bits", int, least=FEWEST_BITS, most=MOST_BITS)
    prepared = PreparationSettings(
        hash_bits=bits, infinities=fields.get("infinities", str), class_weights=tuple(weights)
    )
    try:
        check(prepared)
    except UsageError as error:
        raise WrongFile(f"{fields.path}: its {fields.at.rstrip('.')} is wrong: {shown_error(error)}") from error
    return prepared


def load_model(run: str | Path, *, learner: Any = None, memory: float | str | None = None) -> Model:
    (
        """The model of a run folder.

    Parameters
    ----------
    run
        The folder that `fit` wrote.
    learner
        The learner of the model if it is neither built in nor installed: ``"module:name"``, or the class or function
        itself. Loading such a model runs the code of that module, so without this argument it is refused.
    memory
        The budget for the whole process: bytes, or a size such as ``"512MB"``. A model that needs more is refused before it is
        loaded. By default half of what is available; text may then not take more than the model of a real table needs.

    Returns
    -------
    Model
        Ready to predict, and to learn more.

    Raises
    ------
    RunError
        For a folder without a model, or with a damaged or an impossible one; or if the learner is not given, or differs.
    BudgetRefused
        The model does not fit the budget.

    Example
    -------
    >>> import tempfile
    >>> from streamtrain import fit
    >>> run = Path(tempfile.mkdtemp(), "run")
    >>> result = fit({"x": range(100), "y": [0, 1] * 50}, target="y", out=run)
    >>> load_model(run).classes
    (0, 1)
    """
        ""
    )
    folder, room = Path(run), Room.of(memory)
    with opening(f"the model in {folder}"):
        with naming_damage(folder):
            description = read_description(folder, room)
            described = Described.of(description, learner)
            state = read_state(folder, description, described.forms(), room)
            model = described.make()
        with naming_damage(folder / "model.safetensors"):
            model.load_state_dict(state)
    return model

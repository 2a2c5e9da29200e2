"""A warm start: a new model continues from what an older one has learned, and may know more classes.

With the same classes the state is loaded to the same bits. With more classes the family of the learner widens it (see
`learn.family.NewClasses`; for linear models see `learn.new_classes`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from streamtrain.columns.layout import Layout
from streamtrain.columns.target import Target
from streamtrain.errors import UsageError, listed
from streamtrain.learn.family import NewClasses, Recipe
from streamtrain.model.model import Model, shape_of_rows

__all__ = ["require_target", "start_from"]


def start_from(new: Model, old: Model) -> None:
    """Load what the old model has learned into a new one. The new model has the same columns and settings, except for settings
    that its family lets change; its target may have more classes. At the peak this holds a copy of the old state and one of
    the new state.

    Raises UsageError, and changes nothing, if the new model cannot continue the old one.

    >>> import pyarrow as pa
    >>> from streamtrain.columns.choose import choose_role
    >>> from streamtrain.learn.family import recipe
    >>> columns = (choose_role(pa.field("x", pa.float32())),)
    >>> old, new = (Model(Layout(columns, Target("y", "classify", c)), recipe("linear")) for c in ("ac", "abc"))
    >>> start_from(new, old)
    >>> new.learner.intercept.round(2).tolist()
    [0.0, 0.0, 0.0]
    """
    require_target(new.target, old, new.recipe)
    _require_same_columns(new.layout, old.layout)
    _require_same_settings(new, old)
    state = old.state_dict()
    if new.target.kinds > old.target.kinds and new.recipe is not None and isinstance(new.recipe.family, NewClasses):
        names = [name for name in state if name.startswith("learner.")]
        own = {name.removeprefix("learner."): state.pop(name) for name in names}
        positions = [new.classes.index(c) for c in old.classes]
        widened = new.recipe.family.for_new_classes(own, old.learner, new.learner, positions)
        state |= {f"learner.{name}": value for name, value in widened.items()}
    new.load_state_dict(state)


def require_target(target: Target, old: Model, recipe: Recipe | None = None) -> None:
    """Raise UsageError unless a model of this target can continue the old one. recipe: of the new learner. Can be called
    before the new model exists."""
    if (target.names, target.task) != (old.target.names, old.task):
        raise UsageError(
            f"the old run has target {listed(old.target.names)} ({old.task}); this fit has {listed(target.names)} "
            f"({target.task}): give the same --target and --task, or fit a new run"
        )
    for was, now in zip(old.target.several, target.several, strict=True):
        if was.offset != now.offset:
            raise UsageError(
                f"target {was.name!r} has offset {was.offset} in the old run, {now.offset} here: "
                "survey the data with the old run's target"
            )
        there = set(now.classes)
        if lost := [c for c in was.classes if c not in there]:
            raise UsageError(
                f"target {was.name!r}: the old run has class {listed(lost)}, which is not among the classes here "
                f"({listed(now.classes)}): name all of them in --classes"
            )
        if len(there) == len(was.classes) and now.classes != was.classes:
            raise UsageError(f"target {was.name!r}: the classes are in another order than in the old run: sort them")
    if target.kinds == old.target.kinds or old.recipe is None:
        return
    if not isinstance(old.recipe.family, NewClasses):
        raise UsageError(
            f"--learner {old.recipe.name}: cannot take new classes ({listed(target.classes)}): leave the rows of new classes "
            "out, or fit a new run"
        )
    old.recipe.family.require_new_classes(old.learner, (recipe or old.recipe).settings, target.classes)


def _require_same_columns(new: Layout, old: Layout) -> None:
    if shape_of_rows(new) != shape_of_rows(old) or new.features != old.features:
        raise UsageError(
            f"the old run has the features {_columns(old)}; this fit has {_columns(new)}: give the same --features, --as and "
            "--cross, in the same order"
        )
    for mine, its in zip(new.columns, old.columns, strict=True):
        if mine.offset != its.offset and mine.type == its.type:
            raise UsageError(
                f"feature {mine.name!r} has offset {its.offset} in the old run, {mine.offset} here: take the "
                "layout from the old model"
            )


def _require_same_settings(new: Model, old: Model) -> None:
    if new.recipe is None or old.recipe is None:
        raise UsageError("the learner was passed in as an object, so it cannot be continued: load its state yourself")
    compared: dict[str, tuple[Any, Any]] = {
        "--hash-bits": (new.preparation.vocabulary.bits, old.preparation.vocabulary.bits),
        "--learner": (new.recipe.name, old.recipe.name),
    }
    if new.recipe.name == old.recipe.name:
        compared |= _settings_of_learners(new, old)
    for name, (here, there) in compared.items():
        if here != there:
            raise UsageError(f"the old run has {name} {there}; this fit has {here}: give the same")


def _settings_of_learners(new: Model, old: Model) -> Mapping[str, tuple[Any, Any]]:
    """The values that must be the same in two learners of one family: all settings, unless the family selects them."""
    assert new.recipe is not None and old.recipe is not None
    if isinstance(new.recipe.family, NewClasses):
        mine, its = (new.learner, new.recipe.settings), (old.learner, old.recipe.settings)
        return new.recipe.family.differences(mine, its, more_classes=new.target.kinds > old.target.kinds)
    had = asdict(old.recipe.settings)
    return {name: (value, had[name]) for name, value in asdict(new.recipe.settings).items()}


def _columns(layout: Layout) -> str:
    names = [f"{column.name} ({column.role})" for column in layout.columns] + [":".join(c) for c in layout.crosses]
    more = f" and {len(names) - 10:,} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more

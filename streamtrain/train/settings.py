"""All settings of `fit`, composed of what its parts declare. Invalid ones are refused before any I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamtrain.columns.settings import ColumnSettings, pairs_by_name, split_pair
from streamtrain.errors import UsageError, near_names
from streamtrain.learn.family import Recipe, is_family, learner_name, recipe_of, require_name, require_no_settings
from streamtrain.learn.own_code import learner_title, require_members
from streamtrain.learn.settings import LearnSettings
from streamtrain.load.settings import LoadSettings
from streamtrain.options import check, one_or_all, option, options_of, split_names
from streamtrain.plan.settings import PlanSettings
from streamtrain.prepare.settings import FeatureSettings
from streamtrain.storage.settings import ReadSettings

if TYPE_CHECKING:
    from streamtrain.learn import Learner
    from streamtrain.load.holdout import HoldOutRule

__all__ = ["RunSettings", "Settings", "TrainSettings"]


def read_class_weight(text: Any) -> Any:
    """Weights by class, from ``a=2,b=0.5``. Raises UsageError if a weight is not a number.

    >>> read_class_weight("a=2,b=0.5"), read_class_weight({1: 3}), read_class_weight("balanced")
    ({'a': 2.0, 'b': 0.5}, {'1': 3}, 'balanced')
    """
    if isinstance(text, Mapping):
        return {str(name): weight for name, weight in text.items()}
    if not isinstance(text, str) or text == "balanced":
        return text
    weights = []
    for pair in split_names(text):
        name, value = split_pair(pair, "--class-weight", "balanced, or weights: a=2,b=0.5")
        try:
            weights.append((name, float(value)))
        except ValueError:
            raise UsageError(f"--class-weight {pair}: expected a number") from None
    return pairs_by_name(weights, "--class-weight")


@dataclass(frozen=True)
class TrainSettings:
    """How often rows are learned, and what stops it."""

    class_weight: str | Mapping[Any, Any] | None = option(
        None, "balanced, or a weight for classes: a=2,b=0.5.", group="learning", metavar="WEIGHTS",
        read=read_class_weight,
        wanted="give balanced, or a weight for each class, a=2,b=0.5",
    )  # fmt: skip
    epochs: int = option(1, "Passes over the data.", group="learning", least=1, most=10**9, resume="free")
    patience: int | None = option(
        None, "Stop after so many epochs without a better loss on held-out or validation rows, and keep the best.",
        group="learning", least=1,
    )  # fmt: skip
    on_overrun: str = option(
        "raise", "Over the budget while running: raise (exit 4), or warn.", group="memory and speed",
        choices=("raise", "warn"), resume="free", python_help="Over the budget while running: raise BudgetExceeded, or warn.",
    )  # fmt: skip


@dataclass(frozen=True)
class Settings(TrainSettings, PlanSettings, LearnSettings, FeatureSettings, LoadSettings, ReadSettings, ColumnSettings):
    """All settings that affect what `fit` learns, with their defaults. Raises UsageError for an invalid one, before any I/O."""

    def __post_init__(self) -> None:
        check(self)
        targets = self.targets
        if not all(targets) or not targets or len(set(targets)) < len(targets):
            raise UsageError(f"target={self.target!r}: must be a name, or a list of names")
        if self.weight in targets:
            raise UsageError(f"--weight {self.weight}: is the target")
        if self.weight is not None and self.weight in (self.features or ()):
            raise UsageError(f"--weight {self.weight}: is a feature too: leave it out of --features")
        self.require_one_rule()
        self._require_learner()

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Settings:
        """Settings by name. Raises UsageError for an unknown setting."""
        known = list(options_of(cls))
        for name in settings:
            if name not in known:
                raise UsageError(f"no setting {name!r}: {near_names(name, known)}")
        return cls(**settings)

    def as_dict(self) -> dict[str, Any]:
        """The settings as the report has them."""
        values = {each.name: getattr(self, each.name) for each in fields(self) if "option" in each.metadata}
        values["crosses"] = [c if isinstance(c, str) else ":".join(c) for c in self.crosses]
        return values | {"learner": learner_name(self.learner)}

    @property
    def recipe(self) -> Recipe | Learner:
        """How to make the learner; or the learner, where one was passed in."""
        if is_family(self.learner):
            return recipe_of(self.learner, self)
        require_no_settings(self.learner, self)
        learner: Learner = self.learner
        return learner

    @property
    def reading(self) -> ReadSettings:
        """How the data are read."""
        return ReadSettings(**{each.name: getattr(self, each.name) for each in fields(ReadSettings)})

    @property
    def hold_out_rule(self) -> HoldOutRule | None:
        """Which rows are held out, where a column decides."""
        if self.holdout_by is None and self.holdout_after is None:
            return None
        from streamtrain.load.holdout import HoldOutRule  # with numpy: settings are declared without it

        after = None
        if self.holdout_after is not None:
            after = split_pair(self.holdout_after, "--holdout-after", "COL=TIME")
        return HoldOutRule(self.holdout_by, self.held_share, after)

    @property
    def targets(self) -> tuple[str, ...]:
        """The target's columns."""
        return (self.target,) if isinstance(self.target, str) else tuple(self.target)

    def _require_learner(self) -> None:
        """The learner is one, and the settings of a family are its own."""
        from streamtrain.learn import Learner  # with numpy: settings are declared without it

        if isinstance(self.learner, str):
            require_name(self.learner)
        if not is_family(self.learner) and not isinstance(self.learner, Learner):
            raise UsageError(
                f"learner={self.learner!r}: must be a name, a class or function that makes learners, or an object with the "
                "members of Learner"
            )
        if not is_family(self.learner):
            require_members(self.learner, f"{learner_title(self.learner)}: an object")
        recipe = self.recipe
        if isinstance(recipe, Recipe):
            recipe.check()


@dataclass(frozen=True)
class RunSettings:
    """Where a fit begins, who reads, and what is stored. Raises UsageError for an invalid one, before any I/O."""

    validate: Any = option(
        None, "Other data, scored after each epoch.", group="data", metavar="DATA2", kept=True,
        repeated=True, read=one_or_all,
    )  # fmt: skip
    cluster: Any = option(
        None, "The address of a dask scheduler, whose workers read: tcp://host:8786.", group="memory and speed",
        metavar="ADDRESS", kept=True, resume="free",
        python_help="A ``distributed.Client``, or the address of a dask scheduler, tcp://host:8786: its workers read.",
    )  # fmt: skip
    out: str | Path | None = option(
        None, "Folder for the run: scores, checkpoints, the model, the report.", metavar="RUN", kept=True,
        wanted="must be a path",
    )  # fmt: skip
    resume: bool = option(False, "Go on from the last checkpoint in --out, if there is one; by the run's settings.")
    verify: str = option(
        "times",
        "What --resume compares first: the times of files; or, with full, all that was read before, which is read again.",
        choices=("times", "full"), resume="free",
    )  # fmt: skip
    data_changed: str | None = option(
        None, "With --resume: accept data of the same chunks, rows and types whose values have changed.", group="data",
        choices=("accept",), otherwise="an error", resume="free",
    )  # fmt: skip
    continue_from: str | Path | None = option(
        None, "Start with the model of another run; there may be more classes.", metavar="RUN", kept=True,
        wanted="must be a path",
    )  # fmt: skip
    checkpoint_seconds: float | None = option(
        None,
        "Between two checkpoints, which take 2 % of the time at most.",
        least=0,
        otherwise="30, or the run's",
        resume="free",
    )

    def __post_init__(self) -> None:
        check(self)
        if self.resume and self.out is None:
            raise UsageError("--resume needs --out RUN")
        if self.data_changed and not self.resume:
            raise UsageError("--data-changed accept needs --resume: a new run has read nothing yet")
        if self.verify == "full" and not self.resume:
            raise UsageError("--verify full needs --resume: a new run has read nothing yet")

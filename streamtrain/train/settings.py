"""Everything that a fit can be asked, with its defaults; what cannot be is refused before anything is opened."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from streamtrain.columns.roles import ROLES
from streamtrain.errors import UsageError
from streamtrain.learn import LOSSES, OPTIMIZERS, SCHEDULES, Learner
from streamtrain.learn.family import LearnerShape, Recipe, is_family, learner_name, recipe_of, require_name
from streamtrain.memory.sizes import parse_bytes
from streamtrain.prepare import INFINITIES, Vocabulary
from streamtrain.storage.arrow import near_names

__all__ = ["Settings", "plain"]

_ON_OVERRUN = ("raise", "warn")
_ON_ERROR = ("raise", "skip")


@dataclass(frozen=True)
class Settings:
    """Everything that `fit` can be asked, with its defaults. Raises UsageError for what cannot be, before any I/O."""

    target: str | Sequence[str]
    features: Sequence[str] | None = None
    exclude: Sequence[str] = ()
    roles: Mapping[str, str] = field(default_factory=dict)
    crosses: Sequence[str | Sequence[str]] = ()
    hash_bits: int | None = None
    infinities: str = "error"
    weight: str | None = None
    task: str | None = None
    classes: Sequence[str] | None = None
    learner: Any = "linear"
    loss: str | None = None
    optimizer: str = "normalized"
    learning_rate: float | None = None
    learning_rate_schedule: str = "sqrt"
    l1: float = 0.0
    l2: float = 0.0
    average: bool = True
    delta: float | None = None
    quantile: float | None = None
    class_weight: str | Mapping[Any, float] | None = None
    patience: int | None = None
    memory: int | str | None = None
    epochs: int = 1
    batch_size: int | None = None
    window_rows: int | None = None
    shuffle: bool = True
    seed: int = 0
    threads: int | None = None
    holdout: float = 0.0
    missing_chunks: str = "error"
    on_overrun: str = "raise"
    on_error: str = "raise"
    max_skipped: float = 0.01

    def __post_init__(self) -> None:
        _make_plain(self)
        _require_names(self)
        _require_kinds(self)
        _require_known(self)
        for flag, number in (("--epochs", self.epochs), ("--batch-size", self.batch_size),
                             ("--window-rows", self.window_rows), ("--threads", self.threads),
                             ("--patience", self.patience)):  # fmt: skip
            if number is not None and number < 1:
                raise UsageError(f"{flag} {number}: must be at least 1")
        if not 0 <= self.holdout < 1:
            raise UsageError(f"--holdout {self.holdout}: must be at least 0 and below 1")
        if not 0 <= self.max_skipped <= 1:
            raise UsageError(f"--max-skipped {self.max_skipped}: must be a share of the rows, from 0 to 1")
        if self.seed < 0:
            raise UsageError(f"--seed {self.seed}: must not be negative")
        if self.memory is not None:
            parse_bytes(self.memory)
        _require_weight_apart(self)
        if self.hash_bits is not None:
            Vocabulary.require_bits(self.hash_bits)
        if self.optimizer not in ("sgd", "momentum") and self.learning_rate_schedule != "sqrt":
            raise UsageError(
                f"--learning-rate-schedule {self.learning_rate_schedule}: is for --optimizer sgd and momentum; "
                f"{self.optimizer} has its own rates"
            )
        made = self.recipe
        if isinstance(made, Recipe) and made.is_built_in:  # checks the learning rate, penalties, parameters of the loss
            regress = self.loss is not None and LOSSES[self.loss].task == "regress"
            made.make(LearnerShape(1, classes=0 if regress else 2))

    @classmethod
    def of(cls, target: str | Sequence[str], settings: dict[str, Any]) -> Settings:
        """Settings by name, as keyword arguments give them."""
        for name in settings:
            if name not in cls.__dataclass_fields__:
                raise UsageError(f"no setting {name!r}: {near_names(name, list(cls.__dataclass_fields__))}")
        return cls(target, **settings)

    def as_dict(self) -> dict[str, Any]:
        """What was asked, for the report."""
        asked = {name: getattr(self, name) for name in self.__dataclass_fields__}
        asked |= {
            "roles": dict(self.roles),
            "crosses": [c if isinstance(c, str) else ":".join(c) for c in self.crosses],
        }
        if isinstance(self.class_weight, Mapping):
            asked["class_weight"] = {str(name): weight for name, weight in self.class_weight.items()}
        return asked | {"learner": learner_name(self.learner)}

    @property
    def recipe(self) -> Recipe | Learner:
        """How to make the learner; or the learner, where one was passed in."""
        return recipe_of(self.learner, self) if is_family(self.learner) else self.learner

    @property
    def targets(self) -> tuple[str, ...]:
        """The target's columns."""
        return (self.target,) if isinstance(self.target, str) else tuple(self.target)


def _make_plain(asked: Settings) -> None:
    for name in asked.__dataclass_fields__:
        if name != "learner" or isinstance(asked.learner, str):
            object.__setattr__(asked, name, plain(getattr(asked, name)))


def plain(value: Any) -> Any:
    """A setting as JSON has it: whoever calls has numbers of numpy, tuples, sets, arrays, keys of a dict.

    >>> plain(("a", "b")), plain(np.int64(3)), plain({"a": ("x",)}), plain({"b", "a"}), plain({"a": 1}.keys())
    (['a', 'b'], 3, {'a': ['x']}, ['a', 'b'], ['a'])
    """
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {plain(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted((plain(inner) for inner in value), key=str)
    if isinstance(value, np.ndarray) or hasattr(value, "to_pylist"):  # Arrow's
        return plain(value.tolist())
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return [plain(inner) for inner in value]
    return value


def _require_names(asked: Settings) -> None:
    """The settings that name something do so."""
    for name in ("features", "exclude", "classes"):
        if isinstance(getattr(asked, name), (str, bytes)):
            raise UsageError(f"{name}={getattr(asked, name)!r}: give a list of names")
    for name in ("weight", "loss", "optimizer", "task", "learning_rate_schedule", "infinities"):
        if not isinstance(getattr(asked, name), str | None):
            raise UsageError(f"{name}={getattr(asked, name)!r}: must be a name")
    several = isinstance(asked.target, (list, tuple)) and len(set(asked.target)) == len(asked.target)
    named = isinstance(asked.target, str) or (several and all(isinstance(name, str) for name in asked.target))
    if not asked.target or not named:
        raise UsageError(f"target={asked.target!r}: must be a name, or a list of names")
    roles: Any = asked.roles
    if not isinstance(roles, Mapping) or not all(isinstance(name, str) for name in roles):
        raise UsageError(f"roles={asked.roles!r}: give a mapping of columns to roles")
    if isinstance(asked.crosses, (str, bytes)) or not all(isinstance(c, (str, list, tuple)) for c in asked.crosses):
        raise UsageError(f"crosses={asked.crosses!r}: give a list of crosses, 'a:b' or names")
    if asked.class_weight not in (None, "balanced") and not isinstance(asked.class_weight, Mapping):
        raise UsageError(f"--class-weight {asked.class_weight}: give balanced, or a weight for each class, a=2,b=0.5")


def _require_known(asked: Settings) -> None:
    """Where there is a list to choose from, it was chosen from that."""
    if isinstance(asked.learner, str):
        require_name(asked.learner)
    _choose("--optimizer", asked.optimizer, sorted(OPTIMIZERS))
    _choose("--learning-rate-schedule", asked.learning_rate_schedule, SCHEDULES)
    _choose("--infinities", asked.infinities, INFINITIES)
    for name, role in asked.roles.items():
        _choose(f"--as {name}", role, ROLES, "=")
    _choose("--on-overrun", asked.on_overrun, _ON_OVERRUN)
    _choose("--on-error", asked.on_error, _ON_ERROR)
    if asked.loss is not None:
        _choose("--loss", asked.loss, sorted(LOSSES))


def _require_kinds(asked: Settings) -> None:
    """Switches are switches, counts are whole numbers, a learner is one."""
    for name in ("average", "shuffle"):
        if not isinstance(getattr(asked, name), (bool, np.bool_)):
            raise UsageError(f"{name}={getattr(asked, name)!r}: must be True or False")
    for name in ("epochs", "batch_size", "window_rows", "threads", "seed", "hash_bits", "patience"):
        value = getattr(asked, name)
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if not whole and (value is not None or name in ("epochs", "seed")):
            raise UsageError(f"{name}={value!r}: must be a whole number")
    for name in ("learning_rate", "l1", "l2", "delta", "quantile", "holdout", "max_skipped"):
        value, optional = getattr(asked, name), name in ("learning_rate", "delta", "quantile")
        number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
        if not number and not (optional and value is None):
            raise UsageError(f"{name}={value!r}: must be a number")
    if not is_family(asked.learner) and not isinstance(asked.learner, Learner):
        raise UsageError(
            f"learner={asked.learner!r}: must be a name, a class or function that makes learners, or an object with the "
            "members of Learner"
        )


def _require_weight_apart(asked: Settings) -> None:
    """The weights are neither learned nor learned from."""
    if asked.weight in asked.targets:
        raise UsageError(f"--weight {asked.weight}: is the target")
    if asked.weight is not None and asked.weight in (asked.features or ()):
        raise UsageError(f"--weight {asked.weight}: is a feature too: leave it out of --features")


def _choose(flag: str, value: str, known: Sequence[str], between: str = " ") -> None:
    if value not in known:
        raise UsageError(f"{flag}{between}{value}: {near_names(str(value), known)}")

"""Families of learners: how a learner is found by name, made for data of a given shape, and made again later.

`FAMILIES` lists the built-in ones. Other names are ``module:name``, which Python imports, and plain names, which are
entry points of the group ``streamtrain.learners`` of an installed package. A name means a `Family`, or a class or function that
is called with a `LearnerShape` and returns a learner.

This module imports no numpy; a family is imported when a learner of it is made.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Set
from dataclasses import asdict, dataclass, fields
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from streamtrain.errors import RunError, StreamtrainError, UsageError
from streamtrain.learn.family_protocol import ChecksSettings, Family, KnowsForms, LearnerShape, NewClasses
from streamtrain.learn.own_code import require_members
from streamtrain.learn.settings import FAMILIES
from streamtrain.options import check

if TYPE_CHECKING:
    from streamtrain.learn.learner import Learner

__all__ = [
    "ENTRY_POINTS", "FAMILIES", "ChecksSettings", "Family", "KnowsForms", "LearnerShape", "NewClasses", "Recipe", "find_family",
    "is_family", "learner_name", "learner_to_record", "name_of", "recipe", "recipe_of", "recorded_recipe",
    "require_name", "require_no_settings", "require_savable",
]  # fmt: skip

ENTRY_POINTS = "streamtrain.learners"


@dataclass(frozen=True)
class Recipe:
    """How to make a learner, and to make it again in another process. name: finds the family there; None if no name does,
    and the learner cannot be saved."""

    name: str | None
    family: Family
    settings: Any

    def make(self, shape: LearnerShape) -> Learner:
        """A learner that has learned nothing yet. Raises UsageError where a user's own code fails, or makes something else
        than a learner."""
        if self.is_built_in:
            return self.family.make(shape, self.settings)
        try:
            learner = self.family.make(shape, self.settings)
        except (StreamtrainError, MemoryError):
            raise
        except (Exception, SystemExit) as error:
            raise UsageError(
                f"--learner {self.family.name}: calling it with {shape} raised {type(error).__name__}: {error}: it must take "
                "this one argument and return a learner"
            ) from error
        require_members(learner, f"--learner {self.family.name}: returned a {type(learner).__name__}")
        return learner

    def describe(self) -> dict[str, Any]:
        """The name and the settings, for JSON."""
        return {"learner": self.name, "settings": asdict(self.settings)}

    @property
    def is_built_in(self) -> bool:
        return self.name in FAMILIES

    def check(self) -> None:
        """Raise UsageError for settings that do not go together, as far as the family can tell."""
        if isinstance(self.family, ChecksSettings):
            self.family.check(self.settings)

    def require_fits(self, target: str, task: str, classes: int) -> None:
        """Raise UsageError for settings that do not fit a target: see `ChecksSettings`."""
        if isinstance(self.family, ChecksSettings):
            self.family.require_fits(self.settings, target, task, classes)


@dataclass(frozen=True)
class _NoSettings:
    """A plain class or function has no settings."""


@dataclass(frozen=True)
class _Called:
    """A class or a function as a family."""

    name: str
    factory: Callable[[LearnerShape], Any]
    description = "a class or a function that makes learners"
    Settings = _NoSettings

    def make(self, shape: LearnerShape, settings: Any) -> Learner:
        """Call it."""
        made: Learner = self.factory(shape)
        return made


def recipe(learner: Any = "linear", /, **settings: Any) -> Recipe:
    """How to make a learner of a family.

    Parameters
    ----------
    learner
        A built-in family, ``module:name``, the name of an entry point; or a `Family`, class or function itself.
    settings
        Settings of the family; those that are not given have their defaults.

    Returns
    -------
    Recipe
        Its ``make(shape)`` returns a new learner.

    Raises
    ------
    UsageError
        For an unknown name, and for a setting that the family does not have.

    Example
    -------
    >>> recipe("linear", l2=1e-3).make(LearnerShape(3, classes=2)).state_bytes
    160
    """
    family = find_family(learner)
    own = [field.name for field in fields(family.Settings)]
    for name in settings:
        if name not in own:
            raise UsageError(f"{name}: --learner {family.name} has no such setting")
    return Recipe(name_of(learner), family, family.Settings(**settings))


def recipe_of(learner: Any, settings: Any) -> Recipe:
    """How to make a learner of that family. Of ``settings``, those fields count that are settings of the family. Raises
    UsageError if a setting of another family is not at its default: it would have no effect."""
    family = find_family(learner)
    own = {field.name for field in fields(family.Settings)}
    _require_own(settings, own, family.name)
    values = {name: getattr(settings, name) for name in own if hasattr(settings, name)}
    return Recipe(name_of(learner), family, family.Settings(**values))


def require_no_settings(learner: Any, settings: Any) -> None:
    """Raise UsageError if a field of ``settings`` that is a setting of a family is not at its default: a learner that was
    passed in as an object has none."""
    _require_own(settings, frozenset(), learner_name(learner))


def _require_own(settings: Any, own: Set[str], owner: str) -> None:
    for name in FAMILIES:
        for field in fields(find_family(name).Settings):
            if field.name not in own and getattr(settings, field.name, field.default) != field.default:
                flag = f"--{field.name.replace('_', '-')}"
                raise UsageError(f"{flag}: is a setting of --learner {name}; {owner} has no such setting")


def recorded_recipe(name: str, settings: Mapping[str, Any], given: Any = None) -> Recipe:
    """The recipe of a learner that a file names. given: the learner that the user named, or None.

    Importing a module runs its code. So a learner that is neither built in nor installed is imported only if the user names it
    too. Raises RunError otherwise, if the names differ, and for an unknown name; UsageError for settings that it has not."""
    if given is not None and name_of(given) != name:
        raise RunError(f"--learner is {learner_name(given)}, the run has {name}: it must be the same")
    if given is None and _is_path(name):
        raise RunError(
            f"the model's learner is {name}, which is not part of streamtrain: loading it runs the code of module "
            f"{name.partition(':')[0]!r}; if you trust that, say so: --learner {name} (in Python learner={name!r})"
        )
    try:
        family = find_family(name)
    except UsageError as error:
        raise RunError(f"the model's learner cannot be made: {error}") from error
    if more := sorted(settings.keys() - {field.name for field in fields(family.Settings)}):
        raise UsageError(f"--learner {name} has no setting {more[0][:60]!r}")
    check(made := family.Settings(**settings))
    return Recipe(name, family, made)


# -- what a user passes in ------------------------------------------------------------------------------------------------


def is_family(learner: Any) -> bool:
    """Whether this names or makes learners, instead of being a learner."""
    makes = isinstance(learner, Family) or (callable(learner) and not hasattr(learner, "learn"))
    return isinstance(learner, str | type) or makes


def learner_name(learner: Any) -> str:
    """A name for reports."""
    name = name_of(learner)
    return str(getattr(learner, "__qualname__", type(learner).__name__)) if name is None else name


def learner_to_record(learner: Any) -> Any:
    """The name of a family, class or function that another process can import; anything else as it is."""
    return (name_of(learner) or learner) if is_family(learner) else learner


def require_savable(learner: Any) -> None:
    """Raise UsageError for a learner that no other process can make, and say why."""
    if is_family(learner) and name_of(learner) is not None:
        return
    name, home = getattr(learner, "__qualname__", None), getattr(learner, "__module__", None)
    if not is_family(learner) or not isinstance(name, str):
        why = "is an object, and cannot be made again: pass its class, or a function that makes it"
    elif home == "__main__":
        why = "is defined in the program itself, where no other program can import it: move it to a module of its own"
    else:
        why = "is defined inside a function, where nothing can import it: move it to the top level of its module"
    raise UsageError(
        f"learner {learner_name(learner)} cannot be saved, which out= and continue_from= require: it {why}; "
        "see docs/learners.md"
    )


# -- names ---------------------------------------------------------------------------------------------------------------


def find_family(learner: Any) -> Family:
    """The family of that name; a class or function as a family. Raises UsageError for an unknown name, and for an object
    that makes no learners."""
    if not isinstance(learner, str):
        return _as_family(learner, learner_name(learner))
    require_name(learner)
    if learner in FAMILIES:
        return _as_family(_imported(FAMILIES[learner]), learner)
    if ":" in learner:
        return _as_family(_imported(learner), learner)
    return _as_family(_loaded(_installed()[learner]), learner)


def require_name(name: str) -> None:
    """Raise UsageError unless this can be the name of a family. Imports nothing."""
    if _is_path(name) or name in FAMILIES or (":" not in name and name in _installed()):
        return
    there = ", ".join([*FAMILIES, *sorted(_installed())])
    raise UsageError(f"--learner {name}: must be one of {there}, or module:name of a class or function of your own")


def _is_path(name: str) -> bool:
    return name.count(":") == 1 and all(part.isidentifier() for part in name.replace(":", ".").split("."))


def name_of(learner: Any) -> str | None:
    """The name by which another process finds this family, class or function; None if there is none."""
    if isinstance(learner, str):
        return learner
    module, name = getattr(learner, "__module__", None), getattr(learner, "__qualname__", None)
    if not (isinstance(module, str) and isinstance(name, str)) or module == "__main__":
        return None
    value: Any = sys.modules.get(module)
    for part in name.split("."):
        value = getattr(value, part, None)
    return f"{module}:{name}" if value is learner else None


def _installed() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def _loaded(point: EntryPoint) -> Any:
    package = "an installed package" if point.dist is None else f"the package {point.dist.name}"
    try:
        return point.load()
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"--learner {point.name}: {package} has it as {point.value}, and importing that raised {type(error).__name__}: "
            f"{error}: repair or remove the package"
        ) from error


def _imported(name: str) -> Any:
    module, _, path = name.partition(":")
    try:
        value: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise UsageError(f"--learner {name}: importing {module} failed: {error}") from error
        raise UsageError(
            f"--learner {name}: there is no module {error.name!r}: start the program where it is, or set PYTHONPATH"
        ) from error
    except (Exception, SystemExit) as error:
        raise UsageError(f"--learner {name}: importing {module} raised {type(error).__name__}: {error}") from error
    for part in path.split("."):
        if not hasattr(value, part):
            raise UsageError(f"--learner {name}: {module} has no {path!r}")
        value = getattr(value, part)
    return value


def _as_family(value: Any, name: str) -> Family:
    if isinstance(value, Family) and not isinstance(value, type):
        return value
    if is_family(value) and not isinstance(value, str):
        return _Called(name, value)
    raise UsageError(f"--learner {name}: is a {type(value).__name__}: must be a class, a function or a Family")

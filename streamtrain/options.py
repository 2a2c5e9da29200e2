"""How a setting is declared, and what follows from its declaration.

A setting is a field of a frozen dataclass, made by `option`, in the part that uses it. Its annotation, its default and what
`option` says are the only place where it is described: `check`, the command line, the parameters of `fit` in Python, the tables
of docs/command-line.md and the rules of ``--resume`` and ``--continue-from`` all read it there.

Modules that declare settings import neither numpy, pyarrow nor dask, so that ``--help`` is quick. A package that holds such
a module gives its other names when they are first used: see `lazy_names`.
"""

from __future__ import annotations

import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypeVar

from streamtrain.errors import UsageError, one_of

__all__ = [
    "GROUPS", "Default", "Option", "check", "checked", "default", "flag", "given", "lazy_names", "one_or_all", "option",
    "options_of", "plain", "shown_default", "split_names", "switches_off",
]  # fmt: skip

GROUPS = ("data", "columns", "learning", "memory and speed", "run")

Resume = Literal["same", "free", "resolved", "recorded"]
Continues = Literal["new", "same", "free"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Option:
    """The description of a setting, besides its name, annotation and default.

    help: one sentence; flag_help, python_help: the sentence for the flag and for the parameter in Python, if they differ.
    least, most: inclusive bounds; above, below: exclusive bounds. choices: the allowed names. group: the heading in
    ``--help``, one of `GROUPS`. metavar, flag: as the command line shows them. otherwise: what happens if the setting is
    not given, in words. wanted: what to give, for the message about a value of the wrong kind. read: turns the text of the
    command line into the value. repeated: the flag may be given several times. kept: the value is an object that is kept
    unchanged.

    resume: whether ``--resume`` may change it. same: no. free: yes. resolved: no; if it was not given, the value that the run
    chose counts. recorded: yes, and the change is recorded with the rows seen.
    continues: where ``--continue-from`` takes it from. new: the new run. same: the model. free: the new run if it is given,
    otherwise the model.
    """

    help: str
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    choices: Sequence[str] = ()
    group: str = "run"
    metavar: str | None = None
    flag: str | None = None
    flag_help: str | None = None
    python_help: str | None = None
    otherwise: str | None = None
    wanted: str | None = None
    read: Callable[[Any], Any] | None = None
    repeated: bool = False
    kept: bool = False
    resume: Resume = "same"
    continues: Continues = "new"


def option(default: Any, help: str, **about: Any) -> Any:
    """A field of a dataclass of settings. The default ``...`` means that it must be given. For the rest see `Option`.

    >>> @dataclass(frozen=True)
    ... class Tea:
    ...     minutes: int = option(3, "How long it draws.", least=1)
    ...     def __post_init__(self) -> None:
    ...         check(self)
    >>> Tea().minutes
    3
    >>> Tea(0)
    Traceback (most recent call last):
    streamtrain.errors.UsageError: --minutes 0: must be at least 1
    """
    metadata = {"option": Option(help, **about)}
    if default is ...:
        return field(metadata=metadata)
    return field(default=default, metadata=metadata)


def options_of(settings: type) -> dict[str, tuple[Field[Any], Option]]:
    """The settings that a dataclass declares, by name, group by group in the order of `GROUPS`."""
    declared = {f.name: (f, f.metadata["option"]) for f in fields(settings) if "option" in f.metadata}
    return dict(sorted(declared.items(), key=lambda item: GROUPS.index(item[1][1].group)))


def flag(name: str, option: Option | None = None) -> str:
    """The flag of a setting.

    >>> flag("batch_size"), flag("roles", Option("", flag="--as"))
    ('--batch-size', '--as')
    """
    declared = None if option is None else option.flag
    return "--" + name.replace("_", "-") if declared is None else declared.partition("/")[0]


def switches_off(name: str, option: Option) -> bool:
    """Whether the flag says the opposite of the setting: ``--no-shuffle`` for ``shuffle``."""
    return option.flag == f"--no-{name}"


def shown_default(declared: Field[Any], option: Option) -> str | None:
    """The default in words; None if there is nothing to say."""
    if declared.default is MISSING:
        return "required"
    says_nothing = declared.default is None or declared.default is False or declared.default == ()
    return option.otherwise or (None if says_nothing else str(declared.default))


# -- the check ---------------------------------------------------------------------------------------------------------


def check(settings: Any) -> None:
    """Make the values plain, parse those that are text, and check kind, range and choice of each. For ``__post_init__``.
    Raises UsageError for the first invalid value.
    """
    kind = type(settings)
    for name, value in checked(kind, {name: getattr(settings, name) for name in options_of(kind)}).items():
        object.__setattr__(settings, name, value)


def checked(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Some settings of a dataclass, by name, read and checked as `check` does: for a function that takes only these."""
    options, hints, read = options_of(kind), kinds_of(kind), {}
    for name, value in values.items():
        option = options[name][1]
        if not option.kept or isinstance(value, str):
            value = plain(value)
        read[name] = value if option.read is None else option.read(value)
        _check(name, read[name], hints[name], option)
    return read


@cache
def kinds_of(settings: type) -> dict[str, Any]:
    """The annotation of each field of a dataclass of settings, by name."""
    return typing.get_type_hints(settings)


def _check(name: str, value: Any, hint: Any, option: Option) -> None:
    no_path = Path in typing.get_args(hint) and (value == "" or "\0" in str(value))
    if no_path or not _is(value, hint):
        raise UsageError(f"{name}={value!r}: {option.wanted or _wanted(hint)}")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        _check_range(flag(name, option), value, option)
    if option.choices:
        chosen = value.items() if isinstance(value, Mapping) else [(None, value)] if isinstance(value, str) else []
        for key, choice in chosen:
            if choice not in option.choices:
                given = f" {choice}" if key is None else f" {key}={choice}"
                raise UsageError(f"{flag(name, option)}{given}: {one_of(choice, option.choices)}")


def _is(value: Any, hint: Any) -> bool:  # whether a plain value is of the kind that an annotation names
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_is(value, each) for each in inner)
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    if origin is not None and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(_is(k, inner[0]) and _is(v, inner[1]) for k, v in value.items())
    if origin is not None and issubclass(origin, Sequence):
        return isinstance(value, (list, tuple)) and all(_is(each, inner[0]) for each in value)
    return hint is Any or (isinstance(value, hint) and not isinstance(value, type))


def _wanted(hint: Any) -> str:
    kinds = {k for k in typing.get_args(hint) or (hint,) if k is not type(None)}
    if bool in kinds:
        return "must be True or False"
    if float in kinds:
        return "must be a number"
    if int in kinds:
        return "must be a whole number"
    if kinds == {str}:
        return "must be a name"
    return "give a list of names" if any(typing.get_origin(k) is Sequence for k in kinds) else f"must be {hint}"


def _check_range(flag: str, value: float, option: Option) -> None:
    least, most, above, below = option.least, option.most, option.above, option.below
    is_finite = abs(value) <= sys.float_info.max  # a number of 400 digits is an int
    is_low = (least is not None and value < least) or (above is not None and value <= above)
    if is_finite and not is_low and (most is None or value <= most) and (below is None or value < below):
        return
    bounds = ((least, "at least"), (above, "above"), (most, "at most"), (below, "below"))
    limits = " and ".join(f"{words} {bound}" for bound, words in bounds if bound is not None)
    if least is not None and most is not None:
        limits = f"from {least} to {most}"
    finite = "" if is_finite or not limits else ", and finite"
    raise UsageError(f"{flag} {value}: must be {limits or 'finite'}{finite}")


def plain(value: Any) -> Any:
    """A value as JSON has it: numbers and arrays of numpy, tuples, sets and keys of a dict become numbers and lists.

    >>> plain(("a", "b")), plain({"a": ("x",)}), plain({"b", "a"}), plain({"a": 1}.keys())
    (['a', 'b'], {'a': ['x']}, ['a', 'b'], ['a'])
    """
    if isinstance(value, str | bytes | int | float | type) and not hasattr(value, "dtype"):
        return value
    if isinstance(value, Mapping):
        return {plain(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted((plain(inner) for inner in value), key=str)
    if not isinstance(value, type) and hasattr(value, "tolist"):  # numpy's, Arrow's, pandas'
        return plain(value.tolist())
    return [plain(inner) for inner in value] if isinstance(value, Iterable) else value


# -- text on the command line ------------------------------------------------------------------------------------------

_NAME = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^,]*))\s*(?:,|$)')


def split_names(text: Any) -> Any:
    """The names in a text, between commas; one that holds a comma, or begins or ends with a space, stands in double quotes.
    Other values are returned unchanged.

    >>> split_names('a, b,"c,d"'), split_names(["a"])
    (['a', 'b', 'c,d'], ['a'])
    """
    if not isinstance(text, str):
        return text
    names = (m[1].replace('""', '"') if m[1] is not None else m[2].strip() for m in _NAME.finditer(text))
    return list(filter(None, names))


def one_or_all(values: Any) -> Any:
    """The only value of a list; otherwise what was given."""
    return values[0] if isinstance(values, list) and len(values) == 1 else values


# -- parameters in Python ----------------------------------------------------------------------------------------------


class Default:
    """The default of a parameter, distinguishable from the same value when given. It shows as the value."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return repr(self.value)


def default(value: _T) -> _T:
    """For the signature of a function: the parameter has this default, and `given` recognises it."""
    return typing.cast(_T, Default(value))


def given(**parameters: Any) -> dict[str, Any]:
    """The parameters that were given: not left out, and not None.

    >>> given(epochs=2, seed=default(0), loss=None)
    {'epochs': 2}
    >>> given(crosses=[iter("ab")])  # a list, as settings are read several times
    {'crosses': [['a', 'b']]}
    """
    return {
        name: _kept(value) for name, value in parameters.items() if value is not None and not isinstance(value, Default)
    }


def _kept(value: Any) -> Any:
    value = list(value) if isinstance(value, Iterator) else value
    return [_kept(inner) for inner in value] if type(value) in (list, tuple) else value


# -- packages whose settings are light ---------------------------------------------------------------------------------


def lazy_names(package: str, homes: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package that imports its names when they are first used. homes: the names by module."""
    modules = {name: module for module, names in homes.items() for name in names}

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{modules[name]}"), name)
        setattr(import_module(package), name, value)
        return value

    return get

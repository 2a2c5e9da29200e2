"""Settings of the columns: which are learned from, what each becomes, and the target."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from streamtrain.columns.roles import ROLES
from streamtrain.errors import UsageError
from streamtrain.options import option, split_names

__all__ = ["TASKS", "ColumnSettings", "pairs_by_name", "read_roles", "read_target", "split_pair"]

TASKS = ("classify", "regress")


def read_target(text: Any) -> Any:
    """One name, or a list of several: a name with a comma stays a list, so that it is not split again.

    >>> read_target("y"), read_target("a,b"), read_target(["y"]), read_target('"a,b"')
    ('y', ['a', 'b'], 'y', ['a,b'])
    """
    names = split_names(text)
    if isinstance(names, list) and len(names) == 1 and isinstance(names[0], str) and split_names(names[0]) == names:
        return names[0]
    return names


def read_roles(texts: Any) -> Any:
    """The role of each column, from a list of ``COL=ROLE``.

    >>> read_roles(["city=text"])
    {'city': 'text'}
    """
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        return texts
    return pairs_by_name([split_pair(text, "--as", "COL=ROLE") for text in texts], "--as")


def read_list(texts: Any) -> Any:
    """A list; a single text becomes a list of one.

    >>> read_list("a:b")
    ['a:b']
    """
    return [texts] if isinstance(texts, str) else texts


def split_pair(text: str, flag: str, wanted: str) -> tuple[str, str]:
    """Split a text at its last ``=``. Raises UsageError where there is none.

    >>> split_pair("a=b=text", "--as", "COL=ROLE")
    ('a=b', 'text')
    """
    name, between, value = text.rpartition("=")
    if not between or not name:
        raise UsageError(f"{flag} {text}: give {wanted}")
    return name, value


def pairs_by_name(pairs: Iterable[tuple[str, Any]], flag: str) -> dict[str, Any]:
    """Pairs as a dict. Raises UsageError for a name that has two values."""
    named: dict[str, Any] = {}
    for name, value in pairs:
        if name in named:
            raise UsageError(f"{flag} {name}={value}: {name!r} has {named[name]} already: name it once")
        named[name] = value
    return named


@dataclass(frozen=True)
class ColumnSettings:
    """The columns to learn from, what they become, and the target."""

    target: str | Sequence[str] = option(
        ..., "The column to predict, or several: a,b.", group="data", metavar="COL", continues="same", read=read_target,
        wanted="must be a name, or a list of names",
    )  # fmt: skip
    features: str | Sequence[str] | None = option(
        None, 'Columns to learn from: a,b,"c,d".', group="data", metavar="COLS", otherwise="all others", continues="same",
        read=split_names,
    )  # fmt: skip
    exclude: str | Sequence[str] = option(
        (), 'Columns to leave out: a,b,"c,d".', group="data", metavar="COLS", read=split_names, continues="same"
    )
    weight: str | None = option(None, "The column of sample weights.", group="data", metavar="COL", continues="same")
    roles: Mapping[str, str] | Sequence[str] = option(
        (), "What a column becomes, by its name.", group="columns", flag="--as", metavar="COL=ROLE", choices=ROLES,
        repeated=True, read=read_roles, wanted="give a mapping of columns to roles", continues="same",
    )  # fmt: skip
    crosses: str | Sequence[str | Sequence[str]] = option(
        (), "Categories whose combinations are learned from too.", group="columns", flag="--cross", metavar="A:B",
        repeated=True, read=read_list, wanted="give a list of crosses, 'a:b' or names", continues="same",
    )  # fmt: skip
    task: str | None = option(
        None,
        "classify: tell classes apart; regress: predict a number.",
        group="learning",
        choices=TASKS,
        otherwise="by the target's type",
        continues="same",
    )
    classes: str | Sequence[Any] | None = option(
        None, "The target's classes, a,b,c: spares the pass over the target.", group="learning", metavar="NAMES",
        read=split_names,
    )  # fmt: skip

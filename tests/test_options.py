"""How a setting is declared: kinds, ranges, choices, text, and parameters that know whether they were given."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import streamtrain
from streamtrain.errors import SizeError, UsageError
from streamtrain.options import GROUPS, Default, check, default, flag, given, option, options_of, plain, split_names
from streamtrain.train.settings import RunSettings, Settings

DATA = {"a": np.arange(40.0), "b": np.arange(40.0) % 3, "c": np.ones(40), "y": np.arange(40) % 2}


@dataclass(frozen=True)
class Tea:
    """One setting of each kind."""

    sort: str = option("green", "Which.", choices=("green", "black"))
    minutes: int | None = option(None, "How long.", least=1, most=9)
    sugar: float = option(0.0, "How much.", least=0, below=1)
    heat: float = option(0.5, "How hot.", above=0)
    hot: bool = option(True, "Whether.", flag="--hot/--cold")
    beside: str | Sequence[str] = option((), "What beside it.", read=split_names)
    cups: Mapping[str, int] | None = option(None, "For whom.")

    def __post_init__(self) -> None:
        check(self)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"sort": "gren"}, "--sort gren: must be one of green, black; did you mean green?"),
        ({"sort": 3}, "sort=3: must be a name"),
        ({"minutes": 0}, "--minutes 0: must be from 1 to 9"),
        ({"minutes": 10}, "--minutes 10: must be from 1 to 9"),
        ({"minutes": 2.5}, "minutes=2.5: must be a whole number"),
        ({"minutes": True}, "minutes=True: must be a whole number"),
        ({"sugar": 1}, "--sugar 1: must be at least 0 and below 1"),
        ({"sugar": -0.1}, "--sugar -0.1: must be at least 0 and below 1"),
        ({"sugar": float("nan")}, "--sugar nan: must be at least 0 and below 1, and finite"),
        ({"sugar": None}, "sugar=None: must be a number"),
        ({"heat": float("inf")}, "--heat inf: must be above 0, and finite"),
        ({"heat": 0}, "--heat 0: must be above 0"),
        ({"hot": 1}, "hot=1: must be True or False"),
        ({"beside": 3}, "beside=3: give a list of names"),
        ({"beside": ["a", 3]}, "beside=['a', 3]: give a list of names"),
        ({"cups": {"me": "two"}}, "cups={'me': 'two'}"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(says)}"):
        Tea(**wrong)


def test_what_can_be_becomes_plain() -> None:
    tea = Tea(
        sort=np.str_("black"), minutes=np.int64(3), sugar=np.float32(0.5), heat=2, hot=np.True_, beside=("milk",),
        cups={"me": np.int8(2)},
    )  # fmt: skip
    assert tea == Tea("black", 3, 0.5, 2, True, ["milk"], {"me": 2})
    assert Tea(beside='milk, "salt, sweet"').beside == ["milk", "salt, sweet"]
    assert type(tea.minutes) is int and type(tea.hot) is bool


def test_plain_values() -> None:
    assert plain(np.array([1, 2])) == plain(pa.array([1, 2])) == [1, 2]
    assert plain(np.float64(0.5)) == 0.5 and type(plain(np.float64(0.5))) is float
    assert plain(pa.scalar("x")) == "x" if hasattr(pa.scalar("x"), "tolist") else True
    assert plain(int) is int and plain(None) is None and plain("text") == "text"


def test_flags() -> None:
    declared = options_of(Tea)
    assert [flag(name, about) for name, (_, about) in declared.items()] == [
        "--sort", "--minutes", "--sugar", "--heat", "--hot", "--beside", "--cups",
    ]  # fmt: skip


def test_every_setting_says_what_it_is() -> None:
    for kind in (Settings, RunSettings):
        declared = set(kind.__dataclass_fields__) - {"snapshots", "are_of_others", "elsewhere", "asked"}  # of the run
        assert set(options_of(kind)) == declared
        for _, about in options_of(kind).values():
            assert about.help.endswith((".", "0.5.")) and about.group in GROUPS


# -- in Python ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [streamtrain.fit, streamtrain.make_plan, streamtrain.profile])
def test_every_setting_is_a_parameter_and_shows_its_true_default(function: Any) -> None:
    parameters = inspect.signature(function).parameters
    assert all(p.kind is not p.VAR_KEYWORD for p in parameters.values())
    for name, (declared, _) in options_of(Settings).items():
        shown = parameters[name].default
        if name != "target":
            assert repr(shown) == repr(declared.default), name
            assert isinstance(shown, Default) or shown is None
    assert "epochs: 'int' = 1" in str(inspect.signature(function))


def test_what_is_not_given_is_told_apart_from_its_default() -> None:
    assert given(a=default(1), b=1, c=None) == {"b": 1}


def test_fit_explains_each_of_its_parameters() -> None:
    explained = re.findall(r"^    (\w+) : ", streamtrain.fit.__doc__ or "", re.MULTILINE)
    assert explained == list(inspect.signature(streamtrain.fit).parameters)


@pytest.mark.parametrize("exclude", ["a,b", ["a", "b"], ("a", "b"), {"a", "b"}, '"a",b', np.array(["a", "b"])])
def test_names_are_read_as_on_the_command_line(exclude: Any) -> None:
    result = streamtrain.fit(DATA, target="y", exclude=exclude)
    assert [column.name for column in result.model.layout.columns] == ["c"]
    assert result.report.settings["exclude"] == ["a", "b"]


def test_one_name_is_a_list_of_one() -> None:
    assert [c.name for c in streamtrain.fit(DATA, target="y", features="c").model.layout.columns] == ["c"]
    assert [c.name for c in streamtrain.fit(DATA, target="y", exclude="a").model.layout.columns] == ["b", "c"]
    assert Settings("y", classes="0,1").classes == ["0", "1"]
    assert Settings("a,b").targets == ("a", "b") and Settings('"a,b"').targets == Settings(["a,b"]).targets == ("a,b",)
    assert (
        Settings("y", roles=["a=category"]).roles == {"a": "category"} == Settings("y", roles={"a": "category"}).roles
    )
    assert Settings("y", class_weight="a=2").class_weight == {"a": 2.0}


@pytest.mark.parametrize("memory", [500, "500", 999_999, 1.5])
def test_a_small_bare_number_is_no_budget(memory: Any) -> None:
    with pytest.raises(SizeError, match=f"--memory {memory}: is .*; write {memory}MB if megabytes are meant"):
        streamtrain.make_plan(DATA, target="y", memory=memory)
    assert Settings("y", memory="1000000").memory == "1000000" and Settings("y", memory="5kB").memory == "5kB"

"""The settings of `fit` as Python has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from streamtrain import UsageError, fit

DATA = {
    "a": np.arange(400.0), "b": np.array(["u", "v"] * 200), "c": np.array(["p", "q", "r", "s"] * 100),
    "y": np.arange(400) % 2,
}  # fmt: skip


@pytest.mark.parametrize(
    ("once", "listed"),
    [
        ({"exclude": (name for name in ["a"])}, {"exclude": ["a"]}),
        ({"features": map(str, ["a", "b"])}, {"features": ["a", "b"]}),
        ({"crosses": iter([("b", "c")])}, {"crosses": [("b", "c")]}),
        ({"crosses": [iter(["b", "c"])]}, {"crosses": [("b", "c")]}),
        ({"classes": (c for c in (0, 1))}, {"classes": (0, 1)}),
        ({"target": iter(["y"])}, {"target": ["y"]}),
    ],
)
def test_an_iterator_is_as_good_as_a_list(once: dict[str, Any], listed: dict[str, Any]) -> None:
    one, other = (fit(DATA, **{"target": "y"} | settings) for settings in (once, listed))
    assert one.report.settings == other.report.settings
    assert [c.name for c in one.model.layout.columns] == [c.name for c in other.model.layout.columns]
    assert one.model.layout.crosses == other.model.layout.crosses


def test_a_feature_is_not_excluded_too() -> None:
    with pytest.raises(UsageError, match="--exclude a: is in --features too: leave it out of one of them"):
        fit(DATA, target="y", features=["a", "b"], exclude=["a"])


def test_a_weight_of_a_class_is_a_number_that_there_is() -> None:
    with pytest.raises(
        UsageError, match=r"--class-weight 0=1e.300: must be a number, 0 or more, that float32 can hold"
    ):
        fit(DATA, target="y", class_weight={0: 1e300})


@pytest.mark.parametrize("classes", [[None, 1], [0, float("inf")], [[], {}]])
def test_a_class_is_a_value_of_the_target(classes: list[Any]) -> None:
    with pytest.raises(UsageError, match=r"--classes .*give values of that type"):
        fit(DATA, target="y", classes=classes)

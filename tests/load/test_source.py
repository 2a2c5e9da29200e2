"""The settings of `Source.open`, which are read as those of `fit`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from streamtrain.errors import StreamtrainError
from streamtrain.load import Source
from streamtrain.tools.inspect import inspect

DATA: dict[str, Any] = {name: np.arange(10) % 2 for name in ("x", "zz", "y", "a,b")}


def test_names_are_read_as_fit_reads_them() -> None:
    assert Source.open(DATA, exclude="zz").layout.features == ("x", "y", "a,b")
    assert Source.open(DATA, exclude="x,zz").layout.features == ("y", "a,b")
    assert Source.open(DATA, features='x,"a,b"').layout.features == ("x", "a,b")
    source = Source.open(DATA, target="y,zz", roles="x=category")
    assert source.layout.target is not None and source.layout.target.names == ("y", "zz")
    assert source.layout.columns[0].role == "category"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"target": 3}, "target=3: must be a name, or a list of names"),
        ({"task": "clasify"}, "did you mean classify"),
        ({"roles": {"x": "categry"}}, "did you mean category"),
        ({"crosses": 3}, "give a list of crosses"),
    ],
)
def test_wrong_settings_are_errors_before_the_data_are_opened(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(StreamtrainError, match=says):
        Source.open("nowhere.parquet", **settings)


def test_inspect_reads_its_settings() -> None:
    becomes = {c["name"]: c["becomes"] for c in inspect(DATA, target='y,"a,b"', roles=["x=category"])["columns"]}
    assert becomes == {"x": "category", "zz": "number", "y": "target", "a,b": "target"}
    assert inspect(DATA, target='"y"')["target"]["classes"] == [0, 1]
    with pytest.raises(StreamtrainError, match="did you mean category"):
        inspect("nowhere.parquet", roles=["x=categry"])

"""The numbers in refusals and plans are true: with them, the same call fits."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import streamtrain
from streamtrain.errors import BudgetRefused
from streamtrain.memory.monitor import Monitor
from streamtrain.memory.sizes import format_bytes, parse_bytes

ROWS = 3_000
PROCESS_BYTES = 100 * 10**6


@pytest.fixture(autouse=True)
def fixed_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process of a test run takes more after each test; that of a command is the same each time, to 0.4 MB."""
    monkeypatch.setattr("streamtrain.load.demand.resident_bytes", lambda: PROCESS_BYTES)
    monkeypatch.setattr("streamtrain.train.job.Monitor", _Unmeasured)


class _Unmeasured(Monitor):
    def __init__(self, budget_bytes: int, planned: Any, **options: Any) -> None:
        super().__init__(10**12, planned, **options)


def table(classes: int = 2, columns: int = 3) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    data: dict[str, Any] = {f"x{i}": rng.standard_normal(ROWS, np.float32) for i in range(columns)}
    return data | {"y": np.array([f"class {i:04d}" for i in range(classes)])[rng.integers(0, classes, ROWS)]}


def refusal(data: Any, **asked: Any) -> str:
    with pytest.raises(BudgetRefused) as caught:
        streamtrain.fit(data, target="y", **asked)
    return str(caught.value)


def enough(message: str) -> str:
    found = re.search(r"--memory (\d+MB)", message)
    assert found
    return found[1]


@pytest.mark.parametrize("asked", [{}, {"holdout": 0.2, "patience": 2, "epochs": 2}, {"window_rows": 2_000}])
def test_the_peak_that_a_plan_prints_is_enough(asked: dict[str, Any]) -> None:
    plan = streamtrain.make_plan(table(), target="y", memory="20MB", **asked)
    assert not plan.fits and parse_bytes(format_bytes(plan.peak_bytes)) == plan.peak_bytes
    report = streamtrain.fit(table(), target="y", memory=format_bytes(plan.peak_bytes), **asked).report.as_dict()
    assert report["memory"]["planned_peak_bytes"] <= plan.peak_bytes
    assert enough(refusal(table(), memory="20MB", **asked)) == format_bytes(plan.peak_bytes).replace(" ", "")


def test_a_plan_counts_the_classes_where_a_refused_fit_reads_nothing() -> None:
    data = table(classes=2_000, columns=300)
    plan = streamtrain.make_plan(data, target="y", memory="20MB")
    first = refusal(data, memory="20MB")
    assert "Nothing was read. If 'y' has more than two classes" in first
    second = refusal(data, memory=enough(first))
    assert "Only the target was read." in second and parse_bytes(enough(first)) < plan.peak_bytes
    assert abs(parse_bytes(enough(second)) - plan.peak_bytes) < 5 * 10**6
    assert streamtrain.make_plan(data, target="y", memory=plan.peak_bytes).fits


def test_fewer_columns_are_advised_where_one_fits() -> None:
    wide = {f"x{i}": np.zeros(ROWS, np.float32) for i in range(2_000)} | {"y": np.arange(ROWS) % 2}
    alone = streamtrain.make_plan(wide, target="y", features="x7", memory="20MB").peak_bytes
    assert "fewer columns" in refusal(wide, memory=alone + 2 * 10**6)
    assert "fewer columns" not in refusal(wide, memory=alone - 20 * 10**6)
    assert "fewer columns" not in refusal(wide, memory=alone - 20 * 10**6, features="x7")

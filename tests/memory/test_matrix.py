"""The promise, measured: the process stays within its budget, whatever the layout, learner, workers, budget and pace.

Minutes, so a step of its own:  pytest -m memory tests/memory      (the same cases as a table: python tests/memory)
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from matrix_cases import CASES, MB, Case
from matrix_data import LAYOUTS, link, make
from matrix_run import Matrix, run_child, smallest_plan

pytestmark = [
    pytest.mark.memory,
    pytest.mark.skipif(sys.platform != "linux", reason="VmHWM is read from /proc"),
]


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Matrix]:
    """Those of the cases that were asked for, already under way."""
    specs = [getattr(item, "callspec", None) for item in request.session.items]
    cases = [spec.params["case"] for spec in specs if spec is not None and "case" in spec.params]
    found = Matrix(tmp_path_factory.mktemp("matrix"), cases)
    yield found
    found.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_within_the_budget(matrix: Matrix, case: Case) -> None:
    row = matrix.rows[case].result()
    assert row.breaches() == []
    # The table marks what misses 1.0 to 1.5; a little more is left to the machine: the cases at a time share two cores.
    assert case.layout == "strings" or row.outcome == "refused" or 0.95 <= row.ratio <= 1.6


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that is empty again afterwards."""
    import shutil

    yield tmp_path / "data"
    shutil.rmtree(tmp_path / "data", ignore_errors=True)


def done(asked: dict[str, Any], **more: Any) -> dict[str, Any]:
    found = run_child(asked | more)
    assert found["outcome"] == "done" and found["rows_seen"] % found["rows"] == 0, found["outcome"]
    return found


def test_twenty_times_the_rows_take_no_more(folder: Path) -> None:
    budget = 200 * MB
    asked: dict[str, Any] = {"data": str(folder), "learner": "logistic", "workers": 2, "memory": budget}
    make("small-groups", folder, 5 * budget)
    first = folder / "part-00000.parquet"
    files = len(list(folder.iterdir()))
    base = done(asked, settings={"window_rows": 100_000})
    assert base["rows"] * LAYOUTS["small-groups"].columns * 4 >= 5 * budget
    for old in list(folder.iterdir()):
        if old != first:
            old.unlink()
    link(first, 20 * files)
    large = done(asked, settings={"window_rows": 100_000})
    assert large["rows"] == 20 * base["rows"]
    assert large["peak"] <= 1.02 * base["peak"] and large["peak"] <= budget, (base["peak"], large["peak"])


def test_fifty_epochs_take_no_more_than_two(folder: Path) -> None:
    make("small-groups", folder, 200 * MB)
    asked: dict[str, Any] = {"data": str(folder), "learner": "logistic", "workers": 2, "memory": 200 * MB}
    found = done(asked, settings={"window_rows": 200_000, "epochs": 50})
    assert found["rows_seen"] == 50 * found["rows"] and found["windows"] > 5
    third = found["epochs"]["2"]  # the peak as the third epoch begins
    assert found["peak"] <= 1.01 * third, (third, found["peak"])


def test_the_gate_is_what_holds_the_budget_and_without_it_the_matrix_fails(folder: Path) -> None:
    """A hundred threads read at once (see `matrix_child`), from a store that takes its time: the gate lets one of them in."""
    make("custom", folder, 1000 * MB)
    settings = {"window_rows": 1_200_000}
    asked: dict[str, Any] = {
        "data": f"tiles://{folder}?slow",
        "learner": "logistic",
        "workers": 1,
        "settings": settings,
    }
    budget = int(1.05 * smallest_plan(asked))
    asked |= {"memory": budget, "settings": settings | {"on_overrun": "warn"}}
    peaks = {hook: run_child(asked, hook=hook)["peak"] for hook in ("", "gate", "no-gate")}
    assert max(peaks[""], peaks["gate"]) <= budget < peaks["no-gate"], (budget, peaks)

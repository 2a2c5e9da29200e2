"""What the memory matrix rests on, and three of its cases in small: these run with all other tests."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import examples
from matrix_cases import CASES, FACTORS, MB, SMALLEST, Case, covering_array, pairs
from matrix_data import LAYOUTS, make
from matrix_run import Row, run_case, run_child
from matrix_table import line


def wanted(factors: dict[str, tuple[object, ...]]) -> set[object]:
    return {((f, a), (g, b)) for f, g in itertools.combinations(factors, 2) for a in factors[f] for b in factors[g]}


def test_every_pair_of_levels_is_a_case() -> None:
    met = set().union(*(pairs({name: getattr(case, name) for name in FACTORS}) for case in CASES))
    assert met >= wanted(FACTORS) and len(wanted(FACTORS)) == 11 * 3 + 11 * 3 + 11 * 3 + 11 * 2 + 3 * 9 + 3 * 6
    assert len(CASES) == 48 and len(set(CASES)) == len(CASES)


@examples(30)
@given(st.lists(st.integers(1, 4), min_size=2, max_size=5), st.integers(0, 5))
def test_a_covering_array_covers_and_is_smaller_than_all_combinations(sizes: list[int], seed: int) -> None:
    factors = {f"f{i}": tuple(range(n)) for i, n in enumerate(sizes)}
    rows = covering_array(factors, seed=seed, tries=5)
    assert set().union(*map(pairs, rows)) == wanted(factors)
    assert rows == covering_array(factors, seed=seed, tries=5)
    most = sorted(sizes)[-2:]
    assert most[0] * most[1] <= len(rows) <= len(list(itertools.product(*factors.values())))


def test_the_cases_are_as_stated() -> None:
    assert {case.layout for case in CASES} <= set(LAYOUTS)
    for layout in FACTORS["layout"]:
        assert any((c.layout, c.budget, c.pace) == (layout, SMALLEST, "fast") for c in CASES), layout


CASE = Case("custom", "logistic", 1, 100 * MB, "fast")
FOUND = {"outcome": "done", "planned": 90 * MB, "peak": 80 * MB, "rows": 10, "rows_seen": 10, "enough": None,
         "windows": 1, "threads": 1, "seconds": 1.0}  # fmt: skip


def row(**changes: object) -> Row:
    return Row(CASE, 100 * MB, 500 * MB, FOUND | changes)


def test_what_counts_as_a_breach() -> None:
    assert row().breaches() == [] and row().dishonest() == ""
    assert "took 100,000,001 of" in row(peak=100 * MB + 1).breaches()[0]
    assert "not done" in row(outcome="exceeded: ...").breaches()[0]
    assert "9 rows seen of 10" in row(rows_seen=9).breaches()[0]
    assert "less than 5 times" in Row(CASE, 100 * MB, 499 * MB, FOUND).breaches()[0]
    assert "0.99 times" in row(peak=91 * MB).dishonest() and "1.53 times" in row(peak=59 * MB).dishonest()
    assert "1.12 |" in line(row()) and "(!)" in line(row(peak=91 * MB))


def test_a_refusal_counts_only_where_the_smallest_plan_is_too_large() -> None:
    refused = row(outcome="refused: ...", enough=150 * MB, planned=149 * MB)
    refused.advised = {"outcome": "done", "peak": 140 * MB}
    assert refused.breaches() == []
    refused.advised = {"outcome": "done", "peak": 60 * MB}  # two thirds of the budget would have done
    assert "takes only 60,000,000" in refused.breaches()[0]
    for found in ({"outcome": "exceeded: ...", "peak": 140 * MB}, {"outcome": "done", "peak": 151 * MB}):
        refused.advised = found
        assert "with the advised 150,000,000" in refused.breaches()[0]


linux = pytest.mark.skipif(sys.platform != "linux", reason="VmHWM is read from /proc")


@linux
@pytest.mark.parametrize(
    "case",
    [
        Case("groups-1k", "squared", 2, SMALLEST, "fast"),
        pytest.param(Case("custom", "logistic", 8, SMALLEST, "fast"), marks=pytest.mark.slow),
    ],
    ids=lambda case: case.name,
)
def test_a_small_case(tmp_path: Path, case: Case) -> None:
    def data(layout: str, budget: int) -> str:
        path = tmp_path / "data"
        if not path.exists():
            make(layout, path, 20 * MB)
        return f"{LAYOUTS[layout].scheme}{path}"

    ballast = bytearray(400 * MB)  # what the parent takes is not the child's
    found = run_case(case, data)
    del ballast
    found.decoded = 5 * found.budget  # it is not, here
    assert found.breaches() == [] and found.dishonest() == ""


@linux
def test_a_refusal_is_found_out(tmp_path: Path) -> None:
    make("custom", tmp_path / "data", 20 * MB)
    asked = {"data": f"tiles://{tmp_path}/data", "learner": "logistic", "threads": 1, "memory": 20 * MB}
    found = run_child(asked)
    assert found["outcome"].startswith("refused: the plan needs") and found["enough"] > 20 * MB

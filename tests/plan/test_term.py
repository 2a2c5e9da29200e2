"""Terms as values: whoever takes memory says so in one place, and everybody shows it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import budget_above

import streamtrain
from streamtrain.cli import show
from streamtrain.errors import BudgetExceeded, BudgetRefused
from streamtrain.memory.sizes import shares
from streamtrain.plan.term import STAGES, Term, bytes_by_name, with_margin
from streamtrain.prepare import Preparation
from streamtrain.runs.report import memory_dict

MB = 10**6
ROWS = 4_000
DOCS = Path(__file__).parents[2] / "docs" / "memory.md"


def table() -> dict[str, Any]:
    x = np.random.default_rng(0).standard_normal(ROWS, np.float32)
    return {"x": x, "y": (x > 0).astype(int)}


@pytest.fixture
def sketches(monkeypatch: pytest.MonkeyPatch) -> Term:
    """A term that the preparation says beside its own."""
    term = Term("sketches", 7 * MB, "preparation", for_validation=True)
    own = Preparation.terms.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(Preparation, "terms", property(lambda preparation: (*own(preparation), term)))
    return term


def test_a_term_that_a_part_adds_shows_up_everywhere(sketches: Term, capsys: pytest.CaptureFixture[str]) -> None:
    asked: dict[str, Any] = {"target": "y", "seed": 1}
    plan = streamtrain.make_plan(table(), **asked)
    assert plan.term_bytes["sketches"] == sketches.bytes
    assert plan.peak_bytes == sum(plan.term_bytes.values())

    with pytest.raises(BudgetRefused, match=r"(?m)^  sketches +7 MB$"):
        streamtrain.fit(table(), memory="20MB", **asked)

    report = streamtrain.fit(table(), memory="1GB", **asked).as_dict()
    assert report["memory"]["terms"]["sketches"] == {"planned_bytes": 7 * MB, "measured_bytes": None}
    show.fit(report)
    assert re.search(r"(?m)^sketches +7 MB *$", capsys.readouterr().out)

    profile = streamtrain.profile(table(), memory="1GB", **asked).as_dict()
    stage = profile["stages"]["preparation"]
    assert stage["terms"] == ["preparation", "sketches"] and stage["planned_bytes"] > 7 * MB
    show.profile(profile)
    assert re.search(r"(?m)^preparation .* preparation, sketches *$", capsys.readouterr().out)


def test_scoring_validation_data_takes_the_terms_that_say_so_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def planned() -> int:
        report = streamtrain.fit(table(), target="y", validate=table(), memory="1GB").as_dict()
        return int(report["memory"]["terms"]["validation"]["planned_bytes"])

    before = planned()
    own = Preparation.terms.fget  # type: ignore[attr-defined]
    for again in (False, True):
        term = Term("sketches", 7 * MB, "preparation", for_validation=again)
        monkeypatch.setattr(Preparation, "terms", property(lambda preparation, term=term: (*own(preparation), term)))
        assert planned() == before + 7 * MB * again


def test_going_over_the_budget_lists_a_term_that_a_part_adds(sketches: Term) -> None:
    class Leaky:
        state_bytes = 1_000

        def __init__(self) -> None:
            self.kept: list[Any] = []

        def learn(self, batch: Any) -> None:
            self.kept.append(np.ones(1_000_000))

        def predict(self, X: Any) -> Any:
            return np.full(len(X), 0.5, np.float32)

        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state: Any) -> None: ...

    with pytest.raises(BudgetExceeded, match=r"(?m)^  sketches +planned +7 MB$"):
        streamtrain.fit(table(), target="y", memory=budget_above(200 * MB), learner=Leaky(), epochs=9)


def test_plan_and_fit_name_the_same_terms() -> None:
    plan = streamtrain.make_plan(table(), target="y", memory="1GB", holdout=0.1, patience=2)
    report = streamtrain.fit(table(), target="y", memory="1GB", holdout=0.1, patience=2).as_dict()
    assert list(report["memory"]["terms"]) == list(plan.term_bytes)
    measured = [name for name, term in report["memory"]["terms"].items() if term["measured_bytes"] is not None]
    assert {"baseline", "windows", "reads", "batches", "learner", "metrics"} <= {*measured}


def test_the_manual_explains_every_term_and_stage() -> None:
    plan = streamtrain.make_plan(table(), target="y")
    explained = set(re.findall(r"(?m)^\| `(\w+)` \|", DOCS.read_text(encoding="utf-8")))
    assert {*plan.term_bytes, "validation"} <= explained
    assert {term.stage for term in plan.terms} <= STAGES.keys()


def test_what_was_measured_and_not_planned_is_shown() -> None:
    plan = streamtrain.make_plan(table(), target="y", memory="1GB")
    memory = memory_dict(plan, {"sketches": 5}, None)
    assert memory["terms"]["sketches"] == {"planned_bytes": 0, "measured_bytes": 5}
    json.dumps(memory)


sizes = st.dictionaries(st.text(max_size=4), st.integers(0, 10**12), min_size=1, max_size=12)


@given(sizes)
def test_shares_add_up_as_they_are_shown(parts: dict[str, int]) -> None:
    found = shares(parts)
    shown = [round(1000 * share) for share in found.values()]
    assert sum(shown) == (1000 if any(parts.values()) else 0)
    assert sum(float(f"{share:.1%}"[:-1]) for share in found.values()) == pytest.approx(
        100 if any(parts.values()) else 0
    )
    total = sum(parts.values()) or 1
    assert all(abs(found[name] - size / total) < 0.001 for name, size in parts.items())
    assert list(found) == list(parts)


@given(st.lists(st.builds(Term, st.sampled_from("abc"), st.integers(0, 10**12), st.sampled_from(sorted(STAGES)))))
def test_terms_of_one_name_add_up_and_the_margin_is_of_all_of_them(terms: list[Term]) -> None:
    by_name, total = bytes_by_name(terms), sum(term.bytes for term in terms)
    assert sum(by_name.values()) == total and by_name.keys() == {term.name for term in terms}
    *same, margin = with_margin(terms)
    assert same == terms and margin.bytes == int(8 * MB + 0.04 * total)

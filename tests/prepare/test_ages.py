"""Times at prediction: an age beyond those that were learned is held at the edge, and said; a clock has no age."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make import kept, state

import streamtrain
from streamtrain.columns.choose import choose_role
from streamtrain.prepare.ages import Ages

ROWS = 800
_RNG = np.random.default_rng(0)
TIMES = np.datetime64("2025-01-01", "s") + _RNG.integers(0, 300 * 86400, ROWS) * np.timedelta64(1, "s")
DAYS = (TIMES - TIMES.min()).astype(np.float64) / 86400
Y = DAYS / 100 + np.sin(TIMES.astype(np.int64) / 86400 % 7)
DATA = {"t": TIMES, "y": Y}
HELD = "'t.age' is beyond what was learned in {} rows and is held at the edge"


def later(days: int) -> dict[str, Any]:
    return {"t": TIMES + np.timedelta64(7 * days, "D"), "y": Y}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ages") / "run"
    streamtrain.fit(DATA, target="y", out=path, holdout=0.2, memory="2GB")
    return path


def predicted(run: Path, data: dict[str, Any]) -> tuple[np.ndarray[Any, Any], list[str]]:
    out = run.parent / "p.parquet"
    done = streamtrain.predict(run, data, out=out)
    return pq.read_table(out)["prediction"].to_numpy(), done["warnings"]


def test_later_times_are_predicted_as_the_last_that_were_learned(run: Path) -> None:
    model = streamtrain.load_model(run)
    ages = model.preparation.state_dict()
    low, high = float(ages["ages.low"][0]), float(ages["ages.high"][0])
    offset = model.layout.columns[0].offset
    days = (TIMES.astype(np.int64) / 86400 - float(offset) / 86400).astype(np.float32)
    assert days.min() <= low < high <= days.max()
    far, warnings = predicted(run, later(1000))
    assert [HELD.format(ROWS) in warning for warning in warnings] == [True]
    assert np.abs(far).max() < 2 * np.abs(Y).max(), "not 7,000 days further along the line"
    # After 400 years, weeks and seasons repeat: only the age differs.
    cycle, twice = (predicted(run, {"t": TIMES + np.timedelta64(146_097 * n, "D"), "y": Y})[0] for n in (1, 2))
    assert (cycle == twice).all() and not (cycle == predicted(run, DATA)[0]).all()
    before, warnings = predicted(run, later(-1000))
    assert len(warnings) == 1 and np.abs(before).max() < 2 * np.abs(Y).max()


def test_what_was_learned_is_predicted_as_ever_and_without_a_word(run: Path) -> None:
    model = streamtrain.load_model(run)
    ages = model.preparation.ages
    within = {name: values[(DAYS > 5) & (DAYS < 290)] for name, values in DATA.items()}
    found = predicted(run, within)
    ages.hold = lambda X: None  # type: ignore[method-assign]
    out = run.parent / "q.parquet"
    streamtrain.predict(model, within, out=out)
    assert (pq.read_table(out)["prediction"].to_numpy() == found[0]).all() and found[1] == []


def test_evaluate_and_validate_say_it_too(run: Path) -> None:
    (warning,) = streamtrain.evaluate(run, later(100))["warnings"]
    assert HELD.format(ROWS) in warning and warning.endswith("--as t=clock")
    report = streamtrain.fit(DATA, target="y", validate=later(100), memory="2GB").report.as_dict()
    assert [warning.startswith("--validate: 't.age'") for warning in report["warnings"]] == [True]
    assert streamtrain.fit(DATA, target="y", validate=DATA, memory="2GB").report.as_dict()["warnings"] == []


def test_a_resumed_run_knows_the_ages(tmp_path: Path) -> None:
    options: dict[str, Any] = {"target": "y", "memory": "2GB", "shuffle": False}
    streamtrain.fit(DATA, out=tmp_path / "run", epochs=1, **options)
    again = streamtrain.fit(DATA, out=tmp_path / "run", epochs=2, resume=True, **options).model
    assert state(again) == state(streamtrain.fit(DATA, epochs=2, **options).model)
    wider = streamtrain.fit(later(10), continue_from=tmp_path / "run", memory="2GB").model
    low, high = wider.preparation.state_dict()["ages.low"], wider.preparation.state_dict()["ages.high"]
    assert high - low > 365


def test_a_clock_has_no_age(run: Path, tmp_path: Path) -> None:
    model = streamtrain.fit(DATA, target="y", roles={"t": "clock"}, out=tmp_path / "run", memory="2GB").model
    parts = model.layout.columns[0].parts
    assert parts == streamtrain.load_model(run).layout.columns[0].parts[1:] and "t.age" not in parts
    assert "ages.low" not in model.preparation.state_dict()
    one, none = predicted(tmp_path / "run", DATA)
    other, _ = predicted(tmp_path / "run", {"t": TIMES + np.timedelta64(146_097, "D")})
    assert (one == other).all() and not none
    for kind, numbers in ((pa.date32(), 4), (pa.timestamp("ms", "Europe/Berlin"), 6), (pa.time64("us"), 2)):
        column = choose_role(pa.field("t", kind), "clock")
        assert column.numbers == numbers == len(column.parts)
        own = kept(column)
        assert own.becomes.same(own, pa.field("t", kind)).numbers == numbers


def test_edges_that_no_rows_have_are_refused() -> None:
    ages = Ages([0, 2], ["a.age", "b.age"])
    before = ages.state_dict()
    ages.load_state_dict(before)
    for name, value in (("low", 9.0), ("low", np.nan), ("high", np.inf)):
        wrong = {"low": np.zeros(2, np.float32), "high": np.ones(2, np.float32)}
        wrong[name][1] = value
        with pytest.raises(ValueError, match=r"the state's (ages|low|high)"):
            ages.load_state_dict(wrong)
        assert all((ages.state_dict()[key] == before[key]).all() for key in before)

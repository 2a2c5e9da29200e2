"""Runs over chosen rows: --where, --holdout-by and --holdout-after, from the settings to the report."""

from __future__ import annotations

import datetime
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make import CommandLine

from streamtrain import evaluate, fit, make_plan, open_reader, predict, rechunk
from streamtrain.errors import DataError, RunError, UsageError
from streamtrain.load.holdout import HashTest
from streamtrain.storage.where import opening
from streamtrain.storage.where.scan import scan
from streamtrain.train.history import Scores

ROWS = 600
ASKED: dict[str, Any] = {"target": "y", "exclude": ["user"], "window_rows": 150, "seed": 2}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``a.parquet``, of row groups of 50 rows; ``kept.parquet``, its rows with x > 0 alone, in the same groups; ``parent``, a
    run."""
    root, random = tmp_path_factory.mktemp("chosen"), np.random.default_rng(0)
    x = random.normal(size=ROWS)
    table = pa.table({
        "x": x, "z": random.normal(size=ROWS), "user": random.integers(0, 60, ROWS), "row": np.arange(ROWS),
        "day": pa.array((np.arange(ROWS) // 10).astype("i4"), pa.date32()), "y": (x + random.normal(size=ROWS) > 0).astype(int),
    })  # fmt: skip
    pq.write_table(table, root / "a.parquet", row_group_size=50)
    with pq.ParquetWriter(root / "kept.parquet", table.schema) as writer:
        for start in range(0, ROWS, 50):
            writer.write_table(table.slice(start, 50).filter(x[start : start + 50] > 0))
    fit(root / "a.parquet", out=root / "parent", holdout_by="user", **ASKED)
    return root


def users_held(world: Path) -> set[int]:
    """The users of whom --holdout-by holds out all rows, as the test of rows says."""
    users = pa.record_batch({"user": np.arange(60)})
    return set(
        np.flatnonzero(HashTest(users.schema, "user", 0.1).matches(users).to_numpy(zero_copy_only=False)).tolist()
    )


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


def test_as_a_copy_of_the_rows(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bits as from a file that has no other rows; and so are evaluation, prediction and validation."""
    options = {"epochs": 2, **ASKED}
    scans: list[object] = []
    monkeypatch.setattr(opening, "scan", lambda *given, **more: scans.append(1) or scan(*given, **more))
    chosen = fit(world / "a.parquet", where="x > 0", validate=world / "a.parquet", out=tmp_path / "a", **options)
    assert len(scans) == 2  # of the data, and of the validation data, however often these are scored
    copied = fit(world / "kept.parquet", validate=world / "kept.parquet", out=tmp_path / "b", **options)
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    assert chosen.report.metrics == copied.report.metrics and chosen.report.rows == copied.report.rows
    plan = chosen.report.as_dict()["plan"]
    assert (plan["rows"], plan["all_rows"], plan["held_rows"]) == (copied.report.rows, ROWS, 0)
    model = chosen.model
    assert evaluate(model, world / "a.parquet", where="x > 0") == evaluate(model, world / "kept.parquet")
    for name, where in (("a", "x > 0"), ("kept", None)):
        predict(model, world / f"{name}.parquet", where=where, out=tmp_path / f"{name}.parquet")
    assert pd.read_parquet(tmp_path / "a.parquet").equals(pd.read_parquet(tmp_path / "kept.parquet"))
    rechunk(world / "a.parquet", where="x > 0", out=tmp_path / "copy", chunk_rows=64)
    assert pd.read_parquet(tmp_path / "copy").equals(pd.read_parquet(world / "kept.parquet"))


@pytest.mark.parametrize(
    "chosen",
    [
        {"where": "x > -0.5 and row != 7", "holdout_by": "user"},
        pytest.param({"where": "x > 0", "holdout": 0.2}, marks=pytest.mark.slow),
        pytest.param({"holdout_after": "day=1970-02-01"}, marks=pytest.mark.slow),
    ],
)
def test_a_stopped_run_goes_on(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: dict[str, Any]
) -> None:
    options = {"epochs": 2, "checkpoint_seconds": 0, "validate": world / "a.parquet", **ASKED, **chosen}
    whole = fit(world / "a.parquet", out=tmp_path / "whole", **options).report
    on_the_way = Scores.on_the_way
    for stop in (3, 30):
        steps, run = [0], tmp_path / f"run{stop}"

        def counted(*found: Any, steps: list[int] = steps, stop: int = stop) -> Any:
            steps[0] += 1
            if steps[0] == stop:
                signal.raise_signal(signal.SIGINT)
            return on_the_way(*found)

        with monkeypatch.context() as patched:
            patched.setattr(Scores, "on_the_way", counted)
            patched.setattr("streamtrain.train.trainer.Trainer._batches_at_once", lambda self: 1)
            with pytest.raises(KeyboardInterrupt):
                fit(world / "a.parquet", out=run, **options)
        verify = "full" if stop == 30 else "times"
        report = fit(world / "a.parquet", out=run, resume=True, verify=verify, validate=world / "a.parquet").report
        assert weights(run) == weights(tmp_path / "whole") and report.metrics == whole.metrics
        own = open_reader(world / "a.parquet").fingerprint()
        assert (report.fingerprint == own) is ("where" not in chosen) and str(report.fingerprint).startswith(str(own))
    if "where" in chosen:
        with pytest.raises(RunError, match="--where is x > 9, the run has x >"):
            fit(world / "a.parquet", out=run, resume=True, where="x > 9")


def test_held_rows_are_counted_and_shown(world: Path, cli: CommandLine) -> None:
    frame = pd.read_parquet(world / "a.parquet")
    held = int((frame.day > datetime.date(1970, 2, 1)).sum())
    plan = make_plan(world / "a.parquet", holdout_after="day=1970-02-01", **ASKED)
    assert (plan.rows, plan.all_rows, plan.held_rows) == (ROWS, ROWS, held)
    report = fit(world / "a.parquet", holdout_after="day=1970-02-01", **ASKED).report
    assert report.rows == ROWS - held and report.as_dict()["plan"]["held_rows"] == held
    held = int(((frame.x > 0) & frame.user.isin(users_held(world))).sum())
    assert make_plan(world / "a.parquet", where="x > 0", holdout_by="user", **ASKED).held_rows == held
    by_position = fit(world / "a.parquet", holdout=0.3, **ASKED).report
    assert by_position.as_dict()["plan"]["held_rows"] == ROWS - by_position.rows
    words = [str(world / "a.parquet"), "--target", "y", "--where", "x > 0", "--holdout-by", "user"]
    shown = cli("fit", *words).out
    kept = int((frame.x > 0).sum())
    assert f"{kept} of 600 rows match --where" in shown and f"of {kept} rows are held out" in shown
    assert f"{kept} rows of 600 that match --where in" in cli("inspect", *words[:1], "--where", "x > 0").out
    assert json.loads(cli("inspect", *words[:1], "--where", "x > 0", "--json").out)["rows"] == kept
    assert f"{kept} of 600 rows match --where" in cli("plan", *words).out
    refused = cli("fit", *words[:3], "--where", "x >")
    assert refused.code == 2 and refused.err == (
        "error: --where x >: expected a number, 'text', true or false after '>', but the text ends there\n"
    )


def test_what_excludes_one_another() -> None:
    with pytest.raises(
        UsageError, match="--holdout-after t=1: says which rows are held out, and so does --holdout-by u: give"
    ):
        fit("nothing", target="y", holdout_by="u", holdout_after="t=1")
    with pytest.raises(UsageError, match=r"and so does --holdout 0\.1: give one"):
        fit("nothing", target="y", holdout=0.1, holdout_after="t=1")
    with pytest.raises(UsageError, match="--holdout-after t: give COL=TIME, as in time=2026-01-15"):
        fit("nothing", target="y", holdout_after="t")
    with pytest.raises(UsageError, match="where=3: must be an expression"):
        fit("nothing", target="y", where=3)  # type: ignore[arg-type]


def test_validation_without_a_row(world: Path) -> None:
    with pytest.raises(DataError, match=r"kept\.parquet: none of the \d+ rows matches --where x < 0"):
        fit(world / "a.parquet", validate=world / "kept.parquet", where="x < 0", **ASKED)


def leaks(data: Path, **options: Any) -> list[str]:
    report = fit(data, **options).report.as_dict()
    return [warning for warning in report["warnings"] if "may have learned rows that are held out now" in warning]


def test_a_continued_run_says_what_its_parent_may_have_learned(world: Path, tmp_path: Path) -> None:
    """The parent held out a tenth of the users."""
    go_on, data = {"continue_from": world / "parent"}, world / "a.parquet"
    assert not leaks(data, **go_on) and not leaks(data, holdout_by="user", **go_on)
    assert not leaks(data, holdout_by="user", holdout=0.05, **go_on)
    assert not leaks(world / "kept.parquet", holdout_by="user", **go_on)  # a user is held out wherever
    for options in ({"holdout": 0.1}, {"holdout_by": "user", "holdout": 0.3}, {"holdout_after": "day=1970-02-01"}):
        assert leaks(data, **options, **go_on), options
    assert leaks(data, holdout=0.1, where="x > 0", **go_on)  # the same data
    assert not leaks(world / "kept.parquet", holdout=0.1, **go_on)  # rows of other data have other positions
    assert leaks(data, holdout=0.2, out=tmp_path / "child", **go_on)
    assert leaks(data, holdout=0.1, continue_from=tmp_path / "child")  # what the parent's parent has learned

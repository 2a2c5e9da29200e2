"""The page of a run: for each state that a run can be in, what it says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make import CommandLine
from typer.testing import CliRunner

import streamtrain
from streamtrain.cli.commands import app
from streamtrain.errors import RunError, UsageError
from streamtrain.runs.listing import list_runs
from streamtrain.tools.report import report


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs; a chunk is skipped, a category is hostile, rows are held out."""
    folder = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(0)
    x = rng.normal(size=20_000)
    y = [None if i == 7 else bool(v > 0) for i, v in enumerate(x)]
    table = pa.table(
        {"x": x, "<b>colour</b>": np.array(["red", "green"])[rng.integers(0, 2, len(x))], "y": pa.array(y)}
    )
    pq.write_table(table, folder / "d.parquet", row_group_size=5000)
    streamtrain.fit(folder / "d.parquet", target="y", out=folder / "run", epochs=2, holdout=0.1, on_error="skip")
    return folder / "run"


def html(run: Path, tmp_path: Path) -> str:
    report(run, tmp_path / "run.html")
    return (tmp_path / "run.html").read_text(encoding="utf-8")


def headings(text: str) -> list[str]:
    return [part.split("</h2>")[0] for part in text.split("<h2>")[1:]]


def test_a_finished_run_is_shown_whole(run: Path, tmp_path: Path) -> None:
    assert report(run, tmp_path / "run.html") == {
        "run": str(run),
        "state": "finished",
        "out": str(tmp_path / "run.html"),
    }
    text = html(run, tmp_path)
    assert headings(text)[4:] == [
        "Rows skipped", "Scores", "Memory over time", "Memory by stage", "Where the time went", "What the columns became",
        "The run", "Details",
    ]  # fmt: skip
    assert "Finished: 2 epochs, 35," in text and "holdout loss 0." in text and "The budget holds" in text
    for shown in (
        "2 rows were skipped",
        "&lt;b&gt;colour&lt;/b&gt;",
        "classify, 2 classes",
        "epoch 2",
        "window_rows",
        " UTC<",
    ):
        assert shown in text
    assert "<b>colour" not in text


def test_a_run_goes_on_from_another(run: Path, tmp_path: Path) -> None:
    streamtrain.fit(run.parent / "d.parquet", target="y", out=tmp_path / "next", continue_from=run, on_error="skip")
    text = html(tmp_path / "next", tmp_path)
    assert "Models that it continues" in text and str(run) in text


def test_changes_are_listed_and_marked(tmp_path: Path, cli: CommandLine) -> None:
    """Other validation data, and what is done with infinite values, after the first epoch."""
    x = np.random.default_rng(0).normal(size=300)
    table = {"x": x, "y": (x > 0).astype(int)}

    def stop(now: Any) -> None:
        if now.epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        streamtrain.fit(table, target="y", out=tmp_path / "run", epochs=3, progress=stop)
    assert "Settings that were changed" not in html(tmp_path / "run", tmp_path)
    pq.write_table(pa.table(table), tmp_path / "other.parquet")
    with pytest.raises(KeyboardInterrupt):
        streamtrain.fit(
            table, out=tmp_path / "run", resume=True, infinities="clip", validate=tmp_path / "other.parquet", progress=stop
        )  # fmt: skip
    assert "Settings that were changed" in html(tmp_path / "run", tmp_path)
    streamtrain.fit(table, out=tmp_path / "run", resume=True)
    (listed,) = list_runs(tmp_path / "run")
    assert [(change["setting"], change["was"], change["is"], change["rows_seen"]) for change in listed["changes"]] == [
        ("infinities", "error", "clip", 300), ("validate", None, str(tmp_path / "other.parquet"), 300),
    ]  # fmt: skip
    code, out, _ = cli("runs", tmp_path / "run")
    assert code == 0 and f"{tmp_path / 'run'}: infinities changed from 'error' to 'clip' after 300 rows" in out
    assert "validate changed from nothing to " in out
    text = html(tmp_path / "run", tmp_path)
    assert "Settings that were changed" in text and '<g class="change">' in text
    assert (
        "300 rows learned: epoch 2, " in text
        and "; validate changed" in text
        and 'error</td><td class="">clip</td>' in text
    )


def stopped(run: Path, tmp_path: Path) -> Path:
    """The run as it is where it was killed after its last checkpoint."""
    copy = shutil.copytree(run, tmp_path / "stopped")
    for name in ("report.json", "model.json", "model.safetensors"):
        (copy / name).unlink()
    return copy


def test_a_stopped_run_is_shown_from_its_checkpoint(run: Path, tmp_path: Path) -> None:
    copy = stopped(run, tmp_path)
    with open(copy / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"epoch": 2, "rows_')  # it was being written
    text = html(copy, tmp_path)
    assert "Stopped: 2 of 2 epochs are over" in text and "fit --resume" in text
    assert "The budget" not in text
    for shown in (
        "Rows skipped",
        "Scores",
        "Memory over time",
        "all memory of the process",
        "Where the time went",
        "&lt;b&gt;colour&lt;/b&gt;",
        "Settings",
    ):
        assert shown in text


def test_a_run_that_left_scores_alone(run: Path, tmp_path: Path) -> None:
    copy = stopped(run, tmp_path)
    shutil.rmtree(copy / "checkpoints")
    text = html(copy, tmp_path)
    assert "Failed before its first checkpoint" in text and "Scores" in text


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "metrics.jsonl").write_text("no json\n{}\n"), r"metrics\.jsonl: line 1 cannot be read"),
        (lambda run: (run / "report.json").write_text("no json"), r"report\.json: cannot be read"),
    ],
)
def test_a_damaged_run_is_an_error_and_no_page(run: Path, tmp_path: Path, damage: Any, message: str) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    damage(copy)
    with pytest.raises(RunError, match=message):
        report(copy, tmp_path / "run.html")
    assert not (tmp_path / "run.html").exists()


def test_what_cannot_be_is_said(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"is not a run folder but contains runs: name one of them, as in .*run"):
        report(run.parent, tmp_path / "run.html")
    with pytest.raises(UsageError, match=r"run\.txt: must end in \.html or \.htm"):
        report(run, tmp_path / "run.txt")


def test_the_command(run: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["report", str(run), "--out", str(tmp_path / "run.html")])
    assert done.exit_code == 0 and "page of the finished run" in done.stdout
    assert (tmp_path / "run.html").exists()


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("report.json", "memory", None),
        ("report.json", "time", [1]),
        ("report.json", "timeline", [1]),
        ("model.json", "targets", [{}]),
        ("model.json", "features", {"a": None}),
    ],
)
def test_a_report_with_odd_fields_is_no_bug(run: Path, tmp_path: Path, name: str, field: str, value: Any) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "odd"))
    shutil.rmtree(copy / "checkpoints")
    (copy / name).write_text(json.dumps(json.loads((copy / name).read_text()) | {field: value}))
    with pytest.raises(
        RunError, match=rf"odd: its report cannot be shown \(.*, or changed|{name}: its {field}.* must be"
    ):
        report(copy, tmp_path / "odd.html")
    assert not (tmp_path / "odd.html").exists()

"""Early stopping, and what a report says of classes; what is infinite, from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make import CommandLine

from streamtrain import evaluate, fit, load_model
from streamtrain.errors import DataError, UsageError

ROWS = 400


def overfits(rows: int = ROWS, seed: int = 0, columns: int = 60) -> pa.Table:
    """More columns than so few rows can teach: what is learned last is noise."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, columns))
    y = X[:, 0] + 2 * rng.normal(size=rows) > 0
    return pa.table({f"x{j}": X[:, j] for j in range(columns)} | {"y": np.where(y, "up", "down")})


SETTINGS: dict[str, Any] = {
    "target": "y",
    "average": False,
    "optimizer": "adam",
    "learning_rate": 0.1,
    "seed": 3,
    "batch_size": 16,
}


@pytest.mark.parametrize("judge", ["holdout", "validate"])
def test_the_best_epoch_is_kept(judge: str, tmp_path: Path) -> None:
    data, other = overfits(), overfits(seed=1)
    asked: dict[str, Any] = {"holdout": 0.3} if judge == "holdout" else {"validate": other}
    scores = "holdout" if judge == "holdout" else "validation"
    report = fit(data, epochs=30, patience=3, out=tmp_path / "r", **asked, **SETTINGS).report.as_dict()
    lines = [json.loads(line) for line in (tmp_path / "r/metrics.jsonl").read_text().splitlines()]
    losses = [line[scores]["loss"] for line in lines if line[scores] is not None]
    best = int(np.argmin(losses))
    assert report["best_epoch"] == best and report["epochs"] == len(losses) == best + 4 < 30
    assert max(losses) > 1.05 * min(losses), "nothing was overfitted"
    assert report["metrics"][scores]["loss"] == losses[best]
    # the model is that of its best epoch: it is the one that so many epochs give
    alone = fit(data, epochs=best + 1, out=tmp_path / "alone", **asked, **SETTINGS)
    assert (tmp_path / "r/model.safetensors").read_bytes() == (tmp_path / "alone/model.safetensors").read_bytes()
    assert report["per_class"] == alone.report.per_class
    assert report["metrics"] == alone.report.metrics
    if judge == "validate":
        assert evaluate(load_model(tmp_path / "r"), other)["metrics"]["loss"] == losses[best]


def test_what_becomes_better_is_not_stopped() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=4000)
    data = {"x": x, "y": (x > 0).astype(int)}
    report = fit(
        data, target="y", holdout=0.3, patience=1, epochs=4, learning_rate=0.01, optimizer="sgd", average=False
    ).report
    assert report.epochs == 4 and report.best_epoch == 3
    assert fit(data, target="y", epochs=2).report.best_epoch is None


def test_patience_needs_somebody_to_judge() -> None:
    data = {"x": np.zeros(50), "y": np.arange(50) % 2}
    with pytest.raises(UsageError, match="--patience 2: needs rows to judge by: give --holdout or --validate"):
        fit(data, target="y", patience=2)
    with pytest.raises(DataError, match="--patience needs a loss"):
        fit(data, target="y", patience=2, holdout=1e-9)
    with pytest.raises(UsageError, match="--patience 0: must be at least 1"):
        fit(data, target="y", patience=0, holdout=0.2)


def test_scores_are_written_while_the_run_is_under_way(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = {"x": rng.normal(size=5000), "y": np.arange(5000) % 2}
    seen: list[list[dict[str, Any]]] = []

    def look(_: Any) -> None:
        path = tmp_path / "r/metrics.jsonl"
        text = path.read_text() if path.exists() else ""
        assert not text or text.endswith("\n")  # whole lines
        seen.append([json.loads(line) for line in text.splitlines()])

    fit(data, target="y", holdout=0.2, epochs=3, out=tmp_path / "r", progress=look)
    sizes = [len(lines) for lines in seen]
    assert sizes == sorted(sizes) and len(set(sizes)) >= 3  # each epoch looks at its end, behind its own line
    final = [json.loads(line) for line in (tmp_path / "r/metrics.jsonl").read_text().splitlines()]
    assert all(lines == final[: len(lines)] for lines in seen)
    ends = [line for line in final if line["holdout"] is not None]
    assert [line["epoch"] for line in ends] == [0, 1, 2] and len(final) > 3
    rows = [line["rows_seen"] for line in final]
    assert rows == sorted(rows) and 1024 <= rows[0] < 4000 and rows[-1] == ends[-1]["rows_seen"]
    assert {"epoch", "rows_seen", "seconds", "progressive", "holdout", "validation"} == set(final[0])


@pytest.mark.parametrize("classes", [2, 3])
def test_the_report_tells_of_each_class(classes: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=3000)
    y = np.digitize(x + 0.3 * rng.normal(size=3000), [0.0, 1.0][: classes - 1])
    names = np.array(["low", "mid", "top"])[y]
    result = fit({"x": x, "y": names}, target="y", holdout=0.3, epochs=2)
    table, scores = result.report.as_dict()["per_class"], result.report.metrics["holdout"]
    assert [row["class"] for row in table] == sorted(set(names))
    held = 3000 - result.report.rows
    assert sum(row["rows"] for row in table) == sum(row["predicted"] for row in table) == held
    hits = sum(row["recall"] * row["rows"] for row in table)
    assert scores["accuracy"] == pytest.approx(hits / held)
    assert 0 <= scores["calibration_error"] < 0.1
    assert ("auc" in scores, "average_precision" in scores) == (classes == 2, classes == 2)
    own = evaluate(result.model, {"x": x, "y": names})
    assert [set(row) for row in own["per_class"]] == [
        {"class", "rows", "predicted", "precision", "recall", "f1"}
    ] * classes
    assert fit({"x": x, "y": x}, target="y").report.per_class is None


# -- infinities ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    monkeypatch.chdir(tmp_path)
    return cli


def infinite(path: str, at: int, kind: str = "double") -> str:
    rng = np.random.default_rng(0)
    x = rng.normal(50, 1, 4000)
    y = (x > 50).astype(int)
    x[at] = np.inf
    x[at + 1] = 1e300  # too large for float32
    pq.write_table(pa.table({"x": pa.array(x), "z": rng.normal(size=4000), "y": y}), path)
    return path


@pytest.mark.parametrize("at", [0, 3210])
def test_infinities(run: CommandLine, at: int) -> None:
    """In the first batch, where nothing is known of the column, or later."""
    data = infinite("d.parquet", at)
    code, out, err = run("fit", data, "--target", "y", "--no-shuffle", "--json")
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert f"error: feature 'x' is infinite, or too large for float32, in row {at:,} of d.parquet" in err
    assert "--infinities clip" in err and "Traceback" not in err
    scores = {}
    for way in ("clip", "missing"):
        code, out, err = run("fit", data, "--target", "y", "--infinities", way, "--no-shuffle", "--epochs", 3, "--json",
                             "--out", way)  # fmt: skip
        assert code == 0, err
        scores[way] = json.loads(out)["metrics"]["progressive"]["accuracy"]
        code, out, err = run("evaluate", way, data, "--json")  # as it was asked to be at training
        assert code == 0 and json.loads(out)["metrics"]["accuracy"] > 0.95
    assert min(scores.values()) > 0.93, scores
    clean = json.loads(run("fit", data, "--target", "y", "--features", "z", "--json", "--out", "clean")[1])
    assert clean["rows"] == 4000
    code, _, err = run("fit", data, "--target", "y", "--infinities", "ignore")
    assert code == 2 and "--infinities ignore: " in err and err.count("\n") == 1


def test_infinities_at_prediction(run: CommandLine) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=2000)
    pq.write_table(pa.table({"x": x, "y": (x > 0).astype(int)}), "clean.parquet")
    pq.write_table(pa.table({"x": [0.5, np.inf, -np.inf, None], "y": [0, 1, 0, 1]}), "odd.parquet")
    for way in ("error", "clip", "missing"):
        assert run("fit", "clean.parquet", "--target", "y", "--infinities", way, "--out", way, "--epochs", 5)[0] == 0
        code, _, err = run("predict", way, "odd.parquet", "--out", f"{way}.p.parquet")
        if way == "error":
            assert code == 2 and "row 1 of odd.parquet" in err and err.count("\n") == 1
            assert not Path("error.p.parquet").exists()
            continue
        some, up, down, gone = pq.read_table(f"{way}.p.parquet")["probability_1"].to_pylist()
        if way == "clip":  # ten deviations
            assert up > 0.99 > some > gone > 0.01 > down
        else:
            assert up == down == gone


BAD = [
    ("--loss hinge --task regress", "hinge is for classes"),
    ("--loss squared", "squared is for regression"),
    ("--delta 2", "--delta: is a parameter of --loss huber"),
    ("--loss quantile --quantile 1.5 --task regress", "--quantile 1.5"),
    ("--optimizer ada", "did you mean"),
    (
        "--optimizer normalized --learning-rate-schedule constant",
        "--learning-rate-schedule constant: is for --optimizer sgd",
    ),
    ("--l1 nan", "--l1 nan"),
    ("--l2 -1", "--l2 -1"),
    ("--learning-rate 0", "--learning-rate 0"),
    ("--patience 2", "needs rows to judge by"),
    ("--as x", "give COL=ROLE"),
    ("--as =number", "give COL=ROLE"),
    ("--as x=numeric", "did you mean number"),
    ("--as y=category", "'y' is not a feature"),
    ("--as q=category", "no column 'q'"),
    ("--cross x", "at least two"),
    ("--cross x:z", "'x' is double"),
    ("--cross :", "at least two"),
    ("--hash-bits 40", "from 4 to 28"),
    ("--class-weight heavy", "give balanced"),
    ("--class-weight 7=1", "no such class"),
    ("--weight y", "is the target"),
    ("--weight z --features x,z", "is a feature too"),
    ("--features x,y", "both the target and a feature"),
    ("--exclude x,z", "no feature is left"),
    ("--as x=ignore --as z=ignore", "no feature is left"),
    ("--classes 0", "give at least two"),
    ("--task regress --classes 0,1", "--classes: is for classification"),
]


@pytest.mark.parametrize(("flags", "message"), BAD, ids=[flags for flags, _ in BAD])
def test_flags_that_do_not_go_together_are_one_line(flags: str, message: str, run: CommandLine) -> None:
    rng = np.random.default_rng(0)
    pq.write_table(pa.table({"x": rng.normal(size=60), "z": rng.normal(size=60), "y": np.arange(60) % 2}), "d.parquet")
    code, out, err = run("fit", "d.parquet", "--target", "y", *flags.split())
    assert (code, out) == (2, "") and message in err and err.startswith("error: ") and err.count("\n") == 1, err

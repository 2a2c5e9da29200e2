from __future__ import annotations

import contextlib
import json
import logging
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from make import PROMPT, WAIT, CommandLine, run_streamtrain, wait_for

import streamtrain
from streamtrain.errors import printable
from streamtrain.options import split_names
from streamtrain.train.history import Scores

ROWS = 1000


@pytest.fixture
def run(cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    monkeypatch.chdir(tmp_path)
    return cli


def columns(**more: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=ROWS)
    return {"x": x, "z": rng.normal(size=ROWS).astype("f4"), "y": (x > 0).astype(int)} | more


def write(path: str, data: dict[str, Any] | None = None, **options: Any) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns() if data is None else data), path, **options)
    return path


def keys(found: Any, *expected: str) -> None:
    assert set(expected) <= set(found), set(expected) - set(found)


FIT_KEYS = ("rows", "rows_seen", "batches", "epochs", "seconds", "rows_per_second", "learner", "loss", "task", "classes",
            "batch_size", "metrics", "memory", "plan", "time", "skipped", "run")  # fmt: skip
MEMORY_KEYS = ("budget_bytes", "baseline_bytes", "planned_peak_bytes", "measured_peak_bytes", "terms")
PLAN_KEYS = ("chunks", "windows", "window_rows", "windows_in_flight", "batch_size", "workers")


# -- what commands print -------------------------------------------------------------------------------------------------


def test_fit_evaluate_predict(run: CommandLine) -> None:
    data, other = write("d.parquet", row_group_size=300), write("e.parquet")
    done = run(
        "fit", data, "--target", "y", "--holdout", "0.2", "--validate", other, "--epochs", 2, "--out", "r", "--json"
    )
    assert done.code == 0 and done.err == ""
    result = done.json
    keys(result, *FIT_KEYS)
    keys(result["memory"], *MEMORY_KEYS)
    keys(result["plan"], *PLAN_KEYS)
    keys(result["time"], "read", "wait", "learn", "other")
    for term in result["memory"]["terms"].values():
        assert set(term) == {"planned_bytes", "measured_bytes"}
    assert set(result["metrics"]) == {"progressive", "holdout", "validation"}
    for scores in result["metrics"].values():
        keys(scores, "loss", "accuracy", "auc")
        assert scores["accuracy"] > 0.85
    assert result["rows_seen"] == 2 * result["rows"] and 700 < result["rows"] < 900
    assert (result["epochs"], result["classes"], result["task"], result["run"]) == (2, [0, 1], "classify", "r")
    assert (result["loss"], result["learner"], result["skipped"]) == ("logistic", "linear", [])
    assert sum(result["time"].values()) >= 0 and result["plan"]["chunks"] == 4
    assert sorted(os.listdir("r")) == ["checkpoints", "metrics.jsonl", "model.json", "model.safetensors", "report.json"]
    assert json.loads(Path("r/report.json").read_text()) == result
    lines = [json.loads(line) for line in Path("r/metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1, 1]  # each epoch's end, and 1,024 rows on the way
    assert lines[0]["rows_seen"] == result["rows"] < 1024 <= lines[1]["rows_seen"] < lines[2]["rows_seen"]
    assert lines[1]["progressive"]["loss"] > 0 and lines[1]["holdout"] is lines[1]["validation"] is None
    assert {name: lines[2][name] for name in result["metrics"]} == result["metrics"]

    scored = run("evaluate", "r", other, "--memory", "2GB", "--json").json
    assert set(scored) >= {"rows", "metrics"} and scored["rows"] == ROWS
    assert scored["metrics"] == result["metrics"]["validation"]
    predicted = run("predict", "r", other, "--out", "p.parquet", "--json").json
    assert predicted == {"rows": ROWS, "out": "p.parquet", "warnings": [], "skipped": []}
    assert pq.read_table("p.parquet").column_names == ["prediction", "probability_0", "probability_1"]
    assert not list(Path().glob(".*"))


def test_plan_inspect_make(run: CommandLine) -> None:
    data = write("d.parquet")
    plan = run("plan", data, "--target", "y", "--memory", "1GB", "--json").json
    keys(plan, "rows", "memory", "plan", "fits", "warnings")
    keys(plan["memory"], *MEMORY_KEYS)
    keys(plan["plan"], *PLAN_KEYS)
    assert plan["fits"] is True and plan["rows"] == ROWS and plan["memory"]["budget_bytes"] == 10**9
    assert plan["memory"]["measured_peak_bytes"] is None

    found = run("inspect", data, "--json").json
    keys(found, "rows", "chunks", "columns", "stored_bytes", "decoded_bytes", "target")
    assert found["target"] is None and found["stored_bytes"] == os.path.getsize(data)
    assert [(c["name"], c["type"]) for c in found["columns"]] == [("x", "double"), ("z", "float"), ("y", "int64")]
    assert [(c["becomes"], c["why"], c["numbers"]) for c in found["columns"]] == [("number", "a number", 1)] * 3
    target = run("inspect", data, "--target", "y", "--json").json["target"]
    assert target["classes"] == [0, 1] and sum(target["counts"]) == ROWS and 0 <= target["clustering"] <= 1

    made = run("make", "regression", "--rows", 2000, "--columns", 3, "--out", "m", "--json").json
    assert set(made) == {"rows", "columns", "path", "target", "task", "best_loss"} and made["path"] == "m"
    fitted = run("fit", "m", "--target", "y", "--json").json
    keys(fitted["metrics"]["progressive"], "loss", "rmse", "mae", "r2")
    assert fitted["per_class"] is None and fitted["targets"] == ["y"]
    assert fitted["classes"] is None and fitted["metrics"]["holdout"] is None and fitted["run"] is None


def test_inspect_takes_roles_and_several_targets(run: CommandLine) -> None:
    write("d.parquet", columns(k=np.arange(ROWS) % 9))
    found = run("inspect", "d.parquet", "--target", "x,z", "--as", "k=category", "--json").json
    becomes = {column["name"]: column["becomes"] for column in found["columns"]}
    assert becomes == {"x": "target", "z": "target", "y": "number", "k": "category"}


def test_people_see_names_as_they_are_on_one_line_each(run: CommandLine) -> None:
    write(
        "d.parquet", columns(**{"[red]a": np.zeros(ROWS), "two\nlines": np.zeros(ROWS), "esc\x1b[2J": np.zeros(ROWS)})
    )
    done = run("inspect", "d.parquet", "--target", "y")
    assert done.code == 0 and "\x1b" not in done.out
    lines = done.out.splitlines()
    assert lines[0].startswith("1,000 rows in 1 chunk, 6 columns, ")
    assert any(line.startswith("[red]a ") for line in lines) and any(line.startswith("two\\nlines ") for line in lines)
    assert lines[-3].startswith("class") and len(lines) == 2 + 7 + 2 + 3
    write("l.parquet", columns(y=["[b]old", "new\nline"] * (ROWS // 2)))
    assert any(line.startswith("new\\nline ") for line in run("inspect", "l.parquet", "--target", "y").out.splitlines())


def test_people_see_every_result(run: CommandLine) -> None:
    data = write("d.parquet")
    assert "loss " in run("fit", data, "--target", "y", "--out", "r").out
    assert run("evaluate", "r", data).out.startswith("1,000 rows  loss ")
    assert run("predict", "r", data, "--out", "p.parquet").out == "1,000 predictions in p.parquet\n"
    planned = run("plan", data, "--target", "y").out
    assert "1,000 rows in 1 chunk; 1 window of at most 1,000 rows" in planned and "measured" not in planned
    assert "best possible loss" in run("make", "clicks", "--rows", 500, "--columns", 2, "--out", "m").out
    assert "Commands:" in run().out and "fit" in run("--help").out
    assert run("--version").out.count(".") == 2


# -- the budget ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["fit", "evaluate", "predict", "plan"])
def test_a_budget_that_cannot_be_met(run: CommandLine, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write("d.parquet")
    run("fit", data, "--target", "y", "--out", "r")

    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("data were read")

    if command != "plan":  # which counts the classes
        monkeypatch.setattr("streamtrain.storage.parquet.reader.ParquetReader._slices", refuse)
    arguments = {
        "fit": (data, "--target", "y", "--out", "r2"), "plan": (data, "--target", "y"),
        "evaluate": ("r", data), "predict": ("r", data, "--out", "p.parquet"),
    }[command]  # fmt: skip
    for as_json in ([], ["--json"]):
        done = run(command, *arguments, "--memory", "60MB", *as_json)
        assert done.code == 3
        first, *terms, advice = done.err.splitlines()
        assert first.startswith("error: the plan needs") and "60 MB" in first
        own = (
            {"learner", "preparation"} if command in ("fit", "plan") else {"outputs"}
        )  # a loaded model is in the baseline
        assert {"baseline", "footers", "order", "reads", "streams", "windows", "batches", "margin"} | own <= {
            t.split()[0] for t in terms
        }
        sizes = [float(t.split()[1]) * {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}[t.split()[2]] for t in terms]
        assert sizes == sorted(sizes, reverse=True)
        assert "--memory" in advice and ("Only the target" if command == "plan" else "Nothing") + " was read" in advice
        if command == "plan" and as_json:
            assert done.json["fits"] is False
        else:
            assert done.out == ""
    assert not Path("r2").exists() and not list(Path().glob("p.parquet*"))


# -- bad input -----------------------------------------------------------------------------------------------------------


def _prepare() -> None:
    """Everything that the cases below name."""
    x, ones = columns()["x"], np.ones(ROWS)
    holes = x.copy()
    holes[[7, 8]] = np.nan
    write("ok.parquet")
    Path("empty").mkdir()
    Path("text.txt").write_text("hello\n" * 50)
    write("zero.parquet", {"x": pa.array([], pa.float64()), "y": pa.array([], pa.int64())})
    raw = Path("ok.parquet").read_bytes()
    Path("cut.parquet").write_bytes(raw[: len(raw) // 2])
    write("differ/a.parquet")
    write("differ/b.parquet", columns(x=[f"a{i}" for i in range(len(x))]))
    write("words.parquet", columns(s=["a", "b"] * (ROWS // 2), t=np.arange(ROWS).astype("M8[us]"), l=[[[1]]] * ROWS))
    write("inf.parquet", columns(x=np.where(np.isnan(holes), np.inf, x)))
    write("bad_y/a.parquet", columns(y=x))
    write("bad_y/b.parquet", columns(y=holes))
    write("null_y.parquet", columns(y=pa.array([None, None, None, *[0, 1] * 498, 0])))
    write("one.parquet", columns(y=ones.astype(int)))
    write("float.parquet", columns(y=x))
    write("only.parquet", {"y": [0, 1]})
    write("hostile.parquet", columns(**{"a,b": x, "nl\nx": [[["s"]]] * ROWS, "[red]": x}))
    group = zarr.create_group("lengths.zarr")
    for name, n in (("X", 10), ("y", 9)):
        group.create_array(name, data=np.ones(n))
    write("ours/not/data.parquet")


BAD = [
    # the issue's own list
    ("fit nope.parquet --target y", ["nope.parquet: no such file"]),
    ("fit nope*/x --target y", ["nope*/x: no data files (nothing there)"]),
    ("fit empty --target y", ["empty: no data files (nothing there)"]),
    ("fit zero.parquet --target y", ["zero.parquet: has no rows"]),
    (
        "fit text.txt --target y",
        ["text.txt: neither its name nor its first bytes tell the format", "--input-format csv"],
    ),
    ("fit cut.parquet --target y", ["cut.parquet: not a Parquet file, or a damaged one"]),
    ("fit differ --target y", ["x' is double in a.parquet, but string in b.parquet", "--as x=category", "--exclude x"]),
    ("fit ok.parquet --target yy", ["'yy'", "did you mean 'y'?"]),
    ("fit ok.parquet --target y --features x,zz", ["'zz'", "did you mean 'z'?"]),
    ("fit ok.parquet --target y --exclude q", ["'q'", "'x', 'z', 'y'"]),
    ("fit ok.parquet --target y --exclude x,z", ["no feature is left"]),
    ("fit ok.parquet --target y --features ,", ["no feature is left"]),
    ("fit only.parquet --target y", ["no feature is left"]),
    (
        "fit words.parquet --target y",
        ["'l' (list", "neither a number, a time, a category nor text: give --exclude l, or split it"],
    ),
    ("fit words.parquet --target y --features x,s,l", ["'l' (list", "--exclude l,"]),
    (
        "fit words.parquet --target y --exclude l --as s=number",
        ["column 's' is string here, but is used as", "=category"],
    ),
    (
        "fit words.parquet --target y --exclude l --as s=words",
        ["--as s=words: must be one of number, time, clock, category"],
    ),
    ("fit words.parquet --target y --exclude l --as q=text", ["no column 'q'"]),
    ("fit words.parquet --target y --exclude l --as s", ["--as s", "COL=ROLE"]),
    ("fit words.parquet --target y --exclude l --cross s:q", ["--cross s:q", "'q' is not a feature"]),
    ("fit words.parquet --target y --exclude l --cross s:x", ["--cross s:x", "'x' is double", "--as x=category"]),
    ("fit words.parquet --target y --exclude l --cross s", ["--cross s", "at least two"]),
    ("fit words.parquet --target l --features x", ["target 'l'"]),
    ("fit bad_y --target y", ["target 'y' has 2 ", "b.parquet:0 (2)"]),
    ("fit null_y.parquet --target y", ["target 'y' has 3 ", "null_y.parquet:0 (3)"]),
    ("fit inf.parquet --target y", ["'x' is infinite", " in row ", " of inf.parquet:0", "--infinities clip"]),
    ("fit ok.parquet --target y --infinities hide", ["--infinities hide: must be one of error, clip, missing"]),
    ("fit ok.parquet --target y --hash-bits 99", ["--hash-bits 99"]),
    ("fit one.parquet --target y", ["one class (only 1)"]),
    ("fit float.parquet --target y --loss logistic", ["--loss logistic", "huber, poisson, quantile, squared"]),
    ("fit float.parquet --target y --loss softmax", ["--loss softmax is for classes"]),
    ("fit ok.parquet --target y --loss squared", ["--loss squared is for regression", "--task regress"]),
    ("fit ok.parquet --target y --delta 2", ["--delta: is a parameter of --loss huber"]),
    ("fit float.parquet --target y --loss huber --delta 0", ["--delta 0.0: must be above 0"]),
    ("fit float.parquet --target y --loss quantile --quantile 1", ["--quantile 1.0: must be above 0 and below 1"]),
    ("fit ok.parquet --target y --learning-rate-schedule sqr", ["--learning-rate-schedule sqr", "did you mean sqrt"]),
    (
        "fit ok.parquet --target y --learning-rate-schedule constant",
        ["--learning-rate-schedule constant: is for --optimizer sgd and momentum"],
    ),
    ("fit ok.parquet --target y --class-weight 0=2,7=1", ["--class-weight 7=1", "no such class"]),
    ("fit float.parquet --target y --class-weight balanced", ["--class-weight: needs one target that has classes"]),
    ("fit ok.parquet --target y --patience 2", ["--patience 2: needs rows to judge by", "--holdout"]),
    ("fit ok.parquet --target y --patience 0 --holdout 0.1", ["--patience 0"]),
    ("fit ok.parquet --target y,q", ["no column 'q' for the target"]),
    ("fit ok.parquet --target y --batch-size 0", ["--batch-size 0: must be at least 1"]),
    ("fit nope --target y --batch-size 0", ["--batch-size 0"]),  # settings come before any I/O
    ("fit nope --target y --memory lots", ["'lots' is not a size", "512MB"]),
    ("fit ok.parquet --target y --memory 12XB", ["'12XB' is not a size"]),
    ("fit ok.parquet --target y --memory 0", ["less than one byte"]),
    ("fit ok.parquet --target y --memory 500", ["--memory 500: is 500 bytes; write 500MB if megabytes are meant"]),
    ("predict r ok.parquet --out p.parquet --memory 500", ["write 500MB"]),
    ("evaluate r ok.parquet --memory 5q", ["'5q' is not a size"]),
    ("predict r ok.parquet --out p.parquet --memory 5q", ["'5q' is not a size"]),
    ("fit ok.parquet --target y --learner tree", ["--learner tree: must be one of linear, or module:name"]),
    ("fit ok.parquet --target y --loss hinges", ["--loss hinges", "did you mean hinge"]),
    ("fit ok.parquet --target y --optimizer adams", ["--optimizer adams", "did you mean adam"]),
    ("fit lengths.zarr --target y", ["X", "y", "10", "9"]),
    ("evaluate nope ok.parquet", ["nope: not a run (no such folder)"]),
    ("evaluate ok.parquet ok.parquet", ["ok.parquet: not a run (a file)"]),
    ("evaluate ours ok.parquet", ["ours: not a run (has no model.json)"]),
    ("predict ours ok.parquet --out p.parquet", ["ours: not a run"]),
    ("fit ok.parquet --target y --out ours", ["--out ours: exists and is not a run"]),
    ("fit ok.parquet --target y --out ok.parquet", ["--out ok.parquet: is one of the data files"]),
    ("fit ok.parquet --target y --out ok.parquet/r", ["--out ok.parquet/r", "cannot be written"]),
    # and what else people type
    ("fit ok.parquet --target y --out /proc/nope/r", ["--out /proc/nope/r: /proc cannot be written"]),
    ("predict r ok.parquet --out nope/p.parquet", ["--out nope/p.parquet"]),
    ("predict r ok.parquet --out ours", ["--out ours: must be a file"]),
    ("predict r ok.parquet --out /proc/p.parquet", ["--out /proc/p.parquet: cannot be written"]),
    ("predict r ok.parquet --out ok.parquet", ["--out ok.parquet: is one of the data files"]),
    ("predict r differ --out p.parquet", ["b.parquet:0: column 'x' is string here"]),
    ("fit nope --target y --seed -1", ["--seed -1"]),
    ("fit nope --target y --holdout 1.5", ["--holdout 1.5"]),
    ("fit nope --target y --holdout nan", ["--holdout nan"]),
    ("fit ok.parquet --target y --epochs 0", ["--epochs 0"]),
    ("fit ok.parquet --target y --window-rows -3", ["--window-rows -3"]),
    ("fit ok.parquet --target y --threads 0", ["--threads 0"]),
    ("fit ok.parquet --target y --learning-rate 0", ["--learning-rate 0.0: must be above 0"]),
    ("fit ok.parquet --target y --l1 -1", ["--l1 -1.0: must be at least 0"]),
    ("fit ok.parquet --target y --task guess", ["--task guess"]),
    ("fit words.parquet --target s --features x --task regress", ["target 's' is text"]),
    ("fit ok.parquet --target y --weight w", ["no column 'w'"]),
    ("fit ok.parquet --target y --weight y", ["--weight y: is the target"]),
    ("fit words.parquet --target y --features x --weight s", ["--weight s"]),
    ("fit ok.parquet --target y --classes 0", ["--classes: 1 class given"]),
    ("fit ok.parquet --target y --classes a,b", ["--classes 'a', 'b'", "int64"]),
    ("fit ok.parquet --target y --classes 0,2", ["'y' is 1", "(0, 2)", "--classes"]),
    ("fit ok.parquet --target y --features x,x", ["names a column twice"]),
    ("fit ok.parquet --target y --features x,y", ["both the target and a feature"]),
    ("fit ok.parquet --target y --missing-chunks hide", ["--missing-chunks hide"]),
    ("fit ok.parquet --target y --validate nope", ["nope: no such file"]),
    ("fit boxes://bucket/x --target y", ["no reader for boxes://"]),
    ("fit hostile.parquet --target y --features a,b", ["'a'", "'a,b'"]),
    ("fit hostile.parquet --target y", [r"'nl\nx'", r"--exclude nl\nx"]),
    ("fit ok.parquet", ["--target"]),
    ("fit --target y", ["DATA"]),
    ("fit ok.parquet --target y --batch-size many", ["--batch-size"]),
    ("fit ok.parquet --target y --bogus", ["--bogus"]),
    ("train ok.parquet", ["'train'"]),
    ("make cats --rows 10 --out m", ["NAME cats: must be one of clicks"]),
    ("make clicks --rows 0 --out m", ["--rows 0: must be at least 1"]),
    ("make clicks --rows 10 --out ours", ["--out ours: exists"]),
    ("make clicks --rows 10 --out nope/m", ["nope does not exist"]),
    ("inspect ok.parquet --target nope", ["no column 'nope'"]),
    ("inspect one.parquet --target y", ["one class"]),
    ("plan one.parquet --target y --json", ["one class"]),
]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the cases name, and a run ``r``: once for all of them, as each must leave it as it is."""
    folder = tmp_path_factory.mktemp("prepared")
    with contextlib.chdir(folder):
        _prepare()
        streamtrain.fit("ok.parquet", target="y", out="r")
    return folder


@pytest.mark.parametrize(("line", "says"), BAD, ids=[line for line, _ in BAD])
def test_bad_input(
    cli: CommandLine, prepared: Path, monkeypatch: pytest.MonkeyPatch, line: str, says: list[str]
) -> None:
    monkeypatch.chdir(prepared)
    arguments = line.split()
    if arguments[0] == "fit" and "--out" not in arguments:
        arguments += ["--out", "new/run"]
    before = sorted(str(p) for p in Path().rglob("*"))
    done = cli(*arguments)
    assert done.code == 2 and done.out == "", done
    assert done.err.startswith("error: ") and done.err.count("\n") == 1 and done.err.endswith("\n"), done.err
    for text in says:
        assert text in done.err, done.err
    assert sorted(str(p) for p in Path().rglob("*")) == before


def test_tables_as_they_are(run: CommandLine) -> None:
    """What is missing, text and times are no mistakes: a fit takes them, and a model meets them again."""
    _prepare()
    holes = columns()["x"].copy()
    holes[::3] = np.nan
    write("nan.parquet", columns(x=holes))
    write("null.parquet", columns(x=pa.array(holes, from_pandas=True)))
    cases: list[tuple[str, list[str], dict[str, int]]] = [
        ("nan.parquet", [], {"numbers": 2, "slots_used": 1}),
        ("null.parquet", [], {"numbers": 2, "slots_used": 1}),
        ("words.parquet", ["--exclude", "l"], {"numbers": 9, "categories": 1, "slots_used": 2}),
        ("words.parquet", ["--features", "x,s", "--as", "s=text"], {"numbers": 1, "texts": 1}),
        ("words.parquet", ["--exclude", "l", "--cross", "s:t", "--hash-bits", "9"], {"crosses": 1, "hash_bits": 9}),
        ("inf.parquet", ["--infinities", "clip"], {"numbers": 2, "slots_used": 0}),
        ("inf.parquet", ["--infinities", "missing"], {"numbers": 2, "slots_used": 1}),
    ]
    for number, (as_they_are, flags, made) in enumerate(cases):
        out = f"r{number}"
        done = run("fit", as_they_are, "--target", "y", *flags, "--out", out, "--json")
        assert done.code == 0, done.err
        assert done.err.endswith("--hash-bits 11 has room for four times as many\n") if "9" in flags else not done.err
        assert done.json["preparation"].items() >= made.items(), done.json["preparation"]
        assert done.json["metrics"]["progressive"]["accuracy"] > 0.7
        assert run("predict", out, as_they_are, "--out", "p.parquet", "--json").json["rows"] == ROWS
        assert set(pq.read_table("p.parquet")["prediction"].to_pylist()) == {0, 1}


def test_several_targets(run: CommandLine) -> None:
    data = write("d.parquet", columns(a=columns()["x"] * 3 + 1, b=np.arange(ROWS) * 1.0))
    result = run("fit", data, "--target", "a,b", "--exclude", "y", "--out", "r", "--epochs", 5, "--json").json
    assert result["targets"] == ["a", "b"] and set(result["metrics"]["progressive"]["targets"]) == {"a", "b"}
    scored = run("evaluate", "r", data, "--json").json["metrics"]
    assert scored["targets"]["a"]["r2"] > 0.99 > 0.3 > scored["targets"]["b"]["r2"]
    assert run("predict", "r", data, "--out", "p.parquet").code == 0
    assert pq.read_table("p.parquet").column_names == ["prediction_a", "prediction_b"]


def test_names_that_hold_anything(run: CommandLine) -> None:
    names = ["a b", "a,b", "[red]", 'q"uote', "é", " lead", "new\nline", "--dash", "#:"]
    x = columns()["x"]
    write("h [1] ï#:x.parquet", dict.fromkeys(names, x) | {"t,y": columns()["y"]})
    asked = ",".join('"' + n.replace('"', '""') + '"' for n in names)
    for flags in (["--features", asked], ["--exclude", '" lead"'], []):
        done = run(
            "fit", "h [1] ï#:x.parquet", "--target", '"t,y"', *flags, "--out", f"r{len(flags)}{flags[:1]}", "--json"
        )
        assert done.code == 0, done.err
    assert run("predict", "r0[]", "h [1] ï#:x.parquet", "--out", "p #:ï.parquet").code == 0
    write("labels.parquet", columns(y=np.where(columns()["y"], "[red]a", "b,\nc")))
    result = run("fit", "labels.parquet", "--target", "y", "--classes", '[red]a,"b,\nc"', "--out", "l", "--json").json
    assert result["classes"] == ["[red]a", "b,\nc"]
    assert run("predict", "l", "labels.parquet", "--out", "lp.parquet").code == 0
    table = pq.read_table("lp.parquet")
    assert table.column_names == ["prediction", "probability_[red]a", "probability_b,\nc"]
    assert set(table["prediction"].to_pylist()) == {"[red]a", "b,\nc"}


def test_texts() -> None:
    assert split_names('a, b ,"c, d" ,"e""f",g"h,,') == ["a", "b", "c, d", 'e"f', 'g"h']
    assert split_names("") == split_names(" , ") == []
    assert printable("a\tb\x1b[0m é\u2028\udcff\\") == "a\\tb\\x1b[0m é\\u2028\\udcff\\"


def test_a_diverged_fit_prints_json_that_parses(run: CommandLine) -> None:
    write("d.parquet", columns(y=columns()["x"]))
    done = run("fit", "d.parquet", "--target", "y", "--json", "--out", "r")
    assert done.code == 0 and done.json["metrics"]["progressive"]["loss"] is not None
    from streamtrain.runs.folder import to_json

    assert to_json({"a": [float("nan"), (float("inf"), 1.5)], "b": {"c": -float("inf")}}) == (
        '{"a": [null, [null, 1.5]], "b": {"c": null}}'
    )


# -- what is no fault of the input ---------------------------------------------------------------------------------------


def test_a_bug_says_where_to_report_it(run: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("streamtrain.tools.inspect.inspect", broken)
    done = run("inspect", "d.parquet")
    assert done.code == 1 and done.out == ""
    assert "Traceback" in done.err and done.err.splitlines()[-1].startswith("error: this is a bug")


@pytest.mark.parametrize(("error", "code"), [(MemoryError(), 4), (OSError(28, "No space left on device"), 2)])
def test_the_machine_has_limits(run: CommandLine, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("streamtrain.tools.inspect.inspect", fails)
    done = run("inspect", "d.parquet")
    assert done.code == code and done.out == "" and done.err.startswith("error: ") and done.err.count("\n") == 1


def test_a_disk_that_fails_at_the_end_leaves_nothing(run: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    write("d.parquet")
    with monkeypatch.context() as patch:
        patch.setattr("streamtrain.runs.folder.to_json", full)
        done = run("fit", "d.parquet", "--target", "y", "--out", "r", "--json")
    assert done.code == 2 and done.out == "" and "No space left" in done.err
    assert os.listdir() == ["d.parquet"]
    with monkeypatch.context() as patch:
        patch.setattr("streamtrain.model.Model.save", full)
        done = run("fit", "d.parquet", "--target", "y", "--out", "r", "--json")
    assert done.code == 2 and done.out == "" and "No space left" in done.err
    assert sorted(os.listdir("r")) == ["checkpoints", "metrics.jsonl"]  # the scores that there were, and where it stood
    assert run("fit", "d.parquet", "--target", "y", "--out", "r").code == 2
    assert run("fit", "d.parquet", "--out", "r", "--resume").code == 0
    assert len(Path("r/metrics.jsonl").read_text().splitlines()) == 1


# -- processes -----------------------------------------------------------------------------------------------------------


def command(*arguments: str, cwd: Path, **options: Any) -> subprocess.Popen[str]:
    full = [sys.executable, "-m", "streamtrain", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(full, cwd=cwd, text=True, **pipes)


@pytest.mark.parametrize("more", [[], pytest.param(["--json"], marks=pytest.mark.slow)])
def test_who_reads_stdout_may_leave(tmp_path: Path, more: list[str]) -> None:
    data = Path(__file__).parents[2] / "data" / "digits.parquet"
    reading, writing = os.pipe()
    os.close(reading)  # before a word was said
    process = command("plan", str(data), "--target", "digit", *more, cwd=tmp_path, stdout=writing)
    os.close(writing)
    _, err = process.communicate(timeout=WAIT)
    assert (process.returncode, err) == (0, "")


def test_a_process_that_fails(tmp_path: Path) -> None:
    process = command("fit", "nope", "--target", "y", "--json", cwd=tmp_path)
    out, err = process.communicate(timeout=WAIT)
    assert process.returncode == 2 and out == "" and err == "error: nope: no such file or directory\n"


@pytest.mark.parametrize("flags", [(), pytest.param(("--json",), marks=pytest.mark.slow)])
def test_nobody_reads_stdout(tmp_path: Path, flags: tuple[str, ...]) -> None:
    write(str(tmp_path / "d.parquet"))
    reader, writer = os.pipe()
    os.close(reader)
    process = command("inspect", "d.parquet", *flags, cwd=tmp_path, stdout=writer)
    os.close(writer)
    _, err = process.communicate(timeout=WAIT)
    assert err == ""


def test_ascii_terminals_and_names_that_are_no_text(tmp_path: Path) -> None:
    write(str(tmp_path / "d.parquet"), columns(é=np.zeros(ROWS)))
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    process = command("inspect", "d.parquet", cwd=tmp_path, env=environment)
    out, err = process.communicate(timeout=WAIT)
    assert process.returncode == 0 and err == "" and "\\xe9" in out


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device")
@pytest.mark.parametrize(
    "arguments", [("inspect", "d.parquet", "--json"), pytest.param(("-h",), marks=pytest.mark.slow)]
)
def test_a_stdout_that_is_full(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    write(str(tmp_path / "d.parquet"))
    with open("/dev/full", "w") as full:
        process = command(*arguments, cwd=tmp_path, stdout=full)
        _, err = process.communicate(timeout=WAIT)
    assert (process.returncode, err) == (2, "error: [Errno 28] No space left on device: 'stdout'\n")


def _children(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("name", ["fit", *(pytest.param(name, marks=pytest.mark.slow) for name in ("predict", "make"))])
def test_ctrl_c(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(0)
    data = columns() if name == "make" else {f"x{i}": rng.integers(0, 7, 400_000) / 7 for i in range(5)}
    write(
        str(tmp_path / "d.parquet"), data | {"y": np.arange(len(next(iter(data.values())))) % 2}, row_group_size=50_000
    )
    if name == "predict":
        for i in range(60):
            shutil.copyfile(tmp_path / "d.parquet", tmp_path / f"d{i}.parquet")
        fit = command("fit", "d.parquet", "--target", "y", "--out", "r", cwd=tmp_path)
        fit.communicate(timeout=WAIT)
    arguments = {
        "fit": ("fit", "d.parquet", "--target", "y", "--epochs", "10000", "--out", "run", "--json"),
        "predict": ("predict", "r", "d*.parquet", "--out", "p.out", "--json"),
        "make": ("make", "clicks", "--rows", "400000000", "--out", "m", "--json"),
    }[name]
    under_way = {  # what is there once it works, and long before its end
        "fit": lambda: list(tmp_path.glob("run/metrics.jsonl")),
        "predict": lambda: set(_children(tmp_path)) - set(before),
        "make": lambda: set(_children(tmp_path)) - set(before),
    }[name]
    before = _children(tmp_path)
    said = tmp_path.parent / f"{tmp_path.name}.stderr"
    with said.open("w") as file:
        process = command(*arguments, cwd=tmp_path, stderr=file)
    try:
        wait_for(lambda: under_way() or process.poll() is not None, "the work to begin")
        assert process.poll() is None, said.read_text()
        process.send_signal(signal.SIGINT)
        sent = time.monotonic()
        wait_for(lambda: "interrupted\n" in said.read_text(), "the answer to Ctrl-C")
        acknowledged = time.monotonic() - sent
        out, _ = process.communicate(timeout=WAIT)
    finally:
        process.kill()
    assert acknowledged < PROMPT, acknowledged
    assert process.returncode == 130 and out == "" and "Traceback" not in said.read_text()
    if name == "fit":  # the scores that there were are left, and where it stood
        assert _children(tmp_path / "run") == ["checkpoints", "metrics.jsonl"]
        for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines():
            assert json.loads(line)["progressive"]["loss"] > 0
        before = sorted([*before, "run"])
    assert _children(tmp_path) == before


def _interrupted(*_: Any, **__: Any) -> None:
    signal.raise_signal(signal.SIGINT)


def _interrupted_epoch(end_epoch: Callable[..., Any]) -> Callable[..., Any]:
    def ends(*given: Any) -> Any:
        line = end_epoch(*given)
        _interrupted()
        return line

    return ends


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted command leaves by SystemExit here, not with the whole process."""

    def leave(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr("streamtrain.cli._received", [])
    monkeypatch.setattr("streamtrain.cli._raised", [])
    monkeypatch.setattr("os._exit", leave)


@pytest.mark.usefixtures("exits")
def test_ctrl_c_while_the_libraries_are_imported(run: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamtrain.kernels.crash.answer_crashes", _interrupted)
    assert run("inspect", write("d.parquet")) == (130, "", "\ninterrupted\n")


@pytest.mark.usefixtures("exits")
def test_an_ignored_ctrl_c_stays_ignored(run: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamtrain.kernels.crash.answer_crashes", _interrupted)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert run("inspect", write("d.parquet")).code == 0
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("exits")
def test_ctrl_c_says_how_to_go_on(run: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole command, quoted for a shell; typed as it is, it ends with what an undisturbed run has."""
    write("my data.parquet")
    arguments = ["fit", "my data.parquet", "--target", "y", "--epochs", 2, "--out", "the run"]
    assert run(*arguments[:-1], "whole").code == 0
    with monkeypatch.context() as patch:
        patch.setattr(Scores, "end_epoch", _interrupted_epoch(Scores.end_epoch))
        done = run(*arguments)
    assert done.code == 130 and done.out == ""
    before, last = done.err.strip().splitlines()[0], done.err.strip().splitlines()[-1]
    says, _, typed = last.partition("streamtrain ")
    assert before == "interrupted" and says == "the run is kept; to go on: "
    assert shlex.split(typed) == [*map(str, arguments), "--resume"]
    assert run_streamtrain(*shlex.split(typed)).code == 0
    assert Path("the run/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()


@pytest.mark.usefixtures("exits")
def test_ctrl_c_promises_nothing_where_nothing_is_kept(run: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write("d.parquet")
    with monkeypatch.context() as patch:
        patch.setattr(Scores, "end_epoch", _interrupted_epoch(Scores.end_epoch))
        without = run("fit", data, "--target", "y")
        with monkeypatch.context() as sooner:
            sooner.setattr("streamtrain.train.job.Job.open", _interrupted)
            early = run("fit", data, "--target", "y", "--out", "e")
        again = run("fit", data, "--target", "y", "--epochs", 2, "--out", "r")
        resumed = run("fit", data, "--out", "r", "--resume")
    assert [done.code for done in (without, again, resumed, early)] == [130] * 4
    assert "go on" not in without.err + early.err and not Path("e").exists()
    assert again.err.endswith(f"fit {data} --target y --epochs 2 --out r --resume\n")
    assert resumed.err.endswith(f"fit {data} --out r --resume\n") and resumed.err.count("--resume") == 1


# -- messages and progress ------------------------------------------------------------------------------------------------


def test_each_warning_is_a_line_on_stderr_once(run: CommandLine) -> None:
    write("d.parquet", columns(s=[f"v{i}" for i in range(ROWS)]))
    done = run("fit", "d.parquet", "--target", "y", "--hash-bits", 9, "--out", "r", "--json")
    warnings = done.json["warnings"]
    assert len(warnings) == 1 and done.err == f"warning: {warnings[0]}\n"
    again = run("fit", "d.parquet", "--out", "r", "--resume")
    assert again.err == f"r is finished: 1 epoch; --epochs 2 or more continues it\nwarning: {warnings[0]}\n"
    logger = logging.getLogger("streamtrain")
    assert logger.handlers == [] and logger.level == logging.NOTSET and logger.propagate  # as it was before


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_progress_where_stderr_is_no_terminal(
    run: CommandLine, monkeypatch: pytest.MonkeyPatch, as_json: tuple[str, ...]
) -> None:
    """A line every few seconds: here every 0; nothing of it on stdout, nothing that drives a terminal."""
    data = write("d.parquet", row_group_size=300)
    monkeypatch.setattr("streamtrain.cli.progress._LINE_SECONDS", 0.0)
    monkeypatch.setattr("streamtrain.train.trainer._TICK_SECONDS", 0.0)
    fitted = run("fit", data, "--target", "y", "--out", "r", "--epochs", 2, "--validate", data, *as_json)
    scored, predicted = run("evaluate", "r", data, *as_json), run("predict", "r", data, "--out", "p.parquet", *as_json)
    copied = run("rechunk", data, "--out", "c", "--chunk-rows", 100, *as_json)
    made = run("make", "clicks", "--rows", 500, "--columns", 2, "--out", "m", *as_json)
    for done, words in ((fitted, "rows/s"), (scored, "rows scored"), (predicted, "rows predicted"),
                        (copied, "rows copied"), (made, "rows made")):  # fmt: skip
        assert done.code == 0 and words in done.err and "\x1b" not in done.err
        assert not as_json or done.json
        assert words not in done.out or not as_json
    lines = fitted.err.splitlines()
    assert lines[-1].startswith("epoch 2/2  100%") and "loss 0." in lines[-1] and " of " in lines[-1]
    assert any(line.startswith("validating epoch 1/2") for line in lines)
    assert scored.err.splitlines()[-1].startswith("100%  1,000 of 1,000 rows scored")


def test_a_short_command_shows_no_progress_line(run: CommandLine) -> None:
    data = write("d.parquet")
    assert run("fit", data, "--target", "y", "--out", "r").err == ""
    assert run("evaluate", "r", data).err == ""


def test_a_bar_on_a_terminal(tmp_path: Path) -> None:
    """On stderr alone; at most 80 columns; a run of one epoch ends in epoch 1."""
    write(str(tmp_path / "d.parquet"), row_group_size=300)
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80"}
    process = command("fit", "d.parquet", "--target", "y", "--json", cwd=tmp_path, stderr=theirs, env=environment)
    os.close(theirs)
    drawn = b""
    with suppress(OSError):  # the other end is closed
        while part := os.read(ours, 65_536):
            drawn += part
    os.close(ours)
    out, _ = process.communicate(timeout=WAIT)
    assert process.returncode == 0 and json.loads(out)["rows"] == ROWS
    text = drawn.decode()
    assert "reading metadata and the target" in text and "━" in text and "100%" in text
    assert "epoch 1/1" in text and "epoch 2" not in text
    frames = re.split(r"\r|\n", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text))
    assert max(map(len, frames)) <= 80


@pytest.mark.parametrize(
    ("twice", "message"),
    [
        (("--exclude", "x", "--exclude", "z"), "--exclude: given twice: give it once, several names with commas: a,b"),
        (("--target", "y", "--target", "x"), "--target: given twice: give it once, several names with commas: a,b"),
        (("--epochs", "2", "--epochs=3"), "--epochs: given twice: give it once"),
        (("--as", "x=number", "--as", "x=ignore"), "--as x=ignore: 'x' has number already: name it once"),
        (("--class-weight", "0=2,0=3"), "--class-weight 0=3.0: '0' has 2.0 already: name it once"),
    ],
)
def test_of_two_values_none_is_dropped(run: CommandLine, twice: tuple[str, ...], message: str) -> None:
    target = () if "--target" in twice else ("--target", "y")
    done = run("plan", write("d.parquet"), *target, *twice)
    assert (done.code, done.err) == (2, f"error: {message}\n")


def test_what_can_be_given_twice(run: CommandLine) -> None:
    done = run("plan", write("d.parquet"), "--target", "y", "--as", "x=number", "--as", "z=ignore", "--json", "--json")
    assert done.code == 0 and done.json["fits"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--out", ""), "out='': must be a path"),
        (("--continue-from", ""), "continue_from='': must be a path"),
        (("--epochs", "9" * 30), f"--epochs {'9' * 30}: must be from 1 to 1000000000"),
    ],
)
def test_a_value_that_would_do_harm_later(run: CommandLine, flags: tuple[str, str], message: str) -> None:
    before = sorted(Path().iterdir())
    done = run("fit", "d.parquet", "--target", "y", *flags)
    assert (done.code, done.err) == (2, f"error: {message}\n")
    assert sorted(Path().iterdir()) == before


def test_make_and_rechunk_write_to_a_folder_that_is_named(run: CommandLine) -> None:
    for arguments in (("make", "clicks", "--rows", "9"), ("rechunk", write("d/d.parquet"), "--chunk-rows", "9")):
        done = run(*arguments, "--out", "")
        assert (done.code, done.err) == (2, "error: out='': must be a path\n")

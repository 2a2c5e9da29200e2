"""A run that was stopped, however often and wherever, and goes on, ends with the bits of one that was left alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from hypothesis import Phase, given
from hypothesis import strategies as st
from make import WAIT, CommandLine, content, examples, state

from streamtrain import fit, load_model
from streamtrain.errors import RunError, StreamtrainError, UsageError
from streamtrain.runs.checkpoint import Checkpoints
from streamtrain.runs.folder import RunFolder, to_json
from streamtrain.train.history import Scores
from streamtrain.train.trainer import Trainer

ROWS, GROUP = 480, 24
AT_ONCE = 2  # batches
own_steps = Trainer._batches_at_once
NUMBERS = ["a", "b", "c"]
MUCH = 10**6  # seconds


def table(rows: int = ROWS, seed: int = 0) -> pa.Table:
    """Numbers, of which some are missing, a category, text and weights; y is one of two classes, m one of three, z a number
    far from 0, n a count."""
    rng = np.random.default_rng(seed)
    x, kinds = rng.normal(size=(rows, 3)), rng.integers(0, 20, rows)
    score = x @ [1.0, -2.0, 0.5] + 0.3 * (kinds % 5) + rng.normal(size=rows)
    words = rng.integers(0, 200, (rows, 5))
    return pa.table(
        {
            "a": pa.array(x[:, 0], mask=rng.random(rows) < 0.1), "b": x[:, 1].astype("f4"), "c": x[:, 2] * 1e3,
            "k": [f"k{v}" for v in kinds], "t": [" ".join(f"w{v}" for v in row) for row in words],
            "w": rng.exponential(size=rows), "y": (score > 1).astype(int),
            "m": np.array(["low", "mid", "high"])[np.digitize(score, [-1, 1])], "z": 1e6 + 3 * score,
            "n": rng.poisson(np.exp(np.clip(x[:, 0], -2, 2))),
        }
    )  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def short_steps() -> Iterator[None]:
    """So that there are many. And nobody pulls the plug."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        patch.setattr(Trainer, "_batches_at_once", lambda _: AT_ONCE)
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data sets, each under its name; and a folder of runs."""
    root = tmp_path_factory.mktemp("world")
    for name, seed in (("parquet", 0), ("other", 1), ("damaged", 0)):
        (root / name).mkdir()
        for part in range(2):
            rows = table(ROWS // 2, seed * 10 + part)
            if (name, part) == ("damaged", 0):
                rows = rows.set_column(6, "y", pa.array([None, None, *rows["y"].to_pylist()[2:]]))
            options: dict[str, Any] = {"row_group_size": GROUP, "write_page_checksum": True, "use_dictionary": False}
            pq.write_table(rows, root / name / f"{part}.parquet", **options)
    path = root / "damaged/1.parquet"
    pages = pq.read_metadata(path).row_group(2).column(1)
    damaged = bytearray(path.read_bytes())
    damaged[pages.data_page_offset + pages.total_compressed_size - 9] ^= 1
    path.write_bytes(damaged)
    pq.write_table(table(), root / "large.parquet", row_group_size=ROWS // 2)
    group, rows = zarr.create_group(root / "zarr"), table()
    group.create_array("X", data=np.stack([rows["b"], rows["c"]], axis=1).astype("f4"), chunks=(GROUP, 2))
    group.create_array("k", data=np.array([int(k[1:]) for k in rows["k"].to_pylist()]), chunks=(GROUP,))
    group.create_array("y", data=rows["y"].to_numpy(), chunks=(GROUP,))
    return root


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "parquet": ("parquet", {"target": "y", "features": [*NUMBERS, "k"]}),
    "zarr": ("zarr", {"target": "y", "roles": {"k": "category"}}),
    "in memory": ("table", {"target": "y", "features": [*NUMBERS, "k"], "crosses": ["k:a"], "roles": {"a": "category"}}),
    "text and weights": (
        "parquet",
        {"target": "y", "features": ["a", "k", "t"], "roles": {"t": "text"}, "weight": "w", "hash_bits": 8},
    ),
    "streamed chunks": ("large.parquet", {"target": "y", "features": [*NUMBERS, "k"], "holdout": 0.1}),
    "file order": ("parquet", {"target": "y", "features": NUMBERS, "shuffle": False}),
    "held out": ("parquet", {"target": "y", "features": NUMBERS, "holdout": 0.2}),
    "patience": (
        "parquet", {"target": "y", "features": [*NUMBERS, "t"], "roles": {"t": "text"}, "epochs": 9, "patience": 2,
                    "validate": "other", "average": False, "optimizer": "adam", "learning_rate": 0.05},
    ),
    "patience, held out": ("table", {"target": "z", "features": NUMBERS, "holdout": 0.3, "patience": 3}),
    "regression": ("parquet", {"target": "z", "features": [*NUMBERS, "k"], "validate": "other"}),
    "counts": ("parquet", {"target": "n", "task": "regress", "features": NUMBERS, "loss": "poisson"}),
    "softmax": ("parquet", {"target": "m", "features": [*NUMBERS, "k"], "holdout": 0.1, "optimizer": "ftrl", "l1": 1e-3}),
    "several": ("table", {"target": ["z", "b"], "features": ["k"], "holdout": 0.1, "optimizer": "momentum"}),
    "class weights": ("zarr", {"target": "y", "class_weight": "balanced", "l2": 1e-4}),
    "classes": ("parquet", {"target": "m", "features": NUMBERS, "classes": ["low", "mid", "high", "none"]}),
    "skipped": (
        "damaged", {"target": "y", "features": [*NUMBERS, "k"], "on_error": "skip", "max_skipped": 0.5, "holdout": 0.1},
    ),
}  # fmt: skip
DEFAULTS = {"epochs": 2, "window_rows": 120, "batch_size": 16, "seed": 5}


def asked(world: Path, case: str) -> tuple[Any, dict[str, Any]]:
    """Data and settings."""
    name, own = CASES[case]
    found = DEFAULTS | own
    if "validate" in found:
        found["validate"] = world / found["validate"]
    return table() if name == "table" else world / name, found


SAME = ("rows", "rows_seen", "batches", "epochs", "learner", "loss", "task", "classes", "targets", "batch_size", "metrics",
        "per_class", "best_epoch", "preparation", "skipped", "fingerprint", "lineage")  # fmt: skip


def outcome(run: Path) -> dict[str, Any]:
    """All that must be the same."""
    report = json.loads((run / "report.json").read_text())
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = {name: report[name] for name in SAME} | {"window_rows": report["plan"]["window_rows"]}
    found["lines"] = [{name: value for name, value in line.items() if name != "seconds"} for line in lines]
    return found | {name: (run / name).read_bytes() for name in ("model.safetensors", "model.json")}


# -- stopping --------------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process is gone: nothing is put away any more."""


@dataclass(frozen=True)
class Stop:
    """How a run is stopped. share: of the batches of an undisturbed run. kept: when there are checkpoints."""

    share: float
    by_signal: bool = False
    kept: str = "each step"
    threads: int | None = None
    memory: str | None = None
    brief: bool = False  # whether a run that goes on is told no more than it needs


@contextmanager
def stopping(stop: Stop, batches: int) -> Iterator[None]:
    """A fit in this block stops, if it gets so far. batches: of an undisturbed run."""
    left, on_the_way = [max(1, round(stop.share * batches / AT_ONCE))], Scores.on_the_way

    def counted(*found: Any) -> Any:
        left[0] -= 1
        if not left[0] and not stop.by_signal:
            raise Killed
        if not left[0]:
            signal.raise_signal(signal.SIGINT)
        return on_the_way(*found)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scores, "on_the_way", counted)  # it is called in each step
        if stop.kept != "never":
            patch.setattr("streamtrain.runs.checkpoint._COST_MULTIPLE", 0)
        yield


def stopped(data: Any, out: Path, stop: Stop, batches: int, **asked: Any) -> bool:
    """Fit, or go on; whether it was stopped."""
    if stop.brief and any(out.glob("checkpoints/checkpoint-*")):
        asked = {}
    asked = asked | {name: v for name in ("threads", "memory") if (v := getattr(stop, name))}
    seconds = 0.0 if stop.kept == "each step" else MUCH
    with stopping(stop, batches):
        try:
            fit(data, out=out, resume=True, checkpoint_seconds=seconds, **asked)
        except (Killed, KeyboardInterrupt):
            return True
    return False


undisturbed: dict[tuple[str, int], dict[str, Any]] = {}  # by case and further epochs


def expected(world: Path, case: str, further: int = 0) -> dict[str, Any]:
    """Of a run that nobody stopped. further: so many epochs more than the case has."""
    if (case, further) not in undisturbed:
        data, settings = asked(world, case)
        out = world / f"run of {case}{' and more' * bool(further)}"
        fit(data, out=out, **(settings | {"epochs": settings["epochs"] + further}))
        undisturbed[case, further] = outcome(out)
    return undisturbed[case, further]


stops = st.builds(
    Stop, share=st.floats(0, 0.95), by_signal=st.booleans(), kept=st.sampled_from(["each step", "each epoch", "never"]),
    threads=st.sampled_from([None, 1, 4]), memory=st.sampled_from([None, "3GB", "4GB"]), brief=st.booleans(),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@examples(2, phases=[Phase.reuse, Phase.generate])
@given(found=st.lists(stops, min_size=1, max_size=2))
def test_the_same_bits(world: Path, case: str, found: Sequence[Stop]) -> None:
    (data, settings), whole = asked(world, case), expected(world, case)
    out = world / "run"
    shutil.rmtree(out, ignore_errors=True)
    assert stopped(data, out, found[0], whole["batches"], **settings)
    for stop in found[1:]:
        stopped(data, out, stop, whole["batches"], **settings)
    result = fit(data, out=out, resume=True, **settings)
    assert outcome(out) == whole
    assert state(result.model) == state(load_model(out))
    assert json.loads(to_json(result.as_dict())) == json.loads((out / "report.json").read_text())


def test_what_the_cases_are_about(world: Path) -> None:
    """Otherwise they would show little."""
    early = expected(world, "patience")
    assert early["epochs"] < 9 and early["best_epoch"] < early["epochs"] - 1
    skipped = expected(world, "skipped")["skipped"]
    assert [entry["rows"] for entry in skipped] == [4, 2 * GROUP], skipped  # in two epochs
    assert {line["epoch"] for line in expected(world, "parquet")["lines"]} == {0, 1}
    assert json.loads((world / "run of patience/report.json").read_text())["resumes"] == 0
    expected(world, "streamed chunks")
    assert json.loads((world / "run of streamed chunks/report.json").read_text())["plan"]["streamed_chunks"] == 2


@pytest.mark.parametrize("share", [0.15, 0.95], ids=["before", "behind"])
def test_stopped_before_and_behind_the_best_epoch(world: Path, tmp_path: Path, share: float) -> None:
    (data, settings), whole = asked(world, "patience"), expected(world, "patience")
    assert 0.2 < (whole["best_epoch"] + 1) / whole["epochs"] < 0.9
    assert stopped(data, tmp_path / "r", Stop(share), whole["batches"], **settings)
    report = fit(data, out=tmp_path / "r", resume=True).report
    assert outcome(tmp_path / "r") == whole and report.resumes == 1
    assert report.time["checkpoint"] > 0 and 0 <= report.time["wait"] < report.seconds


def test_by_a_signal_nothing_is_learned_twice(world: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The checkpoint is of the step in which the signal came; of the window that is read again, it says so."""
    (data, settings), whole = asked(world, "streamed chunks"), expected(world, "streamed chunks")
    stop = Stop(0.5, by_signal=True, kept="never")
    assert stopped(data, tmp_path / "r", stop, whole["batches"], **settings)
    caplog.set_level("INFO", "streamtrain")
    caplog.clear()
    fit(data, out=tmp_path / "r", resume=True)
    assert outcome(tmp_path / "r") == whole
    (text,) = (record.message for record in caplog.records if record.levelname == "INFO")
    found = re.fullmatch(
        r"resuming in epoch (\d) of 2 after ([\d,]+) rows: window (\d) of \d is read again, its streamed chunks from "
        r"their start", text
    )  # fmt: skip
    assert found and int(found[2].replace(",", "")) > 0.3 * whole["rows_seen"], text


def test_with_a_cluster_instead_of_threads(world: Path, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    (data, settings), whole = asked(world, "held out"), expected(world, "held out")
    assert stopped(data, tmp_path / "r", Stop(0.4), whole["batches"], **settings)
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address=None
        ) as cluster,
        distributed.Client(cluster, timeout=WAIT, set_as_default=False) as client,
    ):
        fit(data, out=tmp_path / "r", resume=True, cluster=client)
    assert outcome(tmp_path / "r") == whole


def test_killed_between_the_last_checkpoint_and_the_model(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (data, settings), whole = asked(world, "patience, held out"), expected(world, "patience, held out")
    for place in (
        "streamtrain.runs.folder.RunFolder.write",
        "streamtrain.model.Model.save",
        "streamtrain.runs.folder.to_json",
    ):
        out = tmp_path / place
        with monkeypatch.context() as patch:
            if place.endswith("to_json"):  # once the model's files are there
                patch.setattr(Path, "replace", _killed_at("report.json", Path.replace))
            else:
                patch.setattr(place, _killed)
            with pytest.raises(Killed):
                fit(data, out=out, **settings)
        assert not (out / "report.json").exists()
        assert fit(data, out=out, resume=True).report.resumes == 1
        assert outcome(out) == whole
        assert sorted(p.name for p in out.iterdir()) == [
            "checkpoints", "metrics.jsonl", "model.json", "model.safetensors", "report.json",
        ]  # fmt: skip


def test_killed_before_the_report_of_more_epochs(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report that is there is of fewer."""
    data, _ = asked(world, "held out")
    expected(world, "held out")
    shutil.copytree(world / "run of held out", tmp_path / "r")
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write", _killed)
        with pytest.raises(Killed):
            fit(data, out=tmp_path / "r", resume=True, epochs=3)
    result = fit(data, out=tmp_path / "r", resume=True)
    assert outcome(tmp_path / "r") == expected(world, "held out", 1) and result.report.epochs == 3


def _killed(*_: Any, **__: Any) -> None:
    raise Killed


def _killed_at(name: str, replace: Callable[..., Any]) -> Callable[..., Any]:
    def replaced(path: Path, target: Path) -> Any:
        return _killed() if path.name == name else replace(path, target)

    return replaced


def test_the_last_two_checkpoints_are_kept(world: Path, tmp_path: Path) -> None:
    (data, settings), whole = asked(world, "parquet"), expected(world, "parquet")
    stopped(data, tmp_path / "r", Stop(0.5), whole["batches"], **settings)
    found = sorted(p.name for p in (tmp_path / "r/checkpoints").iterdir())
    assert len(found) == 2 and found[1] > "checkpoint-00000010", found


@pytest.mark.parametrize("damage", ["flipped", "empty"])
def test_a_damaged_checkpoint(world: Path, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    """The one before it is taken, and it says so; where none is whole, nothing is done."""
    (data, settings), whole = asked(world, "patience"), expected(world, "patience")
    out = tmp_path / "r"
    stopped(data, out, Stop(0.5), whole["batches"], **settings)
    before, newest = sorted((out / "checkpoints").iterdir())
    for path in (newest, before):
        found = bytearray(path.read_bytes())
        found[len(found) // 2] ^= 4
        path.write_bytes({"flipped": found, "empty": b""}[damage])
        if path == newest:
            shutil.copytree(out, tmp_path / "copy")
    was = content(out)
    with pytest.raises(RunError, match="no checkpoint can be read"):
        fit(data, out=out, resume=True)
    assert content(out) == was
    out = tmp_path / "copy"
    report = fit(data, out=out, resume=True).report
    assert outcome(out) == whole
    warning = next(text for text in report.warnings if newest.name in text)
    assert warning.endswith("the checkpoint before it is used") and caplog.messages.count(warning) == 1


# -- more epochs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["softmax", "skipped", "patience, held out"])
@pytest.mark.parametrize("is_finished", [True, False], ids=["finished", "stopped"])
def test_more_epochs(world: Path, tmp_path: Path, case: str, is_finished: bool) -> None:
    """They give what a run of so many gives."""
    data, settings = asked(world, case)
    whole, more = expected(world, case), settings["epochs"] + 2
    if is_finished:
        shutil.copytree(world / f"run of {case}", tmp_path / "r")
    else:
        stopped(data, tmp_path / "r", Stop(0.6), whole["batches"], **settings)
    result = fit(data, out=tmp_path / "r", resume=True, epochs=more, threads=1, memory="4GB")
    assert outcome(tmp_path / "r") == expected(world, case, 2) != whole
    assert result.report.settings["epochs"] == more and result.report.epochs == more


def test_no_more_epochs_where_patience_was_at_its_end(
    world: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected(world, "patience")
    shutil.copytree(world / "run of patience", tmp_path / "r")
    was = content(tmp_path / "r")
    caplog.set_level("INFO", "streamtrain")
    caplog.clear()
    result = fit(world / "parquet", out=tmp_path / "r", resume=True, epochs=40)
    assert content(tmp_path / "r") == was and result.as_dict() == json.loads(was["report.json"])
    (text,) = (record.message for record in caplog.records if record.levelname == "INFO")
    assert "is finished" in text and "(--patience)" in text


def test_fewer_epochs_than_there_were(world: Path, tmp_path: Path) -> None:
    """A finished run stays as it is; one that was stopped ends with what it has."""
    data, settings = asked(world, "held out")
    whole = expected(world, "held out")
    shutil.copytree(world / "run of held out", tmp_path / "r")
    was = content(tmp_path / "r")
    assert fit(data, out=tmp_path / "r", resume=True, epochs=1).report.epochs == 2
    assert content(tmp_path / "r") == was
    assert stopped(data, tmp_path / "s", Stop(1.2, by_signal=True), whole["batches"], **settings)
    known = Checkpoints(tmp_path / "s/checkpoints").look()
    assert known is not None and known["cursor"]["epoch"] == 1 and known["cursor"]["row"]
    with pytest.raises(RunError, match="--epochs 1: the run is already in epoch 2: give 2 or more"):
        fit(data, out=tmp_path / "s", resume=True, epochs=1)
    fit(data, out=tmp_path / "s", resume=True, epochs=2)
    assert outcome(tmp_path / "s") == whole


# -- a finished run --------------------------------------------------------------------------------------------------------


def test_a_finished_run_says_so_and_stays_as_it_is(world: Path, cli: CommandLine) -> None:
    data, _ = asked(world, "held out")
    whole, run = expected(world, "held out"), world / "run of held out"
    was, times = content(run), {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()}
    code, out, err = cli("fit", data, "--out", run, "--resume", "--json")
    assert code == 0 and out.count("\n") == 1
    assert json.loads(out) == json.loads((run / "report.json").read_text())
    assert err == f"{run} is finished: 2 epochs; --epochs 3 or more continues it\n"
    code, out, err = cli("fit", data, "--target", "y", "--out", run, "--resume", "--epochs", 2)
    assert code == 0 and "accuracy" in out and f"{whole['rows_seen']:,} rows" in out and "is finished" in err
    result = fit(data, out=run, resume=True)
    assert result.report.rows_seen == result.as_dict()["rows_seen"] == whole["rows_seen"]
    assert state(result.model) == state(load_model(run))
    assert content(run) == was and {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()} == times


def test_a_resume_on_the_command_line(world: Path, tmp_path: Path, cli: CommandLine) -> None:
    (data, settings), whole = asked(world, "softmax"), expected(world, "softmax")
    stopped(data, tmp_path / "r", Stop(0.5), whole["batches"], **settings)
    code, out, err = cli("fit", data, "--out", tmp_path / "r", "--resume", "--json", "--threads", 1)
    assert code == 0 and err.startswith("resuming in epoch") and err.count("\n") == 1, err
    assert json.loads(out) == json.loads((tmp_path / "r/report.json").read_text())
    assert outcome(tmp_path / "r") == whole


# -- where there is nothing to go on with, or something else ------------------------------------------------------------------


@pytest.mark.parametrize("there", ["nothing", "an empty folder", "scores", "what was being written"])
def test_from_the_beginning(world: Path, tmp_path: Path, there: str) -> None:
    (data, settings), whole = asked(world, "parquet"), expected(world, "parquet")
    out = tmp_path / "deep/r"
    if there != "nothing":
        out.mkdir(parents=True)
    if there == "scores":
        (out / "metrics.jsonl").write_text('{"epoch": 77}\n')
    elif there == "what was being written":
        (out / "checkpoints").mkdir()
        (out / "checkpoints/.writing-abc").mkdir()
        (out / "checkpoints/.writing-abc/checkpoint-00000001.safetensors").write_bytes(b"half")
        (out / ".writing-abc").mkdir()
        (out / ".writing-abc/model.json").write_text("{")
    with pytest.raises(UsageError, match=r"--target: required, as there is no run to resume"):
        fit(data, out=out, resume=True)
    fit(data, out=out, resume=True, **settings)
    assert outcome(out) == whole
    assert not list(out.rglob(".*"))


@pytest.mark.parametrize("resume", [True, False])
def test_a_folder_that_is_no_run(world: Path, tmp_path: Path, resume: bool) -> None:
    for name, make in (("file", Path.touch), ("folder", Path.mkdir)):
        own = tmp_path / name
        own.mkdir()
        make(own / "mine")
        was = content(own)
        with pytest.raises(RunError, match=f"--out .*{name}: exists and is not a run of streamtrain"):
            fit(world / "parquet", target="y", out=own, resume=resume)
        assert content(own) == was


def test_an_existing_run_without_resume(world: Path, tmp_path: Path) -> None:
    (data, settings), whole = asked(world, "parquet"), expected(world, "parquet")
    stopped(data, tmp_path / "r", Stop(0.3), whole["batches"], **settings)
    for run in (tmp_path / "r", world / "run of parquet"):
        was = content(run)
        with pytest.raises(
            RunError, match="already contains a run: add --resume to continue it, or name another folder"
        ):
            fit(data, out=run, **settings)
        assert content(run) == was


def test_a_finished_run_whose_checkpoints_were_removed(world: Path, tmp_path: Path) -> None:
    expected(world, "parquet")
    shutil.copytree(world / "run of parquet", tmp_path / "r")
    shutil.rmtree(tmp_path / "r/checkpoints")
    was = content(tmp_path / "r")
    with pytest.raises(RunError, match="contains a finished run without a checkpoint"):
        fit(world / "parquet", out=tmp_path / "r", resume=True)
    assert content(tmp_path / "r") == was


def test_one_writer(world: Path, tmp_path: Path) -> None:
    data, settings = asked(world, "parquet")
    refused: list[str] = []

    def second(_: Any) -> None:
        for resume in (False, True) if len(refused) < 4 else ():  # each waits for the lock for a moment
            with pytest.raises(RunError) as caught:
                fit(data, out=tmp_path / "r", resume=resume, **settings)
            refused.append(str(caught.value))

    fit(data, out=tmp_path / "r", progress=second, **settings)
    assert refused and all("is writing this run: wait for it, or name another folder" in text for text in refused)
    assert outcome(tmp_path / "r") == expected(world, "parquet")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"resume": True, "target": "y"}, "--resume needs --out RUN"),
        ({}, "--target: required: the column to predict"),
        ({"target": "y", "checkpoint_seconds": -1}, "--checkpoint-seconds -1: must be at least 0"),
        ({"target": "y", "checkpoint_seconds": float("nan")}, "--checkpoint-seconds nan: must be"),
        ({"target": "y", "checkpoint_seconds": True}, "checkpoint_seconds=True: must be a number"),
        ({"target": "y", "checkpoint_seconds": "5"}, "checkpoint_seconds='5': must be a number"),
    ],
)
def test_what_cannot_be_asked(world: Path, given: Mapping[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        fit(world / "no such data", **given)


def test_a_run_can_be_saved_where_it_could_not_before(world: Path, tmp_path: Path) -> None:
    """The same folder, once the disk has room again."""
    data, settings = asked(world, "held out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", _full)
        with pytest.raises(RunError, match=r"--out .*: cannot be written: .*No space left on device"):
            fit(data, out=tmp_path / "r", **settings)
    assert not list((tmp_path / "r").rglob("*writing*"))
    fit(data, out=tmp_path / "r", resume=True, **settings)
    assert outcome(tmp_path / "r") == expected(world, "held out")


def _full(*_: Any, **__: Any) -> None:
    raise OSError(28, "No space left on device")


def test_every_checkpoint_is_of_the_folder_that_has_the_lock(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "r") as folder, pytest.raises(StreamtrainError, match="is writing this run"):
        RunFolder(folder.path, resume=True)
    assert not (tmp_path / "r").exists()


# -- a budget that cannot hold the window -------------------------------------------------------------------------------------


def test_a_budget_that_cannot_hold_the_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused with one that does; a smaller window would be another order."""
    monkeypatch.setattr(Trainer, "_batches_at_once", own_steps)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40_000, 60)).astype("f4")
    data = tmp_path / "d.parquet"
    columns = {f"x{j}": X[:, j] for j in range(60)} | {"y": (X[:, 0] > 0).astype(int)}
    pq.write_table(pa.table(columns), data, row_group_size=3000, use_dictionary=False)
    fit(data, target="y", out=tmp_path / "r", batch_size=512)
    fit(data, target="y", out=tmp_path / "at once", batch_size=512, epochs=2)
    was = content(tmp_path / "r")

    def resumed(memory: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "streamtrain", "fit", data, "--out", tmp_path / "r", "--resume", "--json",
                   "--epochs", "2", "--memory", memory]  # fmt: skip
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60)

    done = resumed("110MB")
    assert done.returncode == 3 and done.stdout == "" and content(tmp_path / "r") == was
    advice = done.stderr.splitlines()[-1]
    found = re.match(r"What would help: --memory (\d+MB) or more: the run has windows of 40,000 rows", advice)
    assert found and not re.search("--window-rows|--hash-bits|--features|--exclude|rechunk", advice), advice
    done = resumed(found[1])
    assert done.returncode == 0, done.stderr
    assert outcome(tmp_path / "r") == outcome(tmp_path / "at once")

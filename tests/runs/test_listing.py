"""`streamtrain runs`: real runs in every state, and folders that hold what nobody expects."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make import WAIT, CommandLine, wait_for

import streamtrain
from streamtrain.errors import RunError, UsageError
from streamtrain.model import tensors
from streamtrain.runs.checkpoint import Checkpoints
from streamtrain.runs.listing import list_runs
from streamtrain.runs.lock import LOCK, FolderLock

ROWS = 3000
Table = dict[str, Any]


def table(kind: str = "classify") -> Table:
    x = np.random.default_rng(0).normal(size=ROWS)
    return {"x": x, "y": (x > 0).astype(int) if kind == "classify" else 3 * x}


def stop(error: BaseException, *, epoch: int = 1) -> Callable[[Any], None]:
    """What ends a fit when as many epochs are over."""

    def progress(now: Any) -> None:
        if now.epoch >= epoch:
            raise error

    return progress


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in each state but running, and a folder that is none."""
    folder = tmp_path_factory.mktemp("made")
    streamtrain.fit(table(), target="y", out=folder / "b-first", epochs=2, holdout=0.2)
    streamtrain.fit(table(), out=folder / "a-second", continue_from=folder / "b-first", validate=table())
    with pytest.raises(KeyboardInterrupt):
        streamtrain.fit(
            table("regress"), target="y", out=folder / "c-stopped", epochs=5, progress=stop(KeyboardInterrupt())
        )
    with pytest.raises(ZeroDivisionError):
        streamtrain.fit(table(), target="y", out=folder / "d-failed", epochs=5, progress=stop(ZeroDivisionError()))
    (folder / "e-notes").mkdir()
    (folder / "e-notes" / LOCK).touch()
    (folder / "notes.txt").touch()
    return folder


@pytest.fixture
def tree(made: Path, tmp_path: Path) -> Path:
    """A copy, to be changed."""
    return Path(shutil.copytree(made, tmp_path / "runs"))


def by_name(*folders: Path) -> dict[str, dict[str, Any]]:
    return {Path(run["run"]).name: run for run in list_runs(*folders)}


# -- states ------------------------------------------------------------------------------------------------------------


def test_states_in_order_of_names(made: Path) -> None:
    states = [(run["run"], run["state"]) for run in list_runs(made)]
    names = {"a-second": "finished", "b-first": "finished", "c-stopped": "stopped", "d-failed": "failed"}
    assert states == [(str(made / name), state) for name, state in names.items()]
    assert all(run["problem"] is None for run in list_runs(made))


def test_a_finished_run_is_as_its_report_says(made: Path) -> None:
    run, report = by_name(made)["b-first"], json.loads((made / "b-first/report.json").read_text())
    same = ("task", "targets", "loss", "epochs", "rows_seen", "metrics", "best_epoch", "seconds", "resumes", "lineage",
            "changes")  # fmt: skip
    assert {name: run[name] for name in same} == {name: report[name] for name in same}
    assert (run["epochs"], run["epochs_asked"]) == (2, 2) and run["metrics"]["holdout"]["accuracy"] > 0.9
    assert run["checkpoint"] == {"epoch": 2, "rows_seen": run["rows_seen"]}
    files = [path for path in (made / "b-first").rglob("*") if path.is_file()]
    assert run["bytes"] == sum(path.stat().st_size for path in files)
    newest = datetime.fromtimestamp(max(path.stat().st_mtime for path in files), UTC)
    assert datetime.fromisoformat(run["changed"]) == newest.replace(microsecond=0)


def test_lineage_of_a_run_that_continues_another(made: Path) -> None:
    runs = by_name(made)
    (parent,) = runs["a-second"]["lineage"]
    assert (parent["run"], parent["rows_seen"]) == (str(made / "b-first"), runs["b-first"]["rows_seen"])


def test_a_stopped_run_is_as_its_checkpoint_says(made: Path) -> None:
    run = by_name(made)["c-stopped"]
    known = Checkpoints(made / "c-stopped/checkpoints").look()
    assert known is not None
    assert (run["epochs"], run["epochs_asked"], run["rows_seen"]) == (1, 5, ROWS)
    assert run["metrics"] == {name: known["history"]["lines"][-1][name] for name in run["metrics"]}
    assert run["metrics"]["progressive"]["rmse"] > 0
    assert (run["task"], run["targets"], run["loss"]) == ("regress", ["y"], "squared")
    assert run["checkpoint"] == {"epoch": known["cursor"]["epoch"], "rows_seen": ROWS}
    assert run["seconds"] == round(known["seconds"]["loop"], 4)


def test_a_failed_run_has_its_last_scores(made: Path) -> None:
    run = by_name(made)["d-failed"]
    last = json.loads((made / "d-failed/metrics.jsonl").read_text().splitlines()[-1])
    assert (run["rows_seen"], run["metrics"]["progressive"], run["seconds"]) == (
        ROWS,
        last["progressive"],
        last["seconds"],
    )
    assert run["checkpoint"] is None and run["task"] is None and run["epochs_asked"] is None


def test_a_finished_run_that_was_asked_for_more_and_stopped(tree: Path) -> None:
    first = tree / "b-first"
    with pytest.raises(KeyboardInterrupt):
        streamtrain.fit(table(), out=first, resume=True, epochs=5, progress=stop(KeyboardInterrupt(), epoch=3))
    run = by_name(tree)["b-first"]
    assert (run["state"], run["epochs"], run["epochs_asked"], run["resumes"]) == ("stopped", 3, 5, 1)
    report = (first / "report.json").read_bytes()
    streamtrain.fit(table(), out=first, resume=True, epochs=4)
    run = by_name(tree)["b-first"]
    assert (run["state"], run["epochs"], run["epochs_asked"], run["resumes"]) == ("finished", 4, 4, 2)
    (first / "report.json").write_bytes(report)  # as if it was killed before it wrote a new one
    run = by_name(tree)["b-first"]
    assert (run["state"], run["epochs"]) == ("stopped", 4)


def test_a_run_that_patience_ended_is_finished(tmp_path: Path) -> None:
    streamtrain.fit(table(), target="y", out=tmp_path / "r", epochs=50, holdout=0.2, patience=1, learning_rate=1e-9)
    (run,) = list_runs(tmp_path)
    assert run["state"] == "finished" and run["epochs"] < run["epochs_asked"] == 50 and run["best_epoch"] is not None


def test_a_report_without_a_checkpoint_is_finished_and_with_another_one_is_not(tree: Path) -> None:
    shutil.rmtree(tree / "b-first/checkpoints")
    shutil.copy(tree / "a-second/report.json", tree / "c-stopped")
    runs = by_name(tree)
    assert (runs["b-first"]["state"], runs["b-first"]["checkpoint"]) == ("finished", None)
    assert (runs["c-stopped"]["state"], runs["c-stopped"]["epochs_asked"]) == ("stopped", 5)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_run_under_way_then_stopped_then_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.table(table()), "t.parquet")
    fit = [sys.executable, "-m", "streamtrain", "fit", "t.parquet", "--target", "y", "--out", "r", "--epochs", "100000"]
    with subprocess.Popen(fit, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            scores = tmp_path / "r/metrics.jsonl"
            wait_for(
                lambda: (scores.exists() and scores.stat().st_size) or process.poll() is not None, "the first scores"
            )
            before = list_runs("r")[0]
            process.send_signal(signal.SIGINT)
            assert process.wait(WAIT) == 130
        finally:
            process.kill()
    assert before["state"] == "running" and before["rows_seen"] > 0 and before["problem"] is None
    assert before["metrics"]["progressive"]["loss"] > 0
    after = list_runs("r")[0]
    assert (after["state"], after["epochs_asked"]) == ("stopped", 100_000) and after["rows_seen"] >= before["rows_seen"]
    streamtrain.fit("t.parquet", out="r", resume=True, epochs=after["epochs"] + 1)
    (run,) = list_runs("r")
    assert (run["state"], run["epochs"], run["resumes"]) == ("finished", after["epochs"] + 1, 1)


@pytest.mark.parametrize("mode", ["a", "w"])
def test_what_a_run_under_way_has_learned_since_its_checkpoint(tree: Path, mode: str) -> None:
    """Its scores are newer, but for what they do not tell; the last line is half written."""
    (before,) = list_runs(tree / "c-stopped")
    line = {
        "epoch": 3,
        "rows_seen": 10_000,
        "seconds": 7.5,
        "progressive": None,
        "holdout": {"loss": 0.5},
        "validation": None,
    }
    with open(tree / "c-stopped/metrics.jsonl", mode) as file:
        file.write(json.dumps(line) + '\n{"epoch": 4, "rows_')
    assert list_runs(tree / "c-stopped")[0] | {"bytes": 0, "changed": ""} == before | {"bytes": 0, "changed": ""}
    lock = FolderLock(tree / "c-stopped")
    (run,) = list_runs(tree / "c-stopped")
    lock.release()
    assert (run["state"], run["epochs"], run["rows_seen"], run["seconds"]) == ("running", 3, 10_000, 7.5)
    assert run["metrics"] == before["metrics"] | {"holdout": {"loss": 0.5}}
    assert (run["targets"], run["checkpoint"]) == (["y"], before["checkpoint"])


def test_a_run_that_has_just_begun(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path / "r")
    (run,) = list_runs(tmp_path)
    lock.release()
    assert (run["state"], run["rows_seen"], run["targets"]) == ("running", 0, None)


# -- which -------------------------------------------------------------------------------------------------------------


def test_each_run_once_in_the_order_that_was_asked(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to(made / "c-stopped")
    found = [run["run"] for run in list_runs(tmp_path, made / "b-first", made)]
    assert found == [str(path) for path in (tmp_path / "link", made / "b-first", made / "a-second", made / "d-failed")]
    monkeypatch.chdir(made)
    assert [run["run"] for run in list_runs(".")] == ["a-second", "b-first", "c-stopped", "d-failed"]


def test_sorted_by_a_score_the_best_first(tmp_path: Path) -> None:
    """An error rises, an accuracy falls; runs without the score stay at the end, in their order."""

    def add(name: str, **metrics: Any) -> None:
        report = {
            "task": "classify", "targets": ["y"], "loss": "logistic", "epochs": 1, "settings": {"epochs": 1}, "rows_seen": 9,
            "metrics": metrics, "seconds": 1.0,
        }  # fmt: skip
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(json.dumps(report))

    add("a", progressive={"loss": 0.1, "accuracy": 0.9})
    add("b")
    add("c", progressive={"loss": 0.5, "accuracy": 0.7}, holdout={"loss": 0.05, "accuracy": 0.95})
    add("d", progressive={"loss": 0.0, "accuracy": 0.8}, holdout={"loss": None, "accuracy": 0.99})
    add("e", validation={"loss": 0.3, "mae": 2})

    def order(sort: str | None) -> str:
        return "".join(Path(run["run"]).name for run in list_runs(tmp_path, sort=sort))

    assert order(None) == "abcde"
    assert order("loss") == "caebd" and order("accuracy") == "dcabe" and order("mae") == "eabcd"
    assert order("progressive.loss") == "dacbe" and order("holdout.accuracy") == "dcabe"
    for unknown in ("auc", "x.loss", "holdout.mae", ""):
        with pytest.raises(
            UsageError, match="no run here has this score: name one of accuracy, loss, mae, alone or after"
        ):
            list_runs(tmp_path, sort=unknown)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "nowhere: no such folder"),
        ("notes.txt", "notes.txt: is a file: name the folder of a run"),
        ("e-notes", "e-notes: is not a run folder and contains none: name a folder that"),
    ],
)
def test_where_no_run_is(made: Path, cli: CommandLine, name: str, message: str) -> None:
    with pytest.raises(RunError, match=message):
        list_runs(made, made / name)
    code, out, err = cli("runs", made, made / name)
    assert (code, out) == (2, "") and err.startswith("error: ") and message in err and err.count("\n") == 1


def test_other_people_s_folders_are_no_runs(tree: Path) -> None:
    (tree / "e-notes/checkpoints").mkdir()
    (tree / "e-notes/checkpoints/epoch=1.ckpt").touch()
    assert "e-notes" not in by_name(tree)


# -- what cannot be read -----------------------------------------------------------------------------------------------


def _report(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        path = run / "report.json"
        path.write_text(json.dumps(change(json.loads(path.read_text()))))

    return damage


def _header(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        (path,) = (run / "checkpoints").iterdir()
        found = tensors.look(path)[0]
        known = json.loads(found["streamtrain"])
        known = known.pop("run") | known
        tensors.save(path, {}, metadata={"streamtrain": json.dumps(change(known))}, sealed=True)

    return damage


def _put(name: str, make: Callable[[Path], Any]) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        (run / name).unlink(missing_ok=True)
        make(run / name)

    return damage


CHECKPOINT = "checkpoints/checkpoint-00000099.safetensors"
DEEP = "[" * 100_000
DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a list": (_report(lambda told: [told]), "report.json: is not the report of a run"),
    "empty": (_put("report.json", Path.touch), "report.json: cannot be read"),
    "binary": (_put("report.json", lambda path: path.write_bytes(b"\xff\x00")), "report.json: cannot be read"),
    "deep": (_put("report.json", lambda path: path.write_text(DEEP)), "report.json: cannot be read: it is nested"),
    "a folder": (_put("report.json", Path.mkdir), "report.json: cannot be read: .*directory"),
    "a pipe": (_put("report.json", os.mkfifo), "report.json: is not a file"),
    "huge": (_report(lambda told: told | {"more": " " * 64_000_000}), "report.json: reading its text would take"),
    "text for a count": (_report(lambda told: told | {"rows_seen": "3"}), "report.json: .*its rows_seen is "),
    "true for a count": (_report(lambda told: told | {"epochs": True}), "its epochs is "),
    "a number too large": (_report(lambda told: told | {"epochs": 1 << 70}), "its epochs is "),
    "no settings": (_report(lambda told: told | {"settings": []}), "its settings.epochs is "),
    "not a number": (_report(lambda told: told | {"seconds": float("nan")}), "cannot be read: NaN is not JSON"),
    "other scores": (_report(lambda told: told | {"metrics": {"holdout": 3}}), "its metrics.holdout is 3"),
    "other lineage": (_report(lambda told: told | {"lineage": ["x"]}), "its lineage.0..run is missing"),
    "other changes": (_report(lambda told: told | {"changes": [3]}), "its changes.0..setting is missing"),
    "cut": (lambda run: os.truncate(next((run / "checkpoints").iterdir()), 5000), "checkpoint-00000001.*: is cut off"),
    "empty checkpoint": (_put(CHECKPOINT, Path.touch), "checkpoint-00000099.*: is cut off"),
    "no checkpoint": (_put(CHECKPOINT, lambda p: tensors.save(p, {})), "checkpoint-00000099.*: is not a checkpoint"),
    "checkpoint of pipes": (_put(CHECKPOINT, os.mkfifo), "checkpoint-00000099.*: is not a file"),
    "header without seconds": (_header(lambda told: told | {"seconds": {}}), "is not a checkpoint"),
    "header of a list": (_header(lambda told: [told]), "is not a checkpoint of streamtrain"),
    "header with other lines": (
        _header(lambda told: told | {"history": told["history"] | {"lines": [{"progressive": 1}]}}),
        "its history.lines.0..progressive is 1",
    ),
    "header without targets": (
        _header(lambda told: told | {"model": {"targets": [3]}}), "its model.targets.0..task is missing",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGES)
def test_damage_is_told_and_hides_no_other_run(tree: Path, cli: CommandLine, case: str) -> None:
    damage, message = DAMAGES[case]
    damage(tree / "b-first")
    runs = by_name(tree)
    assert runs["b-first"]["state"] == "damaged"
    assert [name for name in runs if runs[name]["problem"]] == ["b-first"]
    assert len(runs) == 4
    code, out, err = cli("runs", tree)
    assert (code, err) == (0, "") and re.search(r"b-first +damaged", out)
    code, out, _ = cli("runs", tree, "--json")
    found = {Path(run["run"]).name: run for run in json.loads(out, parse_constant=pytest.fail)["runs"]}["b-first"]
    assert code == 0 and re.search(message, found["problem"]), found["problem"]


def test_what_can_be_read_of_a_damaged_run_is_shown(tree: Path) -> None:
    before = by_name(tree)["b-first"]
    os.truncate(tree / "b-first/checkpoints/checkpoint-00000001.safetensors", 5000)
    after = by_name(tree)["b-first"]
    same = ("epochs", "rows_seen", "metrics", "loss", "seconds")
    assert [after[name] for name in same] == [before[name] for name in same] and after["checkpoint"] is None


def test_a_damaged_run_that_is_under_way_is_running(tree: Path) -> None:
    (tree / "b-first/report.json").write_text("[]")
    lock = FolderLock(tree / "b-first")
    run = by_name(tree)["b-first"]
    lock.release()
    assert run["state"] == "running" and "is not the report" in run["problem"]


def test_scores_that_are_none(tree: Path) -> None:
    before = by_name(tree)["d-failed"]
    last = json.loads((tree / "d-failed/metrics.jsonl").read_text().splitlines()[-1])
    lines = [
        json.dumps(last | {"progressive": None}),
        DEEP,
        "[]",
        "\xff",
        '{"epoch": -1}',
        '{"epoch": 1, "rows_seen": 1e9, "seconds": 1}',
        '{"epoch": 1, "progressive": 3}',
    ]
    with open(tree / "d-failed/metrics.jsonl", "a", encoding="latin-1") as file:
        file.write("\n".join(lines))
    after = by_name(tree)["d-failed"]
    assert after | {"bytes": 0, "changed": ""} == before | {"bytes": 0, "changed": ""}


def test_a_checkpoint_that_is_replaced_at_that_moment(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name was found, and then it was gone."""
    whole, gone = tensors.look, [FileNotFoundError(2, "gone")] * 2

    def load(path: Path, **how: Any) -> Any:
        if gone:
            raise gone.pop()
        return whole(path, **how)

    monkeypatch.setattr(tensors, "look", load)
    (run,) = list_runs(made / "c-stopped")
    assert (run["state"], gone) == ("stopped", [])
    gone = [FileNotFoundError(2, "gone")] * 50
    (run,) = list_runs(made / "c-stopped")
    assert run["state"] == "damaged" and "replaced faster than they can be read" in run["problem"] and len(gone) > 20


def test_a_run_that_is_removed_at_that_moment(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.path.realpath

    def realpath(path: Any) -> str:
        shutil.rmtree(tree / "d-failed", ignore_errors=True)
        return whole(path)

    monkeypatch.setattr(os.path, "realpath", realpath)
    runs = by_name(tree)
    assert [run["state"] for run in runs.values()] == ["finished", "finished", "stopped", "damaged"]
    assert runs["d-failed"]["problem"] == f"{tree / 'd-failed'}: cannot be read: No such file or directory"


@pytest.fixture
def guarded(made: Path) -> Iterator[Path]:
    """A copy that the process, now somebody unprivileged, may list."""
    folder = Path(tempfile.mkdtemp())
    shutil.copytree(made, folder / "runs")
    for path in (folder, folder / "runs"):
        path.chmod(0o755)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield folder / "runs"
    finally:
        os.seteuid(user)
        for path in (folder / "runs", *(folder / "runs").rglob("*")):
            path.chmod(0o755)
        shutil.rmtree(folder)


@pytest.mark.skipif(sys.platform == "win32", reason="permissions")
@pytest.mark.parametrize(
    ("name", "mode", "message"),
    [
        ("b-first", 0o000, "b-first: cannot be read: Permission denied"),
        ("b-first", 0o444, "b-first/.*: cannot be read: Permission denied"),
        ("b-first/report.json", 0o000, "report.json: cannot be read: .*Permission denied"),
        ("b-first/checkpoints", 0o000, "checkpoints: cannot be read: Permission denied"),
        ("b-first/checkpoints/checkpoint-00000001.safetensors", 0o000, "checkpoint-00000001.*Permission denied"),
    ],
)
def test_what_may_not_be_read(guarded: Path, name: str, mode: int, message: str) -> None:
    me = os.geteuid()
    os.seteuid(guarded.stat().st_uid)
    (guarded / name).chmod(mode)
    os.seteuid(me)
    runs = by_name(guarded)
    assert re.search(message, runs["b-first"]["problem"]), runs["b-first"]["problem"]
    assert [run["state"] for run in runs.values()] == ["finished", "damaged", "stopped", "failed"]


@pytest.mark.skipif(sys.platform == "win32", reason="permissions")
def test_a_folder_that_may_not_be_listed(guarded: Path) -> None:
    me = os.geteuid()
    os.seteuid(guarded.stat().st_uid)
    guarded.chmod(0o000)
    os.seteuid(me)
    with pytest.raises(RunError, match=r"runs: cannot be read: Permission denied"):
        list_runs(guarded)


# -- what people see -----------------------------------------------------------------------------------------------------


def test_the_table(made: Path, cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made)
    code, out, err = cli("runs", "b-first", "c-stopped")
    runs = by_name(made)
    first, stopped = (runs[name]["metrics"] for name in ("b-first", "c-stopped"))
    assert (code, err) == (0, "")
    classes, numbers = first["holdout"], stopped["progressive"]
    assert next(iter(classes)) == next(iter(numbers)) == "loss" and len(classes) > 2 < len(numbers)
    assert [line.split() for line in out.splitlines()] == [
        ["run", "state", "epochs", "rows", "seen", *{**classes, **numbers}, "judged", "by"],
        ["b-first", "finished", "2", "of", "2", f"{runs['b-first']['rows_seen']:,}",
         *(f"{value:.4f}" for value in classes.values()), "holdout"],
        ["c-stopped", "stopped", "1", "of", "5", "3,000", *(f"{value:.4f}" for value in numbers.values()), "progressive"],
    ]  # fmt: skip
    _, out, _ = cli("runs", "a-second")
    assert out.splitlines()[1].split()[-2:] == ["validation", str(made / "b-first")]
    _, out, _ = cli("runs", "d-failed")
    assert out.splitlines()[1].split()[:3] == ["d-failed", "failed", "3,000"]


def test_names_that_drive_a_terminal(made: Path, tmp_path: Path, cli: CommandLine) -> None:
    run = shutil.copytree(made / "b-first", tmp_path / "[red]x\x1b[2J\n\udcff")
    os.truncate(run / "report.json", 10)
    code, out, _ = cli("runs", tmp_path)
    assert code == 0 and out.count("[red]x\\x1b[2J\\n\\udcff") == 3 and "\x1b" not in out
    _, out, _ = cli("runs", tmp_path, "--json")
    assert json.loads(out)["runs"][0]["run"] == str(run)

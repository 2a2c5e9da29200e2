"""Learners that a user wrote: found by name, saved, killed, resumed, listed and predicted with like the built-in one."""

from __future__ import annotations

import importlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make import CommandLine, run_python, state

from streamtrain import UsageError, evaluate, fit, load_model
from streamtrain.errors import RunError
from streamtrain.learn import LearnerShape
from streamtrain.runs.listing import list_runs
from streamtrain.tools.predict import predict

MODULE = """
import os, signal, time
from pathlib import Path

import numpy as np

Path(__file__).with_name("imported").touch()


class Means:
    '''The mean row of each class; the nearer, the likelier.'''

    def __init__(self, shape):
        self.sums, self.counts = np.zeros((shape.classes, shape.features)), np.zeros(shape.classes)
        self.batches = 0

    def learn(self, batch):
        self.batches += 1
        time.sleep(float(os.environ.get("PAUSE", 0)))
        if self.batches == int(os.environ.get("KILL_AT", 0)):
            os.kill(os.getpid(), signal.SIGKILL)
        np.add.at(self.sums, batch.targets, batch.features)
        np.add.at(self.counts, batch.targets, 1)

    def predict(self, X):
        means = self.sums / np.maximum(self.counts, 1)[:, None]
        far = ((X[:, None] - means) ** 2).sum(axis=2)
        near = np.exp(far.min(axis=1, keepdims=True) - far)
        return (near / near.sum(axis=1, keepdims=True)).astype(np.float32)

    @property
    def state_bytes(self):
        return self.sums.nbytes + self.counts.nbytes + 8

    def state_dict(self):
        return {"sums": self.sums.copy(), "counts": self.counts.copy(), "batches": self.batches}

    def load_state_dict(self, state):
        self.sums[...], self.counts[...], self.batches = state["sums"], state["counts"], int(state["batches"])


def make(shape):
    return Means(shape)


def careless():
    return None


def returns_none(shape):
    return None


class Wordy(Means):
    def state_dict(self):
        return super().state_dict() | {"motto": "keep it simple"}


LEARNER = object()
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the module ``means`` and the table ``data.parquet``; the folder is importable, and the current one."""
    (tmp_path / "means.py").write_text(MODULE)
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 3, 6000)
    columns = {name: rng.normal(size=6000) + 2 * (kinds == i) for i, name in enumerate("ab")}
    pq.write_table(pa.table(columns | {"y": kinds}), tmp_path / "data.parquet")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("means", None)


def state_of(run: Path, learner: Any = "means:Means") -> dict[str, bytes]:
    return state(load_model(run, learner=learner))


def command(home: Path, *arguments: str, code: int = 0, **environment: str) -> str:
    """Run the command line there, in a process that finds no modules but those that it should."""
    ended = run_python("-P", "-m", "streamtrain", *arguments, cwd=home, **environment)
    assert ended.code == code, ended.out + ended.err
    return ended.out + ended.err


def test_killed_and_resumed_to_the_same_bits_by_the_command_line(home: Path, cli: CommandLine) -> None:
    own = ("--learner", "means:Means")
    fitting = ("fit", "data.parquet", "--target", "y", *own, "--checkpoint-seconds", "0", "--epochs", "2")
    assert cli(*fitting, "--out", "whole").code == 0
    command(home, *fitting, "--out", "cut", code=-signal.SIGKILL, KILL_AT="600", PAUSE="0.005")
    assert [run["state"] for run in list_runs(home)] == ["stopped", "finished"]
    assert "resuming in epoch" in command(home, "fit", "data.parquet", "--out", "cut", "--resume", *own)
    assert state_of(home / "cut") == state_of(home / "whole")
    assert cli("predict", "cut", "data.parquet", "--out", "p.parquet", *own).code == 0
    right = pq.read_table(home / "p.parquet")["prediction"].to_numpy() == pq.read_table("data.parquet")["y"].to_numpy()
    assert 0.6 < right.mean() < 1
    scores = cli("evaluate", "cut", "data.parquet", *own, "--json").json
    assert scores["metrics"]["accuracy"] == pytest.approx(right.mean())
    assert "cut" in cli("runs", ".").out
    assert json.loads((home / "cut" / "report.json").read_text())["learner"] == "means:Means"


def test_a_class_a_function_and_their_names_are_the_same_learner(home: Path) -> None:
    means = importlib.import_module("means")
    runs = [("one", means.Means), ("two", "means:Means"), ("three", means.make)]
    for out, learner in runs:
        fit("data.parquet", target="y", out=out, learner=learner, seed=4)
    assert state_of(home / "one") == state_of(home / "two", means.Means)
    assert state_of(home / "one") == state_of(home / "three", "means:make")
    model = load_model("three", learner=means.make)
    assert model.recipe is not None and model.recipe.name == "means:make"
    predict("three", "data.parquet", out="p.parquet", learner=means.make)
    assert evaluate("three", "data.parquet", learner="means:make") == evaluate(model, "data.parquet")


def test_a_finished_run_is_not_written_again(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    fit("data.parquet", target="y", out="run", learner="means:Means")
    written = (home / "run" / "report.json").read_bytes()
    caplog.set_level("INFO")
    result = fit("data.parquet", out="run", learner="means:Means", resume=True)
    assert "run is finished: 1 epoch" in caplog.text
    assert (home / "run" / "report.json").read_bytes() == written and result.model.recipe is not None


def test_a_target_scale_of_the_mean_keeps_the_zero_of_counts(home: Path) -> None:
    """The target of a learner that says ``target_scale = "mean"`` is not counted from its first rows, however large it is."""

    class Mean:
        target_scale = "mean"

        def __init__(self, shape: LearnerShape) -> None:
            self.sum, self.rows = 0.0, 0

        def learn(self, batch: Any) -> None:
            assert batch.targets.min() > 0
            self.sum, self.rows = self.sum + float(batch.targets.sum()), self.rows + len(batch)

        def predict(self, X: Any) -> Any:
            return np.full(len(X), self.sum / max(self.rows, 1), np.float32)

        def state_dict(self) -> dict[str, Any]:
            return {"sum": self.sum, "rows": self.rows}

        def load_state_dict(self, state: Any) -> None:
            self.sum, self.rows = float(state["sum"]), int(state["rows"])

        state_bytes = 16

    counts = 1_000_000_000 + np.arange(2000) % 200
    model = fit({"x": np.zeros(2000), "y": counts}, target="y", task="regress", learner=Mean).model
    assert model.target.offset == 0


def test_another_run_continues_it(home: Path) -> None:
    fit("data.parquet", target="y", out="first", learner="means:Means")
    fit("data.parquet", out="second", continue_from="first", learner="means:Means")
    assert load_model("second", learner="means:Means").learner.state_dict()["counts"].sum() == 12_000
    with pytest.raises(RunError, match="the code of module 'means'"):
        fit("data.parquet", out="third", continue_from="first")
    with pytest.raises(RunError, match="--learner is linear, the run has means:Means"):
        fit("data.parquet", out="third", continue_from="first", learner="linear")
    more = pa.table({"a": [1.0] * 99, "b": [2.0] * 99, "y": [0, 1, 2, 3, 4, 5, 6, 7, 8] * 11})
    with pytest.raises(UsageError, match=r"--learner means:Means: cannot take new classes \(0, 1, 2, 3"):
        fit(more, out="third", continue_from="first", learner="means:Means")


def test_an_installed_learner_needs_no_permission(home: Path) -> None:
    info = home / "means-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: means\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[streamtrain.learners]\nnearest = means:Means\n")
    fit("data.parquet", target="y", out="r", learner="nearest")
    assert load_model("r").learner.state_dict()["counts"].sum() == 6000
    assert json.loads((home / "r" / "model.json").read_text())["learner"] == "nearest"
    with pytest.raises(UsageError, match="--learner nerest: must be one of linear, nearest, or module:name"):
        fit("data.parquet", target="y", learner="nerest")
    (info / "entry_points.txt").unlink()
    with pytest.raises(RunError, match="the model's learner cannot be made: --learner nearest: must be one of linear"):
        load_model("r")


def test_a_folder_from_a_stranger_runs_no_code(home: Path) -> None:
    fit("data.parquet", target="y", out="r", learner="means:Means")
    del sys.modules["means"]
    (home / "imported").unlink()
    assert [run["state"] for run in list_runs("r")] == ["finished"]
    for use in (
        lambda: load_model("r"),
        lambda: predict("r", "data.parquet", out="p.parquet"),
        lambda: evaluate("r", "data.parquet"),
        lambda: fit("data.parquet", out="r", resume=True, epochs=2),
        lambda: load_model("r", learner="linear"),
        lambda: load_model("r", learner="other:Means"),
    ):
        with pytest.raises(RunError, match=r"code of module 'means'.* --learner means:Means|the run has means:Means"):
            use()
    assert not (home / "imported").exists() and "means" not in sys.modules
    load_model("r", learner="means:Means")
    assert (home / "imported").exists()


def learner_of_three() -> Any:
    return importlib.import_module("means").Means(LearnerShape(2, classes=3))


def test_what_cannot_be_saved_is_refused_before_a_row_is_read(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    means = importlib.import_module("means")

    class Local(means.Means):  # type: ignore[misc, name-defined]
        pass

    class Main(means.Means):  # type: ignore[misc, name-defined]
        pass

    Main.__module__, Main.__qualname__ = "__main__", "Main"
    cases: list[tuple[Any, str]] = [
        (learner_of_three(), "Means cannot be saved.*is an object.*pass its class"),
        (Local, "Local cannot be saved.*inside a function.*top level of its module"),
        (lambda shape: means.Means(shape), "lambda.* cannot be saved.*inside a function"),
        (Main, "Main cannot be saved.*in the program itself.*module of its own"),
    ]
    for learner, message in cases:
        with pytest.raises(UsageError, match=message):
            fit("no such data", target="y", out="r", learner=learner)
        assert not (home / "r").exists()
        fit("data.parquet", target="y", learner=learner)  # without a folder it is as good as any
    monkeypatch.setattr("streamtrain.train.trainer.Trainer.run", lambda self: pytest.fail("it trained"))
    with pytest.raises(
        RunError, match=r"--learner means:Wordy: its state_dict.. has 'motto', a str: .*arrays and numbers"
    ):
        fit("data.parquet", target="y", out="r", learner="means:Wordy")
    assert not (home / "r" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("learner", "message"),
    [
        ("trees", "must be one of linear, or module:name"),
        ("means:", "must be one of linear, or module:name"),
        ("means:Means()", "must be one of linear, or module:name"),
        ("maens:Means", "there is no module 'maens': start the program where it is"),
        ("means:Meens", "means has no 'Meens'"),
        ("means:LEARNER", "is a object: must be a class, a function or a Family"),
        (
            "means:careless",
            r"calling it with LearnerShape\(features=2, .*raised TypeError.*must take this one argument",
        ),
        ("means:returns_none", "returned a NoneType, which has no learn"),
        ("broken:Means", "importing broken raised ZeroDivisionError"),
    ],
)
def test_what_is_no_learner(home: Path, learner: str, message: str) -> None:
    (home / "broken.py").write_text("1 / 0")
    with pytest.raises(UsageError, match=f"--learner {learner.replace('(', '.').replace(')', '.')}: {message}"):
        fit("data.parquet", target="y", learner=learner)


def test_settings_of_another_family_would_have_no_effect(home: Path) -> None:
    with pytest.raises(UsageError, match=r"--l2: is a setting of --learner linear; .* has no such setting"):
        fit("data.parquet", target="y", learner="means:Means", l2=0.1)


def test_a_module_is_importable_from_the_current_folder_only_where_it_is_asked_for(home: Path) -> None:
    command(home, "fit", "data.parquet", "--target", "y", "--learner", "means:Means")
    script = """import os, sys
from streamtrain.cli.own_code import importable_here
importable_here(sys.argv[1])
print(os.getcwd() in sys.path)"""
    for learner, importable in (("linear", "False"), ("means:Means", "True")):
        ended = subprocess.run(
            [sys.executable, "-P", "-c", script, learner], capture_output=True, text=True, check=True
        )
        assert ended.stdout.strip() == importable

"""Learners with mistakes: each is told to whoever wrote it, by name and line, and none is called a bug of streamtrain."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make import CommandLine

from streamtrain import UsageError, fit, load_model, make_plan
from streamtrain.errors import DataError, DivergedError, LearnerError, RunError
from streamtrain.learn import LearnerShape

MODULE = """
import numpy as np


class Right:
    def __init__(self, shape):
        self.shape, self.sums = shape, np.zeros(shape.features + 1)

    def learn(self, batch):
        self.sums[:-1] += batch.features.sum(axis=0)
        self.sums[-1] += len(batch)

    def predict(self, X):
        return np.full(len(X), 0.5, np.float32)

    @property
    def state_bytes(self):
        return self.sums.nbytes

    def state_dict(self):
        return {"sums": self.sums.copy()}

    def load_state_dict(self, state):
        self.sums[...] = state["sums"]


class Raises(Right):
    def learn(self, batch):
        raise ValueError("boom")


class RaisesInPredict(Right):
    def predict(self, X):
        return X @ np.zeros(99)


class Exits(Right):
    def learn(self, batch):
        raise SystemExit(0)


class ExitsWhenMade(Right):
    def __init__(self, shape):
        raise SystemExit(0)


class Compiled(Right):
    predict = np.add


class ThreeWide(Right):
    def predict(self, X):
        return np.zeros((len(X), 3), np.float32)


class TwoWide(Right):
    def predict(self, X):
        return np.full((len(X), 2), 0.5, np.float32)


class Seven(Right):
    def predict(self, X):
        return np.full(len(X), 7, np.float32)


class Words(Right):
    def predict(self, X):
        return ["no"] * len(X)


class List(Right):
    def predict(self, X):
        return [0.5] * len(X)


class NaN(Right):
    def predict(self, X):
        return np.full(len(X), np.nan, np.float32)


class NumberForMethod(Right):
    learn = 3


class NumpyBytes(Right):
    @property
    def state_bytes(self):
        return np.int64(80)


class MethodBytes(Right):
    def state_bytes(self):
        return 80


class FloatBytes(Right):
    state_bytes = 80.0


class NoBytes(Right):
    state_bytes = None


class NegativeBytes(Right):
    state_bytes = -5


class RaisesInBytes(Right):
    @property
    def state_bytes(self):
        raise ValueError("how many?")


class RaisesInLoss(Right):
    @property
    def loss(self):
        raise RuntimeError("which?")


class NumberKey(Right):
    def state_dict(self):
        return {0: self.sums.copy()}


class LongDouble(Right):
    def state_dict(self):
        return {"sums": self.sums.astype(np.longdouble)}


class Masked(Right):
    def state_dict(self):
        return {"sums": np.ma.array(self.sums)}


class ListState(Right):
    def state_dict(self):
        return [self.sums.copy()]


class Prints(Right):
    def learn(self, batch):
        print("hello")
        super().learn(batch)


class OddScale(Right):
    target_scale = "weird"
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the module ``wrong`` and ``data.parquet``; the folder is importable, and the current one."""
    (tmp_path / "wrong.py").write_text(MODULE)
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit(0)\n")
    rng = np.random.default_rng(0)
    pq.write_table(pa.table({"a": rng.normal(size=500), "y": rng.integers(0, 2, 500)}), tmp_path / "data.parquet")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("wrong", None)


@pytest.mark.parametrize(
    ("learner", "kind", "message"),
    [
        ("Raises", LearnerError, r"learn\(\) raised ValueError: boom \(wrong.py:29\)"),
        ("RaisesInPredict", LearnerError, r"predict\(\) raised ValueError: matmul: .* \(wrong.py:34\)"),
        ("Exits", LearnerError, r"learn\(\) raised SystemExit: 0"),
        ("ExitsWhenMade", UsageError, r"calling it with .* raised SystemExit: 0"),
        ("Compiled", LearnerError, r"predict\(\) raised TypeError"),
        ("ThreeWide", DataError, r"shape \(16, 3\); expected \(16,\)"),
        ("Seven", LearnerError, r"predict\(\) returned 7.0 for a probability: it must be from 0 to 1"),
        ("Words", LearnerError, r"predict\(\) returned values of type <U2"),
        ("NaN", DivergedError, "wrong:NaN learns or predicts numbers that are not finite"),
        ("NumberForMethod", UsageError, "whose learn is 3: it must be a method"),
        ("MethodBytes", UsageError, "state_bytes is a method: add @property"),
        ("FloatBytes", UsageError, "state_bytes is 80.0: it must be a whole number of bytes"),
        ("NoBytes", UsageError, "state_bytes is None: it must be a whole number of bytes"),
        ("NegativeBytes", UsageError, "state_bytes is -5: it must be at least 0"),
        ("RaisesInBytes", LearnerError, "state_bytes raised ValueError: how many"),
        ("RaisesInLoss", LearnerError, "loss raised RuntimeError: which"),
        ("NumberKey", RunError, r"state_dict\(\) has the key 0: keys must be text"),
        ("LongDouble", RunError, r"state_dict\(\) has 'sums', a ndarray of (float128|float64|longdouble)"),
        ("Masked", RunError, r"state_dict\(\) has 'sums', a MaskedArray of float64"),
        ("ListState", LearnerError, r"state_dict\(\) returned a list: it must be a dict"),
    ],
)
def test_a_mistake_is_named(home: Path, learner: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message) as raised:
        fit("data.parquet", target="y", out="r", learner=f"wrong:{learner}")
    assert learner in str(raised.value) or learner == "ThreeWide"
    assert not (home / "r" / "model.json").exists()


def test_the_command_line_calls_it_no_bug(home: Path, cli: CommandLine) -> None:
    done = cli("fit", "data.parquet", "--target", "y", "--learner", "wrong:Raises")
    assert (done.code, done.err) == (
        2,
        "error: --learner wrong:Raises: learn() raised ValueError: boom (wrong.py:29)\n",
    )
    done = cli("plan", "data.parquet", "--target", "y", "--learner", "wrong:MethodBytes")
    assert (done.code, done.err) == (2, "error: --learner wrong:MethodBytes: state_bytes is a method: add @property\n")
    done = cli("fit", "data.parquet", "--target", "y", "--learner", "leaves:Learner")
    assert (done.code, done.err) == (2, "error: --learner leaves:Learner: importing leaves raised SystemExit: 0\n")


def test_what_a_learner_prints_is_not_in_the_json(home: Path, cli: CommandLine) -> None:
    done = cli("fit", "data.parquet", "--target", "y", "--learner", "wrong:Prints", "--json", "--out", "r")
    assert done.json["rows"] == 500 and "hello\n" in done.err
    done = cli("evaluate", "r", "data.parquet", "--learner", "", "--json")
    assert (done.code, done.err) == (2, "error: --learner is , the run has wrong:Prints: it must be the same\n")


def test_the_error_of_the_learner_is_the_cause(home: Path) -> None:
    import wrong  # type: ignore[import-not-found]

    with pytest.raises(LearnerError) as raised:
        fit("data.parquet", target="y", learner=wrong.Raises)
    assert isinstance(raised.value.__cause__, ValueError) and raised.value.__cause__.args == ("boom",)


@pytest.mark.parametrize("learner", ["TwoWide", "List", "NumpyBytes"])
def test_what_is_allowed_trains_and_is_saved(home: Path, learner: str) -> None:
    fit("data.parquet", target="y", out="r", learner=f"wrong:{learner}")
    assert load_model("r", learner=f"wrong:{learner}").learner.state_dict()["sums"][-1] == 500


def test_the_scale_of_a_target_is_one_that_there_is(home: Path) -> None:
    with pytest.raises(UsageError, match="wrong:OddScale: target_scale is 'weird': it must be one of deviation, mean"):
        fit("data.parquet", target="y", task="regress", learner="wrong:OddScale")


def test_a_state_that_the_code_refuses_is_no_damage_of_the_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wrong

    def refuse(self: Any, state: Any) -> None:
        raise ValueError("sums has shape (2,), not (3,)")

    fit("data.parquet", target="y", out="r", learner=wrong.Right)
    monkeypatch.setattr(wrong.Right, "load_state_dict", refuse)
    message = r"wrong:Right: load_state_dict refused the state: ValueError: sums has .*; was its code changed since\?"
    with pytest.raises(LearnerError, match=message):
        load_model("r", learner=wrong.Right)
    with pytest.raises(LearnerError, match=message):
        fit("data.parquet", out="r", resume=True, epochs=2, learner=wrong.Right)


def test_settings_of_linear_are_refused_beside_an_object(home: Path) -> None:
    import wrong

    with pytest.raises(UsageError, match="--loss: is a setting of --learner linear; Right has no such setting"):
        make_plan("data.parquet", target="y", learner=wrong.Right(LearnerShape(1, classes=2)), loss="hinge")
    broken = wrong.Right(LearnerShape(1, classes=2))
    broken.learn = 3
    with pytest.raises(UsageError, match="wrong:Right: an object, whose learn is 3: it must be a method"):
        make_plan("data.parquet", target="y", learner=broken)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("nomod:X", "raised ModuleNotFoundError: No module named 'nomod'"),
        ("wrong:Missing", "raised AttributeError"),
        ("leaves:X", "raised SystemExit: 0"),
    ],
)
def test_a_broken_package_is_named(home: Path, entry: str, message: str) -> None:
    info = home / "brk-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brk\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[streamtrain.learners]\nbroken = {entry}\n")
    with pytest.raises(
        UsageError, match=f"--learner broken: the package brk has it as {entry}, .*{message}.*repair or"
    ):
        fit("data.parquet", target="y", learner="broken")

"""The model of a run that has not finished: that of its newest checkpoint."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make import CommandLine, content
from safetensors.numpy import load_file

from streamtrain import evaluate, fit, load_model, predict
from streamtrain.errors import RunError, StreamtrainError
from streamtrain.runs.checkpoint import Checkpoints
from streamtrain.train.history import Scores
from streamtrain.train.last_checkpoint import open_model

ROWS, EPOCHS = 300, 3
OWN = '''
import numpy as np


class Centres:
    """The mean row of each class."""

    def __init__(self, shape):
        self.sums, self.counts = np.zeros((shape.classes, shape.features)), np.zeros(shape.classes)

    def learn(self, batch):
        np.add.at(self.sums, batch.targets, batch.features)
        np.add.at(self.counts, batch.targets, 1)

    def predict(self, X):
        means = self.sums / np.maximum(self.counts, 1)[:, None]
        near = np.exp(-((X[:, None] - means) ** 2).sum(axis=2))
        return (near / near.sum(axis=1, keepdims=True)).astype(np.float32)

    @property
    def state_bytes(self):
        return self.sums.nbytes + self.counts.nbytes

    def state_dict(self):
        return {"sums": self.sums.copy(), "counts": self.counts.copy()}

    def load_state_dict(self, state):
        self.sums[...], self.counts[...] = state["sums"], state["counts"]
'''
KINDS: dict[str, dict[str, Any]] = {
    "classes": {"target": "y", "exclude": ["u", "v"]},  # numbers, categories, text and bags
    "several targets": {"target": ["u", "v"], "exclude": ["y"], "optimizer": "adam"},
    "patience": {"target": "y", "exclude": ["u", "v"], "holdout": 0.2, "patience": 2},
    "own": {"target": "y", "features": ["x", "z"], "learner": "own_centres:Centres"},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    x, z, drawn = rng.normal(size=ROWS), rng.normal(size=ROWS), rng.integers(0, 3, ROWS)
    words = np.array(["ash", "birch", "cedar"])
    path = tmp_path_factory.mktemp("last") / "data.parquet"
    table = {
        "x": x + drawn, "z": z, "city": words[(drawn + rng.integers(0, 2, ROWS)) % 3],
        "text": [f"{words[d]} tree number {i} in the wood" for i, d in enumerate(drawn)],
        "tags": pa.array([[words[d], words[i % 3]] for i, d in enumerate(drawn)], pa.list_(pa.string())),
        "u": 2 * x + drawn, "v": z - x, "y": np.array(list("abc"))[drawn],
    }  # fmt: skip
    pq.write_table(pa.table(table), path, row_group_size=20)
    return path


@pytest.fixture(autouse=True)
def own_learner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_centres.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)


def asked(kind: str, **more: Any) -> dict[str, Any]:
    return {"seed": 2, "window_rows": 100, "batch_size": 8, "hash_bits": 10} | KINDS[kind] | more


def stopped(data: Path, out: Path, method: str, at: int, **settings: Any) -> None:
    """Fit until Ctrl-C comes within the call of this number of a method of `Scores`; a checkpoint is written then."""
    calls, original = [0], getattr(Scores, method)

    def counted(*found: Any) -> Any:
        calls[0] += 1
        if calls[0] == at:
            signal.raise_signal(signal.SIGINT)
        return original(*found)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scores, method, counted)
        with pytest.raises(KeyboardInterrupt):
            fit(data, out=out, **settings)
    assert not (out / "model.json").exists() and len(list((out / "checkpoints").iterdir())) == 1


def predicted(run: Path, data: Path, out: Path, **how: Any) -> tuple[pa.Table, list[str]]:
    done = predict(run, data, out=out, **how)
    return pq.read_table(out), done["warnings"]


@pytest.fixture(scope="module")
def left(data: Path) -> Path:
    """A run that was stopped in the middle of its first epoch."""
    stopped(data, data.parent / "left", "on_the_way", 2, **asked("classes"))
    return data.parent / "left"


@pytest.fixture
def run(left: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(left, tmp_path / "run"))


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_model_of_a_run_that_learned_the_same_rows(kind: str, data: Path, tmp_path: Path) -> None:
    """Of a run over one epoch; the other one was stopped after its first."""
    whole, run = tmp_path / "whole", tmp_path / "run"
    fit(data, out=whole, **asked(kind, epochs=1))
    stopped(data, run, "end_epoch", 1, **asked(kind, epochs=EPOCHS))
    was = content(run)
    rows = json.loads((whole / "report.json").read_text())["rows_seen"]
    said = f"{run}: the run has not finished: its checkpoint after {rows:,} rows is used"
    how = {"learner": KINDS[kind]["learner"]} if "learner" in KINDS[kind] else {}

    scored, expected = evaluate(run, data, **how), evaluate(whole, data, **how)
    assert scored["warnings"] == [said, *expected["warnings"]] and scored["rows"] == ROWS
    assert (scored["metrics"], scored["per_class"]) == (expected["metrics"], expected["per_class"])

    found, warnings = predicted(run, data, tmp_path / "p.parquet", **how)
    assert found.equals(predicted(whole, data, tmp_path / "w.parquet", **how)[0]) and warnings[0] == said

    hold = {"holdout": KINDS[kind].get("holdout", 0.0)}
    old, new = (fit(data, out=tmp_path / f"of {p.name}", continue_from=p, **hold, **how) for p in (whole, run))
    models = [(tmp_path / f"of {p.name}" / "model.safetensors").read_bytes() for p in (whole, run)]
    assert models[0] == models[1] and old.report.metrics == new.report.metrics
    assert new.report.lineage == [old.report.lineage[0] | {"run": str(run)}]
    assert said in new.report.as_dict()["warnings"]
    assert not any("has not finished" in warning for warning in old.report.as_dict()["warnings"])

    assert content(run) == was
    fit(data, out=run, resume=True, **how)
    assert said not in evaluate(run, data, **how)["warnings"]


def test_in_the_middle_of_an_epoch(data: Path, run: Path, tmp_path: Path, cli: CommandLine) -> None:
    """The arrays are those of the file, read by the library of the format."""
    (file,) = (run / "checkpoints").iterdir()
    stored = {name[6:]: array for name, array in load_file(file).items() if name.startswith("model.")}
    model, warnings = open_model(run)
    state = {name: np.asarray(value) for name, value in model.state_dict().items()}
    assert state.keys() == stored.keys()
    assert all(np.array_equal(state[name], array, equal_nan=True) for name, array in stored.items())
    assert open_model(model) == (model, [])

    code, out, err = cli("evaluate", run, data, "--json")
    assert code == 0 and json.loads(out)["warnings"] == warnings and f"warning: {warnings[0]}" in err
    code, _, err = cli("fit", data, "--continue-from", run, "--out", tmp_path / "new")
    assert code == 0 and err.count(warnings[0]) == 1
    report = json.loads((tmp_path / "new/report.json").read_text())
    assert warnings[0] in report["warnings"] and f"after {report['lineage'][0]['rows_seen']:,} rows" in warnings[0]


def test_of_a_run_that_is_going_on(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within its second epoch; checkpoints are written at the end of each."""
    run, found = tmp_path / "run", []
    monkeypatch.setattr("streamtrain.runs.checkpoint._COST_MULTIPLE", 0)

    def look(now: Any) -> None:
        if now.epoch == 2 and not found:
            found.append(evaluate(run, data))

    fit(data, out=run, progress=look, checkpoint_seconds=1000, **asked("classes", epochs=3))
    once = fit(data, **asked("classes", epochs=1))
    assert found[0]["metrics"] == evaluate(once.model, data)["metrics"]
    assert found[0]["warnings"] == [f"{run}: the run has not finished: its checkpoint after {ROWS} rows is used"]


def test_a_checkpoint_that_goes_while_it_is_read(
    data: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that goes on removes all but the last two."""
    (file,) = (run / "checkpoints").iterdir()
    expected, newest = evaluate(run, data), Checkpoints.newest

    def replaced(*how: Any) -> Any:
        header = newest(*how)
        if file.exists():
            file.rename(file.with_name("checkpoint-00000007.safetensors"))
        return header

    monkeypatch.setattr(Checkpoints, "newest", replaced)
    assert evaluate(run, data) == expected and not file.exists()


def test_what_is_damaged_or_missing(data: Path, run: Path, tmp_path: Path) -> None:
    (file,) = (run / "checkpoints").iterdir()
    whole, newer = bytearray(file.read_bytes()), file.with_name("checkpoint-00000002.safetensors")
    whole[-100] ^= 1
    newer.write_bytes(whole)
    damage, said = evaluate(run, data)["warnings"][:2]
    assert damage.startswith(f"{newer}: ") and damage.endswith(": the checkpoint before it is used")
    assert said.startswith(f"{run}: the run has not finished")

    file.unlink()
    with pytest.raises(RunError, match="no checkpoint can be read"):
        evaluate(run, data)
    newer.unlink()
    for opened in (open_model, load_model):
        with pytest.raises(RunError, match=r"the model is not written yet: .* --resume` writes it"):
            opened(run)
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(RunError, match=r"not a run \(has no model.json\)"):
        evaluate(run, data)
    for odd in ("x" * 5000, "a\0b", tmp_path):
        with pytest.raises(StreamtrainError):
            evaluate(odd, data)


def test_a_run_that_has_finished_keeps_its_model(data: Path, tmp_path: Path) -> None:
    """Also where it was asked for more epochs, and stopped; and --continue-from does without its report."""
    run, settings = tmp_path / "run", asked("classes")
    fit(data, out=run, **settings)
    expected = evaluate(run, data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scores, "on_the_way", lambda *_: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            fit(data, out=run, resume=True, epochs=2)
    assert evaluate(run, data) == expected
    (run / "report.json").unlink()
    assert evaluate(run, data) == expected
    continued = fit(data, continue_from=run, window_rows=100)
    assert "the run has not finished" in continued.report.as_dict()["warnings"][0]


def test_an_own_learner_is_not_imported_unasked(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    stopped(data, run, "on_the_way", 2, **asked("own"))
    for use in (lambda: evaluate(run, data), lambda: fit(data, continue_from=run)):
        with pytest.raises(RunError, match="loading it runs the code of module 'own_centres'"):
            use()


def test_another_version_is_told_of(data: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamtrain.learn.VERSION", 10**6)
    with pytest.raises(RunError, match=f"^{run}: the run was started with version .* of the learner"):
        evaluate(run, data)

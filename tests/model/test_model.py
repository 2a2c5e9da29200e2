from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from make import examples
from safetensors.numpy import load_file

from streamtrain import evaluate, fit, load_model
from streamtrain.batch import Batch
from streamtrain.errors import BadValueError, ColumnError, RunError
from streamtrain.learn import Linear, recipe
from streamtrain.model import Model
from streamtrain.tools.predict import predict

ROWS = 2000
RNG = np.random.default_rng(0)
X = (RNG.normal(size=(ROWS, 3)) * [1, 1000, 1e-3] + [0, 5e4, 0]).astype(np.float32)
SCORE = X[:, 0] + (X[:, 1] - 5e4) / 1000
TARGETS = {
    "int": np.digitize(SCORE, [0]),
    "three": np.digitize(SCORE, [-1, 1]) * 10 - 5,
    "bool": SCORE > 0,
    "text": np.where(SCORE > 0, "y\n,é", "no"),
    "number": SCORE * 1e6 + 3e9,
}


def train(folder: Path | None, kind: str = "int", **settings: Any) -> Model:
    return fit({"X": X, "y": TARGETS[kind]}, target="y", out=folder, seed=3, **settings).model


def predictions(model: Model, rows: int = 500) -> Any:
    batch = Batch(X[:rows].copy(), np.zeros(rows, np.float32), None, np.arange(rows))
    return model.predict(batch)


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize(
    "settings", [{}, {"average": False, "optimizer": "adam", "l1": 1e-5, "l2": 1e-4}], ids=["normalized", "adam"]
)
def test_a_loaded_model_predicts_the_same_bits(tmp_path: Path, kind: str, settings: dict[str, Any]) -> None:
    model = train(tmp_path / "r", kind, **settings)
    loaded = load_model(tmp_path / "r")
    assert predictions(loaded).tobytes() == predictions(model).tobytes()
    assert loaded.classes == model.classes and [type(c) for c in loaded.classes] == [type(c) for c in model.classes]
    assert (loaded.task, loaded.recipe, loaded.layout.features) == (model.task, model.recipe, model.layout.features)
    assert (
        loaded.layout.number_names == ["X[0]", "X[1]", "X[2]"]
        and loaded.preparation.checks_finite == model.preparation.checks_finite
    )
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(loaded.state_dict()[name], value, name)
    assert len(np.unique(predictions(model))) > 100


def test_columns_far_from_zero_keep_their_origin(tmp_path: Path) -> None:
    seconds = 1_700_000_000_000 + (1000 * X[:, 0]).astype(np.int64)
    data = {"when": seconds, "y": (X[:, 0] > 0).astype(int)}
    result = fit(data, target="y", out=tmp_path / "r")
    assert result.model.layout.columns[0].offset == pytest.approx(1.7e12)
    assert load_model(tmp_path / "r").layout.columns[0].offset == result.model.layout.columns[0].offset
    assert evaluate(tmp_path / "r", data) == evaluate(result.model, data)
    assert evaluate(tmp_path / "r", data)["metrics"]["accuracy"] > 0.95


def test_identical_weights_identical_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        train(tmp_path / name, "three")
    load_model(tmp_path / "a").save(tmp_path / "b")
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "b")]
    assert files[0] == files[1]
    train(tmp_path / "c", "three", learning_rate=0.1)
    assert (tmp_path / "c" / "model.safetensors").read_bytes() != files[0]
    header = json.loads(files[0][8 : 8 + int.from_bytes(files[0][:8], "little")])
    assert len(header.get("__metadata__", {})) <= 1


def test_nothing_that_can_run_code(tmp_path: Path) -> None:
    train(tmp_path / "r", "text")
    for path in (tmp_path / "r").rglob("*.*"):
        assert path.suffix in (".json", ".jsonl", ".safetensors")
        assert not path.read_bytes().startswith(b"\x80")  # how a pickle begins
    assert all(v.dtype.kind in "fiub" for v in load_file(tmp_path / "r" / "model.safetensors").values())


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "r"
    train(folder, "three")
    return folder


def copy(saved: Path, to: Path) -> Path:
    to.mkdir(exist_ok=True)
    for name in ("model.json", "model.safetensors"):
        (to / name).write_bytes((saved / name).read_bytes())
    return to


@examples(60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 0.9999), bit=st.integers(0, 7))
def test_a_flipped_bit_in_the_weights_is_noticed(saved: Path, tmp_path: Path, place: float, bit: int) -> None:
    path = copy(saved, tmp_path / "r") / "model.safetensors"
    raw = bytearray(path.read_bytes())
    raw[int(place * len(raw))] ^= 1 << bit
    path.write_bytes(raw)
    with pytest.raises(RunError, match=r"checksum differs|its header|a header of|its array|no array"):
        load_model(tmp_path / "r")


FEATURE = {"name": "X", "role": "number", "type": "number", "shape": [3], "why": "", "offset": 0.0}
TARGET = {"name": "y", "task": "classify", "classes": [-5, 5, 15], "offset": 0.0}
SETTINGS = asdict(recipe().settings)
PREPARATION = {"hash_bits": 4, "infinities": "error", "class_weights": []}
DAMAGE: dict[str, Any] = {
    "not json": "{",
    "no text": b"\xff\xfe",
    "a list": "[]",
    "null": "null",
    "another format": {"format": 99},
    "no features": {"features": []},
    "features of no shape": {"features": [{"name": "x"}]},
    "an odd shape": {"features": [FEATURE | {"shape": "wide"}]},
    "an odd type": {"features": [FEATURE | {"shape": None, "type": "list<item: int64>"}]},
    "another width": {"features": [FEATURE | {"shape": [4]}]},
    "an unknown role": {"features": [FEATURE | {"role": "sound"}]},
    "another role": {"features": [FEATURE | {"role": "category", "shape": None, "type": "text"}]},
    "fewer classes": {"targets": [TARGET | {"classes": [1, 2]}]},
    "no target": {"targets": []},
    "null for targets": {"targets": None},
    "an odd target": {"targets": [{"name": "y", "colour": "red"}]},
    "more targets": {"targets": [TARGET, TARGET | {"name": "z"}]},
    "an unknown optimizer": {"settings": SETTINGS | {"optimizer": "magic"}},
    "an unknown setting": {"settings": SETTINGS | {"magic": 1}},
    "another optimizer": {"settings": SETTINGS | {"optimizer": "adam"}},
    "an unknown loss": {"settings": SETTINGS | {"loss": "magic"}},
    "far too many slots": {"preparation": PREPARATION | {"hash_bits": 99}},
    "an unknown preparation": {"preparation": PREPARATION | {"magic": 1}},
    "no preparation": {"preparation": None},
    "a cross of what is not there": {"crosses": [["X", "Y"]]},
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_description(saved: Path, tmp_path: Path, damage: str) -> None:
    path = copy(saved, tmp_path / "r") / "model.json"
    change, whole = DAMAGE[damage], json.loads(path.read_text())
    assert [{name: target[name] for name in TARGET} for target in whole["targets"]] == [TARGET]
    assert whole["settings"] == SETTINGS and whole["preparation"] == PREPARATION
    assert [f | {"why": ""} for f in whole["features"]] == [FEATURE]
    if isinstance(change, dict):
        change = json.dumps(whole | change)
    path.write_bytes(change if isinstance(change, bytes) else change.encode())
    with pytest.raises(RunError, match=str(tmp_path / "r")) as caught:
        load_model(tmp_path / "r")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
@pytest.mark.parametrize("keep", [None, 0, 100])
def test_files_that_are_missing_or_cut(saved: Path, tmp_path: Path, name: str, keep: int | None) -> None:
    path = copy(saved, tmp_path / "r") / name
    raw = path.read_bytes()
    path.unlink()
    if keep is not None:
        path.write_bytes(raw[:keep])
    with pytest.raises(RunError, match=r"not a run|cannot be read|is missing|is cut off"):
        load_model(tmp_path / "r")


def test_a_learner_of_somebody_else_s_is_not_saved(tmp_path: Path) -> None:
    learner = Linear(3, 2)
    result = fit({"X": X, "y": TARGETS["int"]}, target="y", learner=learner)
    with pytest.raises(RunError, match="cannot be saved"):
        result.model.save(tmp_path)


def test_what_is_not_finite_is_located(tmp_path: Path) -> None:
    holes = X.copy()
    holes[1234, 2] = np.inf
    with pytest.raises(BadValueError, match=r"'X\[2\]' is infinite.* in row 1,234 of rows\[0:\]"):
        predict(train(None), {"X": holes}, out=tmp_path / "p.parquet")
    assert not list(tmp_path.iterdir())


def test_other_columns(tmp_path: Path) -> None:
    model = train(None)
    out = tmp_path / "p.parquet"
    with pytest.raises(ColumnError, match="feature 'X' has 2 numbers a row; the model knows 3"):
        predict(model, {"X": X[:, :2]}, out=out)
    with pytest.raises(ColumnError, match=r"no column 'X'.*did you mean 'x'"):
        predict(model, {"x": X}, out=out)
    with pytest.raises(ColumnError, match="feature 'X' is string; the model knows it as "):
        predict(model, pa.table({"X": ["a"] * 10}), out=out)


def test_a_model_whose_values_share_slots_is_read(tmp_path: Path) -> None:
    """Values share slots before all slots are taken."""
    data = {"id": pa.array([f"k{i * i}" for i in range(800)]), "y": np.arange(800.0) % 7}
    fitted = fit(data, target="y", hash_bits=10, roles={"id": "category"}, out=tmp_path / "r")
    assert fitted.report.as_dict()["preparation"]["shared_entries"] > 0
    assert load_model(tmp_path / "r").state_bytes == fitted.model.state_bytes
    assert fit(data, out=tmp_path / "r", resume=True, epochs=2).report.epochs == 2

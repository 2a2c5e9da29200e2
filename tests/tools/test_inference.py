from __future__ import annotations

import json
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamtrain import evaluate, fit, predict
from streamtrain.errors import BadValueError, ColumnError, NotFoundError, SchemaError, SizeError, UsageError
from streamtrain.metrics import make_metrics

ROWS = 3000
LABELS: dict[str, Any] = {
    "int": ([3, -7], pa.int64()),
    "bool": ([False, True], pa.bool_()),
    "text": (["no", "yes, é"], pa.string()),
    "three": ([5, 1, 3], pa.int64()),
    "words": (["c", "a", "b"], pa.string()),
}


def table(rows: int = ROWS, seed: int = 0, kind: str = "int") -> pa.Table:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=rows)
    z = rng.integers(0, 100, rows)
    score = 2 * x + (z - 50) / 30
    columns: dict[str, Any] = {"x": x, "z": z, "id": np.arange(rows)}
    if kind == "number":
        return pa.table(columns | {"y": score * 100 + 5})
    labels, arrow = LABELS[kind]
    places = np.digitize(score, [0] if len(labels) == 2 else [-1, 1])
    return pa.table(columns | {"y": pa.array([labels[p] for p in places], arrow)})


def files(folder: Path, data: pa.Table, parts: int = 5) -> Path:
    """Files of different sizes, whose names sort in the order of the rows."""
    folder.mkdir()
    cuts = [0, *sorted(np.random.default_rng(1).choice(data.num_rows, parts - 1, replace=False)), data.num_rows]
    for i, (a, b) in enumerate(pairwise(cuts)):
        pq.write_table(data.slice(a, b - a), folder / f"{i}.parquet", row_group_size=211)
    return folder


def train(data: Any, **settings: Any) -> Any:
    return fit(data, target="y", exclude=["id"], **settings)


@pytest.mark.parametrize("kind", [*LABELS, "number"])
def test_predictions_keep_rows_order_and_labels(tmp_path: Path, kind: str) -> None:
    data = table(kind=kind)
    folder = files(tmp_path / "d", data)
    model = train(folder, epochs=3).model
    result = predict(model, folder, out=tmp_path / "p.parquet", threads=3)
    assert result == {"rows": ROWS, "out": str(tmp_path / "p.parquet"), "warnings": [], "skipped": []}
    found = pq.read_table(tmp_path / "p.parquet")
    assert found.num_rows == ROWS
    truth = data["y"].to_pylist()
    if kind == "number":
        assert found.column_names == ["prediction"] and found.schema.types == [pa.float32()]
        assert np.corrcoef(found["prediction"].to_numpy(), truth)[0, 1] > 0.99
        return
    labels, arrow = LABELS[kind]
    assert model.classes == tuple(sorted(labels))
    assert found.column_names == ["prediction", *(f"probability_{c}" for c in sorted(labels))]
    assert found.schema.types == [arrow, *[pa.float32()] * len(labels)]
    # each row by itself: the order is that of the data
    hits = np.mean([p == t for p, t in zip(found["prediction"].to_pylist(), truth, strict=True)])
    assert hits > (0.93 if len(labels) == 2 else 0.8)
    probabilities = np.stack([found[f"probability_{c}"].to_numpy() for c in model.classes], axis=1)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    best = [model.classes[i] for i in probabilities.argmax(axis=1)]
    assert best == found["prediction"].to_pylist()


@pytest.mark.parametrize("kind", ["int", "three", "text", "number"])
def test_evaluate_is_the_metrics_of_what_predict_writes(tmp_path: Path, kind: str) -> None:
    model = train(table(kind=kind)).model
    other = table(seed=5, kind=kind)
    folder = files(tmp_path / "d", other)
    scored = evaluate(model, folder)
    predict(model, folder, out=tmp_path / "p.parquet")
    found = pq.read_table(tmp_path / "p.parquet")
    y = other["y"].to_pylist()
    metrics = make_metrics(model.task, len(model.classes))
    if kind == "number":
        predictions = found["prediction"].to_numpy()
        targets = np.asarray(y, np.float32)
        error = predictions.astype(float) - y
        assert scored["metrics"]["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-4)
        assert scored["metrics"]["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-4)
    else:
        shares = np.stack([found[f"probability_{c}"].to_numpy() for c in model.classes], axis=1)
        targets = np.array([model.classes.index(v) for v in y], np.int32)
        predictions = shares[:, 1] if len(model.classes) == 2 else shares
        hits = [p == t for p, t in zip(found["prediction"].to_pylist(), y, strict=True)]
        assert scored["metrics"]["accuracy"] == pytest.approx(np.mean(hits), abs=1e-9)
        own = shares[np.arange(ROWS), targets].astype(float)
        assert scored["metrics"]["loss"] == pytest.approx(-np.log(np.clip(own, 1e-7, 1)).mean(), rel=1e-3)
    metrics.update(targets, predictions)
    assert scored["rows"] == ROWS
    assert scored["metrics"] == pytest.approx(metrics.result(), rel=1e-6)


def test_the_same_columns_in_another_guise(tmp_path: Path) -> None:
    data = table()
    model = train(data).model
    expected = evaluate(model, data)
    # another order, other numeric types, columns that the model does not know, and the target as another integer
    guise = pa.table(
        {
            "y": data["y"].cast(pa.int8()),
            "note": ["text"] * ROWS,
            "z": data["z"].cast(pa.uint8()),
            "x": data["x"],
        }
    )
    pq.write_table(guise, tmp_path / "g.parquet", row_group_size=500)
    assert evaluate(model, tmp_path / "g.parquet") == expected
    decimals = guise.set_column(2, "z", data["z"].cast(pa.float32()))
    assert evaluate(model, decimals) == expected


def test_what_is_missing_or_unknown(tmp_path: Path) -> None:
    data = table()
    model = train(data).model
    out = tmp_path / "p.parquet"
    for ask in (lambda d: evaluate(model, d), lambda d: predict(model, d, out=out)):
        with pytest.raises(ColumnError, match="no column 'z'"):
            ask(data.drop_columns(["z"]))
        with pytest.raises(ColumnError, match=r"feature 'z' is timestamp\[us\]; the model knows it as int64"):
            ask(data.set_column(1, "z", pa.nulls(ROWS, pa.int64()).cast(pa.timestamp("us"))))
        with pytest.raises(
            SchemaError, match="column 'z' is string here, but is used as double, which does not hold 'a'"
        ):
            ask(data.set_column(1, "z", pa.array(["a"] * ROWS)))
        with pytest.raises(NotFoundError, match="no such file"):
            ask(str(tmp_path / "nope"))
    with pytest.raises(ColumnError, match="no column 'y' for the target"):
        evaluate(model, data.drop_columns(["y"]))
    with pytest.raises(BadValueError, match=r"target 'y' is 99 in .*not one of the 2 known classes \(-7, 3\)"):
        evaluate(model, data.set_column(3, "y", pa.array([3] * 2999 + [99])))
    with pytest.raises(BadValueError, match=r"target 'y' is '03' in .*not one of the 2 known classes \(-7, 3\)"):
        evaluate(model, data.set_column(3, "y", pa.array(["3"] * (ROWS - 1) + ["03"])))
    as_text = evaluate(model, data.set_column(3, "y", data["y"].cast(pa.string())))
    assert as_text["metrics"] == evaluate(model, data)["metrics"]
    assert predict(model, data.drop_columns(["y"]), out=out)["rows"] == ROWS
    out.unlink()
    far = data.set_column(0, "x", pa.array([float("inf"), *data["x"].to_pylist()[1:]]))
    with pytest.raises(BadValueError, match=r"'x' is infinite, .* in row 0 of "):
        predict(model, far, out=out)
    assert list(tmp_path.iterdir()) == []
    x = data["x"].to_pylist()
    for holes in (pa.array([None, *x[1:]]), pa.array([float("nan"), *x[1:]]), pa.nulls(ROWS)):
        middle = pa.array([model.preparation.numbers.centre[0]] + [0.0] * (ROWS - 1))
        found = []
        for column in (holes, middle):
            predict(model, data.set_column(0, "x", column), out=out)
            found.append(pq.read_table(out)["probability_3"][0].as_py())
        assert found[0] == pytest.approx(found[1], abs=1e-6)  # what is missing is as the mean, never seen to be missing


def test_predictions_never_meet_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = files(tmp_path / "d", table())
    before = {p: p.read_bytes() for p in folder.iterdir()}
    (tmp_path / "link").symlink_to(folder)
    model = train(folder).model
    monkeypatch.chdir(tmp_path)
    for data, out in [
        (folder, folder / "0.parquet"),
        (folder, folder / "new.parquet"),
        (folder / "0.parquet", folder / "0.parquet"),
        (str(folder / "0.parquet"), "d/../d/0.parquet"),
        (f"{folder}/*.parquet", folder / "3.parquet"),
        ("link", folder / "0.parquet"),
        (folder, "link/0.parquet"),
    ]:
        with pytest.raises(UsageError, match=r"inside the data|one of the data files"):
            predict(model, data, out=out)
    assert {p: p.read_bytes() for p in folder.iterdir()} == before
    predict(model, folder / "0.parquet", out=tmp_path / "beside.parquet")
    predict(model, folder / "0.parquet", out=tmp_path / "beside.parquet")  # an earlier prediction is replaced


def test_settings_come_before_any_io(tmp_path: Path) -> None:
    model = train(table()).model
    for ask in (lambda **k: evaluate(model, "nope", **k), lambda **k: predict(model, "nope", out="x", **k)):
        with pytest.raises(SizeError, match="'lots'"):
            ask(memory="lots")
        with pytest.raises(UsageError, match="--threads 0"):
            ask(threads=0)
        with pytest.raises(UsageError, match="--missing-chunks none: must be one of error, fill"):
            ask(missing_chunks="none")


def test_holdout_and_validation_are_scored_not_learned() -> None:
    data, other = table(), table(seed=9)
    plain = train(data)
    assert plain.report.metrics["holdout"] is None and plain.report.metrics["validation"] is None
    result = train(data, holdout=0.25, validate=other, epochs=2)
    scores = result.report.metrics
    assert scores["validation"] == evaluate(result.model, other)["metrics"]
    assert 0.2 * ROWS < ROWS - result.report.rows < 0.3 * ROWS and result.report.rows_seen == 2 * result.report.rows
    assert scores["holdout"]["accuracy"] == pytest.approx(scores["validation"]["accuracy"], abs=0.05)
    # validation changes nothing that is learned
    alone = train(data, holdout=0.25, epochs=2)
    assert evaluate(alone.model, data) == evaluate(result.model, data)
    with pytest.raises(ColumnError, match="no column 'y' for the target"):
        train(data, validate=other.drop_columns(["y"]))


def test_weights() -> None:
    data = table()
    ones = data.append_column("w", pa.array(np.ones(ROWS)))
    same = evaluate(train(ones, weight="w").model, data)
    plain = evaluate(train(data).model, data)  # weights are learned by another formula, which is nearly the same for 1
    assert same["rows"] == plain["rows"] and same["metrics"] == pytest.approx(plain["metrics"], rel=0.01, abs=2e-3)
    # rows that weigh nothing are as if they were not there: here they would teach the opposite
    flipped = data.set_column(3, "y", pa.array([3 if v == -7 else -7 for v in data["y"].to_pylist()]))
    both = pa.concat_tables([data, flipped]).append_column("w", pa.array(np.repeat([1.0, 0.0], ROWS)))
    assert evaluate(train(both, weight="w").model, data)["metrics"]["accuracy"] > 0.93
    assert evaluate(train(both.drop_columns(["w"])).model, data)["metrics"]["accuracy"] < 0.8
    for bad in (-1.0, np.nan, np.inf, None):
        weights = pa.array([bad, *[1.0] * (ROWS - 1)])
        with pytest.raises(BadValueError, match="weight 'w'"):
            train(data.append_column("w", weights), weight="w")


def test_classes_that_are_given(tmp_path: Path) -> None:
    data = table()
    result = train(data, classes=["3", "-7", "40"])
    assert result.model.classes == (-7, 3, 40) and result.report.loss == "softmax"
    predict(result.model, data, out=tmp_path / "p.parquet")
    assert pq.read_table(tmp_path / "p.parquet").column_names[1:] == [f"probability_{c}" for c in (-7, 3, 40)]
    with pytest.raises(BadValueError, match=r"target 'y' is 3 .*name it in --classes"):
        train(data, classes=["-7", "40"])
    words = train(table(kind="words"), classes=["c", "b", "a"])
    assert words.model.classes == ("a", "b", "c")


_PREDICT = """
import json, sys
import streamtrain
from streamtrain.memory.process import peak_bytes, reset_peak
from streamtrain.model import load_model
run, data, out = sys.argv[1:]
reset_peak()
rows = streamtrain.predict(run, data, out=out, memory="400MB")["rows"]
print(json.dumps([rows, peak_bytes()]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="measured through /proc")
def test_predictions_take_constant_memory(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = 200_000  # of 40 float32: 32 MB
    columns = {f"x{i}": rng.normal(size=rows).astype(np.float32) for i in range(40)}
    (tmp_path / "few").mkdir()
    pq.write_table(pa.table(columns | {"y": np.arange(rows) % 2}), tmp_path / "few/0.parquet", row_group_size=65_536)
    fit(tmp_path / "few", target="y", out=tmp_path / "r")
    peaks = []
    for name, times in (("some", 8), ("many", 20)):  # the first fills every buffer
        (tmp_path / name).mkdir()
        for i in range(times):
            shutil.copyfile(tmp_path / "few/0.parquet", tmp_path / f"{name}/{i}.parquet")
        command = [sys.executable, "-c", _PREDICT, tmp_path / "r", tmp_path / name, tmp_path / f"{name}.parquet"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=90)
        found, peak = json.loads(done.stdout)
        assert found == times * rows == pq.read_metadata(tmp_path / f"{name}.parquet").num_rows
        peaks.append(peak)
    assert max(peaks) < 400e6
    assert peaks[1] - peaks[0] < 70e6, peaks  # of 384 MB more data; two reads at once or one, as it happens

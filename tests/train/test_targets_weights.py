"""Several targets, weights of rows and of classes, and every loss from the command line."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make import CommandLine
from numpy.typing import NDArray

from streamtrain import evaluate, fit, load_model, predict
from streamtrain.batch import Batch
from streamtrain.errors import DataError, UsageError
from streamtrain.learn import LOSSES, Linear, get_loss

ROWS = 4000


@pytest.fixture
def run(cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run a command: its JSON, or its exit code and what it said."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: Any) -> Any:
        done = cli(*arguments)
        return (done.code, done.err) if done.code else done.json

    return call


def columns(seed: int = 0, rows: int = ROWS) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    return {"u": rng.normal(size=rows), "v": rng.normal(size=rows), "noise": rng.normal(size=rows)}


def predicted(model: Any, data: Any, folder: Path) -> pa.Table:
    predict(model, data, out=folder / "predicted.parquet")
    return pq.read_table(folder / "predicted.parquet")


# -- several targets -------------------------------------------------------------------------------------------------------


def test_several_numbers_are_learned_each_as_if_alone(tmp_path: Path, run: Callable[..., Any]) -> None:
    c = columns()
    a, b = 3 * c["u"] + c["noise"], 1e6 - 1000 * c["v"] + 200 * c["noise"]
    table = pa.table({"u": c["u"], "v": c["v"], "a": a, "b": b})
    pq.write_table(table, tmp_path / "t.parquet")
    report = run("fit", "t.parquet", "--target", "a,b", "--out", "r", "--json", "--epochs", 3, "--holdout", 0.2)
    assert report["targets"] == ["a", "b"] and report["task"] == "regress" and report["classes"] is None
    assert report["per_class"] is None
    scores = report["metrics"]["holdout"]
    assert set(scores) == {"loss", "rmse", "mae", "r2", "targets"} and set(scores["targets"]) == {"a", "b"}
    assert scores["rmse"] == pytest.approx(np.mean([one["rmse"] for one in scores["targets"].values()]))
    assert scores["targets"]["a"]["rmse"] == pytest.approx(1, rel=0.1)
    assert scores["targets"]["b"]["rmse"] == pytest.approx(200, rel=0.1)
    run("predict", "r", "t.parquet", "--out", "p.parquet", "--json")
    found = pq.read_table(tmp_path / "p.parquet")
    assert found.column_names == ["prediction_a", "prediction_b"]
    for name in "ab":
        other = "b" if name == "a" else "a"
        alone = fit(table, target=name, exclude=[other], epochs=3, holdout=0.2).model
        expected = predicted(alone, table, tmp_path)["prediction"].to_numpy()
        spread = table[name].to_numpy().std()
        assert np.abs(found[f"prediction_{name}"].to_numpy() - expected).max() < 3e-3 * spread, name
    scored = run("evaluate", "r", "t.parquet", "--json")["metrics"]["targets"]
    error = found["prediction_b"].to_numpy() - b
    assert scored["b"]["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-3)


def test_several_labels(tmp_path: Path) -> None:
    c = columns()
    table = pa.table({"u": c["u"], "v": c["v"], "rain": c["u"] > 0, "wind": np.where(c["v"] > 1, "yes", "no")})
    result = fit(table, target=["rain", "wind"], epochs=3, out=tmp_path / "r")
    scores = result.report.metrics["progressive"]
    assert set(scores["targets"]) == {"rain", "wind"} and scores["accuracy"] > 0.95
    assert result.report.loss == "logistic" and result.report.targets == ["rain", "wind"]
    found = predicted(load_model(tmp_path / "r"), table, tmp_path)
    assert found.column_names == [
        "prediction_rain", "probability_rain_False", "probability_rain_True",
        "prediction_wind", "probability_wind_no", "probability_wind_yes",
    ]  # fmt: skip
    assert found["prediction_rain"].type == pa.bool_() and found["prediction_wind"].type == pa.string()
    for name in ("rain", "wind"):
        hits = np.mean(np.array(found[f"prediction_{name}"].to_pylist()) == np.array(table[name].to_pylist()))
        assert hits > 0.95, name
    assert evaluate(load_model(tmp_path / "r"), table) == evaluate(result.model, table)
    with pytest.raises(DataError, match=r"'rain' \(classify\), 'u' \(regress\): say --task"):
        fit(table, target=["rain", "u"])
    with pytest.raises(DataError, match="'three' has 3 classes: several targets must have two classes each"):
        fit(table.append_column("three", pa.array(np.arange(ROWS) % 3)), target=["rain", "three"])
    for asked, what in (
        ({"class_weight": "balanced"}, "one target that has classes"), ({"classes": ["0", "1"]}, "there are several"),
        ({"loss": "softmax"}, "softmax"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=what):
            fit(table, target=["rain", "wind"], **asked)


# -- weights ---------------------------------------------------------------------------------------------------------------


def rare(seed: int) -> pa.Table:
    """One row of twelve is of the second class, and the classes overlap."""
    c = columns(seed)
    y = np.random.default_rng(seed + 9).random(ROWS) < 1 / 12
    return pa.table({"u": c["u"] + 1.5 * y, "v": c["v"], "y": np.where(y, "rare", "usual")})


def test_balanced_classes_find_the_rare_one() -> None:
    train, test = rare(0), rare(1)
    plain = evaluate(fit(train, target="y", epochs=2).model, test)
    balanced = fit(train, target="y", epochs=2, class_weight="balanced")
    found = evaluate(balanced.model, test)
    recall, more = (next(r["recall"] for r in one["per_class"] if r["class"] == "rare") for one in (plain, found))
    assert recall < 0.3 and more > 0.7
    assert 0.75 < found["metrics"]["accuracy"] < plain["metrics"]["accuracy"]  # metrics are of rows, not of classes
    count = train["y"].to_pylist().count("rare")
    explicit = {"rare": ROWS / 2 / count, "usual": ROWS / 2 / (ROWS - count)}
    assert evaluate(fit(train, target="y", epochs=2, class_weight=explicit).model, test) == found
    step_by_step = [
        fit(train, target="y", optimizer="sgd", class_weight=given).model for given in (explicit, "balanced")
    ]
    assert evaluate(step_by_step[0], test) == evaluate(
        step_by_step[1], test
    )  # normalized does not see a factor of all weights


def test_class_weights_are_weights_of_rows(run: Callable[..., Any]) -> None:
    train = rare(0)
    weights = [3.0 if y == "rare" else 0.5 for y in train["y"].to_pylist()]
    pq.write_table(train.append_column("w", pa.array(weights)), "w.parquet")
    run("fit", "w.parquet", "--target", "y", "--weight", "w", "--out", "rows", "--json")
    report = run("fit", "w.parquet", "--target", "y", "--exclude", "w", "--class-weight", "rare=3,usual=0.5", "--out",
                 "classes", "--json")  # fmt: skip
    assert Path("rows/model.safetensors").read_bytes() == Path("classes/model.safetensors").read_bytes()
    assert [row["rows"] for row in report["per_class"]] == [weights.count(3.0), weights.count(0.5)]
    for given, what in (
        ("rare=x", "expected a number"), ("rare", "give balanced"),
        ("odd=2", "no such class: must be one of 'rare', 'usual'"),
        ("rare=-1", "0 or more"), ("rare=0,usual=0", "every class has weight 0"),
    ):  # fmt: skip
        code, said = run("fit", "w.parquet", "--target", "y", "--class-weight", given)
        assert code == 2 and what in said and said.count("\n") == 1, said


def falls(rate: float, error: float, length: float) -> float:
    """What is left of an error that decays at its own size."""
    return error * math.exp(-rate * length)


@pytest.mark.parametrize("weight", [0.5, 2.0, 7.0, 1000.0])
def test_weight_k_is_the_closed_form(weight: float) -> None:
    """Optimizer sgd, one row a batch: squared loss leaves exp(-rate * weight * |x|^2) of the error (Karampatziakis & Langford,
    equation 6), and never goes beyond the target, where k plain steps would."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 5)).astype(np.float32)
    model = Linear(5, optimizer="sgd", learning_rate=0.8, learning_rate_schedule="constant", average=False)
    y = 3.0
    length = float((x * x).sum()) + 1  # of the row, with its intercept
    expected = 0.0
    for _ in range(3):
        model.learn(Batch(x, np.array([y], np.float32), np.array([weight], np.float32), np.arange(1)))
        expected = y + falls(0.8 / length, expected - y, weight * length)  # the rate is the step over the row's power
        assert float(model.predict(x)[0]) == pytest.approx(expected, rel=1e-4)
    assert expected <= y + 1e-6


@pytest.mark.parametrize("loss", ["squared", "logistic", "quantile", "hinge", "poisson", "huber"])
def test_weights_of_two_steps_add_up(loss: str) -> None:
    """Invariance: weight 3 at once is weight 1 and then weight 2, where the rate stands still."""
    classes = 0 if LOSSES[loss].task == "regress" else 2
    x = np.array([[0.7, -1.2]], np.float32)
    target = np.array([1], np.int32) if classes else np.array([3], np.float32)

    def after(*weights: float) -> float:
        model = Linear(
            2, classes, loss=loss, optimizer="sgd", learning_rate=0.6, learning_rate_schedule="constant", average=False
        )
        for weight in weights:
            model.learn(Batch(x, target, np.array([weight], np.float32), np.arange(1)))
        return float(model.predict(x)[0])

    assert after(3.0) == pytest.approx(after(1.0, 2.0), abs=2e-5) == pytest.approx(after(*[0.5] * 6), abs=2e-5)
    assert after(3.0) != pytest.approx(after(1.0), abs=1e-3)


def test_rows_of_weight_zero_are_not_there(tmp_path: Path) -> None:
    """Neither to the learner nor to what prepares for it, wherever they stand in a batch: the state is the same to the bit."""
    c, rng = columns(rows=1024), np.random.default_rng(3)
    y = c["u"] + c["noise"] * 0.1
    text = [f"the {i % 7} words of row {i}" for i in range(1024)]
    keep = pa.table(
        {"u": c["u"], "s": [f"s{int(v > 0)}" for v in c["v"]], "text": text, "y": y, "w": c["v"] ** 2 + 0.1}
    )
    odd = pa.table(
        {"u": [math.inf] * 1024, "s": ["odd"] * 1024, "text": ["no more"] * 1024, "y": y * 1e4, "w": np.zeros(1024)}
    )
    mixed = []
    for start in range(0, 1024, 64):
        both = pa.concat_tables([keep.slice(start, 64), odd.slice(start, 64)])
        order = np.sort(rng.permutation(128)[:64])  # where those stand that count, in their order
        places = np.full(128, -1)
        places[order] = np.arange(64)
        places[places < 0] = np.arange(64, 128)
        mixed.append(both.take(places))
    asked: dict[str, Any] = {"target": "y", "weight": "w", "shuffle": False, "roles": {"text": "text"}}
    for target in (keep, pa.concat_tables(mixed)):
        assert target["w"].to_numpy().sum() == pytest.approx((c["v"] ** 2 + 0.1).sum())
    first = fit(keep, batch_size=64, **asked)
    second = fit(pa.concat_tables(mixed), batch_size=128, **asked)
    for name, value in first.model.state_dict().items():
        assert np.array_equal(value, second.model.state_dict()[name]), name
    for name, score in first.report.metrics["progressive"].items():
        assert second.report.metrics["progressive"][name] == pytest.approx(score, rel=1e-5), name
    wrong = keep.set_column(0, "u", pa.array(np.where(np.arange(1024) == 1000, np.inf, c["u"])))
    with pytest.raises(DataError, match=r"'u' is infinite.* in row 1,000 of"):
        fit(wrong.set_column(4, "w", pa.array((np.arange(1024) % 3 == 1) * 1.0)), **asked)


# -- losses ----------------------------------------------------------------------------------------------------------------


def constant_loss(loss: Any, targets: NDArray[Any], margins: NDArray[np.float64]) -> float:
    """The least mean loss that one margin for all rows has."""
    return float(min(loss.mean(np.full(len(targets), m, np.float32), targets) for m in margins))


def fitting(loss: str) -> tuple[dict[str, Any], NDArray[Any]]:
    c = columns()
    score = c["u"] - 0.5 * c["v"]
    rng = np.random.default_rng(5)
    y: NDArray[Any] = {
        "squared": score + 0.5 * c["noise"],
        "huber": score + rng.standard_t(2, ROWS) * 0.5,
        "quantile": score + 0.5 * c["noise"],
        "poisson": rng.poisson(np.exp(0.7 * score)).astype(float),
    }.get(loss, (score + 0.5 * c["noise"] > 0).astype(int))
    if loss == "softmax":
        y = np.digitize(score + 0.3 * c["noise"], [-0.7, 0.7])
    return {"u": c["u"], "v": c["v"], "y": y}, y


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_every_loss_learns_from_the_command_line(loss: str, run: Callable[..., Any]) -> None:
    data, y = fitting(loss)
    pq.write_table(pa.table(data), "t.parquet")
    report = run("fit", "t.parquet", "--target", "y", "--loss", loss, "--epochs", 3, "--out", "r", "--json")
    assert report["loss"] == loss and report["settings"]["loss"] == loss
    run("predict", "r", "t.parquet", "--out", "p.parquet", "--json")
    found = pq.read_table("p.parquet")
    own = get_loss(loss)
    if LOSSES[loss].task == "classify":
        shares = np.bincount(y) / ROWS
        probabilities = np.stack([found[n].to_numpy() for n in found.column_names[1:]], 1)
        achieved = -np.log(np.clip(probabilities[np.arange(ROWS), y], 1e-7, 1)).mean()
        assert achieved < 0.75 * -(shares * np.log(shares)).sum()
        assert np.mean(np.array(found["prediction"].to_pylist()) == y) > 0.7
        return
    margins = found["prediction"].to_numpy().astype(np.float64)
    scale = y.mean() if loss == "poisson" else y.std()
    units = y / scale
    margins = np.log(np.maximum(margins / scale, 1e-9)) if loss == "poisson" else margins / scale
    achieved = own.mean(margins.astype(np.float32), units.astype(np.float32))
    assert achieved < 0.9 * constant_loss(own, units.astype(np.float32), np.linspace(-3, 3, 301)) or loss == "poisson"
    assert achieved < constant_loss(own, units.astype(np.float32), np.linspace(-3, 3, 301)) - 0.05


@pytest.mark.parametrize("quantile", [0.1, 0.9])
def test_a_quantile_covers_its_share(quantile: float, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    u = rng.normal(size=12_000)
    y = 100 + 10 * u + rng.exponential(size=12_000) * 5
    model = fit({"u": u, "y": y}, target="y", loss="quantile", quantile=quantile, epochs=4).model
    covered = np.mean(y <= predicted(model, {"u": u}, tmp_path)["prediction"].to_numpy())
    assert covered == pytest.approx(quantile, abs=0.02)


def test_poisson_predicts_means(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    u = rng.normal(size=12_000)
    mean = 50 * np.exp(0.5 * u)
    y = rng.poisson(mean)
    model = fit({"u": u, "y": y}, target="y", task="regress", loss="poisson", epochs=3).model
    found = predicted(model, {"u": u}, tmp_path)["prediction"].to_numpy()
    assert (found > 0).all() and found.mean() == pytest.approx(y.mean(), rel=0.03)
    for low, high in ((-2, -1), (-0.5, 0.5), (1, 2)):  # over the whole range
        there = (u > low) & (u < high)
        assert found[there].mean() == pytest.approx(mean[there].mean(), rel=0.05)


def test_counts_that_are_all_large_are_counts(tmp_path: Path) -> None:
    """They are not taken about an origin, as targets far from zero otherwise are: some would be below it."""
    rng = np.random.default_rng(0)
    y = 10_000_000 + rng.integers(0, 50, 2000)
    model = fit({"u": rng.normal(size=2000), "y": y}, target="y", task="regress", loss="poisson", epochs=3).model
    assert predicted(model, {"u": np.zeros(3)}, tmp_path)["prediction"].to_numpy() == pytest.approx(1e7, rel=0.1)
    with pytest.raises(DataError, match="for counts, which are 0 or more"):
        fit({"u": np.zeros(100), "y": np.arange(100) - 1.0}, target="y", loss="poisson")


def test_huber_resists_outliers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    u = rng.normal(size=8000)
    y = 3 * u + rng.normal(size=8000) * 0.1
    y[rng.random(8000) < 0.05] += 200.0  # on one side
    grid = np.linspace(-2, 2, 9)
    errors = {}
    for loss, delta in (("squared", None), ("huber", 0.05)):
        model = fit({"u": u, "y": y}, target="y", loss=loss, delta=delta, epochs=5).model
        errors[loss] = np.abs(predicted(model, {"u": grid}, tmp_path)["prediction"].to_numpy() - 3 * grid).max()
    assert errors["huber"] < 1 and errors["squared"] > 5 * errors["huber"]

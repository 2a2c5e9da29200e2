"""Units do not matter to `normalized`; L1 gives weights that are exactly zero."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from make import examples
from numpy.typing import NDArray

from streamtrain import fit, load_model, predict

ROWS, COLUMNS = 1500, 4
LOSSES = {"squared": "number", "huber": "number", "logistic": "two", "hinge": "two", "softmax": "three"}


@functools.cache
def raw() -> tuple[NDArray[np.float64], dict[str, pa.Array]]:
    """Columns of deviation 1, one with holes and one skewed, and what stands beside them."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(ROWS, COLUMNS))
    X[:, 3] = rng.exponential(size=ROWS) - 1
    X[:, 2] = X[:, 2] * 0.5 + X[:, 0] * 0.87
    city = rng.integers(0, 30, ROWS)
    score = X @ [1.0, -0.5, 0.3, 0.7] + np.sin(city) + rng.normal(size=ROWS) * 0.5
    X[rng.random(ROWS) < 0.1, 1] = np.nan
    beside = {
        "city": pa.array([f"c{c}" for c in city]), "number": pa.array(40 + 7 * score), "two": pa.array(score > 0.5),
        "three": pa.array(np.digitize(score, [-1, 1])),
    }  # fmt: skip
    return X, beside


def predictions(folder: Path, X: NDArray[np.float64], loss: str) -> NDArray[np.float64]:
    beside, target = raw()[1], LOSSES[loss]
    features = {f"x{j}": pa.array(X[:, j], mask=np.isnan(X[:, j])) for j in range(COLUMNS)} | {"city": beside["city"]}
    data = pa.table(features | {"y": beside[target]})
    predict(fit(data, target="y", loss=loss, epochs=2).model, data, out=folder / "p.parquet")
    found = pq.read_table(folder / "p.parquet")
    if target == "number":  # in deviations of the target
        values: NDArray[np.float64] = found["prediction"].to_numpy() / np.std(beside["number"].to_numpy())
        return values
    return np.stack([found[name].to_numpy() for name in found.column_names[1:]], axis=1)


@functools.cache
def expected(loss: str, folder: Path) -> NDArray[np.float64]:
    return predictions(folder, raw()[0], loss)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("invariance")


exponents = st.lists(st.floats(-6, 6), min_size=COLUMNS, max_size=COLUMNS)
offsets = st.lists(st.floats(-1000, 1000), min_size=COLUMNS, max_size=COLUMNS)


@examples(8, derandomize=True)
@given(st.sampled_from(sorted(LOSSES)), exponents, offsets)
@example("squared", [-6.0, 6.0, -6.0, 6.0], [0.0] * COLUMNS)
@example("logistic", [0.0] * COLUMNS, [1000.0, -1000.0, 1000.0, -1000.0])
@example("softmax", [6.0, -6.0, 6.0, -6.0], [-1000.0, 1000.0, -1000.0, 1000.0])
def test_units_and_origins_change_no_prediction(
    folder: Path, loss: str, powers: list[float], shifts: list[float]
) -> None:
    """A column is scaled by 1e-6 to 1e6 and moved by up to 1,000 of its deviations."""
    moved = (raw()[0] + shifts) * 10.0 ** np.array(powers)
    np.testing.assert_allclose(predictions(folder, moved, loss), expected(loss, folder), rtol=0, atol=1e-3)


def test_predictions_are_worth_comparing(folder: Path) -> None:
    assert np.std(expected("squared", folder)) > 0.7 and np.std(expected("logistic", folder)[:, 1]) > 0.2


@pytest.mark.parametrize("powers", [[6, -6, 6, -6]])
def test_other_rules_and_penalties_learn_in_the_same_units(tmp_path: Path, powers: list[int]) -> None:
    """Columns are prepared before any optimizer sees them."""
    X, beside = raw()
    for asked in ({"optimizer": "sgd"}, {"optimizer": "ftrl", "l1": 0.003}, {"l1": 0.003, "l2": 0.01}):
        found = []
        for scale in (np.ones(COLUMNS), 10.0 ** np.array(powers)):
            data = {f"x{j}": np.nan_to_num(X[:, j]) * scale[j] for j in range(COLUMNS)} | {
                "y": beside["number"].to_numpy()
            }
            predict(fit(data, target="y", **asked).model, data, out=tmp_path / "p.parquet")
            found.append(pq.read_table(tmp_path / "p.parquet")["prediction"].to_numpy())
        assert np.abs(found[0] - found[1]).max() < 1e-3 * np.std(found[0]), asked


# -- weights that are zero -------------------------------------------------------------------------------------------------


def noisy(rows: int = 6000) -> pa.Table:
    """Two useful numbers of twenty, and one useful column of categories of two."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(rows, 20))
    c, d = rng.integers(0, 4, rows), rng.integers(0, 40, rows)
    score = 1.5 * X[:, 0] - X[:, 7] + 1.5 * (c % 2) - 0.75
    columns: dict[str, Any] = {f"x{j}": X[:, j] for j in range(20)}
    return pa.table(
        columns | {"c": [f"c{v}" for v in c], "d": [f"d{v}" for v in d], "y": (rng.logistic(size=rows) < score)}
    )


@pytest.mark.parametrize("optimizer", ["ftrl", "normalized"])
def test_l1_leaves_what_is_useful_and_nothing_else(optimizer: str, tmp_path: Path) -> None:
    table = noisy()
    run = tmp_path / optimizer
    report = fit(table, target="y", optimizer=optimizer, l1=0.02, epochs=3, holdout=0.2, out=run).report
    learner: Any = load_model(run).learner
    weights, sparse = learner.weights, learner.sparse_weights
    assert set(np.flatnonzero(weights)) == {0, 7}, weights
    assert weights[0] > 0.5 and weights[7] < -0.3
    slots = load_model(run).preparation.vocabulary.used
    assert slots == 44 and not sparse[slots + 1 :].any()
    assert 2 <= np.count_nonzero(sparse) <= 4 and np.abs(sparse).max() > 0.1  # those of c
    assert report.metrics["holdout"]["accuracy"] > 0.75
    plain: Any = fit(table, target="y", optimizer=optimizer).model.learner
    assert np.count_nonzero(plain.weights) == 20 and np.count_nonzero(plain.sparse_weights) == slots

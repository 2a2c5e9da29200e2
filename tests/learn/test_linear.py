"""Linear models: invariance, penalties, weights, averaging, state, and that they learn."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from streamtrain.batch import Batch
from streamtrain.errors import UsageError
from streamtrain.learn import RULES, Learner, Linear, get_rule
from streamtrain.prepare import Standardize

KINDS = {"regress": 0, "binary": 2, "many": 4}


def make(kind: str, rows: int = 4000, features: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features of unit scale, of which the last two are useless, and targets."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((rows, features)).astype(np.float32)
    truth = rng.standard_normal((features, max(1, KINDS[kind])))
    truth[-2:] = 0
    margin = X @ truth + 0.3
    if kind == "regress":
        return X, (margin[:, 0] + rng.standard_normal(rows) * 0.1).astype(np.float32)
    if kind == "binary":
        return X, (margin[:, 0] + rng.logistic(size=rows) > 0).astype(np.int32)
    return X, (margin + rng.gumbel(size=margin.shape)).argmax(axis=1).astype(np.int32)


def batches(X: np.ndarray, y: np.ndarray, size: int = 32, weights: np.ndarray | None = None) -> Iterator[Batch]:
    for start in range(0, len(X), size):
        rows = slice(start, start + size)
        part = None if weights is None else weights[rows]
        yield Batch(np.ascontiguousarray(X[rows]), y[rows], part, np.arange(len(y))[rows])


def fit(model: Linear, X: np.ndarray, y: np.ndarray, size: int = 32, weights: np.ndarray | None = None) -> Linear:
    for batch in batches(X, y, size, weights):
        model.learn(batch)
    return model


def mean_loss(model: Linear, X: np.ndarray, y: np.ndarray) -> float:
    return model.loss.mean(X @ model.weights + model.intercept, y)


@pytest.mark.parametrize("size", [16, 256])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_rule_learns_every_loss_with_its_default_step(kind: str, rule: str, size: int) -> None:
    X, y = make(kind, 20_000)
    model = fit(Linear(6, KINDS[kind], rule=rule), X, y, size)
    start = mean_loss(Linear(6, KINDS[kind]), X, y)
    best = mean_loss(fit(Linear(6, KINDS[kind]), np.tile(X, (5, 1)), np.tile(y, 5), 32), X, y)
    assert mean_loss(model, X, y) < best + 0.05 * (start - best)


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_and_types_of_predictions(kind: str) -> None:
    X, y = make(kind, 500)
    model = fit(Linear(6, KINDS[kind]), X, y)
    assert isinstance(model, Learner)
    prediction = model.predict(X)
    assert prediction.dtype == np.float32
    assert prediction.shape == ((500, 4) if kind == "many" else (500,))
    if kind == "many":
        np.testing.assert_allclose(prediction.sum(axis=1), 1, rtol=1e-5)
    if kind == "binary":
        assert ((prediction > 0.5) == y).mean() > 0.7


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", KINDS)
def test_scale_and_shift_of_columns_change_no_prediction(kind: str, rule: str) -> None:
    X, y = make(kind, 5000)

    def predictions(X: np.ndarray) -> np.ndarray:
        columns, model = Standardize(6), Linear(6, KINDS[kind], rule=rule)
        for batch in batches(X.astype(np.float32), y):
            columns.observe(batch.features)
            columns.transform(batch.features)
            model.learn(batch)
        return model.predict(columns.transform(X[:1000].astype(np.float32)))

    plain = predictions(X)
    moved = predictions(X.astype(np.float64) * [1e6, 1e-6, 1e-15, 1e15, 1, 1] + [0, 0, 0, 0, 1e3, -1e3])
    np.testing.assert_allclose(moved, plain, atol=1e-3 if kind != "regress" else 3e-3)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_large_l1_leaves_exact_zeros_for_useless_features_only(kind: str, rule: str) -> None:
    X, y = make(kind, 8000)
    weights = fit(Linear(6, KINDS[kind], rule=rule, l1=0.06), X, y, 64).weights.reshape(6, -1)
    assert (weights[-2:] == 0).all()
    assert (np.abs(weights[:-2]).max(axis=1) > 0.05).sum() >= 3


def test_l2_shrinks_towards_the_ridge_solution() -> None:
    X, y = make("regress", 20_000)
    model = fit(Linear(6, l2=1.0), X, y)
    ridge = np.linalg.solve(np.cov(X.T, bias=True) + np.eye(6), ((X - X.mean(0)) * (y - y.mean())[:, None]).mean(0))
    np.testing.assert_allclose(model.weights, ridge, atol=0.02)
    assert model.intercept == pytest.approx(y.mean() - X.mean(0) @ ridge, abs=0.02), "the intercept is not penalised"


def test_weights_count_rows() -> None:
    X, y = make("binary", 64)
    weights = np.repeat(np.array([0, 2], np.float32), 32)
    weighted = fit(Linear(6, 2), X, y, 64, weights)
    plain = Linear(6, 2)
    plain.learn(Batch(X[32:], y[32:], None, np.arange(32)))
    # Same gradient; the power of the rows differs, which scales a step by a little.
    cosine = weighted.weights @ plain.weights / np.linalg.norm(weighted.weights) / np.linalg.norm(plain.weights)
    assert cosine == pytest.approx(1, abs=1e-6)
    # A weight that is the same for all changes nothing; sgd, unlike nag, would notice a gradient that is not a mean.
    sgd = [fit(Linear(6, 2, rule="sgd"), X, y, 64, weights) for weights in (None, np.full(64, 4, np.float32))]
    np.testing.assert_allclose(sgd[0].weights, sgd[1].weights, rtol=1e-5)
    nothing = fit(Linear(6, 2), X, y, 64, np.zeros(64, np.float32))
    assert not nothing.weights.any()


def test_the_average_is_the_stated_one() -> None:
    X, y = make("binary", 320)
    plain, averaged = Linear(6, 2, average=False), Linear(6, 2)
    expected = np.zeros(6)
    for n, batch in enumerate(batches(X, y), start=1):
        plain.learn(batch)
        averaged.learn(batch)
        expected += (plain.weights - expected) * min(1, 4 / (n + 3))
    np.testing.assert_allclose(averaged.weights, expected, rtol=1e-4)


@pytest.mark.parametrize(("kind", "rule", "average"), list(itertools.product(KINDS, RULES, [True, False])))
def test_state_round_trip_is_bit_exact(kind: str, rule: str, average: bool) -> None:
    X, y = make(kind, 640)
    one, other = (Linear(6, KINDS[kind], rule=rule, average=average, l1=1e-3, l2=1e-3) for _ in range(2))
    fit(one, X[:320], y[:320])
    other.load_state_dict(one.state_dict())
    assert one.predict(X).tobytes() == other.predict(X).tobytes()
    fit(one, X[320:], y[320:])
    fit(other, X[320:], y[320:])
    for name, value in one.state_dict().items():
        assert np.array(value).tobytes() == np.array(other.state_dict()[name]).tobytes(), name


def test_state_is_a_copy() -> None:
    X, y = make("binary", 64)
    model = fit(Linear(6, 2), X, y)
    state = model.state_dict()
    kept = np.array(state["weights"])
    fit(model, X, y)
    np.testing.assert_array_equal(state["weights"], kept)


def test_inputs_are_left_alone() -> None:
    for kind, classes in KINDS.items():
        X, y = make(kind, 64)
        weights = np.random.default_rng(0).random(64).astype(np.float32)
        copies = X.copy(), y.copy(), weights.copy()
        fit(Linear(6, classes), X, y, 64, weights).predict(X)
        for value, copy in zip((X, y, weights), copies, strict=True):
            np.testing.assert_array_equal(value, copy)


def test_many_classes_and_features_take_the_declared_bytes() -> None:
    model = Linear(5000, 100)
    assert model.state_bytes == 5 * 5001 * 100 * 4
    X = np.random.default_rng(0).standard_normal((32, 5000)).astype(np.float32)
    model.learn(Batch(X, np.arange(32, dtype=np.int32), None, np.arange(32)))
    assert model.predict(X).argmax(axis=1).tolist() == list(range(32))


def test_what_cannot_be() -> None:
    for settings, message in (
        ({"features": 0}, "features is 0"),
        ({"features": 1, "classes": -1}, "classes is -1"),
        ({"features": 1, "classes": 1}, "at least 2 classes"),
        ({"features": 1, "step": 0.0}, "step is 0"),
        ({"features": 1, "l1": -1.0}, "l1 is -1"),
        ({"features": 1, "l2": float("nan")}, "l2 is nan"),
        ({"features": 1, "rule": "nga"}, "unknown rule 'nga'; wanted one of adam, nag, sgd"),
        ({"features": 1, "classes": 3, "loss": "logistic"}, "logistic"),
    ):
        with pytest.raises(UsageError, match=message):
            Linear(**settings)  # type: ignore[arg-type]
    assert get_rule(RULES["nag"]) is RULES["nag"]
    with pytest.raises(ValueError, match="not aligned"):
        Linear(3).predict(np.zeros((2, 4), np.float32))

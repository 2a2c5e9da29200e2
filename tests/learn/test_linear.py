"""Linear models, dense: invariance, penalties, averaging, state, and that they learn."""

from __future__ import annotations

import functools
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest

from streamtrain.batch import Batch
from streamtrain.errors import UsageError
from streamtrain.kernels import COMPILED
from streamtrain.learn import OPTIMIZERS, Learner, Linear, get_loss
from streamtrain.learn.learner import Fused
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


@functools.cache
def start_and_best(kind: str) -> tuple[float, float]:
    """Mean loss of no weights, and of good ones."""
    X, y = make(kind, 20_000)
    best = fit(Linear(6, KINDS[kind]), np.tile(X, (5, 1)), np.tile(y, 5), 256)
    return mean_loss(Linear(6, KINDS[kind]), X, y), mean_loss(best, X, y)


@pytest.mark.parametrize("size", [16, 256])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_rule_learns_every_loss_with_its_default_step(kind: str, optimizer: str, size: int) -> None:
    X, y = make(kind, 20_000)
    model = fit(Linear(6, KINDS[kind], optimizer=optimizer), X, y, size)
    start, best = start_and_best(kind)
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


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", KINDS)
def test_scale_and_shift_of_columns_change_no_prediction(kind: str, optimizer: str) -> None:
    X, y = make(kind, 5000)

    def predictions(X: np.ndarray) -> np.ndarray:
        columns, model = Standardize(6), Linear(6, KINDS[kind], optimizer=optimizer)
        for batch in batches(X.astype(np.float32), y):
            columns.observe(batch.features)
            columns.transform(batch.features)
            model.learn(batch)
        return model.predict(columns.transform(X[:1000].astype(np.float32)))

    plain = predictions(X)
    moved = predictions(X.astype(np.float64) * [1e6, 1e-6, 1e-15, 1e15, 1, 1] + [0, 0, 0, 0, 1e3, -1e3])
    np.testing.assert_allclose(moved, plain, atol=1e-3 if kind != "regress" else 3e-3)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_large_l1_leaves_exact_zeros_for_useless_features_only(kind: str, optimizer: str) -> None:
    X, y = make(kind, 8000)
    weights = fit(Linear(6, KINDS[kind], optimizer=optimizer, l1=0.06), X, y, 64).weights.reshape(6, -1)
    assert (weights[-2:] == 0).all()
    assert (np.abs(weights[:-2]).max(axis=1) > 0.05).sum() >= 3


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_l2_shrinks_towards_the_ridge_solution(optimizer: str) -> None:
    X, y = make("regress", 20_000)
    model = fit(Linear(6, l2=1.0, optimizer=optimizer), X, y)
    ridge = np.linalg.solve(np.cov(X.T, bias=True) + np.eye(6), ((X - X.mean(0)) * (y - y.mean())[:, None]).mean(0))
    np.testing.assert_allclose(model.weights, ridge, atol=0.03)
    assert model.intercept == pytest.approx(y.mean() - X.mean(0) @ ridge, abs=0.03), "the intercept is not penalised"


def test_l2_of_any_size_never_overshoots() -> None:
    X, y = make("regress", 640)
    for optimizer in OPTIMIZERS:
        assert np.abs(fit(Linear(6, l2=1e9, optimizer=optimizer, average=False), X, y).weights).max() < 1e-3, optimizer


def test_a_column_that_was_zero_at_first_owes_no_l1_for_that() -> None:
    X, y = make("regress", 4000)
    X[:64, 0] = 0
    weights = fit(Linear(6, l1=1e-4), X, y).weights
    assert abs(weights[0] - fit(Linear(6), X, y).weights[0]) < 0.05 < abs(weights[0])


def test_the_average_is_the_stated_one() -> None:
    X, y = make("binary", 320)
    plain, averaged = Linear(6, 2, average=False), Linear(6, 2)
    expected = np.zeros(6)
    for n, batch in enumerate(batches(X, y), start=1):
        plain.learn(batch)
        averaged.learn(batch)
        expected += (plain.weights - expected) * min(1, 4 / (n + 3))
    np.testing.assert_allclose(averaged.weights, expected, rtol=1e-4)


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


@pytest.mark.parametrize("penalties", [{}, {"l2": 0.1}, {"l1": 0.1, "l2": 0.1}])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_declared_bytes_are_what_learning_takes(optimizer: str, penalties: dict[str, float]) -> None:
    X, y = np.ones((4, 50_000), np.float32), np.ones(4, np.float32)
    for weights in (None, y):
        batch = Batch(X, y, weights, np.arange(4))
        tracemalloc.start()
        model = Linear(50_000, optimizer=optimizer, **penalties)  # type: ignore[arg-type]
        model.learn(batch)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak - 50_000 < model.state_bytes < peak + 450_000


@pytest.mark.skipif(not COMPILED, reason="only compiled kernels take many batches at a time")
@pytest.mark.parametrize("kind", ["regress", "binary"])
def test_a_run_is_what_learning_does(kind: str) -> None:
    X, y = make(kind, 640)
    maps = np.stack([np.full(6, 0.5), np.full(6, 0.5), np.full(6, 2.0)]).astype(np.float32)
    fused, plain = (Linear(6, KINDS[kind], l2=0.1) for _ in range(2))
    assert isinstance(fused, Fused) and fused.can_run
    block, predictions = np.zeros((2, 6)), []
    done, scores, rest = fused.run(Batch(X.copy(), y, None, np.arange(640)), 32, maps, block)
    for raw in batches(X, y):
        prepared = Batch((raw.features - maps[1]) * maps[2], raw.targets, None, raw.positions)
        predictions.append(plain.predict(prepared.features))
        plain.learn(prepared)
    assert (done, rest, fused.diverged) == (20, None, False)
    np.testing.assert_allclose(scores, np.concatenate(predictions), atol=1e-4)
    np.testing.assert_allclose(block, [(X - 0.5).sum(axis=0), ((X - 0.5) ** 2).sum(axis=0)], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(fused.weights, plain.weights, atol=1e-4)
    X[40, 0] = np.nan  # in the second batch
    before = fused.state_dict()
    done, scores, rest = fused.run(Batch(X[32:96].copy(), y[32:96], None, np.arange(64)), 32, maps, block)
    assert (done, len(scores), fused.diverged) == (0, 32, True) and rest is not None and np.isnan(rest).any()
    for name, value in fused.state_dict().items():
        np.testing.assert_array_equal(value, before[name], name)


@pytest.mark.skipif(not COMPILED, reason="only compiled kernels take many batches at a time")
def test_many_batches_in_one_run_are_the_same_bits_as_one_a_run() -> None:
    """Also for a column of zeros with L2, and for one whose squared gradients are less than what is added under the root."""
    X, y = make("binary", 640)
    X[:320, 2] = 0
    X[:, 3] = 1e-12
    maps = np.stack([np.zeros(6), np.zeros(6), np.ones(6)]).astype(np.float32)
    one, other = (Linear(6, 2, l2=0.5) for _ in range(2))
    done, scores, rest = one.run(Batch(X.copy(), y, None, np.arange(640)), 32, maps, np.zeros((2, 6)))
    assert (done, rest) == (20, None)
    alone = [other.run(batch, len(batch), maps, np.zeros((2, 6)))[1] for batch in batches(X.copy(), y)]
    np.testing.assert_array_equal(scores, np.concatenate(alone))
    for name, value in one.state_dict().items():
        np.testing.assert_array_equal(value, other.state_dict()[name], name)
    assert np.isfinite(one.weights).all()


def test_many_classes_and_features() -> None:
    model = Linear(5000, 100)
    assert model.state_bytes == 6 * 5001 * 100 * 4 + 12 + 40
    X = np.random.default_rng(0).standard_normal((32, 5000)).astype(np.float32)
    model.learn(Batch(X, np.arange(32, dtype=np.int32), None, np.arange(32)))
    assert model.predict(X).argmax(axis=1).tolist() == list(range(32))


def test_what_cannot_be() -> None:
    for settings, message in (
        ({"features": 0}, "features is 0 and slots is 0: a model needs one of them"),
        ({"features": -1, "slots": 2}, "features is -1"),
        ({"features": 1, "slots": -2}, "slots is -2"),
        ({"features": 1, "targets": 0}, "targets is 0"),
        ({"features": 1, "classes": 3, "targets": 2}, "'softmax' learns one target"),
        ({"features": 1, "delta": 2.0}, "--delta: is a parameter of --loss huber"),
        (
            {"features": 1, "learning_rate_schedule": "inverse"},
            "is for --optimizer sgd and momentum; normalized has its own rates",
        ),
        ({"features": 1, "classes": -1}, "classes is -1"),
        ({"features": 1, "classes": 1}, "at least 2 classes"),
        ({"features": 1, "learning_rate": 0.0}, "learning_rate is 0"),
        ({"features": 1, "l1": -1.0}, "l1 is -1"),
        ({"features": 1, "l2": float("nan")}, "l2 is nan"),
        (
            {"features": 1, "optimizer": "nromalized"},
            "unknown optimizer 'nromalized': must be one of adagrad, adam, ftrl, momentum, normalized, sgd",
        ),
        ({"features": 1, "classes": 3, "loss": "logistic"}, "logistic"),
    ):
        with pytest.raises(UsageError, match=message):
            Linear(**settings)  # type: ignore[arg-type]
    assert Linear(1, loss="quantile", quantile=0.9).loss == get_loss("quantile", quantile=0.9)
    with pytest.raises(ValueError, match="X has shape \\(2, 4\\); the model was made for 3 features"):
        Linear(3).predict(np.zeros((2, 4), np.float32))
    X, rows = np.zeros((2, 1), np.float32), np.arange(2)
    for targets, message in (
        ([0], "targets have shape"),
        ([[0, 1]] * 2, "targets have shape"),
        ([0, 3], "there are 3"),
    ):
        with pytest.raises((ValueError, IndexError), match=message):
            Linear(1, 3).learn(Batch(X, np.array(targets), None, rows))

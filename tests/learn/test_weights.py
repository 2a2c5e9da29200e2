"""Importance weights: the closed form, the limit of many small steps, no overshooting."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import examples

from streamtrain.batch import Batch, Sparse
from streamtrain.learn import OPTIMIZERS, Linear

ENTRIES = Sparse(np.array([0, 2]), np.array([1, 4], np.int32), np.array([0.5, -2.0], np.float32), 6)
ROW = np.array([[1.5, -0.5, 2.0]], np.float32)
SQUARES = 1 + 1.5**2 + 0.5**2 + 2**2 + 0.5**2 + 2**2  # of the intercept, the row, the entries


def one(target: float, weight: float | None, kind: type = np.float32) -> Batch:
    weights = None if weight is None else np.array([weight], np.float32)
    return Batch(ROW, np.array([target], kind), weights, np.arange(1), sparse=ENTRIES)


def steady(classes: int, step: float, **options: Any) -> Linear:
    return Linear(
        3,
        classes,
        slots=6,
        optimizer="sgd",
        learning_rate_schedule="constant",
        learning_rate=step,
        average=False,
        **options,
    )


def margin(model: Linear) -> Any:
    at = ENTRIES.indices
    values = ENTRIES.values[:, None] if model.weights.ndim == 2 else ENTRIES.values
    return ROW[0] @ model.weights + (values * model.sparse_weights[at]).sum(axis=0) + model.intercept


@pytest.mark.parametrize("weight", [0.1, 1, 7, 1e6])
def test_a_row_of_any_weight_takes_the_step_of_the_closed_form(weight: float) -> None:
    """Squared loss: the margin m goes to y + (m - y) * exp(-weight * reach); sgd's rate times |x|^2 is its step, here."""
    model = steady(0, 0.3)
    model.learn(one(2.0, weight))
    gain = 2 * (1 - math.exp(-weight * 0.3))
    np.testing.assert_allclose(margin(model), gain, rtol=1e-5)
    np.testing.assert_allclose(model.weights, gain / SQUARES * ROW[0], rtol=1e-5)
    np.testing.assert_allclose(model.sparse_weights, gain / SQUARES * np.array([0, 0.5, 0, 0, -2, 0]), rtol=1e-5)
    np.testing.assert_allclose(model.intercept, gain / SQUARES, rtol=1e-5)


@pytest.mark.parametrize(("classes", "outputs"), [(0, 1), (0, 3), (2, 1), (3, 3)])
@pytest.mark.parametrize("weight", [0.5, 3, 40])
def test_a_weight_is_the_limit_of_so_many_small_steps(classes: int, outputs: int, weight: float) -> None:
    options = {"targets": outputs} if outputs > 1 and not classes else {}
    target: Any = (
        np.array([[1.0, -2.0, 0.5]], np.float32) if options else np.ones(1, np.int32 if classes else np.float32)
    )
    whole, small = steady(classes, 0.8, **options), steady(classes, 0.8 * weight / 1000, **options)
    whole.learn(Batch(ROW, target, np.array([weight], np.float32), np.arange(1), sparse=ENTRIES))
    for _ in range(1000):
        small.learn(Batch(ROW, target, None, np.arange(1), sparse=ENTRIES))
    np.testing.assert_allclose(margin(whole), margin(small), rtol=2e-2)
    np.testing.assert_allclose(whole.weights, small.weights, rtol=2e-2)
    np.testing.assert_allclose(whole.sparse_weights, small.sparse_weights, rtol=2e-2)


def test_two_rows_of_weight_1_and_one_of_weight_2_do_the_same_where_steps_are_small() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.choice([-1, 1], (64, 3)).astype(np.float32), rng.standard_normal(64).astype(np.float32)
    twice, weighted = (Linear(3, optimizer="sgd", learning_rate=1e-3, average=False) for _ in range(2))
    for i in range(64):
        twice.learn(Batch(X[[i, i]], y[[i, i]], None, np.arange(2)))
        twice.learn(Batch(X[[i, i]], y[[i, i]], None, np.arange(2)))
        weighted.learn(Batch(X[[i]], y[[i]], np.array([2], np.float32), np.arange(1)))
    np.testing.assert_allclose(weighted.weights, twice.weights, rtol=1e-2)


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["normalized", "adagrad", "adam", "ftrl", "sgd"]),
    st.sampled_from([1.0, 1e3, 1e6]),
)
@examples(60)
def test_no_weight_makes_a_step_overshoot(seed: int, optimizer: str, weight: float) -> None:
    rng = np.random.default_rng(seed)
    X, truth = rng.standard_normal((40 * 8, 3)).astype(np.float32), rng.standard_normal(3)
    y = (X @ truth + rng.standard_normal(len(X))).astype(np.float32)
    model = Linear(3, slots=6, optimizer=optimizer, average=False)
    for i in range(0, len(X), 8):
        indices = rng.permuted(np.tile(np.arange(6, dtype=np.int32), (8, 1)), axis=1)[:, :2].ravel()
        part = Sparse(np.arange(0, 17, 2), indices, None, 6)
        model.learn(Batch(X[i : i + 8], y[i : i + 8], None, np.arange(8), sparse=part))
    before, target = float(margin(model)), float(rng.choice([-30, 30]))
    model.learn(one(target, weight))
    after = float(margin(model))
    assert abs(after - before) > 0.01, "it does move"
    assert (after - before) * (target - before) > 0, "towards the target"
    assert abs(after - before) <= abs(target - before) * 1.001, "and not past it"


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_weights_of_nothing_change_nothing(optimizer: str) -> None:
    model = Linear(3, slots=6, optimizer=optimizer, l2=0.1)
    model.learn(one(1.0, None))
    kept = {name: np.asarray(value).tobytes() for name, value in model.state_dict().items()}
    model.learn(one(9.0, 0.0))
    assert {name: np.asarray(value).tobytes() for name, value in model.state_dict().items()} == kept


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_rows_of_weight_0_are_as_if_they_were_not_there(optimizer: str) -> None:
    rng = np.random.default_rng(0)
    X, y, weights = (
        rng.standard_normal((8, 3)).astype(np.float32),
        rng.standard_normal(8).astype(np.float32),
        rng.random(8),
    )
    weights = (weights * [1, 1, 0, 1, 1, 0, 1, 0]).astype(np.float32)
    kept, states = weights > 0, []
    for values in (rng.standard_normal(16).astype(np.float32), None):
        part = Sparse(np.arange(0, 17, 2), rng.integers(0, 6, 16).astype(np.int32), values, 6)
        few = None if values is None else values.reshape(8, 2)[kept].ravel()
        rest = Sparse(np.arange(0, 11, 2), part.indices.reshape(8, 2)[kept].ravel(), few, 6)
        for batch in (
            Batch(X, y, weights, np.arange(8), sparse=part),
            Batch(X[kept], y[kept], weights[kept], np.arange(5), sparse=rest),
        ):
            model = Linear(3, slots=6, optimizer=optimizer)
            model.learn(batch)
            states.append({name: np.asarray(value).tobytes() for name, value in model.state_dict().items()})
    assert states[0] == states[1]
    assert states[2] == states[3]


def test_weights_need_not_be_near_1() -> None:
    """Adaptive optimizers take out the scale of all weights."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((640, 3)).astype(np.float32)
    y = (X @ [1, -1, 0.5] + rng.standard_normal(640) * 0.1).astype(np.float32)
    found = []
    for scale in (1e-6, 1, 1e6):
        model = Linear(3)
        for i in range(0, 640, 16):
            weights = (rng.random(16) * scale).astype(np.float32)
            model.learn(Batch(X[i : i + 16], y[i : i + 16], weights, np.arange(16)))
        found.append(model.weights)
    np.testing.assert_allclose(found, np.tile([1, -1, 0.5], (3, 1)), atol=0.1)

"""Many batches in one call: the same bits as one by one."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import examples

import streamtrain
from streamtrain.batch import Batch
from streamtrain.columns.layout import Layout
from streamtrain.columns.role import Column
from streamtrain.columns.target import Target
from streamtrain.errors import BadValueError
from streamtrain.kernels import COMPILED
from streamtrain.learn import Linear
from streamtrain.learn.family import recipe
from streamtrain.model import Model


@pytest.mark.skipif(not COMPILED, reason="only compiled kernels take many batches at a time")
@given(st.integers(0, 2**32 - 1), st.sampled_from([(16, 40), (32, 7), (100, 3)]), st.sampled_from([0.0, 0.01]))
@examples(20)
def test_a_run_gives_the_same_bits_as_its_batches(seed: int, shape: tuple[int, int], l2: float) -> None:
    size, width = shape
    rng = np.random.default_rng(seed)
    X = (rng.normal(size=(size * 60 + 5, width)) * 100 + 7).astype(np.float32)
    y = (X[:, 0] + 50 * rng.normal(size=len(X)) > 7).astype(np.int32)
    target = Target("y", "classify", (0, 1))
    layout = Layout(tuple(Column(f"x{i}", pa.float32(), "number", "") for i in range(width)), target)
    models = [Model(layout, recipe("linear", l2=l2)) for _ in range(2)]
    found = []
    for model, rows in zip(models, (len(X), size), strict=True):
        batches = [
            Batch(X[i : i + rows].copy(), y[i : i + rows], None, np.arange(rows)) for i in range(0, len(X), rows)
        ]
        found.append(np.concatenate([model.train(batch, size) for batch in batches]))
    np.testing.assert_array_equal(*found)
    for name, value in models[0].state_dict().items():
        np.testing.assert_array_equal(value, models[1].state_dict()[name], name)


@pytest.mark.skipif(not COMPILED, reason="only compiled kernels take many batches at a time")
def test_a_run_stops_at_rows_that_are_not_finite_and_survives_squares_that_are_not() -> None:
    target = Target("y", "classify", (0, 1))
    layout = Layout(tuple(Column(name, pa.float32(), "number", "") for name in "ab"), target)
    X = np.random.default_rng(0).normal(size=(20_000, 2)).astype(np.float32)
    y = (X[:, 0] > 0).astype(np.int32)
    X[15_000, 1] = 1e25  # its square is more than float32 holds
    model = Model(layout, recipe())
    assert len(model.train(Batch(X.copy(), y, None, np.arange(len(X))), 32)) == len(X)
    X[15_000, 1] = np.inf
    model = Model(layout, recipe())
    with pytest.raises(BadValueError) as error:
        model.train(Batch(X, y, None, np.arange(len(X))), 32)
    assert (error.value.row, error.value.column) == (15_000, 1)


@pytest.mark.parametrize("target", ["y", "late"])
def test_a_model_is_the_same_whoever_learns_it(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the kernel that learns many batches at a time sums are taken in another order, and that is all."""
    rng = np.random.default_rng(0)
    x, city = rng.normal(50, 3, 20_000), rng.integers(0, 40, 20_000)
    y = (x - 50) / 3 + np.sin(city) + rng.normal(size=20_000) * 0.3
    x[rng.random(20_000) < 0.1] = np.nan
    data = pa.table({"x": x, "city": pa.array([f"c{c}" for c in city]), "y": y, "late": y > 0})
    other = "late" if target == "y" else "y"
    one = streamtrain.fit(data, target=target, exclude=[other], batch_size=64)
    monkeypatch.setattr(Linear, "can_run", False)
    two = streamtrain.fit(data, target=target, exclude=[other], batch_size=64)
    losses = [result.report.metrics["progressive"]["loss"] for result in (one, two)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    weights = [np.asarray(result.model.learner.sparse_weights) for result in (one, two)]  # type: ignore[attr-defined]
    np.testing.assert_allclose(weights[1], weights[0], atol=2e-3)

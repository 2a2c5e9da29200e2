"""Running metrics against scikit-learn, at any cut into batches."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamtrain.errors import UsageError
from streamtrain.metrics import Classification, Regression, make_metrics


def feed(
    metrics: Classification | Regression, y: np.ndarray, p: np.ndarray, w: np.ndarray | None, cuts: list[int]
) -> None:
    edges = [0, *sorted(cut % (len(y) + 1) for cut in cuts), len(y)]
    for start, stop in itertools.pairwise(edges):
        metrics.update(y[start:stop], p[start:stop], None if w is None else w[start:stop])


def draw(kind: str, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    if kind == "regress":
        y = (rng.standard_normal(rows) + 1e4).astype(np.float32)
        return y, (y + rng.standard_normal(rows) * 0.5).astype(np.float32)
    if kind == "binary":
        logit = rng.normal(-2, 2, rows)
        y = (logit + rng.logistic(size=rows) > 0).astype(np.int32)
        return y, (1 / (1 + np.exp(-logit))).astype(np.float32)
    p = rng.dirichlet(np.ones(5), rows).astype(np.float32)
    return rng.integers(0, 5, rows).astype(np.int32), p


@settings(deadline=None, max_examples=25)
@given(
    kind=st.sampled_from(["binary", "many", "regress"]),
    rows=st.sampled_from([5, 4096, 9000]),
    weighted=st.booleans(),
    cuts=st.lists(st.integers(0, 10**6), max_size=6),
    seed=st.integers(0, 5),
)
def test_against_scikit_learn(kind: str, rows: int, weighted: bool, cuts: list[int], seed: int) -> None:
    skm = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    y, p = draw(kind, rows, seed)
    w = np.random.default_rng(seed).random(rows).astype(np.float32) if weighted else None
    metrics = make_metrics("regress" if kind == "regress" else "classify", {"binary": 2, "many": 5}.get(kind, 0))
    feed(metrics, y, p, w, cuts)
    result = metrics.result()
    if kind == "regress":
        loss = skm.mean_squared_error(y.astype(float), p.astype(float), sample_weight=w)
        mae = skm.mean_absolute_error(y.astype(float), p.astype(float), sample_weight=w)
        r2 = skm.r2_score(y.astype(float), p.astype(float), sample_weight=w)
        assert result == pytest.approx({"loss": loss, "rmse": math.sqrt(loss), "mae": mae, "r2": r2}, rel=1e-6)
        return
    labels = list(range(2 if kind == "binary" else 5))
    assert result["loss"] == pytest.approx(skm.log_loss(y, p, sample_weight=w, labels=labels), rel=1e-5)
    voted = p >= 0.5 if kind == "binary" else p.argmax(axis=1)
    assert result["accuracy"] == pytest.approx(skm.accuracy_score(y, voted, sample_weight=w), rel=1e-6)
    if kind == "binary" and len(set(y.tolist())) == 2:
        assert isinstance(metrics, Classification)
        error = metrics.auc_error()
        assert error is not None and result["auc"] is not None
        assert abs(result["auc"] - skm.roc_auc_score(y, p, sample_weight=w)) <= error + 1e-6
        assert rows < 1000 or error < 1e-3


@settings(deadline=None, max_examples=20)
@given(kind=st.sampled_from(["binary", "many", "regress"]), cuts=st.lists(st.integers(0, 9000), max_size=4))
def test_neither_cuts_nor_questions_nor_a_resume_change_a_bit(kind: str, cuts: list[int]) -> None:
    y, p = draw(kind, 9000, 1)
    classes = {"binary": 2, "many": 5}.get(kind, 0)
    task = "regress" if kind == "regress" else "classify"
    whole, parts = make_metrics(task, classes), make_metrics(task, classes)
    whole.update(y, p)
    edges = [0, *sorted(cuts), 9000]
    for start, stop in itertools.pairwise(edges):
        parts.update(y[start:stop], p[start:stop])
        parts.result()
        state = parts.state_dict()
        parts = make_metrics(task, classes)
        parts.load_state_dict(state)
    assert whole.result() == parts.result()
    for name, value in whole.state_dict().items():
        np.testing.assert_array_equal(value, parts.state_dict()[name])


def test_perfect_and_hopeless_scores() -> None:
    y = np.array([0, 1] * 50, np.int32)
    for p, auc, accuracy in ((y, 1, 1), (1 - y, 0, 0), (y * 0.0 + 0.5, 0.5, 0.5)):
        metrics = Classification(2)
        metrics.update(y, p.astype(np.float32))
        result = metrics.result()
        assert result["auc"] == auc and result["accuracy"] == accuracy and math.isfinite(result["loss"] or 0)


def test_r2_is_sound_at_a_big_offset() -> None:
    rng = np.random.default_rng(0)
    y = (np.round(rng.standard_normal(20_000) * 64) + 1e7).astype(np.float32)
    p = (y + np.float32(16)).astype(np.float32)
    metrics = Regression()
    metrics.update(y, p)
    assert metrics.result()["r2"] == pytest.approx(1 - 256 / np.var(y.astype(np.float64)), rel=1e-9)


def test_undefined_is_none() -> None:
    assert Classification(2).result() == {"loss": None, "accuracy": None, "auc": None}
    assert Classification(3).result() == {"loss": None, "accuracy": None}
    assert Regression().result() == {"loss": None, "rmse": None, "mae": None, "r2": None}
    one = Classification(2)
    one.update(np.zeros(3, np.int32), np.full(3, 0.25, np.float32))
    assert one.result()["auc"] is None and one.result()["accuracy"] == 1
    same = Regression()
    same.update(np.ones(3, np.float32), np.zeros(3, np.float32))
    assert same.result()["r2"] is None and same.result()["loss"] == 1


def test_what_cannot_be() -> None:
    with pytest.raises(UsageError, match="task is 'rank'"):
        make_metrics("rank")
    with pytest.raises(UsageError, match="classes is 1"):
        make_metrics("classify", 1)

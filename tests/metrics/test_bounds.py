"""What is derived from the histogram of odds is no more wrong than it says, whatever the scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import examples

from streamtrain.metrics import Classification

ONE_BIN = (0.3334, 0.334)  # in probability: all odds lie between 128/256 and 129/256


def scores(kind: str, rng: np.random.Generator, rows: int) -> np.ndarray:
    if kind == "one bin":
        p = rng.uniform(*ONE_BIN, rows)
    elif kind == "borders":  # of the groups of calibration, and the floats beside them
        p = (rng.integers(0, 16, rows) / 15).astype(np.float32)
        p = np.where(rng.random(rows) < 0.3, p, np.nextafter(p, rng.choice([-9, 9], rows).astype(np.float32)))
    elif kind == "around a border":
        p = rng.integers(1, 15) / 15 + rng.uniform(-1e-3, 1e-3, rows)
    elif kind == "extreme":
        p = rng.choice([0, 1e-30, 1e-9, 1e-7, 2e-7, 1 - 1e-7, 1], rows)
    elif kind == "few":
        p = rng.choice(rng.random(3), rows)
    else:
        p = rng.random(rows)
    return np.clip(p, 0, 1).astype(np.float32)


def answers(order: str, rng: np.random.Generator, p: np.ndarray) -> np.ndarray:
    if order == "random":
        return (rng.random(len(p)) < rng.random()).astype(np.int32)
    above = p > np.median(p)
    return (above if order == "right" else ~above).astype(np.int32)


@examples(150)
@given(
    kind=st.sampled_from(["one bin", "borders", "around a border", "extreme", "few", "any"]),
    order=st.sampled_from(["random", "right", "wrong"]),
    rows=st.sampled_from([3, 50, 2000]),
    weighted=st.sampled_from(["no", "a little", "wildly"]),
    seed=st.integers(0, 10**6),
)
def test_bounds_hold(kind: str, order: str, rows: int, weighted: str, seed: int) -> None:
    skm = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    rng = np.random.default_rng(seed)
    p = scores(kind, rng, rows)
    y = answers(order, rng, p)
    w = {"no": np.ones(rows), "a little": rng.random(rows), "wildly": 10 ** rng.uniform(-6, 6, rows)}[weighted]
    w = w.astype(np.float32).astype(float)
    metrics = Classification(2)
    metrics.update(y, p, None if weighted == "no" else w)
    result = metrics.result()

    def check(name: str, exact: float, bound: float | None) -> None:
        found = result[name]
        assert found is not None and bound is not None and 0 <= found <= 1 + 1e-9
        assert abs(found - exact) <= bound + 1e-9, (name, found, exact, bound)

    group = np.minimum(np.floor(p.astype(float) * 15), 14).astype(int)
    exact = np.abs(np.bincount(group, w * (y - p.astype(float)))).sum() / w.sum()
    check("calibration_error", exact, metrics.calibration_error_bound())
    if y.any():
        check(
            "average_precision", skm.average_precision_score(y, p, sample_weight=w), metrics.average_precision_error()
        )
    if y.any() and not y.all():
        check("auc", skm.roc_auc_score(y, p, sample_weight=w), metrics.auc_error())


def one_bin(y: list[int]) -> Classification:
    metrics = Classification(2)
    metrics.update(np.array(y), np.linspace(*ONE_BIN, len(y), dtype=np.float32))
    return metrics


def test_bounds_are_reached() -> None:
    """By 1,000 rows of each class in one bin, where the truth is that one class stands above the other."""
    right, wrong = one_bin([0] * 1000 + [1] * 1000), one_bin([1] * 1000 + [0] * 1000)
    for metrics in (right, wrong):
        assert metrics.result()["auc"] == metrics.auc_error() == 0.5
        assert metrics.result()["average_precision"] == 0.5
        assert metrics.average_precision_error() == pytest.approx(1 - 0.5)  # were the second class above: 1


def test_average_precision_error_where_the_worst_order_is_below() -> None:
    """999 rows of the first class above the bin, one in it: the second class has little to gain and more to lose."""
    metrics = one_bin([1] * 1000 + [0] * 1000)
    metrics.update(np.zeros(10**5), np.full(10**5, 0.9, np.float32))
    found, bound = metrics.result()["average_precision"], metrics.average_precision_error()
    exact = sum(k / (k + 101_000) for k in range(1, 1001)) / 1000
    assert found == pytest.approx(1000 / 102_000) and bound is not None
    assert found - exact == pytest.approx(bound, rel=3e-3)


def test_equal_scores_are_as_in_scikit_learn() -> None:
    """Scores that differ by more than a bin, as often as you like: nothing is lost but the centre of the bin."""
    skm = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    rng = np.random.default_rng(0)
    p = rng.choice(np.linspace(0.1, 0.9, 17), 5000).astype(np.float32)
    y = (rng.random(5000) < p).astype(np.int32)
    metrics = Classification(2)
    metrics.update(y, p)
    assert metrics.result()["average_precision"] == pytest.approx(skm.average_precision_score(y, p), abs=1e-12)
    assert metrics.result()["auc"] == pytest.approx(skm.roc_auc_score(y, p), abs=1e-12)


@pytest.mark.parametrize("rows", [1000, 100_000])
def test_bounds_are_small_for_scores_that_spread(rows: int) -> None:
    rng = np.random.default_rng(0)
    logit = rng.normal(-2, 2, rows)
    metrics = Classification(2)
    metrics.update(logit + rng.logistic(size=rows) > 0, (1 / (1 + np.exp(-logit))).astype(np.float32))
    bounds = metrics.auc_error(), metrics.average_precision_error(), metrics.calibration_error_bound()
    assert [bound is not None and 0 < bound < most for bound, most in zip(bounds, (1e-3, 5e-3, 5e-3), strict=True)] == [
        True
    ] * 3


def test_a_bin_is_at_most_two_thousandths_wide() -> None:
    metrics = Classification(2)
    metrics.update(np.array([0, 1]), np.full(2, 0.501, np.float32))
    assert 5e-4 < (metrics.calibration_error_bound() or 1) < 1e-3  # to its centre

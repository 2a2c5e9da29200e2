"""Importance-invariant slopes: against a fine integration, additive in the weight, never past the minimum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import examples
from scipy import special

from streamtrain.learn import LOSSES, Loss, get_loss
from streamtrain.learn.losses import Huber, Quantile

ALL = [*LOSSES.values(), Quantile(quantile=0.9), Huber(delta=0.3)]
ELEMENTWISE = [loss for loss in ALL if loss.name != "softmax"]
CLASSES = 5  # of softmax
TOLERANCE = {"softmax": 0.01, "quantile": 2e-3, "hinge": 2e-3}  # the latter two: of the integration, at the kink


def draw(loss: Loss, rows: int, scale: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Margins and targets that suit a loss."""
    margin = rng.normal(0, scale, (rows, CLASSES) if loss.name == "softmax" else rows).astype(np.float32)
    if loss.task == "classify":
        return margin, rng.integers(0, CLASSES if loss.name == "softmax" else 2, rows).astype(np.int32)
    return margin, (rng.poisson(2, rows) if loss.target_scale == "mean" else rng.normal(0, scale, rows)).astype(
        np.float32
    )


def column(values: np.ndarray, like: np.ndarray) -> np.ndarray:
    return values.astype(np.float64).reshape(-1, *[1] * (like.ndim - 1))


def gradient(loss: Loss, margin: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The gradient in float64; that of classes is otherwise float32."""
    if loss.name == "logistic":
        return special.expit(margin) - y
    if loss.name == "softmax":
        return special.softmax(margin, axis=1) - np.eye(CLASSES)[y]
    return loss.gradient(margin.copy(), y)


def moved(loss: Loss, margin: np.ndarray, y: np.ndarray, weights: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Where a row's own update takes its margin, float64."""
    return margin - column(reach, margin) * loss.invariant(margin, y, weights, reach).astype(np.float64)


def integrate(loss: Loss, margin: np.ndarray, y: np.ndarray, weights: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """The slopes by 4,000 steps of Runge and Kutta's method, float64."""
    m = margin.astype(np.float64)
    h, z = column(weights, m) / 4000, column(reach, m)

    def fall(at: np.ndarray) -> np.ndarray:
        return -z * gradient(loss, at, y)

    for _ in range(4000):
        a = fall(m)
        b = fall(m + h / 2 * a)
        c = fall(m + h / 2 * b)
        m += h / 6 * (a + 2 * b + 2 * c + fall(m + h * c))
    return (margin - m) / z


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_slopes_are_those_of_a_fine_integration(loss: Loss) -> None:
    rng = np.random.default_rng(0)
    margin, y = draw(loss, 60, 2, rng)
    weights, reach = rng.uniform(0.1, 4, 60).astype(np.float32), rng.uniform(0.02, 3, 60).astype(np.float32)
    expected = integrate(loss, margin, y, weights, reach)
    slopes = loss.invariant(margin, y, weights, reach)
    scale = np.abs(expected) if loss.name != "softmax" else np.abs(expected).max(axis=1, keepdims=True)
    tolerance = TOLERANCE.get(loss.name, 2e-6)
    floor = 0.01 if loss.name in ("quantile", "hinge") else 1e-9 / reach.min()
    assert (np.abs(slopes - expected) <= tolerance * scale + floor).all()


@examples(60)
@given(
    loss=st.sampled_from(ALL),
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([0.1, 1.0, 4.0]),
    power=st.floats(-4, 3),
)
def test_two_updates_are_one_of_their_sum(loss: Loss, seed: int, scale: float, power: float) -> None:
    rng = np.random.default_rng(seed)
    margin, y = draw(loss, 20, scale, rng)
    first, second = (rng.uniform(0, 3, 20).astype(np.float32) for _ in range(2))
    reach = (10**power * rng.uniform(0.3, 1, 20)).astype(np.float32)
    between = moved(loss, margin, y, first, reach).astype(np.float32)
    apart = margin - moved(loss, between, y, second, reach)
    together = margin - moved(loss, margin, y, first + second, reach)
    size = np.abs(together) if loss.name != "softmax" else np.abs(together).max(axis=1, keepdims=True)
    assert (np.abs(apart - together) <= TOLERANCE.get(loss.name, 1e-5) * size + 1e-5 * (1 + np.abs(margin))).all()


@examples(80)
@given(
    loss=st.sampled_from(ELEMENTWISE),
    margin=st.floats(-1e4, 1e4, width=32),
    target=st.floats(-1e3, 1e3, width=32),
    weight=st.floats(0, 1e6, width=32),
    reach=st.floats(0, 1e6, width=32),
)
def test_no_margin_passes_the_minimum(loss: Loss, margin: float, target: float, weight: float, reach: float) -> None:
    y = float(target > 0) if loss.task == "classify" else abs(target) if loss.target_scale == "mean" else target
    side = 2 * y - 1
    best = {"logistic": np.inf * side, "poisson": np.log(y) if y > 0 else -np.inf}.get(loss.name, y)
    if loss.name == "hinge":
        best = side * max(1.0, side * margin)  # all margins beyond 1 are as good
    start, *rest = (np.array([value], np.float32) for value in (margin, y, weight, reach))
    end = moved(loss, start, *rest)[0]
    low, high = min(margin, best), max(margin, best)
    slack = 1e-6 * (1 + abs(margin) + abs(end))  # slopes are float32
    assert low - slack <= end <= high + slack


@pytest.mark.parametrize("start", [-1e4, 1e4])
@pytest.mark.parametrize("name", ["squared", "huber", "quantile", "poisson", "hinge"])
def test_a_large_weight_goes_to_the_minimum(name: str, start: float) -> None:
    target, best = {"hinge": (start < 0, -np.sign(start)), "poisson": (2, np.log(2))}.get(name, (2, 2))
    values = (np.array([value], np.float32) for value in (start, target, 1e6, 1))
    assert moved(get_loss(name), *values)[0] == pytest.approx(best, abs=2e-3)  # slopes are float32


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_without_reach_a_slope_is_weight_times_gradient(loss: Loss) -> None:
    rng = np.random.default_rng(3)
    margin, y = draw(loss, 200, 3, rng)
    weights = rng.uniform(0, 5, 200).astype(np.float32)
    weights[:5] = 0
    expected = column(weights, margin) * gradient(loss, margin.astype(np.float64), y)
    for reach, tolerance in ((0.0, 3e-7), (1e-40, 3e-7), (1e-12, 3e-7), (1e-10, 1e-5)):
        slopes = loss.invariant(margin, y, weights, np.full(200, reach, np.float32))
        np.testing.assert_allclose(slopes, expected, rtol=tolerance, atol=1e-12)
        assert not slopes[:5].any(), "weight 0"


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_extremes_are_finite(loss: Loss) -> None:
    grid = np.meshgrid([-1e4, -30, 0, 1, 25, 1e4], [0, 1e-6, 1, 1e6], [0, 1e-38, 1e-6, 1, 1e6], [0, 1, 1e4])
    margin, weights, reach, y = (axis.ravel().astype(np.float32) for axis in grid)
    if loss.task == "classify":
        margin, weights, reach, y = margin[y < 2], weights[y < 2], reach[y < 2], y[y < 2].astype(np.int32)
    if loss.name == "softmax":
        margin = np.stack([margin, margin[::-1], np.zeros_like(margin), -margin], axis=1)
    before = margin.copy()
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        slopes = loss.invariant(margin, y, weights, reach)
    assert np.isfinite(slopes).all()
    assert (slopes[weights == 0] == 0).all()
    np.testing.assert_array_equal(margin, before)


@pytest.mark.parametrize("loss", ELEMENTWISE, ids=str)
def test_several_targets_move_each_by_itself(loss: Loss) -> None:
    rng = np.random.default_rng(4)
    pairs = [draw(loss, 7, 2, rng) for _ in range(3)]
    margin, y = (np.stack(parts, axis=1) for parts in zip(*pairs, strict=True))
    weights, reach = (rng.uniform(0, 3, 7).astype(np.float32) for _ in range(2))
    slopes = loss.invariant(margin, y, weights, reach)
    assert slopes.shape == (7, 3) and slopes.dtype == np.float32
    for k, (alone, own) in enumerate(pairs):
        np.testing.assert_array_equal(slopes[:, k], loss.invariant(alone, own, weights, reach))


def test_softmax_of_two_classes_is_logistic_of_their_difference() -> None:
    rng = np.random.default_rng(5)
    margin, y = rng.normal(0, 4, (50, 2)).astype(np.float32), rng.integers(0, 2, 50)
    weights, reach = (rng.uniform(0, 30, 50).astype(np.float32) for _ in range(2))
    softmax = get_loss("softmax").invariant(margin, y, weights, reach)
    # The difference of two margins moves twice as far as each.
    logistic = get_loss("logistic").invariant(margin[:, 1] - margin[:, 0], y, weights, 2 * reach)
    np.testing.assert_allclose(softmax, np.stack([-logistic, logistic], axis=1), rtol=1e-5, atol=1e-12)


@examples(40)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(0.1, 50), power=st.floats(-6, 6), classes=st.integers(2, 40))
def test_softmax_moves_towards_the_target_and_keeps_the_sum(
    seed: int, scale: float, power: float, classes: int
) -> None:
    rng = np.random.default_rng(seed)
    margin, y = rng.normal(0, scale, (10, classes)).astype(np.float32), rng.integers(0, classes, 10)
    loss, ones, reach = get_loss("softmax"), np.ones(10, np.float32), np.full(10, 10**power, np.float32)
    slopes = loss.invariant(margin, y, ones, reach)
    own = np.arange(classes) == y[:, None]
    assert (slopes[own] <= 0).all() and (slopes[~own] >= 0).all()
    np.testing.assert_allclose(slopes.sum(axis=1), 0, atol=1e-5)
    assert loss.mean(moved(loss, margin, y, ones, reach), y) <= loss.mean(margin, y) * (1 + 1e-6) + 1e-9

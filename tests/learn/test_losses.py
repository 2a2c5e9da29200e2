"""Losses: gradients against finite differences, formulas against others', predictions that cannot overflow, registry."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import special
from sklearn.metrics import hinge_loss, mean_pinball_loss, mean_poisson_deviance

from streamtrain.errors import UsageError
from streamtrain.learn import LOSSES, Loss, get_loss
from streamtrain.learn.losses import Huber, Poisson, Quantile, Softmax

ALL = [*LOSSES.values(), Quantile(quantile=0.9), Huber(delta=0.3)]
ELEMENTWISE = [loss for loss in ALL if loss.name != "softmax"]
KINKED = ("quantile", "hinge")  # have no second derivative


def classes_of(loss: Loss) -> int:
    return {"softmax": 4}.get(loss.name, 2 if loss.task == "classify" else 0)


def draw(loss: Loss, rows: int, seed: int = 0, targets: int = 1, scale: float = 2) -> tuple[np.ndarray, np.ndarray]:
    """Margins and targets that suit a loss."""
    rng = np.random.default_rng(seed)
    outputs = loss.outputs(classes_of(loss), targets)
    margin = rng.normal(0, scale, (rows, outputs) if outputs > 1 else rows).astype(np.float32)
    shape = (rows,) if targets == 1 else (rows, targets)
    if loss.task == "classify":
        return margin, rng.integers(0, classes_of(loss), shape).astype(np.int32)
    return margin, rng.poisson(2, shape).astype(np.float32) if loss.target_scale == "mean" else margin[
        ::-1
    ] + np.float32(1)


@pytest.mark.parametrize("targets", [1, 3])
@pytest.mark.parametrize("loss", ALL, ids=str)
def test_gradient_is_the_derivative_of_the_mean(loss: Loss, targets: int) -> None:
    if targets > 1 and loss.name == "softmax":
        return
    margin, y = draw(loss, 6, targets=targets)
    gradient = loss.gradient(margin.copy(), y)
    rows = 6 * targets
    for place in np.ndindex(margin.shape):
        up, down = margin.astype(np.float64), margin.astype(np.float64)
        up[place] += 1e-5
        down[place] -= 1e-5
        slope = (loss.mean(up, y) - loss.mean(down, y)) / 2e-5 * rows
        assert gradient[place] == pytest.approx(slope, abs=2e-5, rel=1e-5)
    assert gradient.dtype == np.float32 and gradient.shape == margin.shape


@pytest.mark.parametrize("loss", [loss for loss in ALL if loss.name not in KINKED], ids=str)
def test_curvature_bounds_the_second_derivative(loss: Loss) -> None:
    y = np.zeros(1, np.int32)
    largest = np.log(4) if loss.name == "poisson" else 4  # there is none for all margins: the doc says up to 4 times
    for value in np.linspace(-4, largest - 0.05, 41):
        margins = [np.zeros((1, 4) if loss.name == "softmax" else 1, np.float32) for _ in range(2)]
        for margin, x in zip(margins, (value - 0.05, value + 0.05), strict=True):
            margin.flat[0] = x
        low, high = (loss.gradient(margin, y).flat[0] for margin in margins)
        assert (high - low) / 0.1 <= loss.curvature + 1e-4


def test_formulas_are_those_of_others() -> None:
    rng = np.random.default_rng(1)
    margin, y = (rng.normal(0, 2, 500).astype(np.float32) for _ in range(2))
    close = {"rel": 1e-6}
    assert get_loss("huber").mean(margin, y) == pytest.approx(special.huber(1.345, margin - y).mean(), **close)
    for level in (0.5, 0.9):
        expected = mean_pinball_loss(y, margin, alpha=level)
        assert get_loss("quantile", quantile=level).mean(margin, y) == pytest.approx(expected, **close)
    sides = (y > 0).astype(np.int32)
    assert get_loss("hinge").mean(margin, sides) == pytest.approx(hinge_loss(sides, margin), **close)
    counts = rng.poisson(2, 500).astype(np.float32)
    poisson = get_loss("poisson")
    deviance = [mean_poisson_deviance(counts, poisson.predict(m.copy())) for m in (margin, margin - 1)]
    ours = [poisson.mean(m, counts) for m in (margin, margin - 1)]
    assert 2 * (ours[1] - ours[0]) == pytest.approx(deviance[1] - deviance[0], rel=1e-5), "up to a constant"


def test_the_best_constants() -> None:
    """Each loss is least where its statistic is: the mean, the quantile, the logarithm of the mean."""
    y = np.random.default_rng(2).poisson(3, 4001).astype(np.float32)
    grid = np.linspace(0.2, 8, 400, dtype=np.float32)
    for loss, best in (
        (get_loss("squared"), y.mean()),
        (get_loss("quantile", quantile=0.8), np.quantile(y, 0.8)),
        (get_loss("poisson"), np.log(y.mean())),
    ):
        means = [loss.mean(np.full_like(y, margin), y) for margin in grid]
        assert grid[np.argmin(means)] == pytest.approx(best, abs=0.03)


@pytest.mark.parametrize("name", ["logistic", "hinge", "softmax"])
def test_scores_at_the_extremes(name: str) -> None:
    loss = get_loss(name)
    margin = np.array([-3e38, -100, 0, 100, 3e38], np.float32)
    p = loss.predict(margin if name != "softmax" else np.stack([np.zeros_like(margin), margin], axis=1))
    np.testing.assert_array_equal(p if name != "softmax" else p[:, 1], [*[pytest.approx(0, abs=1e-30)] * 2, 0.5, 1, 1])


def test_poisson_goes_on_straight_above_its_limit() -> None:
    loss, y = Poisson(), np.zeros(3, np.float32)
    margin = np.array([20, 21, 3e38], np.float32)
    np.testing.assert_allclose(loss.predict(margin.copy()), np.exp(20), rtol=1e-6)
    np.testing.assert_allclose(loss.gradient(margin.copy(), y), np.exp(20), rtol=1e-6)
    steps = [loss.mean(np.array([m], np.float32), y[:1]) for m in (20, 21, 22)]
    np.testing.assert_allclose(np.diff(steps), np.exp(20))


@pytest.mark.parametrize("loss", ELEMENTWISE, ids=str)
def test_several_targets_are_learned_each_by_itself(loss: Loss) -> None:
    margin, y = draw(loss, 5, targets=3)
    assert margin.shape == y.shape == (5, 3)
    gradient, prediction = loss.gradient(margin.copy(), y), loss.predict(margin.copy())
    for column in range(3):
        alone = np.ascontiguousarray(margin[:, column])
        np.testing.assert_array_equal(loss.gradient(alone.copy(), y[:, column]), gradient[:, column])
        np.testing.assert_array_equal(loss.predict(alone), prediction[:, column])
    means = [loss.mean(margin[:, column], y[:, column]) for column in range(3)]
    assert loss.mean(margin, y) == pytest.approx(np.mean(means))


def test_names_tasks_and_units() -> None:
    assert {name: (loss.task, loss.target_scale) for name, loss in LOSSES.items()} == {
        "squared": ("regress", "deviation"),
        "huber": ("regress", "deviation"),
        "quantile": ("regress", "deviation"),
        "poisson": ("regress", "mean"),
        "logistic": ("classify", None),
        "hinge": ("classify", None),
        "softmax": ("classify", None),
    }
    for loss in LOSSES.values():
        assert loss.default_learning_rate > 0 and loss.curvature > 0
        assert get_loss(loss) is loss and get_loss(loss.name) is loss


def test_losses_refuse_what_does_not_fit() -> None:
    regression = [(name, 2) for name in ("squared", "huber", "quantile", "poisson")]
    for name, classes in (*regression, ("logistic", 3), ("logistic", 0), ("hinge", 3), ("softmax", 1)):
        with pytest.raises(UsageError, match=f"{name}.* {classes} "):
            get_loss(name).outputs(classes)
    with pytest.raises(UsageError, match=r"softmax.* one target; there are 2"):
        Softmax().outputs(3, targets=2)


@pytest.mark.parametrize(
    ("loss", "parameters", "message"),
    [
        ("hing", {}, "unknown loss 'hing': must be one of hinge, huber, logistic, poisson, quantile, softmax, squared"),
        ("quantile", {"quantile": 0.0}, "quantile is 0.0: must be above 0 and below 1"),
        ("quantile", {"quantile": 1.0}, "quantile is 1.0"),
        ("quantile", {"quantile": float("nan")}, "quantile is nan"),
        ("huber", {"delta": 0.0}, "delta is 0.0: must be above 0"),
        ("huber", {"delta": float("inf")}, "delta is inf"),
        ("huber", {"quantile": 0.5}, "--quantile: is a parameter of --loss quantile"),
        ("squared", {"name": 1.0}, "loss 'squared' has no parameter 'name': it has none"),
        (Huber(), {"delta": 1.0}, "can be given with the name of a loss"),
    ],
)
def test_get_loss_refuses_what_it_does_not_know(loss: str | Loss, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        get_loss(loss, **parameters)
    assert get_loss("huber", delta=2.0) == Huber(2.0) != Huber()

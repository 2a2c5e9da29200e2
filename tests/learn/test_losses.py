"""Losses: gradients against finite differences, predictions that cannot overflow, registry."""

from __future__ import annotations

import numpy as np
import pytest

from streamtrain.errors import UsageError
from streamtrain.learn import LOSSES, get_loss

CLASSES = {"squared": 0, "logistic": 2, "softmax": 4}


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_is_the_derivative_of_the_mean(name: str) -> None:
    loss, rng = get_loss(name), np.random.default_rng(0)
    outputs = loss.outputs(CLASSES[name])
    margin = rng.normal(0, 2, (6, outputs) if outputs > 1 else 6).astype(np.float32)
    targets = rng.integers(0, CLASSES[name], 6).astype(np.int32) if CLASSES[name] else margin[::-1] + 1
    gradient = loss.gradient(margin.copy(), targets)
    for place in np.ndindex(margin.shape):
        up, down = margin.astype(np.float64), margin.astype(np.float64)
        up[place] += 1e-5
        down[place] -= 1e-5
        slope = (loss.mean(up, targets) - loss.mean(down, targets)) / 2e-5 * len(margin)
        assert gradient[place] == pytest.approx(slope, abs=2e-5)
        assert gradient.dtype == np.float32


@pytest.mark.parametrize("name", LOSSES)
def test_curvature_bounds_the_second_derivative(name: str) -> None:
    loss = get_loss(name)
    outputs = loss.outputs(CLASSES[name])
    targets = np.zeros(1, np.int32)
    for value in np.linspace(-4, 4, 41):
        margins = [np.zeros((1, outputs) if outputs > 1 else 1, np.float32) for _ in range(2)]
        for margin, x in zip(margins, (value - 0.05, value + 0.05), strict=True):
            margin.flat[0] = x
        low, high = (loss.gradient(margin, targets).flat[0] for margin in margins)
        assert (high - low) / 0.1 <= loss.curvature + 1e-4


@pytest.mark.parametrize("name", ["logistic", "softmax"])
def test_probabilities_at_the_extremes(name: str) -> None:
    loss = get_loss(name)
    margin = np.array([-3e38, -100, 0, 100, 3e38], np.float32)
    p = loss.predict(margin if name == "logistic" else np.stack([np.zeros_like(margin), margin], axis=1))
    np.testing.assert_array_equal(p if name == "logistic" else p[:, 1], [0, pytest.approx(0, abs=1e-30), 0.5, 1, 1])


def test_losses_refuse_what_does_not_fit() -> None:
    for name, classes in (("squared", 2), ("logistic", 3), ("logistic", 0), ("softmax", 1)):
        with pytest.raises(UsageError, match=name):
            get_loss(name).outputs(classes)
    with pytest.raises(UsageError, match="unknown loss 'hing'; wanted one of logistic, softmax, squared"):
        get_loss("hing")

"""Optimizers: the first steps by hand, rates, schedules, registry."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from streamtrain.errors import UsageError
from streamtrain.learn import LOSSES, OPTIMIZERS, SCHEDULES, StreamStats, get_optimizer
from streamtrain.learn.optimizers import Ftrl, Optimizer
from streamtrain.learn.penalties import Penalty


def state_of(optimizer: Optimizer, shape: tuple[int, ...] = (2,)) -> dict[str, Any]:
    return {name: np.zeros(shape, np.float32) for name in optimizer.fields} | {"steps": np.zeros(())}


def moved(
    optimizer: Optimizer, gradients: list[list[float]], step: float, clock: StreamStats, penalty: Penalty | None = None
) -> Any:
    """Weights after these gradients, and the state."""
    state, weights = state_of(optimizer), np.zeros(2, np.float32)
    for gradient in gradients:
        state["steps"] += 1
        optimizer.update(np.array(gradient, np.float32), weights, state, step, clock, penalty or Penalty())
    return weights, state


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        ("normalized", [-0.05, 0.05]),  # step / sqrt(power) * sign
        ("sgd", [-0.075, 0.1]),  # step / power * g
        ("momentum", [-0.075, 0.1]),
        ("adagrad", [-0.1, 0.1]),  # step * sign
        ("adam", [-0.1, 0.1]),  # step * sign: its start is corrected
        ("ftrl", [-0.1, 0.1]),
    ],
)
def test_first_step(optimizer: str, expected: list[float]) -> None:
    weights, _ = moved(get_optimizer(optimizer), [[3, -4]], 0.1, StreamStats(rows=1, batches=1, measured=1, power=4.0))
    np.testing.assert_allclose(weights, expected, rtol=6e-3)


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        ("normalized", 0.5 * (1 + 2 / 5**0.5)),
        ("sgd", 0.75),
        ("momentum", 0.25 * 1 + (0.9 * 0.25 + 0.25 * 2)),
        ("adagrad", 1 + 2 / 5**0.5),
        ("adam", 1 / 1.01**0.5 + (0.09 + 0.2) / 0.19 / ((0.000999 + 0.004) / 0.001999) ** 0.5 / 1.02**0.5),
        ("ftrl", 1 + 2 / 5**0.5),
    ],
)
def test_second_step(optimizer: str, expected: float) -> None:
    value = (
        Ftrl(beta=1e-9)
        if optimizer == "ftrl"
        else get_optimizer(optimizer, "constant")
        if optimizer in ("sgd", "momentum")
        else get_optimizer(optimizer)
    )
    weights, _ = moved(value, [[-1, 0], [-2, 0]], 1.0, StreamStats(rows=9, batches=2, measured=9, power=4.0))
    assert weights.tolist() == [pytest.approx(expected, rel=1e-5), 0]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_rate_is_how_far_a_unit_of_gradient_moves_a_weight_all_told(optimizer: str) -> None:
    """Where the gradient never changes, each step is as long as all that comes of one gradient."""
    value, clock = get_optimizer(optimizer), StreamStats(rows=1, batches=1, measured=1, power=4.0)
    before, _ = moved(value, [[3, -4]] * 399, 0.1, clock)
    after, state = moved(value, [[3, -4]] * 400, 0.1, clock)
    np.testing.assert_allclose(before - after, value.rate(state, 0.1, clock) * np.array([3, -4]), rtol=1e-3)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_unseen_feature_stays_where_it_is_and_only_sgd_knows_its_rate(optimizer: str) -> None:
    value, clock = get_optimizer(optimizer), StreamStats(rows=1, batches=1, measured=1, power=1.0)
    weights, state = moved(value, [[0, 1], [0, 0.5]], 0.1, clock)
    assert weights[0] == 0
    rate = np.broadcast_to(value.rate(state, 0.1, clock), (2,))
    assert (rate[0] > 0) == (optimizer in ("sgd", "momentum"))
    assert rate[1] > 0
    fresh = np.broadcast_to(value.rate(state_of(value), 0.1, clock), (2,))
    assert np.isfinite(fresh).all()


@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
def test_schedules_count_rows(optimizer: str) -> None:
    clock = StreamStats(rows=300_000, batches=1, measured=1, power=2.0)
    rates = [get_optimizer(optimizer, schedule).rate({}, 1.0, clock) for schedule in SCHEDULES]
    np.testing.assert_allclose(np.array(rates) / rates[0], [1, 1 / 2, 1 / 4])
    np.testing.assert_allclose(rates[0], 0.5 * (10 if optimizer == "momentum" else 1), rtol=1e-6)
    weights = [moved(get_optimizer(optimizer, schedule), [[-1, 0]], 1.0, clock)[0][0] for schedule in SCHEDULES]
    np.testing.assert_allclose(weights, [1 / 2, 1 / 4, 1 / 8])


def test_ftrl_follows_its_formula() -> None:
    rng, optimizer, penalty = np.random.default_rng(0), Ftrl(beta=0.5), Penalty(0.05, 0.1)
    state, weights = state_of(optimizer), np.zeros(2, np.float32)
    total = squares = shifts = np.zeros(2)
    zeros = 0
    for batch in range(1, 40):
        gradient, before = rng.normal([0.2, 0], 1, 2).astype(np.float32), weights.astype(np.float64)
        sigma = (np.sqrt(squares + gradient**2) - np.sqrt(squares)) / 0.3
        total, squares, shifts = total + gradient, squares + gradient**2, shifts + sigma * before
        z, rest = total - shifts, (0.5 + np.sqrt(squares)) / 0.3 + batch * 0.1
        expected = np.where(np.abs(z) <= batch * 0.05, 0, -(z - np.sign(z) * batch * 0.05) / rest)
        optimizer.update(gradient, weights, state, 0.3, StreamStats(batches=batch), penalty)
        np.testing.assert_allclose(weights, expected, atol=1e-5)
        zeros += int((weights == 0).sum())
        assert not np.signbit(weights[weights == 0]).any()
    assert zeros > 10


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_loss_has_a_default_step(optimizer: str, loss: str) -> None:
    assert 0 < get_optimizer(optimizer).default_learning_rate(LOSSES[loss]) < 10


def test_what_cannot_be() -> None:
    for arguments, message in (
        (
            ("nromalized",),
            "unknown optimizer 'nromalized': must be one of adagrad, adam, ftrl, momentum, normalized, sgd",
        ),
        (("sgd", "cosine"), "unknown schedule 'cosine': must be one of constant, sqrt, inverse"),
        (
            ("normalized", "constant"),
            "--learning-rate-schedule constant: is for --optimizer sgd and momentum; normalized has its own rates",
        ),
    ):
        with pytest.raises(UsageError, match=message):
            get_optimizer(*arguments)
    assert get_optimizer(OPTIMIZERS["normalized"]) is OPTIMIZERS["normalized"]

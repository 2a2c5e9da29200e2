"""Metrics of several targets; and when they say that it is enough."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamtrain.errors import UsageError
from streamtrain.metrics import Classification, Patience, Regression, Several, make_metrics

NAMES = ["a", "b.0", "ä"]


def draw(task: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    p = rng.random((20_000, 3), np.float32)
    y = (
        (rng.random((20_000, 3)) < p).astype(np.float32)
        if task == "classify"
        else p + rng.random((20_000, 3), np.float32)
    )
    return y, p, rng.random(20_000, np.float32)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("task", ["classify", "regress"])
def test_each_is_as_on_its_own(task: str, weighted: bool) -> None:
    y, p, w = draw(task)
    metrics = make_metrics(task, 2 if task == "classify" else 0, NAMES)
    assert isinstance(metrics, Several)
    metrics.update(y[:7000], p[:7000], w[:7000] if weighted else None)
    state = metrics.state_dict()
    metrics = make_metrics(task, 2, NAMES)
    assert isinstance(metrics, Several)
    metrics.load_state_dict(state)
    metrics.update(y[7000:], p[7000:], w[7000:] if weighted else None)
    alone = []
    for j in range(3):
        one = make_metrics(task, 2)
        one.update(y[:, j].copy(), p[:, j].copy(), w if weighted else None)
        alone.append(one)
    assert metrics.per_target() == {name: one.result() for name, one in zip(NAMES, alone, strict=True)}
    for name, value in metrics.result().items():
        assert value == pytest.approx(np.mean([one.result()[name] for one in alone]), rel=1e-12)
    for j, one in enumerate(alone):
        for name, value in one.state_dict().items():
            np.testing.assert_array_equal(value, metrics.state_dict()[f"{j}.{name}"])
    assert metrics.loss() == metrics.result()["loss"]
    assert metrics.nbytes == sum(one.nbytes for one in alone)
    kind = Classification if task == "classify" else Regression
    assert all(isinstance(one, kind) for one in metrics.each.values())


def test_means_are_of_the_targets_where_a_metric_is_defined() -> None:
    metrics = make_metrics("regress", targets=["same", "other"])
    assert metrics.result() == {"loss": None, "rmse": None, "mae": None, "r2": None}
    metrics.update(np.array([[1, 1], [1, 3]]), np.array([[1, 2], [1, 2]], np.float32))
    assert metrics.result() == {"loss": 0.5, "rmse": 0.5, "mae": 0.5, "r2": 0.0}


def test_one_name_is_no_several() -> None:
    assert isinstance(make_metrics("regress", 0, ["a"]), Regression)
    assert isinstance(make_metrics("classify", 3, ["a"]), Classification)


def test_what_cannot_be() -> None:
    with pytest.raises(UsageError, match=r"2 targets of 3 classes each: .* must have two"):
        make_metrics("classify", 3, ["a", "b"])
    with pytest.raises(UsageError, match="'a' is named twice"):
        make_metrics("regress", 0, ["b", "a", "a"])


# -- patience ------------------------------------------------------------------------------------------------------------


def stopped_at(values: list[float], patience: int, minimize: bool = True, least: float = 1e-4) -> int | None:
    watch = Patience(patience, "loss", minimize, least)
    return next((epoch for epoch, value in enumerate(values) if watch.update(value)), None)


@pytest.mark.parametrize(
    ("values", "patience", "expected"),
    [
        ([3, 2, 1, 0.5], 1, None),
        ([3, 2, 2, 1], 1, 2),
        ([3, 2, 2, 1, 2, 2, 0], 2, 5),
        ([1, 1, 1], 2, 2),
        ([1, 0.99995, 0.9998, 0.99975], 1, 1),  # too little
        ([1, 0.99995, 0.9998, 0.99975, 0.99975], 2, 4),  # 0.9998 is enough since the best, and 0.99975 is not
        ([math.nan, math.inf, 1], 2, 1),
        ([math.nan, 2, 1, math.nan, 0.5], 2, None),
        ([-1, -2, -3], 1, None),
        ([0, -1e-9, -2e-9], 1, None),  # relative to nothing
    ],
)
def test_when_to_stop(values: list[float], patience: int, expected: int | None) -> None:
    assert stopped_at(values, patience) == expected
    assert stopped_at([1, 1, 0], 1, least=0) == 1
    assert stopped_at([-value for value in values], patience, minimize=False) == expected


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=30), st.integers(1, 4), st.booleans(), st.integers(0, 30))
def test_patience_continues_from_its_state(values: list[float], patience: int, minimize: bool, cut: int) -> None:
    whole, part = Patience(patience, "r2", minimize), Patience(patience, "r2", minimize)
    for epoch, value in enumerate(values):
        if epoch == cut:
            state, part = part.state_dict(), Patience(patience, "r2", minimize)
            part.load_state_dict(state)
        assert part.update(value) == whole.update(value) and part.best == whole.best
    assert whole.best is not None and values[whole.best[1]] == whole.best[0]
    best = min(values) if minimize else max(values)
    assert abs(whole.best[0] - best) <= 1e-4 * abs(whole.best[0])


def test_patience_refuses_what_cannot_be() -> None:
    with pytest.raises(UsageError, match="patience is 0; must be at least 1 epoch"):
        Patience(0, "loss", True)
    for least in (-1e-4, math.inf, math.nan):
        with pytest.raises(UsageError, match="least is"):
            Patience(1, "loss", True, least)
    with pytest.raises(UsageError, match="early stopping by auc: it is undefined"):
        Patience(1, "auc", False).update(None)

"""Update rules: the first steps by hand."""

from __future__ import annotations

import numpy as np
import pytest

from streamtrain.learn import RULES, Clock, get_rule


@pytest.mark.parametrize(("rule", "expected"), [("nag", [0.05, -0.05]), ("sgd", [0.075, -0.1]), ("adam", [0.1, -0.1])])
def test_first_step(rule: str, expected: list[float]) -> None:
    """nag: step / sqrt(power) * sign; sgd: step / power * g; adam: step * sign (its start is corrected)."""
    gradient = np.array([3, -4], np.float32)
    value = get_rule(rule)
    value.update(gradient, value.init((2,)), 0.1, Clock(rows=1, batches=1, measured=1, power=4.0))
    np.testing.assert_allclose(gradient, expected, rtol=6e-3)


@pytest.mark.parametrize("rule", RULES)
def test_the_rate_is_the_factor_of_the_gradient(rule: str) -> None:
    """Where the gradient never changes, for adam: its running mean is then the gradient itself."""
    value = get_rule(rule)
    state = value.init((2,))
    for n in range(1, 200):
        gradient = np.array([3, -4], np.float32)
        rate = value.update(gradient, state, 0.1, Clock(rows=n, batches=n, measured=n, power=4.0))
    np.testing.assert_allclose(gradient, rate * np.array([3, -4]), rtol=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_an_unseen_feature_stays_where_it_is(rule: str) -> None:
    gradient, value = np.zeros(2, np.float32), get_rule(rule)
    value.update(gradient, value.init((2,)), 0.1, Clock(rows=1, batches=1, measured=1, power=1.0))
    assert gradient.tolist() == [0, 0]

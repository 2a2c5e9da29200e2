"""The running scale of a regression target."""

from __future__ import annotations

import numpy as np
import pytest

from streamtrain.errors import BadValueError
from streamtrain.prepare import TargetScale


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("batch", [1, 16, 1000])
def test_statistics_and_inverse(offset: float, batch: int) -> None:
    y = (np.random.default_rng(0).standard_normal(2000) + offset).astype(np.float32)
    copy, scale = y.copy(), TargetScale()
    for start in range(0, len(y), batch):
        scale.observe(y[start : start + batch])
    wide = y.astype(np.float64)
    assert scale.deviation == pytest.approx(wide.std(), rel=1e-9)
    scaled = scale.transform(y)
    np.testing.assert_allclose(scaled, (wide - wide.mean()) / wide.std(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(scale.inverse(scaled), y, rtol=2e-7, atol=1e-6)
    np.testing.assert_array_equal(y, copy)


def test_before_the_first_row_and_for_a_constant() -> None:
    scale = TargetScale()
    assert scale.inverse(np.ones(2, np.float32)).tolist() == [0, 0]
    scale.observe(np.full(5, 3, np.float32))
    assert scale.transform(np.full(2, 3, np.float32)).tolist() == [0, 0]
    assert scale.inverse(np.ones(2, np.float32)).tolist() == [3, 3]


def test_a_bad_value_is_named_and_changes_nothing() -> None:
    scale = TargetScale()
    scale.observe(np.array([1, 2], np.float32))
    before = scale.state_dict()
    with pytest.raises(BadValueError, match="row 1") as caught:
        scale.observe(np.array([1, np.nan, 3], np.float32))
    assert caught.value.row == 1 and scale.state_dict() == before

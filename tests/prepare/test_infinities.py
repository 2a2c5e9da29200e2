"""Infinities that come before anything is known of a column."""

from __future__ import annotations

import numpy as np
import pytest

from streamtrain.batch import Batch
from streamtrain.prepare import Preparation, Shape
from streamtrain.prepare.settings import FeatureSettings


@pytest.mark.parametrize("infinities", ["clip", "missing"])
@pytest.mark.parametrize("place", [0, 3])
def test_one_in_the_first_batch_does_not_move_the_mean(infinities: str, place: int) -> None:
    X = np.random.default_rng(0).normal(1e4, 1, (64, 1)).astype(np.float32)
    odd = X.copy()
    odd[place] = np.inf
    preparation = Preparation(Shape(("x",)), FeatureSettings(infinities=infinities))
    found = preparation.learn(Batch(odd, np.zeros(64, np.float32), None, np.arange(64)))
    assert abs(preparation.numbers.centre[0] - np.delete(X, place).mean()) < 0.01
    assert abs(1 / preparation.numbers.scale[0] - np.delete(X, place).std()) < 0.01
    assert found.features[place] == pytest.approx(0, abs=1e-3)
    assert found.sparse is not None and np.diff(found.sparse.indptr).tolist() == [int(i == place) for i in range(64)]

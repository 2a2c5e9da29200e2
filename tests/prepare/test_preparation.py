"""The whole preparation: missing numbers, infinities, categories, crosses, texts; state and cut."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import examples

from streamtrain.batch import Batch, Texts
from streamtrain.errors import BadValueError, UsageError
from streamtrain.prepare import Preparation, Shape, default_hash_bits
from streamtrain.prepare.settings import FeatureSettings

SHAPE = Shape(("a", "b", "c"), ("k", "l", "hidden"), 2, ((0, 2),), ("t",))


def batch_of(seed: int, rows: int, missing: float = 0.2) -> Batch:
    rng = np.random.default_rng(seed)
    X = rng.normal([5, 0, 1e6], [1, 1e-3, 10], (rows, 3)).astype(np.float32)
    X[rng.random(X.shape) < missing] = np.nan
    words = [" ".join(rng.choice(["red", "blue", "green", "sky"], 3)).encode() for _ in range(rows)]
    sizes = np.array([len(w) for w in words], np.int32)
    starts = np.cumsum(sizes) - sizes
    sizes[rng.random(rows) < 0.1] = -1
    data = np.frombuffer(b"".join(words) or b" ", np.uint8)
    codes = rng.integers(1, 20, (rows, 3), dtype=np.uint32)
    return Batch(
        X,
        np.zeros(rows, np.float32),
        None,
        np.arange(rows),
        hashes=codes,
        texts=Texts(data, starts[:, None], sizes[:, None]),
    )


def arrays(batch: Batch) -> list[Any]:
    assert batch.sparse is not None
    return [batch.features, batch.sparse.indptr, batch.sparse.indices, batch.sparse.values]


def test_missing_numbers_stand_at_the_mean_and_leave_an_entry() -> None:
    preparation = Preparation(Shape(("x", "y")))
    X = np.array([[1, np.nan], [3, 10], [np.nan, 20], [8, 30]], np.float32)
    found = preparation.learn(Batch(X.copy(), np.zeros(4), None, np.arange(4)))
    assert found.sparse is not None and np.diff(found.sparse.indptr).tolist() == [1, 0, 1, 0]
    assert len(set(found.sparse.indices.tolist())) == 2, "each column has an entry of its own"
    np.testing.assert_allclose(found.features[[2, 0], [0, 1]], 0, atol=1e-6)
    there = X[:, 0][~np.isnan(X[:, 0])]
    np.testing.assert_allclose(found.features[[0, 1, 3], 0], (there - there.mean()) / there.std(), rtol=1e-5)


@examples(25)
@given(seed=st.integers(0, 50), batch=st.sampled_from([1, 3, 50, 400]), share=st.sampled_from([0.0, 0.1, 0.9]))
def test_statistics_are_those_of_the_values_that_are_there(seed: int, batch: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    X = rng.normal([3, -1e5, 1e-4], [2, 50, 1e-6], (400, 3)).astype(np.float32)
    X[rng.random(X.shape) < share] = np.nan
    preparation = Preparation(Shape(("a", "b", "c")))
    for start in range(0, 400, batch):
        part = X[start : start + batch].copy()
        preparation.learn(Batch(part, np.zeros(len(part)), None, np.arange(len(part))))
    numbers = preparation.numbers
    numbers._refresh()
    wide = X.astype(np.float64)
    for j in range(3):
        there = wide[~np.isnan(wide[:, j]), j]
        if len(set(there.tolist())) > 2:
            assert numbers.scale[j] == pytest.approx(1 / there.std(), rel=1e-3)
            assert numbers.shift[j] == pytest.approx(there.mean(), rel=1e-5, abs=1e-3 * there.std())


def test_two_values_stay_an_indicator_where_some_are_missing() -> None:
    preparation = Preparation(Shape(("x", "y")))
    for start in range(0, 300, 3):
        X = np.array([[0, np.nan], [np.nan, 5], [1, 7]], np.float32)
        if start == 0:
            X[:, 1] = np.nan  # a column whose first values come later
        found = preparation.learn(Batch(X, np.zeros(3), None, np.arange(3)))
    assert found.features[[0, 2], 0].tolist() == [0, 1] and found.features[[1, 2], 1].tolist() == [0, 1]
    assert found.features[1, 0] == pytest.approx(0.5, abs=0.01), "what is missing is the mean of the indicator"


def test_a_column_whose_first_value_comes_late_is_centred_about_it() -> None:
    preparation = Preparation(Shape(("x", "late")))
    rng = np.random.default_rng(0)
    for step in range(100):
        X = np.stack([rng.normal(size=32), rng.normal(1e7, 1, 32)], axis=1).astype(np.float32)
        if step < 50:
            X[:, 1] = np.nan
        found = preparation.learn(Batch(X, np.zeros(32), None, np.arange(32)))
    assert abs(found.features[:, 1].mean()) < 0.7 and 0.5 < found.features[:, 1].std() < 1.5


def test_infinities_as_asked() -> None:
    X = np.random.default_rng(0).normal(10, 2, (500, 1)).astype(np.float32)
    odd = np.array([[np.inf], [-np.inf], [11]], np.float32)

    def prepared(infinities: str) -> np.ndarray:
        preparation = Preparation(Shape(("x",)), FeatureSettings(infinities=infinities))
        preparation.learn(Batch(X.copy(), np.zeros(500), None, np.arange(500)))
        return preparation.apply(Batch(odd.copy(), np.zeros(3), None, np.arange(3))).features.ravel()

    with pytest.raises(BadValueError) as error:
        prepared("error")
    assert (error.value.row, error.value.column) == (0, 0)
    np.testing.assert_allclose(prepared("clip")[:2], [10, -10], rtol=1e-5)
    np.testing.assert_allclose(prepared("missing")[:2], 0, atol=1e-6)
    with pytest.raises(UsageError, match="--infinities"):
        prepared("ignore")


@examples(20)
@given(cuts=st.lists(st.integers(1, 199), max_size=4), seed=st.integers(0, 20))
def test_slots_do_not_depend_on_the_cut(cuts: list[int], seed: int) -> None:
    whole = batch_of(seed, 200)
    found = Preparation(SHAPE).fill_missing(batch_of(seed, 200), learn=True)[0]
    preparation, parts = Preparation(SHAPE), []
    borders = [0, *sorted(set(cuts)), 200]
    for first, last in pairwise(borders):
        part = preparation.fill_missing(whole.part(first, last), learn=True)[0]
        assert part.sparse is not None
        parts.append(part.sparse.indices)
    assert found.sparse is not None
    np.testing.assert_array_equal(np.concatenate(parts), found.sparse.indices)


def test_what_is_not_known_has_no_entry_in_the_model() -> None:
    preparation = Preparation(Shape((), ("k",), 1))
    X = np.empty((2, 0), np.float32)
    preparation.learn(Batch(X, np.zeros(2), None, np.arange(2), hashes=np.array([[5], [6]], np.uint32)))
    found = preparation.apply(Batch(X, np.zeros(2), None, np.arange(2), hashes=np.array([[6], [7]], np.uint32)))
    assert found.sparse is not None and found.sparse.indices.tolist() == [2, 0]


def test_sharing_is_told() -> None:
    preparation = Preparation(Shape((), ("k",), 1), FeatureSettings(hash_bits=4))
    codes = np.arange(1, 101, dtype=np.uint32)[:, None]
    preparation.learn(Batch(np.empty((100, 0), np.float32), np.zeros(100), None, np.arange(100), hashes=codes))
    told = preparation.as_dict()
    assert told["slots_used"] == 12 and told["shared_entries"] == pytest.approx(0.88)
    assert "--hash-bits 6" in preparation.warnings()[0]


def test_the_default_table_is_bounded() -> None:
    shape = Shape((), ("k",), 1)
    for outputs in (1, 2, 23, 1000, 10_000):
        bits = default_hash_bits(shape, outputs)
        assert bits == 6 or (16 * outputs << bits) <= 32 << 20
    assert default_hash_bits(Shape(tuple(map(str, range(5000))))) == 10

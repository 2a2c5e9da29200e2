"""The running map of numeric columns: exact statistics, invariance, two-valued columns, bad values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import examples

from streamtrain.errors import BadValueError, UsageError
from streamtrain.prepare import Standardize


def observed(X: np.ndarray, batch: int) -> Standardize:
    columns = Standardize(X.shape[1])
    for start in range(0, len(X), batch):
        columns.observe(np.ascontiguousarray(X[start : start + batch]))
    columns._refresh() if columns._block_rows else None
    return columns


@examples(30)
@given(
    offset=st.sampled_from([0.0, 1e3, -1e6]),
    power=st.sampled_from([-24, -21, -15, -9, 0, 9, 15, 21]),
    batch=st.sampled_from([1, 7, 32, 1000, 5000]),
    seed=st.integers(0, 9),
)
def test_statistics_match_float64_at_any_offset_scale_and_batch(
    offset: float, power: int, batch: int, seed: int
) -> None:
    rows = 300 if batch == 1 else 3000
    X = ((np.random.default_rng(seed).standard_normal((rows, 3)) + offset) * 10.0**power).astype(np.float32)
    columns = observed(X, batch)
    wide = X.astype(np.float64)
    deviation = wide.std(axis=0)
    np.testing.assert_allclose(columns.scale, 1 / deviation, rtol=2e-5)
    # The shift is a float32 too: it can be no closer than half a step of the offset.
    assert (np.abs(columns.shift - wide.mean(axis=0)) <= 1e-5 * deviation + np.abs(wide.mean(axis=0)) * 1e-7).all()


def test_more_rows_than_a_tile_and_many_columns() -> None:
    X = np.random.default_rng(0).normal(5, 3, (40, 5000)).astype(np.float32)
    columns = observed(X, 40)
    np.testing.assert_allclose(columns.transform(X.copy()).mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(columns.transform(X.copy()).std(axis=0), 1, rtol=1e-4)


def test_constant_and_two_valued_columns() -> None:
    X = np.array([[3, -1, 1e9], [3, 4, 2e9], [3, -1, 1e9]], np.float32)
    columns = observed(X, 1)
    assert columns.transform(X.copy()).tolist() == [[0, 0, 0], [0, 1, 1], [0, 0, 0]]
    assert columns.transform(np.full((1, 3), 7, np.float32))[0, 0] == 0, "a constant column maps to 0, whatever comes"


@pytest.mark.parametrize("third", [0.5, 2.0, -1.0])
def test_a_third_value_midway_turns_a_column_into_a_standardised_one(third: float) -> None:
    columns = Standardize(2)
    ones = np.array([[0, 0], [1, 1]] * 500, np.float32)
    columns.observe(ones)
    late = np.array([[third, 0], [1, 1]], np.float32)
    columns.observe(late)
    seen = np.concatenate([ones, late])
    np.testing.assert_allclose(columns.scale, [1 / seen[:, 0].std(), 1], rtol=1e-5)
    np.testing.assert_allclose(columns.shift, [seen[:, 0].mean(), 0], rtol=1e-5)


def test_a_third_value_that_pushes_an_old_one_inside() -> None:
    columns = Standardize(1)
    columns.observe(np.array([[0], [1]], np.float32))
    columns.observe(np.array([[2], [2]], np.float32))  # the batch itself holds only the new extremes
    assert columns.scale[0] != 0.5


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("first", [True, False])
def test_a_bad_value_is_named_and_changes_nothing(bad: float, first: bool) -> None:
    columns = Standardize(3)
    good = np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32)
    if not first:
        columns.observe(good)
    before = {name: np.array(value) for name, value in columns.state_dict().items()}
    X = good.copy()
    X[5, 1] = bad
    with pytest.raises(BadValueError, match="row 5, column 1") as caught:
        columns.observe(X)
    assert (caught.value.row, caught.value.column) == (5, 1)
    for name, value in columns.state_dict().items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_squares_that_overflow_float32_are_no_bad_values() -> None:
    columns = Standardize(1)
    columns.observe(np.array([[0], [1], [2]], np.float32))
    columns.observe(np.array([[1e25], [1], [2]], np.float32))
    np.testing.assert_allclose(columns.scale, 1 / np.std([0, 1, 2, 1e25, 1, 2]), rtol=1e-5)


def test_observe_leaves_its_input_and_transform_works_in_place() -> None:
    X = np.random.default_rng(0).standard_normal((64, 3)).astype(np.float32)
    copy, columns = X.copy(), Standardize(3)
    columns.observe(X)
    columns.observe(X)
    np.testing.assert_array_equal(X, copy)
    assert columns.transform(X) is X
    assert not np.array_equal(X, copy)


def test_what_cannot_be() -> None:
    with pytest.raises(UsageError, match="features is -1"):
        Standardize(-1)
    with pytest.raises(UsageError, match=r"expected \(rows, 3\)"):
        Standardize(3).observe(np.zeros((2, 1), np.float32))
    columns = Standardize(3)
    columns.observe(np.zeros((0, 3), np.float32))
    assert columns.transform(np.zeros((0, 3), np.float32)).shape == (0, 3)


def test_state_bytes_are_a_bound() -> None:
    columns = Standardize(40)
    for rows in (16, 1024, 4096):
        columns.observe(np.random.default_rng(0).standard_normal((rows, 40)).astype(np.float32))
    arrays = [value for value in vars(columns).values() if isinstance(value, np.ndarray)]
    held = sum(array.nbytes for array in arrays)
    assert 0.5 * held < columns.state_bytes <= 2 * held
    assert held <= columns.state_bytes

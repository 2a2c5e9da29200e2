"""Every Arrow type of number against slow exact arithmetic; its encodings, slices and cuts; what is not copied."""

from __future__ import annotations

import subprocess
import sys
import warnings
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from make import examples

from streamtrain.columns.differences import difference
from streamtrain.columns.numbers import as_numbers, numbers_in, offset_of, to_float32
from streamtrain.errors import ColumnError

quick = examples(60)
INTEGERS = [getattr(pa, f"{sign}int{bits}")() for sign in ("", "u") for bits in (8, 16, 32, 64)]
FLOATS = [pa.float16(), pa.float32(), pa.float64()]
DECIMALS = [
    pa.decimal128(38, 10),
    pa.decimal128(20, 0),
    pa.decimal128(9, -3),
    pa.decimal256(76, 40),
    pa.decimal256(50, 0),
]
if hasattr(pa, "decimal32"):  # pyarrow 19
    DECIMALS += [pa.decimal32(9, 4), pa.decimal64(18, 2)]
DURATIONS = [pa.duration(unit) for unit in ("s", "ms", "us", "ns")]


def limits(kind: pa.DataType) -> tuple[int, int]:
    info = np.iinfo(kind.to_pandas_dtype())
    return int(info.min), int(info.max)


def entries(kind: pa.DataType) -> st.SearchStrategy[Any]:
    """Exact values of a type: floats for floats, otherwise integers in the unit of the type."""
    if pa.types.is_floating(kind):
        return st.floats(width=kind.bit_width)
    if pa.types.is_boolean(kind):
        return st.integers(0, 1)
    if pa.types.is_decimal(kind):
        most = 10**kind.precision - 1
        return st.integers(-most, most) | st.integers(-3, 3) | st.sampled_from([-most, most, -(2**20), 2**20])
    low, high = limits(kind) if pa.types.is_integer(kind) else (-(2**63), 2**63 - 1)
    return st.integers(low, high) | st.integers(max(low, -5), 5) | st.sampled_from([low, high])


def built(kind: pa.DataType, values: list[Any]) -> pa.Array:
    """An Arrow array; nulls stand on numbers of their own, and the array begins and ends inside its buffers."""
    there = [v if v is not None else 1 for v in values]
    nulls = [v is None for v in values]
    if pa.types.is_decimal(kind):
        exact = [Decimal((int(v < 0), tuple(map(int, str(abs(v)))), -kind.scale)) for v in there]
        return pa.array([None, *(None if n else e for n, e in zip(nulls, exact, strict=True)), exact[-1]], kind)[1:-1]
    dtype = np.int64 if pa.types.is_duration(kind) else kind.to_pandas_dtype()
    padded = np.array([*there[:3], *there, *there[:2]], dtype)
    mask = np.array([*nulls[:3], *nulls, *nulls[:2]])
    start = len(there[:3])
    array = pa.array(padded, mask=mask if mask.any() else None).slice(start, len(values))
    return array.view(kind) if pa.types.is_duration(kind) else array


@st.composite
def arrays(draw: st.DrawFn, kinds: list[pa.DataType]) -> tuple[pa.Array, list[Any]]:
    kind = draw(st.sampled_from(kinds))
    values = draw(st.lists(st.none() | entries(kind), min_size=1, max_size=40))
    return built(kind, values), values


def nearest(value: Any) -> np.float32:
    """The float32 nearest to an exact number, the even one of two."""
    if value is None or value != value:
        return np.float32(np.nan)
    if isinstance(value, float) and np.isinf(value):
        return np.float32(value)
    with np.errstate(over="ignore"):
        guess = np.float32(float(value)) if abs(value) < 10**300 else np.float32(np.inf if value > 0 else -np.inf)
    if np.isinf(guess):
        return guess
    with np.errstate(over="ignore"):
        around = [np.nextafter(guess, np.float32(-np.inf)), guess, np.nextafter(guess, np.float32(np.inf))]
    near = [c for c in around if np.isfinite(c)]
    return min(near, key=lambda c: (abs(Fraction(float(c)) - Fraction(value)), int(c.view(np.uint32)) & 1))


def same(one: Any, other: Any) -> None:
    assert one.dtype == other.dtype == np.float32
    np.testing.assert_array_equal(one, other)


@quick
@given(arrays([*INTEGERS, *FLOATS, pa.bool_()]))
@example((pa.array([None], pa.uint64()), [None]))
def test_integers_floats_and_booleans_are_rounded_once(case: tuple[pa.Array, list[Any]]) -> None:
    array, values = case
    same(to_float32(array), np.array([nearest(v) for v in values], np.float32))


@quick
@given(arrays(DECIMALS))
def test_decimals_are_right_to_the_last_bit_but_one(case: tuple[pa.Array, list[Any]]) -> None:
    array, values = case
    unit = Fraction(10) ** -array.type.scale
    expected = [np.nan if v is None else float(v * unit) for v in values]
    np.testing.assert_allclose(as_numbers(array), expected, rtol=1e-15)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(to_float32(array), np.array(expected).astype(np.float32), rtol=2e-7)


@quick
@given(arrays(DURATIONS))
def test_durations_are_seconds(case: tuple[pa.Array, list[Any]]) -> None:
    array, values = case
    unit = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[array.type.unit]
    np.testing.assert_allclose(to_float32(array), [np.nan if v is None else v / unit for v in values], rtol=2e-7)


@quick
@given(st.data(), st.sampled_from([pa.int64(), pa.uint64(), pa.int32(), pa.uint8()]))
def test_an_origin_is_subtracted_exactly(data: st.DataObject, kind: pa.DataType) -> None:
    offset = data.draw(st.integers(*limits(kind)))
    near = st.integers(-100, 100).map(lambda d: min(max(offset + d, limits(kind)[0]), limits(kind)[1]))
    values = data.draw(st.lists(st.none() | near | entries(kind), min_size=1, max_size=30))
    expected = np.array([nearest(None if v is None else v - offset) for v in values], np.float32)
    same(to_float32(built(kind, values), offset), expected)


def test_origins_of_floats_and_out_of_the_range_of_a_type() -> None:
    same(to_float32(pa.array([1e12 + 0.5, None]), 1e12), np.array([0.5, np.nan], np.float32))
    same(to_float32(pa.array([7], pa.int8()), 1000), np.array([-993], np.float32))
    same(to_float32(pa.array([5], pa.int64()), 2.5), np.array([2.5], np.float32))
    same(to_float32(pa.array([2**62], pa.int64()), 2**80), np.array([2.0**62 - 2.0**80], np.float32))
    same(to_float32(pa.array([2**40 + 1], pa.int64()).view(pa.timestamp("us")), 2**40), np.array([1], np.float32))
    assert difference(np.zeros(0, np.int64), 5).shape == (0,)


def test_too_large_becomes_infinite_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = pa.array([1e300, -1e300, None, np.nan, np.inf])
        same(to_float32(values), np.array([np.inf, -np.inf, np.nan, np.nan, np.inf], np.float32))
        same(to_float32(values, 1e300), np.array([0, -np.inf, np.nan, np.nan, np.inf], np.float32))
        assert np.isinf(to_float32(pa.array([Decimal(10) ** 70], pa.decimal256(76, 0)))).all()


def test_the_null_type_and_no_rows() -> None:
    same(to_float32(pa.nulls(3)), np.full(3, np.nan, np.float32))
    lists = [pa.list_(pa.int64(), 2), pa.fixed_shape_tensor(pa.int8(), [2, 2])]
    for kind in [*INTEGERS, *FLOATS, *DECIMALS, *DURATIONS, pa.bool_(), pa.null(), *lists]:
        shape = (0,) if numbers_in(kind) == 1 else (0, numbers_in(kind))
        assert to_float32(pa.nulls(0, kind)).shape == shape
        if kind not in lists[1:]:
            assert np.isnan(to_float32(pa.nulls(9, kind).slice(8))).all()


def test_what_stands_at_nulls_does_not_matter() -> None:
    places = pa.array(np.array([99, 0]), mask=np.array([True, False]))
    assert str(to_float32(pa.DictionaryArray.from_arrays(places, pa.array([5]), safe=False)).tolist()) == "[nan, 5.0]"
    empty = pa.DictionaryArray.from_arrays(pa.nulls(2, pa.int8()), pa.array([], pa.int64()))
    same(to_float32(empty), np.full(2, np.nan, np.float32))
    for kind in (pa.int64(), pa.bool_()):  # other libraries leave the buffers of no rows out
        assert to_float32(pa.Array.from_buffers(kind, 0, [None, None])).shape == (0,)


KINDS = [*INTEGERS, *FLOATS, pa.bool_(), DECIMALS[0], DURATIONS[1]]


@quick
@given(arrays(KINDS), st.data())
def test_dictionaries_are_looked_up(case: tuple[pa.Array, list[Any]], data: st.DataObject) -> None:
    base, _ = case
    places = data.draw(st.lists(st.none() | st.integers(0, len(base) - 1), min_size=2, max_size=30))
    values = pa.DictionaryArray.from_arrays(pa.array(places, pa.int8()), base)[1:]
    plain = to_float32(base)
    expected = np.array([np.nan if p is None else plain[p] for p in places[1:]], np.float32)
    same(to_float32(values), expected)


@quick
@given(arrays(KINDS), st.data())
def test_runs_are_repeated(case: tuple[pa.Array, list[Any]], data: st.DataObject) -> None:
    base, _ = case
    runs = data.draw(st.lists(st.integers(1, 4), min_size=len(base), max_size=len(base)))
    values = pa.RunEndEncodedArray.from_arrays(pa.array(np.cumsum(runs), pa.int32()), base)
    start = data.draw(st.integers(0, len(values)))
    length = data.draw(st.integers(0, len(values) - start))
    expected = np.repeat(to_float32(base), runs)
    same(to_float32(values.slice(start, length)), expected[start : start + length])


@quick
@given(arrays(KINDS), st.data())
def test_lists_and_tensors_are_flattened(case: tuple[pa.Array, list[Any]], data: st.DataObject) -> None:
    base, _ = case
    items = pa.concat_arrays([base] * 6)
    rows = len(base)
    missing = np.array(data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows)))
    pairs = pa.FixedSizeListArray.from_arrays(items, 2)
    nested = pa.FixedSizeListArray.from_arrays(pairs, 3, mask=pa.array(missing))
    assert numbers_in(nested.type) == 6
    expected = to_float32(items).reshape(-1, 6).copy()
    expected[missing] = np.nan
    start = data.draw(st.integers(0, rows))
    same(to_float32(nested.slice(start)), expected[start:])
    if pa.types.is_integer(base.type) or pa.types.is_floating(base.type):
        tensor = pa.fixed_shape_tensor(base.type, [2, 3])
        flat = pa.FixedSizeListArray.from_arrays(items, 6, mask=pa.array(missing))
        same(to_float32(pa.ExtensionArray.from_storage(tensor, flat).slice(start)), expected[start:])
        assert numbers_in(tensor) == 6
    if len(pairs):
        looked_up = pa.DictionaryArray.from_arrays(pa.array([0, None, len(pairs) - 1]), pairs)
        ends = to_float32(pairs)
        same(to_float32(looked_up), np.stack([ends[0], np.full(2, np.nan, np.float32), ends[-1]]))


@quick
@given(arrays(KINDS), st.integers(0, 40), st.sampled_from([0, 7, -1.5]))
def test_the_cut_changes_nothing(case: tuple[pa.Array, list[Any]], cut: int, offset: float) -> None:
    array, _ = case
    parts = [to_float32(part, offset) for part in (array[:cut], array[cut:])]
    assert np.concatenate(parts).tobytes() == to_float32(array, offset).tobytes()


def test_a_wide_range_in_one_batch_only_changes_nothing() -> None:
    near, far = [2**63 - 5, 2**63 - 1], [-(2**63)]  # the difference of the latter does not fit int64
    whole = to_float32(pa.array(near + far, pa.int64()), 2**63 - 3)
    assert whole.tobytes() == to_float32(pa.array(near), 2**63 - 3).tobytes() + whole[2:].tobytes()
    assert whole.tolist() == [-2, 2, -(2.0**64)]


def test_clean_float32_is_not_copied() -> None:
    data = np.arange(12, dtype=np.float32)
    flat = pa.array(data)
    lists = pa.FixedSizeListArray.from_arrays(flat, 3)
    tensors = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float32(), [3]), lists)
    for values in (flat, flat.slice(5), lists.slice(2), tensors.slice(1)):
        numbers = to_float32(values)
        assert np.shares_memory(numbers, data) and not numbers.flags.writeable
        assert numbers.tolist() == values.to_pylist()
    ids = np.arange(9)
    assert np.shares_memory(as_numbers(pa.array(ids)), ids)


def test_nulls_are_not_written_into_the_data() -> None:
    data = np.arange(4, dtype=np.float32)
    values = pa.array(data, mask=np.array([True, False, False, True]))
    assert np.isnan(to_float32(values)).sum() == np.isnan(as_numbers(values)).sum() == 2
    assert data.tolist() == [0, 1, 2, 3]


def test_as_numbers_keeps_the_type_and_shows_hidden_nulls() -> None:
    for kind in [*INTEGERS, *FLOATS]:
        assert as_numbers(pa.array([1, 2], kind)).dtype == kind.to_pandas_dtype()
    assert as_numbers(pa.array([True, False])).dtype == np.bool_
    hidden = pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array([3, None]))
    assert hidden.null_count == 0 and str(as_numbers(hidden).tolist()) == "[3.0, nan]"
    assert as_numbers(pa.array([1.5, None], pa.float32())).dtype == np.float32


def test_an_origin_is_taken_where_it_matters() -> None:
    ids = np.arange(10**15, 10**15 + 1000)
    assert offset_of(pa.array(ids)) == 10**15 + 500 and isinstance(offset_of(pa.array(ids)), int)
    assert offset_of(pa.array(-ids.astype(float))) == -(10**15) - 499
    assert offset_of(pa.array(np.array([2**64 - 1, 2**64 - 2], np.uint64))) == 2**64 - 1
    for none in (
        np.zeros(0),
        np.array([np.nan, np.inf]),
        np.arange(1000) + 30_000,
        np.array([True, False]),
        ids * (ids % 2),
    ):
        assert offset_of(pa.array(none)) == 0


@pytest.mark.parametrize("values", [pa.array(["1"]), pa.array([[1]]), pa.array([{"a": 1}]), pa.array([b"1"])])
def test_what_holds_no_numbers_is_refused_by_type(values: pa.Array) -> None:
    with pytest.raises(ColumnError, match=r"is not a type of numbers"):
        to_float32(values)


def test_no_large_module_is_imported() -> None:
    code = (
        "import sys, decimal, pyarrow as pa\n"
        "from streamtrain.memory.pandas_import import leave_pandas_out, settle_pandas\n"
        "leave_pandas_out(), settle_pandas()\n"  # it would import others
        "from streamtrain.columns.numbers import to_float32\n"
        "ends = pa.RunEndEncodedArray.from_arrays([2, 4], [1, 2])\n"
        "for values in (pa.array([decimal.Decimal(1), None]), pa.array([1, None]), pa.array([True, None]), ends[1:]):\n"
        "    to_float32(values)\n"
        "assert 'pyarrow.compute' not in sys.modules and 'pandas' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

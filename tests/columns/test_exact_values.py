"""Numbers of more digits than a float: as categories, as labels, as numbers and as times, no difference is lost."""

from decimal import Context, Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamtrain
from streamtrain.columns.categories import hash_values
from streamtrain.columns.choose import choose_role
from streamtrain.columns.decimals import distinct
from streamtrain.columns.numbers import offset_of, to_float32
from streamtrain.columns.target import Target
from streamtrain.columns.times import to_time_numbers
from streamtrain.errors import BadValueError, UsageError
from streamtrain.load.source import Source

BIG = 90071992547409920  # 2^53 * 10
EXACT = Context(prec=100)
NARROW = [pa.decimal32(9, 0), pa.decimal64(18, 0)] if hasattr(pa, "decimal32") else []


def decimals(numbers: list[Any], precision: int, scale: int) -> pa.Array:
    make = pa.decimal128 if precision <= 38 else pa.decimal256
    return pa.array([None if n is None else Decimal(n) for n in numbers], make(precision, scale))


def hashes(values: pa.Array) -> list[int]:
    return hash_values(values, 7).tolist()


def test_equal_numbers_have_one_hash_whatever_their_type() -> None:
    whole = [7, -7, 0, BIG, BIG + 1, None]
    same = hashes(pa.array(whole))
    assert len(set(same)) == len(same)
    for kind in (pa.decimal128(38, 0), pa.decimal256(76, 0)):
        assert hashes(decimals(whole, kind.precision, 0)) == same
        assert hashes(decimals([None, *whole], kind.precision, 0).slice(1)) == same
        assert hashes(pa.DictionaryArray.from_arrays(np.arange(6), decimals(whole, kind.precision, 0))) == same
    for kind in NARROW:
        assert hashes(pa.array([Decimal(7), Decimal(-7), None], kind)) == hashes(pa.array([7, -7, None]))
    assert hashes(decimals([7000, -7000], 9, -3)) == hashes(pa.array([7000, -7000]))
    parts = ["7.1", "-0.3", "0", "1234567890123.45"]
    assert hashes(decimals(parts, 38, 2)) == hashes(decimals(parts, 50, 30)) == hashes(pa.array([*map(float, parts)]))


def test_numbers_that_differ_in_any_digit_have_different_hashes() -> None:
    for numbers, precision, scale in (
        ([10**37 + k for k in range(9)], 38, 0),
        ([-(2**63) - 1, -(2**63), 2**63 - 1, 2**63, 2**64 - 1, -1], 38, 0),
        ([f"{BIG}.0{k}" for k in range(9)], 38, 2),
        ([f"0.{'1' * 36}{k}" for k in range(9)], 38, 38),
        ([f"{'9' * 40}.{'1' * 30}{k}" for k in range(9)], 76, 31),
    ):
        array = decimals(numbers, precision, scale)
        assert len(set(hashes(array))) == len(numbers)
        names, codes = distinct(array)
        assert [names[code] for code in codes] == [EXACT.create_decimal(n) for n in numbers]
    unsigned = pa.array([2**64 - 1, 2**63, 5], pa.uint64())
    assert hashes(unsigned) == hashes(decimals([2**64 - 1, 2**63, 5], 20, 0))
    assert len({*hashes(unsigned), *hashes(pa.array([-1, -(2**63)]))}) == 5
    lasting = pa.array([2**60, 2**60 + 1], pa.int64()).view(pa.duration("ns"))
    assert len(set(hashes(lasting))) == 2


def test_labels_are_their_exact_digits() -> None:
    def target(numbers: list[Any], scale: int, **options: Any) -> Target:
        array = decimals(numbers, 38, scale)
        source = Source.open({"x": np.arange(float(len(numbers))), "y": array}, target="y", task="classify")
        found = source.surveyed(task="classify", **options).layout.target
        assert found is not None
        return found

    ids = target([BIG, BIG + 1, 5, BIG], 0)
    assert ids.classes == (5, BIG, BIG + 1) and ids.counts == (1, 2, 1)
    assert ids == Target.of([ids]) and ids.labels.to_pylist() == [5, BIG, BIG + 1]
    # the same labels as other types store them
    for own in (pa.array([BIG + 1, 5]), decimals([BIG + 1, 5], 38, 2), decimals([BIG + 1, 5], 60, 0),
                pa.array([BIG + 1, 5], pa.uint64()),
                pa.DictionaryArray.from_arrays([1, 0], decimals([5, BIG + 1], 38, 0))):  # fmt: skip
        assert ids.encode(own, "here").tolist() == [2, 0]
    with pytest.raises(BadValueError, match=f"'y' is {BIG + 2} in here"):
        ids.encode(decimals([BIG + 2], 38, 0), "here")
    assert target(["7.10", "8", "7.1"], 2).classes == (7.1, 8.0)
    assert target(["7.10", "8"], 2).encode(decimals(["8.000", "7.100"], 20, 3), "here").tolist() == [1, 0]
    assert target([f"{BIG + 1}.00", "5"], 2).classes == (5, BIG + 1)
    long = target([f"{BIG}.01", f"{BIG}.02", "5"], 2)
    assert long.classes == ("5", f"{BIG}.01", f"{BIG}.02")
    assert long.encode(decimals([f"{BIG}.02", "5"], 38, 5), "here").tolist() == [2, 0]
    wide = target([10**30, 10**30 + 1, -1], 0)
    assert wide.classes == (-1, 10**30, 10**30 + 1)
    assert wide.labels.to_pylist() == [-1, 10**30, 10**30 + 1] and wide.encode(pa.array([-1]), "here").tolist() == [0]
    assert target([BIG, BIG + 1], 0, classes=[str(BIG), str(BIG + 1), "5"]).classes == (5, BIG, BIG + 1)
    with pytest.raises(UsageError, match="give values of that type"):
        target([BIG, BIG + 1], 0, classes=["a", "b"])
    rounded = Target("y", "classify", (5.0, float(BIG)))
    with pytest.raises(BadValueError, match=str(BIG + 1)):
        rounded.encode(pa.array([BIG + 1]), "here")  # numpy compares them as equal floats


def test_differences_stay_exact_in_every_type() -> None:
    random = np.random.default_rng(0)
    steps = random.integers(-400, 400, 50).tolist()
    cases = [
        (pa.int64(), 1, 2**62), (pa.int64(), 1, -(2**62)), (pa.uint64(), 1, 2**64 - 500), (pa.int32(), 1, 2**31 - 500),
        (pa.decimal128(38, 0), 1, 10**37), (pa.decimal128(38, 20), 10**20, -(10**37)), (pa.decimal256(76, 9), 10**9, 10**75),
        (pa.decimal128(20, -3), Fraction(1, 1000), 10**18), (pa.decimal128(38, 37), 10**37, 10**37),
        (pa.duration("ns"), 10**9, 2**61), (pa.timestamp("ns"), 1, 2**60), (pa.float64(), 2**30, 2**51),
        *((kind, 1, 10**8) for kind in NARROW),
    ]  # fmt: skip
    for kind, unit, base in cases:
        numbers = [Fraction(base + step, unit) for step in steps]
        values = as_array(kind, [base + step for step in steps], unit)
        offset = offset_of(values)
        assert offset, kind
        wanted = np.array([float(n - Fraction(offset)) for n in numbers], np.float32)
        assert to_float32(values, offset).tolist() == wanted.tolist(), kind
        assert len(set(wanted.tolist())) == len(set(steps)), kind
        encoded = values.dictionary_encode() if kind not in NARROW else values
        assert offset_of(encoded) == offset and to_float32(encoded, offset).tolist() == wanted.tolist()


def as_array(kind: pa.DataType, stored: list[int], unit: Any) -> pa.Array:
    if pa.types.is_decimal(kind):
        return pa.array([EXACT.scaleb(Decimal(n), -kind.scale) if kind.scale > 0 else Decimal(n * 1000 if kind.scale else n)
                         for n in stored], kind)  # fmt: skip
    if pa.types.is_floating(kind):
        return pa.array([n / unit for n in stored], kind)
    return pa.array(stored, kind if pa.types.is_integer(kind) else pa.int64()).view(kind)


def test_small_numbers_of_many_digits_keep_their_differences_and_ordinary_ones_their_bits() -> None:
    fine = pa.array(1000 + np.arange(100) * 1e-9)
    assert len(set(to_float32(fine, offset_of(fine)).tolist())) == 100 > len(set(to_float32(fine).tolist()))
    fraction = offset_of(decimals([f"0.{'1' * 30}{k:03}" for k in range(100)], 38, 38))
    assert isinstance(fraction, Decimal)
    for ordinary in (np.full(9, 1.0), np.arange(2000.0, 2020), 1013 + np.arange(100) * 0.1, np.full(9, 0.1)):
        assert offset_of(pa.array(ordinary)) == 0
    # each entry of a list has its own
    rows = pa.FixedSizeListArray.from_arrays(pa.array([[2**60 + k, k, None] for k in range(9)]).flatten(), 3)
    offset = offset_of(rows)
    assert offset == (2**60 + 4, 0.0, 0.0)
    assert to_float32(rows, offset)[:, :2].tolist() == [[k - 4, k] for k in range(9)]


def test_data_of_another_type_are_measured_from_the_same_offset() -> None:
    offset = 2**60 + 1
    assert to_float32(decimals([2**60 + 2, None], 38, 5), offset).tolist()[0] == 1
    assert to_float32(pa.array([2.0**60]), offset).tolist() == [-1]
    assert to_float32(pa.array([BIG + 2]), Decimal(BIG) + Decimal("0.5")).tolist() == [1.5]
    assert to_float32(pa.array([2**64 - 1, 0], pa.uint64()), -5).tolist() == [2.0**64, 5]
    own = choose_role(pa.field("t", pa.timestamp("ns")))
    values = pa.array([10**18 + 1, 10**18 + 1_000_001]).view(pa.timestamp("ns"))
    own = own.becomes.first_rows(own, values)
    other = own.becomes.same(own, pa.field("t", pa.timestamp("ms")))
    later = pa.array([10**12 + 1, 10**12 + 2]).view(pa.timestamp("ms"))
    ages = (to_time_numbers(later, other.offset)[:, 0] * 86_400e9).round().tolist()  # type: ignore[arg-type]
    assert ages == pytest.approx([-1, 999_999], abs=0.1)


def test_an_offset_comes_from_the_first_values_that_are_not_missing(tmp_path: Path) -> None:
    numbers = pa.array(np.arange(20_000) + 2**60, mask=np.arange(20_000) < 16_000)
    table = pa.table(
        {
            "t": numbers.cast(pa.timestamp("ns")),
            "n": numbers,
            "never": pa.nulls(20_000, pa.int64()),
            "y": np.arange(20_000),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=1_000)
    source = Source.open(tmp_path, target="y", task="regress").with_offsets()
    times, wide, never = (column.offset for column in source.layout.columns)
    assert isinstance(times, int) and isinstance(wide, int) and 2**60 + 16_000 <= times == wide < 2**60 + 20_000
    assert never == 0


def test_a_model_keeps_what_was_subtracted(tmp_path: Path) -> None:
    rows = 40
    stamps = [10**18 + 1_000_001 * k for k in range(rows)]
    table = pa.table({
        "ids": decimals([10**37 + k for k in range(rows)], 38, 0),
        "parts": decimals([f"0.{'1' * 30}{k:03}" for k in range(rows)], 38, 38),
        "two": pa.FixedSizeListArray.from_arrays(pa.array([[2**60 + k, k] for k in range(rows)]).flatten(), 2),
        "t": pa.array(stamps).view(pa.timestamp("ns")), "lasts": pa.array(stamps).view(pa.duration("ns")),
        "label": decimals([BIG + k % 2 for k in range(rows)], 38, 0),
    })  # fmt: skip
    run = tmp_path / "run"
    fitted = streamtrain.fit(table, target="label", task="classify", out=run).model
    kept = streamtrain.load_model(run)
    assert kept.classes == (BIG, BIG + 1)
    offsets = {column.name: column.offset for column in kept.layout.columns}
    assert offsets == {column.name: column.offset for column in fitted.layout.columns} and all(offsets.values())
    assert (
        isinstance(offsets["parts"], Decimal) and isinstance(offsets["two"], tuple) and isinstance(offsets["ids"], int)
    )
    # the same model goes on with data of other types of the same values
    other = table.set_column(3, "t", pa.array([stamp // 10**6 for stamp in stamps]).view(pa.timestamp("ms")))
    other = other.set_column(5, "label", pa.array([BIG + k % 2 for k in range(rows)], pa.uint64()))
    streamtrain.fit(other, target="label", continue_from=run, out=tmp_path / "next")
    assert {c.name: c.offset for c in streamtrain.load_model(tmp_path / "next").layout.columns}["ids"] == offsets["ids"]
    out = tmp_path / "p.parquet"
    streamtrain.predict(tmp_path / "next", other, out=out)
    assert set(pq.read_table(out)["prediction"].to_pylist()) <= {BIG, BIG + 1}


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint64(), pa.decimal128(38, 0), pa.float64()], ids=str)
def test_a_regression_target_keeps_its_differences(kind: pa.DataType) -> None:
    step = 2048 if pa.types.is_floating(kind) else 1
    first = 2**61 + (not pa.types.is_floating(kind))  # exact in float64 for floats alone
    numbers = pa.array([first + step * k for k in range(100)], pa.int64()).cast(kind, safe=False)
    target = Source.open({"x": np.arange(100.0), "y": numbers}, target="y", task="regress").surveyed().layout.target
    assert target is not None
    assert target.encode(numbers, "here").tolist() == [step * k for k in range(100)]
    model = streamtrain.fit({"x": np.arange(100.0), "y": numbers}, target="y", task="regress", epochs=20).report
    assert model.metrics["progressive"]["rmse"] < step * 30

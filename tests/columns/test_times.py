"""Times against Python's datetime: every unit, zones with their changes, nulls, the ends of the ranges."""

from __future__ import annotations

import calendar
import math
import subprocess
import sys
import warnings
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import examples

from streamtrain.columns.times import is_time, time_offset_of, time_parts, to_time_numbers
from streamtrain.errors import ColumnError

UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
ZONES: dict[str | None, tzinfo] = {
    None: UTC,
    "UTC": UTC,
    "Z": UTC,
    "+05:30": timezone(timedelta(hours=5, minutes=30)),
    "-0945": timezone(-timedelta(hours=9, minutes=45)),
    "Europe/Berlin": ZoneInfo("Europe/Berlin"),
    "America/New_York": ZoneInfo("America/New_York"),
}
quick = examples(60)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST, LAST = (int((datetime(year, 1, 2, tzinfo=UTC) - EPOCH).total_seconds()) for year in (2, 9999))
DAY = 86_400


def circle(share: float) -> list[float]:
    return [math.sin(2 * math.pi * share), math.cos(2 * math.pi * share)]


def of_datetime(local: datetime, within: float) -> dict[str, list[float]]:
    """Each circle of a local time; within: the part of a second that it does not hold."""
    seconds = local.hour * 3600 + local.minute * 60 + local.second + within
    days = calendar.monthrange(local.year, local.month)[1]
    return {
        "hour": circle(seconds / DAY),
        "weekday": circle(local.weekday() / 7),
        "month": circle((local.month - 1 + (local.day - 1) / days) / 12),
    }


def expected(value: int | None, per_second: int, zone: tzinfo, offset: int, parts: tuple[str, ...]) -> list[float]:
    if value is None:
        return [math.nan] * len(parts)
    seconds, rest = divmod(value, per_second)
    circles = of_datetime((EPOCH + timedelta(seconds=seconds)).astimezone(zone), rest / per_second)
    age = [(value - offset) / (per_second * DAY)] if "age" in parts else []
    return age + [x for name in ("hour", "weekday", "month") if f"{name}_sin" in parts for x in circles[name]]


def close(found: Any, wanted: Any) -> None:
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.reshape(wanted, found.shape), rtol=1.2e-7, atol=6e-7)


def stamps(seconds: Any, zone: str | None = None, unit: str = "s") -> pa.Array:
    return pa.array(np.asarray(seconds, np.int64) * UNITS[unit]).view(pa.timestamp(unit, zone))


@quick
@given(
    st.lists(st.none() | st.integers(FIRST, LAST) | st.integers(-2 * 10**9, 4 * 10**9), min_size=1, max_size=30),
    st.sampled_from(list(UNITS)),
    st.sampled_from(list(ZONES)),
    st.fractions(0, 1),
    st.integers(0, 5),
)
def test_timestamps(seconds: list[int | None], unit: str, zone: str | None, part: Any, start: int) -> None:
    each = UNITS[unit]
    values = [None if s is None else s * each + int(part * (each - 1)) for s in seconds]
    values = [v if v is None or abs(v) < 2**63 else v % 10**18 for v in values]
    array = pa.array(values, pa.int64()).view(pa.timestamp(unit, zone)).slice(start)
    offset = time_offset_of(array)
    parts = time_parts(array.type)
    assert parts == ("age", "hour_sin", "hour_cos", "weekday_sin", "weekday_cos", "month_sin", "month_cos")
    close(to_time_numbers(array, offset), [expected(v, each, ZONES[zone], offset, parts) for v in values[start:]])


@quick
@given(st.lists(st.none() | st.integers(FIRST // DAY, LAST // DAY), min_size=1, max_size=30), st.booleans())
def test_dates(days: list[int | None], is_small: bool) -> None:
    scale, kind = (1, pa.date32()) if is_small else (DAY * 1000, pa.date64())
    values = [None if d is None else d * scale for d in days]
    array = pa.array(values, pa.int32() if is_small else pa.int64()).view(kind)
    offset = time_offset_of(array)
    assert offset in (values if any(d is not None for d in days) else [0])
    parts = time_parts(kind)
    assert parts == ("age", "weekday_sin", "weekday_cos", "month_sin", "month_cos")
    rows = [expected(None if d is None else d * DAY, 1, UTC, offset // scale * DAY, parts) for d in days]
    close(to_time_numbers(array, offset), rows)


@quick
@given(st.lists(st.none() | st.floats(0, 1, exclude_max=True), min_size=1, max_size=30), st.sampled_from(list(UNITS)))
def test_times_of_day(shares: list[float | None], unit: str) -> None:
    kind = pa.time32(unit) if unit in ("s", "ms") else pa.time64(unit)
    assert time_parts(kind) == ("hour_sin", "hour_cos")
    values = [None if s is None else int(s * DAY * UNITS[unit]) for s in shares]
    array = pa.array(values, pa.int32() if kind.bit_width == 32 else pa.int64()).view(kind)
    close(to_time_numbers(array), [expected(v, UNITS[unit], UTC, 0, time_parts(kind)) for v in values])


@pytest.mark.parametrize(
    ("zone", "year"),
    [
        ("Europe/Berlin", 2024),
        ("America/New_York", 2024),
        ("America/New_York", 2077),  # behind the last change that the database lists
        ("America/New_York", 2477),
        ("Europe/Berlin", 1945),  # two hours ahead of summer time
        ("Australia/Lord_Howe", 2023),  # half an hour
        ("Pacific/Apia", 2011),  # a day was left out
        ("America/Boa_Vista", 2000),  # summer time for a week
        ("Africa/Casablanca", 2040),
        ("Europe/Amsterdam", 1892),  # offsets in odd seconds
        ("Asia/Kathmandu", 1986),
    ],
)
def test_every_half_hour_of_a_year_with_changes(zone: str, year: int) -> None:
    start = int((datetime(year, 1, 1, tzinfo=UTC) - EPOCH).total_seconds())
    seconds = np.arange(start, start + 366 * DAY, 1800)
    known = ZoneInfo(zone)
    parts = time_parts(pa.timestamp("s"))
    offset = int(seconds[0])
    close(
        to_time_numbers(stamps(seconds, zone), offset), [expected(s, 1, known, offset, parts) for s in seconds.tolist()]
    )


def hours(values: pa.Array) -> list[float]:
    """Local hours, from the circle."""
    found = to_time_numbers(values).astype(float)
    return (np.arctan2(found[:, 1], found[:, 2]) / (2 * np.pi) * 24 % 24).round(3).tolist()


def test_the_clock_changes_at_the_second() -> None:
    spring, autumn = (int((datetime(2024, *day, 1, tzinfo=UTC) - EPOCH).total_seconds()) for day in ((3, 31), (10, 27)))
    assert hours(stamps([spring - 1, spring], "Europe/Berlin")) == [2.0, 3.0]
    assert hours(stamps([autumn - 1, autumn, autumn + 3600], "Europe/Berlin")) == [3.0, 2.0, 3.0]
    spring, autumn = (
        int((datetime(2024, *day, tzinfo=UTC) - EPOCH).total_seconds()) for day in ((3, 10, 7), (11, 3, 6))
    )
    assert hours(stamps([spring - 1, spring], "America/New_York")) == [2.0, 3.0]
    assert hours(stamps([autumn - 1, autumn], "America/New_York")) == [2.0, 1.0]


def test_weekday_and_month_are_those_of_the_zone() -> None:
    new_year = int((datetime(2024, 1, 1, 2, tzinfo=UTC) - EPOCH).total_seconds())  # still Sunday in New York
    there, utc = (to_time_numbers(stamps([new_year], zone))[0] for zone in ("America/New_York", "UTC"))
    close(there[3:5], circle(6 / 7))
    close(there[5:], circle((11 + 30 / 31) / 12))
    close(utc[3:], circle(0) + circle(0))
    assert there[0] == utc[0]


def test_known_days() -> None:
    leap, before, early = (
        19_782,
        -1,
        -25_509,
    )  # 2024-02-29, a Thursday; 1969-12-31, a Wednesday; 1900-02-28, a Wednesday
    found = to_time_numbers(pa.array([leap, leap + 1, before, early, early + 1], pa.int32()).view(pa.date32()))
    weekdays, months = [3, 4, 2, 2, 3], [1 + 28 / 29, 2, 11 + 30 / 31, 1 + 27 / 28, 2]
    close(found[:, 1:3], [circle(d / 7) for d in weekdays])
    close(found[:, 3:], [circle(m / 12) for m in months])


def test_ages_keep_the_precision_of_float32_from_the_origin() -> None:
    now = 1_790_000_000_000_000
    steps = np.arange(-DAY // 2, DAY // 2, 977) * 10**6 + 137
    ages = to_time_numbers(pa.array(now + steps).view(pa.timestamp("us", "UTC")), now)[:, 0].astype(float)
    wrong = np.abs(ages * DAY - steps / 1e6)
    assert wrong.max() < 1.3e-3 and (wrong <= np.abs(steps / 1e6) * 2.0**-24 * 1.001).all()


@pytest.mark.parametrize("zone", list(ZONES))
@pytest.mark.parametrize("unit", list(UNITS))
def test_the_ends_of_the_ranges(unit: str, zone: str | None) -> None:
    ends = pa.array([-(2**63) + 1, 2**63 - 1, 0, -(2**63) + DAY * 10**9], pa.int64()).view(pa.timestamp(unit, zone))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for offset in (0, 2**63 - 1, -(2**63) + 1):
            found = to_time_numbers(ends, offset).astype(float)
            assert np.isfinite(found).all()
            np.testing.assert_allclose(found[:, 1::2] ** 2 + found[:, 2::2] ** 2, 1, rtol=1e-6)
            away = [(int(v) - offset) / (UNITS[unit] * DAY) for v in ends.view(pa.int64()).to_pylist()]
            np.testing.assert_allclose(found[:, 0], away, rtol=1.2e-7)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_the_calendar_comes_again_after_400_years(zone: str) -> None:
    seconds = np.arange(4_000_000_000, 4_000_000_000 + 2 * 366 * DAY, 7 * 3600)  # from 2096: optimizers alone
    found = [to_time_numbers(stamps(seconds + i * 146_097 * DAY, zone))[:, 1:] for i in (0, 1, 30)]
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])


def test_nat_is_missing() -> None:
    raw = np.array(["2024-01-01", "NaT"], "M8[us]")
    for values in (pa.array(raw), pa.array(raw.view(np.int64)).view(pa.timestamp("us", "Europe/Berlin"))):
        found = to_time_numbers(values)
        assert np.isfinite(found[0]).all() and np.isnan(found[1]).all()
        assert time_offset_of(values) == int(raw.view(np.int64)[0])


def test_nulls_alone_and_no_rows() -> None:
    for kind in (pa.timestamp("ns", "Europe/Berlin"), pa.date32(), pa.date64(), pa.time32("s")):
        assert np.isnan(to_time_numbers(pa.nulls(3, kind))).all()
        assert to_time_numbers(pa.nulls(0, kind)).shape == (0, len(time_parts(kind)))
        assert time_offset_of(pa.nulls(3, kind)) == 0


def test_dictionaries_and_runs() -> None:
    plain = stamps([0, 10**9, 2 * 10**9], "Europe/Berlin", "ms")
    wanted = to_time_numbers(plain, 5)
    coded = pa.DictionaryArray.from_arrays(pa.array([1, 2, None, 0]), plain)[1:]
    found = to_time_numbers(coded, 5)
    assert np.array_equal(found[[0, 2]], wanted[[2, 0]]) and np.isnan(found[1]).all()
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([2, 3, 7], pa.int32()), plain)[1:5]
    assert np.array_equal(to_time_numbers(runs, 5), wanted[[0, 1, 2, 2]])
    assert time_parts(coded.type) == time_parts(runs.type) == time_parts(plain.type)
    assert is_time(coded.type) and not is_time(pa.int64()) and not is_time(pa.duration("s"))


@examples(20)
@given(st.integers(0, 20_000), st.sampled_from(["Europe/Berlin", None]))
def test_the_cut_changes_nothing(cut: int, zone: str | None) -> None:
    whole = to_time_numbers(LONG[zone], 10**12)
    parts = [to_time_numbers(part, 10**12) for part in (LONG[zone][:cut], LONG[zone][cut:])]
    assert np.concatenate(parts).tobytes() == whole.tobytes()


_random = np.random.default_rng(7)
_seconds = _random.integers(-(10**9), 5 * 10**9, 20_000) * 1000 + _random.integers(0, 1000, 20_000)
LONG = {
    zone: pa.array(_seconds, mask=_random.random(20_000) < 0.1).view(pa.timestamp("ms", zone))
    for zone in (None, "Europe/Berlin")
}


@pytest.mark.parametrize(
    "zone", ["Mars/Olympus_Mons", "Europe", "+25:00", "+05:75", "../etc/passwd", "/etc/passwd", "local"]
)
def test_an_unknown_zone_is_named(zone: str) -> None:
    with pytest.raises(ColumnError, match="is unknown: it is neither") as caught:
        to_time_numbers(stamps([0], zone))
    assert repr(zone) in str(caught.value) and "tzdata" in str(caught.value)


def test_other_types_are_refused() -> None:
    for values in (pa.array([1]), pa.array(["2024-01-01"]), pa.array([1]).view(pa.duration("s"))):
        with pytest.raises(ColumnError, match="not a type of times"):
            to_time_numbers(values)


def test_no_large_module_is_imported() -> None:
    code = (
        "import sys, numpy as np, pyarrow as pa\n"
        "from streamtrain.memory.pandas_import import leave_pandas_out, settle_pandas\n"
        "leave_pandas_out(), settle_pandas()\n"  # it would import others
        "from streamtrain.columns.times import to_time_numbers\n"
        "to_time_numbers(pa.array([1, None]).view(pa.timestamp('us', 'Europe/Berlin')))\n"
        "assert 'pyarrow.compute' not in sys.modules and 'pandas' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

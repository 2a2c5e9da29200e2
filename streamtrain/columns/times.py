"""From Arrow columns of dates and times to numbers: an age, and where a time is in its day, week and year.

What repeats is a point on a circle, a sine and a cosine, so that 23:59 is near 0:00 and December near January. Local time
is that of the column's zone. Its offsets come from `zoneinfo`, which also applies the rules that hold after the last change in
the database; `pyarrow.compute.local_timestamp` does not, and importing it costs 20 MB.
"""

from __future__ import annotations

import calendar
import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import cache, lru_cache
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.columns.differences import Shift, difference
from streamtrain.columns.numbers import PER_SECOND, unpacked
from streamtrain.errors import ColumnError
from streamtrain.kernels.functions import circle
from streamtrain.storage.arrow import value_type

__all__ = ["is_time", "time_offset_of", "time_parts", "to_time_numbers", "zone_named"]

_HOUR = ("hour_sin", "hour_cos")
_DAY = ("weekday_sin", "weekday_cos", "month_sin", "month_cos")

_BLOCK_ROWS = 8_192  # at a time: intermediate arrays stay in the cache, and are small enough for malloc to reuse memory
_DAY_SECONDS = 86_400
_CYCLE_DAYS = 146_097  # 400 years, after which dates and days of the week repeat
_MARCH_ON = (31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

# No zone changed before 1844, and all follow fixed rules after the last listed change (2086). Times after 2500 are looked up in
# the 400 years before it, times before 1800 as 1800.
_FIRST_SECOND = int(datetime(1800, 1, 1, tzinfo=UTC).timestamp())
_LAST_SECOND = int(datetime(2500, 1, 1, tzinfo=UTC).timestamp())
_SPAN_SECONDS = 3660 * _DAY_SECONDS  # how much of a zone is looked up at a time
_STEP_SECONDS = (
    5 * _DAY_SECONDS
)  # between two look-ups: a shorter offset would be missed; the shortest one in the database lasts 7 days


def is_time(kind: pa.DataType) -> bool:
    """Whether values of this type are timestamps, dates or times of day (in a dictionary or run-end encoded too).

    >>> is_time(pa.timestamp("us", "Europe/Berlin")), is_time(pa.duration("s"))
    (True, False)
    """
    kind = value_type(kind)
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_time(kind))


def time_parts(kind: pa.DataType) -> tuple[str, ...]:
    """The names of the numbers that `to_time_numbers` makes of a value of this type. Raises ColumnError for other types.

    >>> time_parts(pa.date32())
    ('age', 'weekday_sin', 'weekday_cos', 'month_sin', 'month_cos')
    >>> time_parts(pa.time64("us"))
    ('hour_sin', 'hour_cos')
    """
    kind = value_type(kind)
    if pa.types.is_timestamp(kind):
        return ("age", *_HOUR, *_DAY)
    if pa.types.is_date(kind):
        return ("age", *_DAY)
    if pa.types.is_time(kind):
        return _HOUR
    raise ColumnError(f"{kind} is not a type of times: use timestamps, dates or times of day")


def time_offset_of(values: pa.Array) -> int:
    """The median of an array of times, in their own unit since 1970, from which ages are measured. 0 if all are null.

    >>> time_offset_of(pa.array([5, None, 7, 100], pa.date32()))
    7
    """
    numbers, valid = _numbers(values)
    there = np.sort(numbers if valid is None else numbers[valid])
    return int(there[len(there) // 2]) if len(there) else 0


def to_time_numbers(values: pa.Array, offset: Shift = 0) -> NDArray[np.float32]:
    """An Arrow array of timestamps, dates or times of day as float32; shape (rows, parts), see `time_parts`.

    age: days since ``offset``, which is in the unit of the column; the difference is exact before it is rounded to float32
    (to one part in 16 million: 3 ms for a day). hour: the time of day, of 24 hours. weekday: of 7; Monday is 0. month: the
    month and the fraction of it that has passed, of 12. These are a sine and a cosine each, in the time zone of the column.
    Nulls are NaN, and so is the smallest integer, numpy's NaT. Raises ColumnError for other types and an unknown time zone.

    >>> days = pa.array([19_813, None], pa.date32())  # 2024-03-31, a Sunday: 30/31 of March have passed
    >>> to_time_numbers(days, offset=19_800).astype(float).round(3).tolist()
    [[13.0, -0.782, 0.623, 1.0, 0.017], [nan, nan, nan, nan, nan]]
    """
    kind = value_type(values.type)
    parts = time_parts(kind)
    numbers, valid = _numbers(values)
    rows = np.empty((len(values), len(parts)), np.float32)
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        _fill(rows[block], numbers[block], kind, offset)
        if valid is not None:
            rows[block][~valid[block]] = np.nan
    return rows


def _fill(rows: NDArray[np.float32], numbers: NDArray[np.int64], kind: pa.DataType, offset: Shift) -> None:
    a_day, parts = _units_in_a_day(kind), time_parts(kind)
    if "age" in parts:
        rows[:, 0] = difference(numbers, offset, np.float64) / a_day
    days = numbers // a_day
    if "hour_sin" in parts:
        within = numbers - days * a_day
        if pa.types.is_timestamp(kind) and kind.tz is not None:
            a_second = PER_SECOND[kind.unit]
            within += _zone_offsets(numbers // a_second, kind.tz) * a_second
            over = within // a_day
            days, within = days + over, within - over * a_day
        at = parts.index("hour_sin")
        rows[:, at], rows[:, at + 1] = circle(within / a_day)
    if "month_sin" in parts:
        codes, circles = _calendar()
        day_codes = codes.take(days % _CYCLE_DAYS)
        for part, values in enumerate(circles, len(parts) - len(circles)):
            rows[:, part] = values.take(day_codes)


def _numbers(values: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.bool_] | None]:
    """The integers of an array of times, 0 at nulls and NaT; and which are neither (None if all are)."""
    stored, valid = unpacked(values)
    numbers = stored.astype(np.int64, copy=False)
    there = numbers != np.iinfo(stored.dtype).min
    if valid is not None:
        there &= valid
    return (numbers, None) if there.all() else (np.where(there, numbers, 0), there)


def _units_in_a_day(kind: pa.DataType) -> int:
    if pa.types.is_date(kind):
        return 1 if kind == pa.date32() else _DAY_SECONDS * 1000
    return _DAY_SECONDS * PER_SECOND[kind.unit]


@cache
def _calendar() -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """A code for each day of the 400 years from 1970, shape (146097,); and for each code the sine and cosine of the
    weekday and of the month, shape (4, codes). A code means a day of a common or a leap year, and a weekday."""
    common, leap = (
        np.concatenate([(month + np.arange(n) / n) / 12 for month, n in enumerate((31, february, *_MARCH_ON))])
        for february in (28, 29)
    )
    days_of_year = [np.arange(365, dtype=np.int16), np.arange(365, 731, dtype=np.int16)]
    codes = np.concatenate([days_of_year[calendar.isleap(year)] for year in range(1970, 2370)]) * np.int16(7)
    codes += (np.arange(3, _CYCLE_DAYS + 3) % 7).astype(np.int16)  # 1970 began on a Thursday
    months = np.repeat(np.concatenate([common, leap]), 7)
    weekdays = np.arange(len(months)) % 7 / 7
    return codes, np.stack([*circle(weekdays), *circle(months)]).astype(np.float32)


def _zone_offsets(seconds: NDArray[np.int64], name: str) -> NDArray[np.int64] | int:
    """Seconds to add to get local time. seconds: since 1970, shape (rows,), at least one."""
    zone = zone_named(name)
    if isinstance(zone, timezone):
        return int(zone.utcoffset(None).total_seconds())
    cycle = _CYCLE_DAYS * _DAY_SECONDS
    seconds = np.maximum(seconds, _FIRST_SECOND)
    if seconds.max() >= _LAST_SECOND:
        seconds = np.where(seconds < _LAST_SECOND, seconds, (seconds - _LAST_SECOND) % cycle + _LAST_SECOND - cycle)
    first, last = ((int(s) - _FIRST_SECOND) // _SPAN_SECONDS for s in (seconds.min(), seconds.max()))
    spans = [_changes(name, span) for span in range(first, last + 1)]
    starts, offsets = (np.concatenate(arrays) for arrays in zip(*spans, strict=True))
    result: NDArray[np.int64] = offsets[np.searchsorted(starts, seconds, "right") - 1]
    return result


@lru_cache(maxsize=1024)
def _changes(name: str, span: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """When each offset of a span starts, in seconds since 1970, and the offset in seconds. The first starts with the span."""
    zone = zone_named(name)

    def offset(second: int) -> int:
        return int((datetime.fromtimestamp(second, zone).utcoffset() or timedelta()).total_seconds())

    at = _FIRST_SECOND + span * _SPAN_SECONDS
    current = offset(at)
    changes = [(at, current)]
    for step in range(at + _STEP_SECONDS, at + _SPAN_SECONDS + 1, _STEP_SECONDS):
        if offset(step) == current:
            continue
        low, high = step - _STEP_SECONDS, step
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if offset(middle) == current else (low, middle)
        current = offset(high)
        changes.append((high, current))
    starts, offsets = np.array(changes, np.int64).T
    return starts, offsets


def zone_named(name: str) -> tzinfo:
    """The time zone of an Arrow type. Raises ColumnError for a name that nobody knows."""
    fixed = re.fullmatch(r"([+-])(\d\d):?([0-5]\d)", name)
    try:
        if fixed is not None:
            ahead = timedelta(hours=int(fixed[2]), minutes=int(fixed[3]))
            return timezone(-ahead if fixed[1] == "-" else ahead)
        return UTC if name in ("UTC", "Z") else ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ColumnError(
            f"the time zone {name!r} is unknown: it is neither an offset such as '+02:00' nor in the time zone "
            "database (Europe/Berlin, ...); where that is missing, pip install tzdata"
        ) from error

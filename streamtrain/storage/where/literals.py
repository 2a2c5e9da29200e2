"""Literals of ``--where`` as values of a column's type: exactly, or with an error that names column, type and literal."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa

from streamtrain.errors import ColumnError
from streamtrain.storage.where.grammar import Literal

__all__ = ["compared_type", "value_in"]

_DATE = re.compile(r"(\d{4})-(\d{2})-(\d{2})")
_TIME = re.compile(r"(\d{2}):(\d{2})(?::(\d{2})(?:\.(\d{1,9}))?)?")
_ZONE = re.compile(r"(?:Z|([+-])(\d{2}):?(\d{2}))")
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_EPOCH = date(1970, 1, 1).toordinal()
_LARGEST = 400  # digits of a number that a type may hold; a larger one is not even computed
_WANTED = {
    "integer": "a whole number",
    "floating": "a number",
    "decimal": "a number",
    "boolean": "true or false",
    "text": "text in single quotes",
    "date": "a date, '2026-01-15'",
    "timestamp": "a date or time, '2026-01-15' or '2026-01-15 10:30:00'",
    "time": "a time of day, '10:30:00'",
}


def compared_type(kind: pa.DataType) -> str | None:
    """What values of a type are compared with: a key of the wanted literals; None if they cannot be compared.

    >>> compared_type(pa.uint8()), compared_type(pa.large_string()), compared_type(pa.list_(pa.int8()))
    ('integer', 'text', None)
    """
    t = pa.types
    if t.is_decimal(kind) and kind.scale < 0:  # Arrow has no operation for these
        return None
    tests = {
        "integer": t.is_integer,
        "floating": t.is_floating,
        "decimal": t.is_decimal,
        "boolean": t.is_boolean,
        "date": t.is_date,
        "timestamp": t.is_timestamp,
        "time": t.is_time,
    }
    texts = (t.is_string, t.is_large_string, t.is_string_view, t.is_binary, t.is_large_binary, t.is_binary_view)
    if any(test(kind) for test in texts) or t.is_fixed_size_binary(kind):
        return "text"
    return next((name for name, test in tests.items() if test(kind)), None)


def value_in(column: str, kind: pa.DataType, literal: Literal, flag: str = "--where") -> pa.Scalar:
    """The literal as a value of the type. Raises ColumnError where it is not one."""
    compared, value = compared_type(kind), None
    if compared is None:
        raise ColumnError(f"{flag}: column {column!r} is {kind}, which can only be tested with 'is null'")
    try:
        value = _READ[compared](kind, literal)
    except (ValueError, OverflowError, ArithmeticError) as error:
        raise ColumnError(
            f"{flag}: column {column!r} is {kind}, and {literal} is no value of that type: {error}"
        ) from None
    return value


def _number(literal: Literal, wanted: str) -> Decimal:
    if literal.kind != "number":
        raise ValueError(f"give {_WANTED[wanted]}")
    number = Decimal(literal.value)
    if number and abs(number.adjusted()) > _LARGEST:
        raise ValueError("it is too large or too small")
    return number


def _text(literal: Literal, wanted: str) -> str:
    if literal.kind != "text":
        raise ValueError(f"give {_WANTED[wanted]}")
    return literal.value


def _integer(kind: pa.DataType, literal: Literal) -> pa.Scalar:
    number = _number(literal, "integer")
    if number != number.to_integral_value():
        raise ValueError("give a whole number")
    least, most = (int(limit) for limit in (np.iinfo(kind.to_pandas_dtype()).min, np.iinfo(kind.to_pandas_dtype()).max))
    if not least <= number <= most:
        raise ValueError(f"it must be from {least} to {most}")
    return pa.scalar(int(number), kind)


def _floating(kind: pa.DataType, literal: Literal) -> pa.Scalar:
    number = _number(literal, "floating")
    with np.errstate(over="ignore"):
        value = np.dtype(kind.to_pandas_dtype()).type(float(number))
    if not np.isfinite(value):
        raise ValueError("it is too large")
    is_whole = literal.value.lstrip("+-").isdigit()
    if is_whole and Decimal(float(value)) != number:
        raise ValueError(f"the nearest one is {float(value):.0f}: write {literal}.0 if that is meant")
    # half floats have no comparison in Arrow: they are compared as float32, which is exact
    return pa.scalar(float(value), pa.float32() if pa.types.is_float16(kind) else kind)


def _decimal(kind: pa.DataType, literal: Literal) -> pa.Scalar:
    number = _number(literal, "decimal")
    try:
        return pa.scalar(number, pa.decimal256(76, kind.scale)).cast(kind)
    except pa.ArrowInvalid:
        raise ValueError(
            f"it has more than {kind.precision} digits, or more than {kind.scale} after the point"
        ) from None


def _boolean(kind: pa.DataType, literal: Literal) -> pa.Scalar:
    if literal.kind != "boolean":
        raise ValueError("give true or false")
    return pa.scalar(literal.value == "true", kind)


def _words(kind: pa.DataType, literal: Literal) -> pa.Scalar:
    text, t = _text(literal, "text"), pa.types
    if t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind):
        return pa.scalar(text, kind)
    # of any size: a value of another width is equal to none
    return pa.scalar(text.encode(), pa.binary() if t.is_fixed_size_binary(kind) else kind)


def _date(kind: pa.DataType, literal: Literal) -> pa.Scalar:
    found = _DATE.fullmatch(_text(literal, "date"))
    if found is None:
        raise ValueError(f"give {_WANTED['date']}")
    days = date(*map(int, found.groups())).toordinal() - _EPOCH
    return pa.scalar(days, pa.int32()).cast(pa.date32()).cast(kind)


def _timestamp(kind: pa.DataType, literal: Literal) -> pa.Scalar:
    text = _text(literal, "timestamp").strip()
    day = _DATE.match(text)
    if day is None:
        raise ValueError(f"give {_WANTED['timestamp']}")
    rest, clock, fraction, zone = text[day.end() :], (0, 0, 0), 0, ""
    if rest:
        found = _TIME.match(rest[1:]) if rest[0] in " T" else None
        if found is None:
            raise ValueError(f"give {_WANTED['timestamp']}")
        clock, fraction, zone = *_clock(found), rest[1 + found.end() :].strip()
    year, month, number = map(int, day.groups())
    moment = datetime(year, month, number, *clock)
    offset = _offset(kind, moment, zone)
    seconds = (moment - datetime(1970, 1, 1)) // timedelta(seconds=1) - offset
    return pa.scalar(_in_unit(seconds, fraction, kind.unit), pa.int64()).cast(kind)


def _offset(kind: pa.DataType, moment: datetime, zone: str) -> int:
    """Seconds by which a literal is ahead of UTC: by its own zone; otherwise by that of the column."""
    found = _ZONE.fullmatch(zone) if zone else None
    if zone and found is None:
        raise ValueError(f"{zone!r} is no zone: give Z or +02:00, or leave it out")
    if kind.tz is None:
        if zone:
            raise ValueError("the column has no time zone: leave it out")
        return 0
    if found is not None:
        hours, minutes = int(found[2] or 0), int(found[3] or 0)
        return (-60 if found[1] == "-" else 60) * (60 * hours + minutes)
    offset = moment.replace(tzinfo=_zone_named(kind.tz)).utcoffset()
    return 0 if offset is None else offset // timedelta(seconds=1)


def _zone_named(name: str) -> Any:
    if found := _ZONE.fullmatch(name):
        minutes = 60 * int(found[2] or 0) + int(found[3] or 0)
        return timezone(timedelta(minutes=-minutes if found[1] == "-" else minutes))
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        raise ValueError(
            "the zone of the column is unknown here: give the zone in the literal, '... 10:30:00Z'"
        ) from None


def _time(kind: pa.DataType, literal: Literal) -> pa.Scalar:
    found = _TIME.fullmatch(_text(literal, "time"))
    if found is None:
        raise ValueError(f"give {_WANTED['time']}")
    (hours, minutes, seconds), fraction = _clock(found)
    number = _in_unit(3600 * hours + 60 * minutes + seconds, fraction, kind.unit)
    return pa.scalar(number, pa.int32() if pa.types.is_time32(kind) else pa.int64()).cast(kind)


def _clock(found: re.Match[str]) -> tuple[tuple[int, int, int], int]:
    """Hours, minutes and seconds, and the nanoseconds beyond."""
    hours, minutes, seconds = (int(part or 0) for part in found.groups()[:3])
    if hours > 23 or minutes > 59 or seconds > 59:
        raise ValueError("there is no such time of day")
    return (hours, minutes, seconds), int((found[4] or "0").ljust(9, "0"))


def _in_unit(seconds: int, nanoseconds: int, unit: str) -> int:
    per_second = _PER_SECOND[unit]
    if nanoseconds * per_second % 10**9:
        raise ValueError(f"it is finer than the unit of the column, {unit}")
    number = seconds * per_second + nanoseconds * per_second // 10**9
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"it is out of the range of the unit {unit}")
    return number


_READ = {
    "integer": _integer,
    "floating": _floating,
    "decimal": _decimal,
    "boolean": _boolean,
    "text": _words,
    "date": _date,
    "timestamp": _timestamp,
    "time": _time,
}

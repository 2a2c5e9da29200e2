"""Times as CF writes them: numbers, with ``units: hours since 2020-01-01`` and a ``calendar``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.errors import CorruptError

__all__ = ["Durations", "Times", "durations_of", "is_duration", "is_time", "times_of"]

_NANOSECONDS = {"nanosecond": 1, "microsecond": 10**3, "millisecond": 10**6, "second": 10**9, "minute": 60 * 10**9,
                "hour": 3600 * 10**9, "day": 86_400 * 10**9}  # fmt: skip
_ALIASES = {
    "d": "day", "h": "hour", "hr": "hour", "min": "minute", "s": "second", "sec": "second", "msec": "millisecond",
    "millisec": "millisecond", "ms": "millisecond", "microsec": "microsecond", "ns": "nanosecond",
}  # fmt: skip
_CALENDARS = ("standard", "gregorian", "proleptic_gregorian")
_SINCE = re.compile(r"(.+) since (.+)")
_DATE = re.compile(
    r"([+-]?\d{1,6})(?:-(\d{1,2})(?:-(\d{1,2}))?)?"
    r"(?:[ T]+(\d{1,2})(?::(\d{1,2})(?::(\d{1,2}(?:\.\d*)?))?)?)?\s*(Z|UTC|GMT|[+-]\d{1,2}(?::?\d{2})?)?"
)
_DAY_US = 86_400 * 10**6
_NAT = np.iinfo(np.int64).min
_MOST_NS, _MOST_US = 9.2e18, 9.2e18


def is_time(units: object) -> bool:
    """Whether values with these units are times."""
    return isinstance(units, str) and _SINCE.match(units) is not None


def is_duration(units: object) -> bool:
    """Whether these are the units of a duration, as xarray knows them."""
    return isinstance(units, str) and units.removesuffix("s") in _NANOSECONDS and units.endswith("s")


def _unit_ns(text: str) -> int | None:
    unit = text.strip().lower()
    unit = _ALIASES.get(unit.removesuffix("s") if len(unit) > 1 else unit, unit.removesuffix("s"))
    return _NANOSECONDS.get(_ALIASES.get(unit, unit))


@dataclass(frozen=True)
class Times:
    """Numbers of a unit since a moment, which become timestamps: in microseconds; in nanoseconds where that is the unit.

    unit_ns: nanoseconds of a unit. origin_us: the moment, in microseconds since 1970. units: as they are written.
    """

    unit_ns: int
    origin_us: int
    units: str

    @property
    def type(self) -> Any:
        return pa.timestamp("ns" if self.unit_ns == 1 else "us")

    def decoded(
        self, values: NDArray[Any], missing: NDArray[np.bool_] | None
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """The times, and which are missing. Fractions of a nanosecond are cut off, as xarray does."""
        is_whole = values.dtype.kind in "iu"
        absent = values == _NAT if values.dtype == np.int64 else np.isnan(values) if not is_whole else None
        missing = _either(missing, absent, values.shape)
        scale = 1 if self.unit_ns == 1 else 1000
        origin = self.origin_us * (1000 // scale)
        if is_whole:
            present = np.where(missing, 0, values)
            most = (2**63 - 1 - abs(origin)) * scale // self.unit_ns
            if len(present) and (int(present.min()) < -most or int(present.max()) > most):
                raise self._beyond(present, most)
            whole = present.astype(np.int64)
            times = origin + (
                whole * (self.unit_ns // scale) if self.unit_ns >= scale else whole // (scale // self.unit_ns)
            )
        else:
            present = np.where(missing, 0.0, values.astype(np.float64))
            ns = present * self.unit_ns
            if len(ns) and np.abs(ns).max() + abs(self.origin_us) * 1000 < _MOST_NS:
                times = (origin * scale + ns.astype(np.int64)) // scale
            else:
                us = present * (self.unit_ns / 1000)
                if len(us) and np.abs(us).max() + abs(self.origin_us) > _MOST_US:
                    raise self._beyond(present, _MOST_US / self.unit_ns)
                times = origin + us.astype(np.int64) * (1000 // scale)
        return times.astype(f"M8[{self.type.unit}]"), missing

    def _beyond(self, values: NDArray[Any], most: float) -> CorruptError:
        bad = values[np.abs(values.astype(np.float64)) > most].tolist()[:1]
        return CorruptError(f"the value {bad[0] if bad else most} of {self.units!r} is no time: name it as _FillValue")


def _either(one: NDArray[np.bool_] | None, other: Any, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    if one is None:
        return np.zeros(shape, np.bool_) if other is None else np.asarray(other)
    return one if other is None else one | other


def times_of(units: str, calendar: object) -> Times | str:
    """How to decode times with these units, or why they are numbers."""
    kind = "standard" if calendar is None else str(calendar).lower()
    if kind not in _CALENDARS:
        return f"its calendar is {kind!r}, whose days are no dates"
    match = _SINCE.match(units)
    assert match is not None
    unit = _unit_ns(match[1])
    if unit is None:
        return f"its units are {units!r}, and the length of {match[1].strip()!r} is not fixed"
    origin = _moment(match[2].strip(), proleptic=kind == "proleptic_gregorian")
    if origin is None:
        return f"its units are {units!r}, and {match[2].strip()!r} is no date that can be read"
    return Times(unit, origin, units)


def _moment(text: str, *, proleptic: bool) -> int | None:
    """Microseconds since 1970 of a date and time; None if it is none. A date before 1582-10-15 is of the Julian calendar."""
    match = _DATE.fullmatch(text)
    if match is None:
        return None
    year, month, day = int(match[1]), int(match[2] or 1), int(match[3] or 1)
    hour, minute, second = int(match[4] or 0), int(match[5] or 0), float(match[6] or 0)
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour <= 24 and minute < 60 and second < 60):
        return None
    julian = not proleptic and (year, month, day) < (1582, 10, 15)
    days = _days(year, month, day, julian=julian)
    zone = match[7] or ""
    shift = 0
    if zone[:1] in ("+", "-"):
        digits = zone[1:].replace(":", "").rjust(2, "0").ljust(4, "0")
        shift = (1 if zone[0] == "+" else -1) * (int(digits[:2]) * 60 + int(digits[2:]))
    return days * _DAY_US + (hour * 3600 + (minute - shift) * 60) * 10**6 + round(second * 10**6)


def _days(year: int, month: int, day: int, *, julian: bool) -> int:
    """Days since 1970-01-01 of a date of the Gregorian or Julian calendar, counted from March (H. Hinnant, days_from_civil)."""
    year -= month <= 2
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    if julian:
        return 365 * year + year // 4 + of_year - 719_470
    return 365 * year + year // 4 - year // 100 + year // 400 + of_year - 719_468


@dataclass(frozen=True)
class Durations:
    """Numbers of a unit that are durations. unit_ns: nanoseconds of a unit. resolution: ``s``, ``ms``, ``us`` or ``ns``."""

    unit_ns: int
    resolution: str

    @property
    def type(self) -> Any:
        return pa.duration(self.resolution)

    def decoded(
        self, values: NDArray[Any], missing: NDArray[np.bool_] | None
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """The durations, and which are missing."""
        whole = values.dtype.kind in "iu"
        absent = values == _NAT if values.dtype == np.int64 else None if whole else np.isnan(values)
        missing = _either(missing, absent, values.shape)
        scale = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[self.resolution]
        present = np.where(missing, 0, values)
        if whole and self.unit_ns >= scale:
            made = present.astype(np.int64) * (self.unit_ns // scale)
        else:
            made = (present.astype(np.float64) * self.unit_ns).astype(np.int64) // scale
        return made.astype(f"m8[{self.resolution}]"), missing


def durations_of(units: str, dtype: str) -> Durations:
    """How to decode durations that were stored from a numpy type such as ``timedelta64[ns]``."""
    resolution = np.datetime_data(np.dtype(dtype))[0]
    return Durations(
        _NANOSECONDS[units.removesuffix("s")], resolution if resolution in ("s", "ms", "us", "ns") else "s"
    )

"""Axes: their ends, and ticks at round numbers in readable units."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from streamtrain.memory.sizes import format_bytes

__all__ = ["Axis", "byte_axis", "log_share", "log_ticks", "score_scale", "time_axis"]

_HEADROOM = 1.06
_LOG_RATIO = 30  # largest to smallest value: beyond it a linear axis would hide small values
_UNITS = (("s", 1, 120), ("min", 60, 7200), ("h", 3600, math.inf))


@dataclass(frozen=True)
class Axis:
    """An axis from 0 to ``top``, and its ticks with labels."""

    top: float
    ticks: tuple[tuple[float, str], ...]

    def share(self, value: float) -> float:
        """The position of a value along the axis, 0.0 to 1.0."""
        return value / self.top


def byte_axis(most_bytes: float) -> Axis:
    """An axis from 0 for sizes up to ``most_bytes``.

    >>> byte_axis(103_000_000).ticks
    ((0, '0 B'), (20000000, '20 MB'), (40000000, '40 MB'), (60000000, '60 MB'), (80000000, '80 MB'), (100000000, '100 MB'))
    """
    top = max(most_bytes, 1) * _HEADROOM
    step = max(1, round(_step(top)))
    return Axis(top, tuple((size, format_bytes(size)) for size in range(0, int(top) + 1, step)))


def time_axis(span_seconds: float) -> Axis:
    """An axis from 0 for times up to ``span_seconds``, in the unit that fits.

    >>> time_axis(0.85).ticks[:3]
    ((0.0, '0 s'), (0.2, '0.2 s'), (0.4, '0.4 s'))
    >>> [label for _, label in time_axis(420).ticks]
    ['0 min', '1 min', '2 min', '3 min', '4 min', '5 min', '6 min', '7 min']
    """
    unit, size = next((u, s) for u, s, most in _UNITS if span_seconds <= most)
    step = _step(span_seconds / size, most_ticks=8)
    ticks = [i * step for i in range(math.floor(span_seconds / size / step * (1 + 1e-9)) + 1)]
    return Axis(span_seconds, tuple((tick * size, f"{tick:.6g} {unit}") for tick in ticks))


def score_scale(values: Sequence[float]) -> tuple[Callable[[float], float], Axis]:
    """Return the scale for scores: a function from a value to its height above the foot of the axis, and the axis.

    The foot is 0 where that is near, otherwise a round number below the smallest value. The axis is logarithmic where all
    values are positive and the largest is more than 30 times the smallest.

    >>> [label for _, label in score_scale([0.69, 0.31])[1].ticks]
    ['0', '0.2', '0.4', '0.6']
    >>> height, axis = score_scale([0.981, 0.999])
    >>> [label for _, label in axis.ticks], round(height(0.985), 6)
    (['0.98', '0.985', '0.99', '0.995', '1'], 0.005)
    >>> [label for _, label in score_scale([0.02, 70.0])[1].ticks]
    ['0.03', '0.1', '0.3', '1', '3', '10', '30']
    """
    least, most = min(values), max(values)
    if 0 < _LOG_RATIO * least < most:
        low = 0.8 * least  # so that the smallest value is above the foot
        ticks = [(math.log10(tick / low), label) for tick, label in log_ticks(low, most)]
        return lambda value: math.log10(value / low), Axis(math.log10(most / low) * _HEADROOM, tuple(ticks))
    foot = 0.0 if 0 <= least <= 2 * (most - least) else least
    span = (most - foot) or abs(most) or 1.0
    step = _step(span)
    first, top = math.floor(foot / step + 1e-9), max(most, foot) + (_HEADROOM - 1) * span
    numbers = range(first, math.floor(top / step) + 1)
    digits = min(15, max(6, len(str(max(abs(first), abs(numbers[-1])))) + 1))  # enough for labels that differ
    axis = Axis(top - first * step, tuple(((i - first) * step, f"{i * step:.{digits}g}") for i in numbers))
    return lambda value: value - first * step, axis


def log_share(value: float, first: float, last: float) -> float:
    """Return the position along a logarithmic axis from ``first`` to ``last``, 0.0 to 1.0; 1.0 where both are equal.

    >>> [log_share(rows, 1000, 100_000) for rows in (1000, 10_000, 100_000)]
    [0.0, 0.5, 1.0]
    """
    return math.log(value / first) / math.log(last / first) if last > first else 1.0


def log_ticks(first: float, last: float) -> list[tuple[float, str]]:
    """Return round numbers with labels for a logarithmic axis: powers of ten, and others between where these are few.

    >>> log_ticks(1024, 60_000)
    [(2000.0, '2,000'), (5000.0, '5,000'), (10000.0, '10,000'), (20000.0, '20,000'), (50000.0, '50,000')]
    """
    powers = range(math.floor(math.log10(first)), math.ceil(math.log10(last)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)):
        ticks = [10.0**power * factor for power in powers for factor in factors]
        inside = [tick for tick in ticks if first <= tick <= last]
        if len(inside) >= 4:
            break
    return [(tick, f"{tick:,.10g}") for tick in inside[:: -(-len(inside) // 8) or 1] or [last]]


def _step(top: float, most_ticks: int = 6) -> float:
    """Return the smallest of 1, 2 and 5 times powers of ten that makes at most ``most_ticks`` steps."""
    power = 10.0 ** math.floor(math.log10(top / most_ticks))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor * most_ticks >= top * (1 - 1e-9))

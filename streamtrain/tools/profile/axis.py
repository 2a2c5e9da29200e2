"""Axes from 0: where they end, and ticks at round numbers, in units that people read."""

from __future__ import annotations

import math
from dataclasses import dataclass

from streamtrain.memory.sizes import format_bytes

__all__ = ["Axis", "byte_axis", "time_axis"]

_HEADROOM = 1.06
_UNITS = (("s", 1, 120), ("min", 60, 7200), ("h", 3600, math.inf))


@dataclass(frozen=True)
class Axis:
    """An axis that starts at 0: where it ends, and its ticks with their labels."""

    top: float
    ticks: tuple[tuple[float, str], ...]

    def share(self, value: float) -> float:
        """How far along the axis a value stands: 0.0 to 1.0."""
        return value / self.top


def byte_axis(most_bytes: int) -> Axis:
    """An axis for sizes up to ``most_bytes``.

    >>> byte_axis(103_000_000).ticks
    ((0, '0 B'), (20000000, '20 MB'), (40000000, '40 MB'), (60000000, '60 MB'), (80000000, '80 MB'), (100000000, '100 MB'))
    """
    top = max(most_bytes, 1) * _HEADROOM
    step = max(1, round(_step(top)))
    return Axis(top, tuple((size, format_bytes(size)) for size in range(0, int(top) + 1, step)))


def time_axis(span_seconds: float) -> Axis:
    """An axis for times up to ``span_seconds``, in the unit that fits.

    >>> time_axis(0.85).ticks[:3]
    ((0.0, '0 s'), (0.2, '0.2 s'), (0.4, '0.4 s'))
    >>> [label for _, label in time_axis(420).ticks]
    ['0 min', '1 min', '2 min', '3 min', '4 min', '5 min', '6 min', '7 min']
    """
    unit, size = next((u, s) for u, s, most in _UNITS if span_seconds <= most)
    step = _step(span_seconds / size, most_ticks=8)
    ticks = [i * step for i in range(math.floor(span_seconds / size / step * (1 + 1e-9)) + 1)]
    return Axis(span_seconds, tuple((tick * size, f"{tick:.6g} {unit}") for tick in ticks))


def _step(top: float, most_ticks: int = 6) -> float:
    """1, 2 or 5 times a power of ten: the smallest of them that gives at most so many steps."""
    power = 10.0 ** math.floor(math.log10(top / most_ticks))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor * most_ticks >= top * (1 - 1e-9))

"""Differences of large numbers, which are exact before they are rounded to floats."""

from __future__ import annotations

import math
from decimal import Context, Decimal
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Shift", "difference", "simple"]

Shift = int | float | Decimal  # what is subtracted from numbers: exact for the type of these
_EXACT = Context(prec=200)


def simple(number: Shift | Fraction) -> Shift:
    """A fraction as an int if it is whole, else as a Decimal (exact for what Arrow's types can hold); others as they are."""
    if not isinstance(number, Fraction):
        return number
    if number.denominator == 1:
        return number.numerator
    return _EXACT.divide(Decimal(number.numerator), Decimal(number.denominator))


def difference(numbers: NDArray[Any], offset: Shift, dtype: Any = np.float32) -> NDArray[Any]:
    """``numbers - offset``, rounded to ``dtype``; same shape. The difference is exact before it is rounded, except that 64-bit
    integers and an offset that is out of their range are subtracted in float64.

    >>> difference(np.array([-(2**63), 2**63 - 1]), 2**63 - 1, np.float64).tolist()
    [-1.8446744073709552e+19, 0.0]
    """
    with np.errstate(all="ignore"):  # too large becomes infinite, which is noticed later
        if not offset or not numbers.size:
            return numbers.astype(dtype, copy=False)
        whole = math.floor(offset)
        if not (numbers.dtype in (np.int64, np.uint64) and _holds(numbers.dtype, whole)):
            high = float(offset)
            rest = float(Fraction(offset) - Fraction(high)) if math.isfinite(high) else 0
            near = numbers.astype(np.float64) - high
            return (near - rest if rest else near).astype(dtype, copy=False)
        if rest := float(Fraction(offset) - whole):
            return (difference(numbers, whole, np.float64) - rest).astype(dtype, copy=False)
        wide = numbers.view(np.uint64) - np.uint64(whole % 2**64)  # modulo 2^64: correct if int64 can hold it
        if _holds(np.int64, int(numbers.min()) - whole) and _holds(np.int64, int(numbers.max()) - whole):
            return wide.view(np.int64).astype(dtype)
        below = numbers < whole
        size = np.where(below, np.uint64(0) - wide, wide).astype(dtype)
        return np.where(below, -size, size)


def _holds(dtype: Any, number: int) -> bool:
    limits = np.iinfo(dtype)
    return bool(limits.min <= number <= limits.max)

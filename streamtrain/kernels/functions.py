"""exp, log and what is made of them, with the same bits on every machine.

numpy's own functions, and those of the C library, have other last bits on processors without AVX-512, AVX2 or fused
multiply-add. These consist of additions, multiplications, divisions and shifts, which are exact or correctly rounded
everywhere, in a fixed order: compiled, or in numpy with the same bits. Their errors are below 1.5 units in the last place, in
float32 (`sigmoid`, `softmax`) below 4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import factorial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from streamtrain.kernels.compiled import address, library, number
from streamtrain.kernels.products import one_by_one

__all__ = ["circle", "exp", "expm1", "log", "log1p", "sigmoid", "softmax", "softplus"]

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

_SHIFTER = 1.5 * 2.0**52  # added to a number, it leaves the nearest integer in the low bits
_LOG2_E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = float.fromhex("0x1.62e42fefap-1"), float.fromhex("0x1.cf79abc9e3b3ap-40")
_ROOT_HALF = 0x3FE6A09E667F3BCD  # the bits of sqrt(1 / 2)
_QUARTER = 1.5707963267948966  # of a turn
_EXP = [1 / factorial(n) for n in range(14, 1, -1)]
_LOG = [2 / n for n in range(23, 1, -2)]
_SINE = [(-1) ** (n // 2) / factorial(n) for n in range(17, 1, -2)]
_COSINE = [(-1) ** (n // 2) / factorial(n) for n in range(16, 1, -2)]
_EXP32 = [np.float32(x) for x in (1.3888889e-3, 8.3333333e-3, 4.1666667e-2, 1.6666667e-1, 0.5, 1, 1)]


def exp(x: ArrayLike) -> Doubles:
    """e to the power x, float64; 0 and infinity beyond the range of float64.

    >>> exp([0.0, 1.0, -800.0, 800.0]).tolist()
    [1.0, 2.7182818284590455, 0.0, inf]
    """
    return _applied("EXP", _exp, x)


def expm1(x: ArrayLike) -> Doubles:
    """exp(x) - 1, float64, exact to the last digits near 0 too.

    >>> expm1([1e-20, 1.0, -100.0]).tolist()
    [1e-20, 1.7182818284590453, -1.0]
    """
    return _applied("EXPM1", _expm1, x)


def log(x: ArrayLike) -> Doubles:
    """The natural logarithm, float64; minus infinity of 0, NaN below.

    >>> log([1.0, 10.0, 0.0]).tolist()
    [0.0, 2.302585092994046, -inf]
    """
    return _applied("LOG", _log, x)


def log1p(x: ArrayLike) -> Doubles:
    """log(1 + x), float64, exact to the last digits near 0 too.

    >>> log1p([1e-20, 1.0]).tolist()
    [1e-20, 0.6931471805599453]
    """
    return _applied("LOG1P", _log1p, x)


def softplus(x: Doubles) -> Doubles:
    """log(1 + exp(x)), float64, which cannot overflow.

    >>> softplus(np.array([0.0, 1000.0])).tolist()
    [0.6931471805599453, 1000.0]
    """
    more: Doubles = np.maximum(x, 0) + log1p(exp(-np.abs(x)))
    return more


def circle(turns: ArrayLike) -> tuple[Doubles, Doubles]:
    """The sine and the cosine of so many whole turns, from 0 to 1; float64.

    >>> [values.round(3).tolist() for values in circle([0.0, 0.25, 0.375])]
    [[0.0, 1.0, 0.707], [1.0, 0.0, -0.707]]
    """
    return _applied("SINE", lambda x: _turned(x, 0), turns), _applied("COSINE", lambda x: _turned(x, 1), turns)


def _applied(name: str, in_numpy: Callable[[Doubles], Doubles], x: ArrayLike) -> Doubles:
    numbers = np.array(x, np.float64, order="C")
    if (compiled := library()) is None:
        with np.errstate(all="ignore"):
            return in_numpy(numbers)
    at = address(numbers)
    compiled.st_function(number(name), at, numbers.size, at)
    return numbers


def _exp(x: Doubles) -> Doubles:
    x = np.where(x > 710, 710, np.where(x < -746, -746, x))
    total = x * _LOG2_E + _SHIFTER
    k = total - _SHIFTER
    e = 1 + _near_zero((x - k * _LN2_HIGH) - k * _LN2_LOW)
    power = _low_bits(total)
    half = (power + 4096 >> 1) - 2048
    found: Doubles = e * _power_of_two(half) * _power_of_two(power - half)
    return found


def _expm1(x: Doubles) -> Doubles:
    y = np.where(x > 64, 64, np.where(x < -64, -64, x))
    total = y * _LOG2_E + _SHIFTER
    k, scale = total - _SHIFTER, _power_of_two(_low_bits(total))
    e = _near_zero((y - k * _LN2_HIGH) - k * _LN2_LOW) * scale + (scale - 1)
    return np.where(x > 64, _exp(x), e)


def _log(x: Doubles) -> Doubles:
    small = x < np.finfo(np.float64).tiny
    bits = np.where(small, x * 2.0**54, x).view(np.int64)
    power = bits - _ROOT_HALF >> 52
    m = (bits - (power << 52)).view(np.float64)
    k = (power - small * 54).astype(np.float64)
    f = m - 1
    s = f / (2 + f)
    z = s * s
    half = 0.5 * f * f
    found = k * _LN2_HIGH - ((half - (s * (half + z * _series(z, _LOG)) + k * _LN2_LOW)) - f)
    return np.where(x == np.inf, x, np.where(x > 0, found, np.where(x == 0, -np.inf, np.nan)))


def _log1p(x: Doubles) -> Doubles:
    total = 1 + x
    lost = (x - (total - 1)) / total
    return _log(total) + np.where((total == np.inf) | (total == 0), 0, lost)


def _turned(x: Doubles, quarter: int) -> Doubles:
    total = x * 4 + _SHIFTER
    a = (x * 4 - (total - _SHIFTER)) * _QUARTER
    z = a * a
    sine, cosine = a + a * z * _series(z, _SINE), 1 + z * _series(z, _COSINE)
    turns = _low_bits(total) + quarter & 3
    size = np.where(turns & 1, cosine, sine)
    signed: Doubles = np.where(turns & 2, 0 - size, size)
    return signed


def _near_zero(r: Doubles) -> Doubles:
    """exp(r) - 1 for small r."""
    less_one: Doubles = r + r * r * _series(r, _EXP)
    return less_one


def _series(x: NDArray[Any], factors: Sequence[Any]) -> NDArray[Any]:
    """The polynomial with these factors, the one of the highest power first."""
    total: NDArray[Any] = x * factors[0] + factors[1]
    for factor in factors[2:]:
        total = total * x + factor
    return total


def _low_bits(total: Doubles) -> NDArray[np.int64]:
    """The integer to which `_SHIFTER` was added."""
    integers: NDArray[np.int64] = total.view(np.int64) - np.float64(_SHIFTER).view(np.int64)
    return integers


def _power_of_two(k: NDArray[np.int64]) -> Doubles:
    power: Doubles = (k + 1023 << 52).view(np.float64)
    return power


def sigmoid(numbers: Floats) -> None:
    """1 / (1 + exp(-x)), **in place**; float32, contiguous. Beyond 80 as at 80: it is never 0.

    >>> numbers = np.array([0, 100], np.float32)
    >>> sigmoid(numbers)
    >>> numbers.tolist()
    [0.5, 1.0]
    """
    if (compiled := library()) is not None:
        compiled.st_sigmoid(address(numbers), numbers.size)
        return
    with np.errstate(invalid="ignore"):
        numbers[...] = 1 / (1 + _power_of_e(-np.where(numbers > 80, 80, np.where(numbers < -80, -80, numbers))))


def softmax(margins: Floats, targets: NDArray[np.int32] | None = None) -> None:
    """exp(margin) / sum(exp(margins)), shape (rows, classes), float32, **in place**. With targets, shape (rows,): less 1 for
    the class of the target. Raises IndexError for a target that is no class.

    >>> margins = np.array([[0, 0], [1000, 0]], np.float32)
    >>> softmax(margins)
    >>> margins.tolist()
    [[0.5, 0.5], [1.0, 0.0]]
    """
    if (compiled := library()) is not None:
        row = compiled.st_softmax(address(margins), *margins.shape, None if targets is None else address(targets))
        if targets is not None and row < len(targets):
            raise _no_class(int(targets[row]), margins.shape[1])
        return
    with np.errstate(invalid="ignore"):
        margins -= np.maximum.reduce(margins, axis=1, keepdims=True)
        low = margins < -87
        margins[...] = np.where(low, 0, _power_of_e(np.where(low, -87, margins)))
        margins /= one_by_one(np.ascontiguousarray(margins.T))[:, None]
    if targets is not None:
        for target in targets[(targets < 0) | (targets >= margins.shape[1])].tolist():
            raise _no_class(target, margins.shape[1])
        margins[np.arange(len(margins)), targets] -= 1


def _no_class(target: int, classes: int) -> IndexError:
    return IndexError(f"the target is {target}: there are {classes} classes, from 0 on")


def _power_of_e(y: Floats) -> Floats:
    """exp(y) for y from -87 to 80, float32."""
    y = np.asarray(y, np.float32)
    total = y * np.float32(1.44269504) + np.float32(12582912)
    k = total - np.float32(12582912)
    r = (y - k * np.float32(0.693359375)) + k * np.float32(2.12194440e-4)
    power = total.view(np.int32) - np.float32(12582912).view(np.int32) + 127 << 23
    found: Floats = _series(r, _EXP32) * power.view(np.float32)
    return found

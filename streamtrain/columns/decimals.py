"""Decimals as exact numbers: Arrow stores each as an integer in units of 10^-scale, of 32, 64, 128 or 256 bits.

Everything here is computed with integers, because float64 keeps no more than 15 digits of a decimal for certain.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from decimal import Context, Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = [
    "as_classes",
    "as_float",
    "class_of",
    "digits",
    "distinct",
    "fits",
    "minus",
    "scaled",
    "to_float64",
    "whole_words",
    "words_of",
]

Words = NDArray[np.uint64]  # integers in two's complement, shape (rows, words); the lowest word comes first

_EXACT = Context(prec=200)  # more than the 76 digits that a decimal can have, and any scale of those


def words_of(values: pa.Array) -> Words:
    """The integers that an array of decimals stores, shape (rows, 1, 2 or 4), read-only. At a null they are arbitrary."""
    width, data = values.type.bit_width, values.buffers()[1]
    dtype: Any = np.int32 if width == 32 else np.uint64
    each = max(1, width // 64)
    if not len(values) or data is None:
        return np.zeros((len(values), each), np.uint64)
    stored = np.frombuffer(data, dtype, len(values) * each, values.offset * width // 8).reshape(-1, each)
    return stored.astype(np.int64).view(np.uint64) if width == 32 else stored


def to_float64(words: Words, scale: int) -> NDArray[np.float64]:
    """The decimals as float64, shape (rows,)."""
    if words.shape[1] == 1:
        numbers = words[:, 0].view(np.int64).astype(np.float64)
    else:
        below = words[:, -1] >= np.uint64(2**63)
        # -n is the complement of n plus 1: computed this way, nothing cancels out in float64
        sizes = words ^ np.where(below, np.uint64(2**64 - 1), np.uint64(0))[:, None]
        numbers = sizes[:, -1].astype(np.float64)
        for word in range(sizes.shape[1] - 2, -1, -1):
            numbers = numbers * 2.0**64 + sizes[:, word]
        numbers = np.where(below, -(numbers + 1), numbers)
    with np.errstate(all="ignore"):
        return numbers / float(f"1e{scale}")


def minus(words: Words, scale: int, offset: Fraction) -> NDArray[np.float64]:
    """The decimals minus an offset, shape (rows,), float64: the difference is exact before it is rounded."""
    whole, rest = divmod(offset * Fraction(10) ** scale, 1)
    count = 1 + max(words.shape[1], int(whole).bit_length() // 64 + 1)  # no difference needs more words
    high = np.where(words[:, -1] >= np.uint64(2**63), np.uint64(2**64 - 1), np.uint64(0))
    differences, borrow = np.empty((len(words), count), np.uint64), np.zeros(len(words), np.uint64)
    for word in range(count):
        mine = words[:, word] if word < words.shape[1] else high
        its = np.uint64(int(whole) >> (64 * word) & (2**64 - 1))
        lower = mine - its
        differences[:, word] = lower - borrow
        borrow = ((mine < its) | (lower < borrow)).astype(np.uint64)
    numbers = to_float64(differences, scale)
    return numbers - float(rest / Fraction(10) ** scale) if rest else numbers


def scaled(values: pa.Array) -> list[Decimal]:
    """The decimals of an array without nulls; their digits are exact.

    >>> scaled(pa.array([Decimal("90071992547409921.50")], pa.decimal128(38, 2)))
    [Decimal('90071992547409921.50')]
    """
    return [_decimal(number, values.type.scale) for number in _integers(words_of(values))]


def distinct(values: pa.Array) -> tuple[list[Decimal], NDArray[np.intp]]:
    """The distinct decimals of an array, and for each row which of them it has, shape (rows,)."""
    words = words_of(values)
    narrow = fits(words, 1)
    rows = words[:, 0] if narrow.all() else np.ascontiguousarray(words).view([("", np.uint64)] * words.shape[1])[:, 0]
    _, first, codes = np.unique(rows, return_index=True, return_inverse=True)
    return [_decimal(number, values.type.scale) for number in _integers(words[first])], codes.reshape(-1)


def whole_words(values: pa.Array) -> Iterable[tuple[NDArray[np.bool_], Words]]:
    """Decimals of scale 0 or less as whole numbers: for 1, 2 and 4 words (and more where needed) which rows need just that
    many, shape (rows,), and the words of these rows. Equal numbers give equal words, whatever the type."""
    words, power = words_of(values), 10**-values.type.scale
    if power > 1:
        words = _from_integers([number * power for number in _integers(words)])
    left, count = np.ones(len(words), np.bool_), 1
    while left.any():
        rows = left & fits(words, count)
        if rows.any():
            yield rows, np.ascontiguousarray(words[rows, :count])
        left, count = left & ~rows, 2 * count


def digits(number: Decimal) -> str:
    """The digits of a number, without zeros at the end of a fraction.

    >>> digits(Decimal("7.10")), digits(Decimal("7E+3")), digits(Decimal("-0.0"))
    ('7.1', '7000', '0')
    """
    return format(_EXACT.normalize(number), "f") if number else "0"


def as_float(number: Decimal) -> float | None:
    """The float64 whose shortest digits are those of the number; None if there is none.

    >>> as_float(Decimal("7.10")), as_float(Decimal("7.1000000000000000001"))
    (7.1, None)
    """
    nearest = float(number)
    return nearest if Decimal(repr(nearest)) == number else None


def as_classes(numbers: Collection[Decimal], scale: int, earlier: Sequence[Any] = ()) -> dict[Decimal, Any]:
    """The class of each decimal label: an integer if the type has no fractions; otherwise a float if floats have all digits of
    all labels, an integer if all labels are whole, or else the digits as text. earlier: classes that there are already; if
    these are text, so are the others.

    >>> list(as_classes([Decimal("7.10"), Decimal("8.00")], 2).values())
    [7.1, 8.0]
    >>> list(as_classes([Decimal("90071992547409921.00"), Decimal("8.00")], 2).values())
    [90071992547409921, 8]
    """
    if not (earlier and isinstance(earlier[0], str)):
        if scale > 0 and all(as_float(number) is not None for number in numbers):
            return {number: as_float(number) for number in numbers}
        if all(number == int(number) for number in numbers):
            return {number: int(number) for number in numbers}
    return {number: digits(number) for number in numbers}


def class_of(number: Decimal, positions: dict[Any, int]) -> int:
    """The position of a decimal label among classes, whatever form `as_classes` gave them; -1 if it is not one of them."""
    for form in (number, as_float(number), digits(number)):
        if form in positions:
            return positions[form]
    return -1


def fits(words: Words, count: int) -> NDArray[np.bool_]:
    """Which integers need no more than ``count`` words, shape (rows,)."""
    if words.shape[1] <= count:
        return np.ones(len(words), np.bool_)
    high = np.where(words[:, count - 1] >= np.uint64(2**63), np.uint64(2**64 - 1), np.uint64(0))
    return np.asarray((words[:, count:] == high[:, None]).all(axis=1))


def _integers(words: Words) -> list[int]:
    size = words.shape[1] * 8
    data = np.ascontiguousarray(words).tobytes()
    return [int.from_bytes(data[at : at + size], "little", signed=True) for at in range(0, len(data), size)]


def _from_integers(numbers: list[int]) -> Words:
    count = 1
    while any(number.bit_length() >= 64 * count for number in numbers):
        count *= 2
    data = b"".join(number.to_bytes(8 * count, "little", signed=True) for number in numbers)
    return np.frombuffer(data, np.uint64).reshape(-1, count)


def _decimal(number: int, scale: int) -> Decimal:
    return _EXACT.scaleb(Decimal(number), -scale)

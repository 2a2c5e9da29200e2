"""Integers that 64 bits do not hold: pyarrow would infer float64, in which those that differ in the last digits are equal."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa

__all__ = ["with_wide_integers"]

_EXACT, _MOST_DIGITS = 2.0**53, 38


def with_wide_integers(
    first: pa.Table, schema: pa.Schema, given: Iterable[str], written: Callable[[str], Iterable[int | None]]
) -> pa.Schema:
    """The schema with uint64, or decimals of 38 digits, for columns of integers that were inferred as float64.

    first: the rows from which the schema was inferred. given: columns whose type is not inferred. written: the integers of a
    column as they are written, None for anything that is no integer.
    """
    for i, field in enumerate(schema):
        if field.type != pa.float64() or field.name in given:
            continue
        numbers = first.column(field.name).drop_null().to_numpy()
        if not len(numbers) or not np.abs(numbers).max() >= _EXACT or not (numbers == np.rint(numbers)).all():
            continue
        exact = list(written(field.name))
        integers = [number for number in exact if number is not None]
        if not integers or len(integers) < len(exact):
            continue
        low, high = min(integers), max(integers)
        if low >= 0 and high < 2**64:
            schema = schema.set(i, field.with_type(pa.uint64()))
        elif max(-low, high) < 10**_MOST_DIGITS:
            schema = schema.set(i, field.with_type(pa.decimal128(_MOST_DIGITS, 0)))
    return schema

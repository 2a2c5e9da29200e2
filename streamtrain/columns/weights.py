"""The weights of rows; and which rows are skipped."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.columns.buffers import RowWriter
from streamtrain.columns.lists import OddListError, evened, single_values
from streamtrain.columns.numbers import as_numbers
from streamtrain.columns.role import Column
from streamtrain.columns.target_values import Unusable
from streamtrain.errors import BadValueError

__all__ = ["Skips", "known_values", "rows_in_use", "single_weights", "write_weights"]

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Skips:
    """Which rows are skipped, besides those without a usable target or weight. infinite: those with an infinite feature."""

    infinite: bool = True


def known_values(column: Column, values: pa.Array, where: str, skips: Skips | None) -> tuple[pa.Array, list[Unusable]]:
    """The values as the type of the column, and the rows whose list has another length: those are null. Without ``skips`` such
    a list is an error."""
    try:
        return column.as_known(values, where), []
    except OddListError as error:
        if skips is None:
            raise error.of(column.name) from None
        values, odd = evened(values, column.numbers)
        return values, [(odd, f"feature {column.name!r} {error}")]


def rows_in_use(weights: pa.Array) -> Mask | None:
    """The rows whose weight is not 0, shape (rows,); None if all are. A weight that is null or NaN is not 0."""
    used: Mask = as_numbers(weights) != 0
    return None if used.all() else used


def single_weights(name: str, values: pa.Array, where: str) -> pa.Array:
    """Weights that may be stored as lists of one, as single values."""
    try:
        return single_values(values)
    except OddListError as error:
        raise BadValueError(f"weight {name!r} {error} in {where}: a row has one weight") from None


def write_weights(name: str, values: pa.Array, rows: RowWriter, skips: Skips | None) -> list[Unusable]:
    """Write weights. Returns the rows whose weight cannot be used; without ``skips`` such a weight is an error."""
    with np.errstate(over="ignore"):
        numbers = as_numbers(values).astype(np.float32)
    bad = ~(np.isfinite(numbers) & (numbers >= 0))
    if not bad.any():
        rows.add_weights(numbers)
        return []
    if skips is None:
        raise BadValueError(
            f"weight {name!r} has a value that is null, NaN, infinite or negative in {rows.where}: weights must be 0 or more"
        )
    numbers[bad] = np.nan  # `Window.finish` makes it 0: a row of weight 0 is no skipped row
    rows.add_weights(numbers)
    return [(bad, f"weight {name!r} is null, NaN, infinite or negative")]

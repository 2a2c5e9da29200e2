"""Small pieces of the running sums: what to do where values are not finite or have no spread."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.errors import BadValueError

__all__ = ["bad_value", "finite", "inverse"]

Floats = NDArray[np.float32]


def finite(sums: NDArray[Any]) -> bool:
    """Whether all values were finite: squares cannot cancel, so one that is not shows in the total of their sums."""
    return math.isfinite(np.add.reduce(sums[1], dtype=np.float64))


def inverse(spread: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / spread, and 0 where the spread is 0: a column without one maps to 0, whatever comes later."""
    factor = np.zeros_like(spread)
    np.divide(1, spread, out=factor, where=spread > 0)
    return np.minimum(factor, np.finfo(np.float32).max)


def bad_value(X: Floats) -> BadValueError:
    """An error that names the first value that is not finite."""
    row, column = (int(place) for place in np.argwhere(~np.isfinite(X))[0])
    return BadValueError(
        f"the value at row {row}, column {column} is {X[row, column]}; wanted a finite number", row=row, column=column
    )

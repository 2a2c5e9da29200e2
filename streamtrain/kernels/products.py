"""Products of rows with several vectors at once: the margins of a linear model, its gradients, sums of squares.

Nothing here uses BLAS, whose libraries add in an order of their own on each kind of processor. Every sum has a fixed order,
which is that of `fused_linear` for a single output, so the compiled loops and numpy give the same bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamtrain.kernels.compiled import LANES, address, library

__all__ = ["gradients", "margins", "one_by_one", "reach", "squares"]

Floats = NDArray[np.float32]

_BLOCK_ROWS, _BLOCK_NUMBERS = 256, 32768  # numpy multiplies so much at a time, so that the products stay in the cache
_SQUARE_SUMS = 32


def margins(rows: Floats, weights: Floats) -> Floats:
    """``rows @ weights + intercept``, shape (rows,) or (rows, outputs), float32.

    rows: shape (rows, width). weights: shape (width + 1,) or (width + 1, outputs), the intercept last. The columns from 0
    to the last multiple of 8 are added in eight partial sums, of every eighth column; then these sums, then the other columns
    and the intercept one by one.

    >>> margins(np.array([[1, 2], [3, 4]], np.float32), np.array([10, 1, 5], np.float32)).tolist()
    [17.0, 39.0]
    """
    count, outputs = len(rows), 1 if weights.ndim == 1 else weights.shape[1]
    found = np.empty(count if weights.ndim == 1 else (count, outputs), np.float32)
    if (compiled := library()) is not None:
        compiled.st_margins(address(rows), count, rows.shape[1], address(weights), outputs, address(found))
        return found
    by_output, columns = found.reshape(count, outputs), weights.reshape(-1, outputs)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, count, _BLOCK_ROWS):
            by_output[start : start + _BLOCK_ROWS] = _block_margins(rows[start : start + _BLOCK_ROWS], columns).T
    return found


def _block_margins(rows: Floats, weights: Floats) -> Floats:
    """The margins of a few rows, shape (outputs, rows)."""
    count, width = rows.shape
    whole, panel = width // LANES * LANES, max(1, _BLOCK_NUMBERS // count // LANES) * LANES
    partial = np.zeros((weights.shape[1], LANES, count), np.float32)
    for first in range(0, whole, panel):
        stop = min(whole, first + panel)
        turned = np.ascontiguousarray(rows[:, first:stop].T).reshape(-1, LANES, count)
        for k, column in enumerate(weights[first:stop].T):
            products = turned * column.reshape(-1, LANES, 1)
            products[0] += partial[k]
            partial[k] = np.add.reduce(products)
    total = np.zeros((weights.shape[1], count), np.float32)
    for lane in range(LANES):
        total += partial[:, lane]
    for j in range(whole, width):
        total += weights[j, :, None] * rows[:, j]
    return total + weights[-1, :, None]


def gradients(rows: Floats, slopes: Floats, into: Floats) -> None:
    """The sum of ``slope * row`` over the rows, one after the other, and of the slopes, in eight partial sums, of every
    eighth row.

    rows: shape (rows, width). slopes: shape (rows,) or (rows, outputs). into: the result, shape (width + 1,) or (width + 1,
    outputs).

    >>> into = np.empty(3, np.float32)
    >>> gradients(np.array([[1, 2], [3, 4]], np.float32), np.array([10, 1], np.float32), into)
    >>> into.tolist()
    [13.0, 24.0, 11.0]
    """
    outputs = 1 if into.ndim == 1 else into.shape[1]
    if (compiled := library()) is not None:
        compiled.st_gradients(address(rows), *rows.shape, address(slopes), outputs, address(into))
        return
    by_output, columns = slopes.reshape(len(rows), outputs), into.reshape(-1, outputs)
    padded = np.zeros((-(-len(rows) // LANES) * LANES, outputs), np.float32)
    padded[: len(rows)] = by_output
    with np.errstate(over="ignore", invalid="ignore"):
        columns[:] = 0
        for lane in np.add.reduce(padded.reshape(-1, LANES, outputs), axis=0):
            columns[-1] += lane
        step = max(1, _BLOCK_NUMBERS // max(1, len(rows)))
        for first in range(0, rows.shape[1], step):
            block = rows[:, first : first + step]
            for k in range(outputs):
                columns[first : first + block.shape[1], k] += one_by_one(block * by_output[:, k, None])


def reach(rows: Floats, rates: Floats | None) -> Floats:
    """The squares of the rows, multiplied with the rates as `margins` does it: how far a slope of 1 moves each row's margin;
    shape (rows,), float32. rates: shape (width + 1,); None: all are 1.

    >>> reach(np.array([[1, 2], [3, 4]], np.float32), np.array([10, 1, 5], np.float32)).tolist()
    [19.0, 111.0]
    """
    if (compiled := library()) is None:
        with np.errstate(over="ignore"):
            return margins(rows * rows, np.ones(rows.shape[1] + 1, np.float32) if rates is None else rates)
    found = np.empty(len(rows), np.float32)
    compiled.st_reach(address(rows), *rows.shape, None if rates is None else address(rates), address(found))
    return found


def squares(numbers: Floats) -> float:
    """The sum of the squares of all numbers, in float64, in 32 partial sums, of every 32nd number.

    >>> squares(np.array([[3, 4]], np.float32))
    25.0
    """
    if (compiled := library()) is not None:
        return float(compiled.st_squares(address(numbers), numbers.size))
    padded = np.zeros((-(-numbers.size // _SQUARE_SUMS), _SQUARE_SUMS))
    padded.ravel()[: numbers.size] = numbers.ravel()
    np.square(padded, out=padded)
    return float(np.add.accumulate(np.add.reduce(padded))[-1])


def one_by_one(rows: Floats) -> Floats:
    """The sum of the rows, added one after the other; numpy's `add.reduce` would add a single column in pairs."""
    single = rows.shape[1] == 1 and len(rows) > 0
    total: Floats = np.add.accumulate(rows)[-1] if single else np.add.reduce(rows)
    return total

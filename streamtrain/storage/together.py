"""Runs of neighbouring chunks that are small: they are read several in one call, which costs tens of microseconds however small
a chunk is. The limits are constants, so the plan knows what a run takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["TOGETHER_BYTES", "TOGETHER_ROWS", "cut", "together"]

TOGETHER_BYTES, TOGETHER_ROWS = 512_000, 8_192  # of one call: declared for all columns of all its chunks, and rows


def cut(sizes: Sequence[NDArray[np.int64]], limits: Sequence[int]) -> Iterator[slice]:
    """Cut a sequence of items into runs whose sizes are within the limits; one item may be above them.

    sizes: of the items, one array for each limit, shape (items,).

    >>> [(run.start, run.stop) for run in cut([np.array([1, 1, 1, 9, 1])], [2])]
    [(0, 2), (2, 3), (3, 4), (4, 5)]
    """
    sums = [np.concatenate([[0], np.cumsum(size)]) for size in sizes]
    at, items = 0, len(sums[0]) - 1
    while at < items:
        stop = min(int(np.searchsorted(s, s[at] + most, "right")) for s, most in zip(sums, limits, strict=True)) - 1
        stop = max(at + 1, stop)
        yield slice(at, stop)
        at = stop


def together(rows: NDArray[np.int64], read_peak_bytes: NDArray[np.int64]) -> Iterator[slice]:
    """Runs of chunks that are read in one call. rows, read_peak_bytes: of each chunk, shape (chunks,)."""
    return cut([rows, read_peak_bytes], [TOGETHER_ROWS, TOGETHER_BYTES])

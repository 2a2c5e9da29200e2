"""Runs of neighbouring chunks: small chunks are read several in one call, and many calls are one task.

A call costs tens of microseconds, and a task of dask 3 kB of memory, however small a chunk is. The limits are constants, so
the plan knows what a run takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["TOGETHER_BYTES", "TOGETHER_ROWS", "cut", "most_tasks", "tasks", "together"]

TOGETHER_BYTES, TOGETHER_ROWS = 512_000, 8_192  # of one call: declared for all columns of all its chunks, and rows
_TASK_BYTES, _TASK_CHUNKS = 4 * 10**6, 1_024  # of one task: decoded
_TASKS_A_THREAD = 8  # at least, so that threads end a window together


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


def tasks(decoded_bytes: NDArray[np.int64], threads: int) -> Iterator[slice]:
    """Runs of chunks that are one task. decoded_bytes: of each chunk, shape (chunks,)."""
    most = _task_bytes(int(decoded_bytes.sum()), threads)
    return cut([decoded_bytes, np.ones(len(decoded_bytes), np.int64)], [most, _TASK_CHUNKS])


def most_tasks(chunks: int, decoded_bytes: int, threads: int) -> int:
    """How many tasks so many chunks of so many bytes together can be: no two neighbours would fit into one.

    >>> most_tasks(10**6, 240 * 10**6, 2), most_tasks(10, 10**6, 2)
    (1097, 10)
    """
    by_bytes = 2 * decoded_bytes // max(1, _task_bytes(decoded_bytes, threads))
    return min(chunks, by_bytes + chunks // _TASK_CHUNKS + 1)


def _task_bytes(decoded_bytes: int, threads: int) -> int:
    return min(_TASK_BYTES, decoded_bytes // (_TASKS_A_THREAD * threads))

"""Runs of neighbouring chunks that are one task: a task of dask takes 3 kB of memory, however small a chunk is."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from streamtrain.storage.together import TOGETHER_BYTES, TOGETHER_ROWS, cut, together

__all__ = ["TOGETHER_BYTES", "TOGETHER_ROWS", "cut", "most_tasks", "tasks", "together"]

_TASK_BYTES, _TASK_CHUNKS = 4 * 10**6, 1_024  # of one task: decoded
_TASKS_A_THREAD = 8  # at least, so that threads end a window together


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

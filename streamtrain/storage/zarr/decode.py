"""Decode rows of an array with zarr, with as few copies and as little memory as its public interface allows."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from zarr.buffer import cpu

from streamtrain.storage.zarr.columns import StoredArray

__all__ = ["LastBlock", "read_rows"]

Box = tuple[slice, ...]


class _Target(cpu.NDBuffer):
    """The buffer for values that zarr decodes. If they come in one piece, it is used without a copy. The default buffer of
    zarr would copy it, on the one thread that all reads of a process share. Memory is allocated only to join pieces."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], least_bytes: int) -> None:
        stand_in: Any = np.broadcast_to(np.zeros((), dtype), shape)  # has the right shape and type, but takes no memory
        super().__init__(stand_in)
        self._least_bytes = least_bytes
        self._result: NDArray[Any] | None = None

    def __setitem__(self, key: Any, value: Any) -> None:
        piece = value.as_numpy_array() if isinstance(value, cpu.NDBuffer) else None
        if self._result is None and piece is not None and self._can_be_taken(piece):
            self._result = piece
        else:
            self._memory()[key] = value if piece is None else piece

    def _can_be_taken(self, piece: NDArray[Any]) -> bool:
        whole = piece.shape == self.shape and piece.dtype == self.dtype and piece.nbytes >= self._least_bytes
        return whole and piece.flags.c_contiguous and piece.flags.aligned

    def _memory(self) -> NDArray[Any]:
        if self._result is None:
            self._result = np.empty(self.shape, self.dtype)
        return self._result

    def as_ndarray_like(self) -> Any:
        return self._memory()

    def as_numpy_array(self) -> NDArray[Any]:
        return self._memory()


def read_rows(array: Any, stored: StoredArray, start: int, stop: int) -> NDArray[Any]:
    """Rows ``start`` to ``stop``, shape (stop - start, ...), in native byte order. Exceptions of zarr are not caught."""
    shape = (stop - start, *stored.shape[1:])
    boxes = _boxes(stored, start, stop)
    first = next(boxes)
    if _shape(first) == shape:
        # a piece keeps its whole chunk in memory: use it without a copy only if it is at least half of the chunk
        target = _Target(shape, stored.dtype, stored.unit_bytes // 2 if stored.dtype.kind != "T" else 0)
        array.get_basic_selection(first, out=target)
        return target.as_numpy_array()
    out = np.empty(shape, stored.dtype)
    for box in itertools.chain([first], boxes):
        target_box = (slice(box[0].start - start, box[0].stop - start), *box[1:])
        array.get_basic_selection(box, out=cpu.NDBuffer.from_numpy_array(out[target_box]))
    return out


def _shape(box: Box) -> tuple[int, ...]:
    return tuple(part.stop - part.start for part in box)


def _boxes(stored: StoredArray, start: int, stop: int) -> Iterator[Box]:
    """The index ranges of successive calls to zarr, which decodes up to ten chunks of a call at once; see `StoredArray.box`."""
    others = (_cuts(0, n, b) for n, b in zip(stored.shape[1:], stored.box[1:], strict=True))
    yield from itertools.product(_cuts(start, stop, stored.box[0]), *others)


def _cuts(start: int, stop: int, step: int) -> list[slice]:
    """The range from start to stop, cut at multiples of step."""
    borders = [start, *range((start // step + 1) * step, stop, step), stop]
    return [slice(a, b) for a, b in itertools.pairwise(borders)]


class LastBlock:
    """The last decoded block of an array whose chunks are longer than a run.

    One thread reads at a time; otherwise several threads would decode the same block into separate memory.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at = -1
        self._block: NDArray[Any] | None = None

    def read(self, array: Any, stored: StoredArray, start: int, stop: int) -> NDArray[Any]:
        """Rows ``start`` to ``stop``, as a copy, because a view would keep the whole block in memory."""
        out = np.empty((stop - start, *stored.shape[1:]), stored.dtype)
        with self._lock:
            for piece in _cuts(start, stop, stored.unit[0]):
                at = piece.start // stored.unit[0] * stored.unit[0]
                block = self._get(array, stored, at)
                out[piece.start - start : piece.stop - start] = block[piece.start - at : piece.stop - at]
        return out

    def _get(self, array: Any, stored: StoredArray, at: int) -> NDArray[Any]:
        if self._at != at or self._block is None:
            self._at, self._block = -1, None  # free the old block before the new one is decoded
            self._block = read_rows(array, stored, at, min(at + stored.unit[0], stored.shape[0]))
            self._at = at
        return self._block

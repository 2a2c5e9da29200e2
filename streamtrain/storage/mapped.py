"""Memory maps as columns: what was read of them is given back to the system, so that a map may be larger than the memory."""

from __future__ import annotations

import math
import mmap
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.errors import UsageError
from streamtrain.storage.array_columns import Column
from streamtrain.storage.from_numpy import arrow_type, row_bits, to_arrow

__all__ = ["Mapped", "is_mapped"]

_FAULT_BYTES = 1 << 21  # that the system maps at most around a page that is touched: a large page of its cache
_MAPPED_BYTES = 1 << 20  # of a map that are touched before they are given back


def is_mapped(values: Any) -> bool:
    """Whether an array is a map of a file, or a view of one."""
    return _map_of(values)[0] is not None


def _map_of(values: Any) -> tuple[np.memmap[Any, Any] | None, mmap.mmap | None]:
    """The memory map behind an array, and the mapping of the operating system."""
    found: np.memmap[Any, Any] | None = None
    while isinstance(values, np.ndarray):
        found = values if isinstance(values, np.memmap) else found
        values = values.base
    return (found, values) if found is not None and isinstance(values, mmap.mmap) else (None, None)


class Mapped(Column):
    """A memory map of a file: rows are copied, and the pages that were read are given back to the system."""

    passing_bytes = 2 * _FAULT_BYTES

    def __init__(self, name: str, values: NDArray[Any]) -> None:
        super().__init__(name, arrow_type(name, values.dtype, values.shape[1:]), len(values))
        owner, self._map = _map_of(values)
        if owner is None or self._map is None or owner.mode == "c":
            raise UsageError(
                f"column {name!r} is a memory map in mode 'c', whose pages cannot be given back without losing what was "
                "written to it: open it in mode 'r', or save it and open it again"
            )
        self._values = np.asarray(values)
        self._address = np.frombuffer(self._map, np.uint8).__array_interface__["data"][0]
        self.row_bytes = row_bits(values.dtype, values.shape[1:]) / 8
        stored = values.dtype.itemsize * math.prod(values.shape[1:])
        self._peak_row_bytes = stored + 2 * max(self.row_bytes, stored)

    def slice(self, start: int, stop: int) -> pa.Array:
        part = self._values[start:stop]
        copied = np.empty(part.shape, part.dtype)
        self._copy(part, copied)
        return to_arrow(self.name, copied)

    def _copy(self, part: NDArray[Any], copied: NDArray[Any]) -> None:
        """Copy values in the order in which they are stored, and give their pages back before there are many."""
        if not part.size:
            return
        low, high = np.lib.array_utils.byte_bounds(part)
        if high - low > _MAPPED_BYTES and part.size > 1:
            strides = [abs(stride) if n > 1 else 0 for n, stride in zip(part.shape, part.strides, strict=True)]
            axis = int(np.argmax(strides))
            step = max(1, _MAPPED_BYTES // strides[axis])
            parts, copies = np.moveaxis(part, axis, 0), np.moveaxis(copied, axis, 0)
            for at in range(0, len(parts), step):
                self._copy(parts[at : at + step], copies[at : at + step])
            return
        copied[...] = part
        if hasattr(mmap, "MADV_DONTNEED"):
            assert self._map is not None
            first = (low - self._address) // _FAULT_BYTES * _FAULT_BYTES
            last = -(-(high - self._address) // _FAULT_BYTES) * _FAULT_BYTES
            # the map is shared with the file, so what was written to it stays in the page cache
            self._map.madvise(mmap.MADV_DONTNEED, first, min(last, len(self._map)) - first)

    def peak_bytes(self, rows: int) -> int:
        return int(rows * self._peak_row_bytes)

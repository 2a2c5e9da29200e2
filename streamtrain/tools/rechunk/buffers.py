"""Buffers that collect columns, one class for each kind of type."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.storage.arrow import unpacked_bits, valid

__all__ = ["Column", "Extension", "Fixed", "Lists", "Pieces", "Validity", "has_width"]

_JOINED = 8  # pieces that are joined


class Column(Protocol):
    """``put`` copies values to the rows from ``at`` on, which follow the rows before (0 starts over). ``take`` returns the
    first ``rows`` rows, as views where the type has a fixed width."""

    @property
    def held_bytes(self) -> int: ...
    def put(self, at: int, values: Any) -> None: ...
    def take(self, rows: int) -> Any: ...


def has_width(kind: pa.DataType) -> bool:
    """Whether every value takes the same number of bits, in one buffer."""
    return bool(pa.types.is_primitive(kind) or pa.types.is_decimal(kind) or pa.types.is_fixed_size_binary(kind))


class _Bits:
    """One bit a row, packed as Arrow does."""

    def __init__(self, rows: int) -> None:
        self._bits: NDArray[np.uint8] = np.zeros(-(-rows // 8), np.uint8)

    @property
    def held_bytes(self) -> int:
        return self._bits.nbytes

    def put(self, at: int, values: NDArray[np.bool_]) -> None:
        if len(values):
            packed = np.packbits(np.concatenate([np.zeros(at % 8, np.bool_), values]), bitorder="little")
            first = at // 8
            packed[0] |= self._bits[first] & ((1 << at % 8) - 1)  # bits of the rows before
            self._bits[first : first + len(packed)] = packed

    def take(self) -> Any:
        return pa.py_buffer(self._bits)


class Validity:
    """Which rows are not null. Allocated when the first null arrives."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._bits: _Bits | None = None

    @property
    def held_bytes(self) -> int:
        return self._bits.held_bytes if self._bits is not None else 0

    def put(self, at: int, values: Any) -> None:
        if self._bits is None and values.null_count:
            self._bits = _Bits(self._rows)
            self._bits.put(0, np.ones(at, np.bool_))
        if self._bits is not None:
            self._bits.put(at, valid(values))

    def take(self) -> Any:
        return None if self._bits is None else self._bits.take()


class Fixed:
    """Values of one width: numbers, times, decimals, booleans, bytes of fixed length."""

    def __init__(self, kind: pa.DataType, rows: int) -> None:
        self._kind, self._width = kind, kind.bit_width // 8
        self._bits = _Bits(0 if self._width else rows)
        self._bytes = np.empty(rows * self._width, np.uint8)
        self._validity = Validity(rows)

    @property
    def held_bytes(self) -> int:
        return self._bytes.nbytes + self._bits.held_bytes + self._validity.held_bytes

    def put(self, at: int, values: Any) -> None:
        self._validity.put(at, values)
        data, start, rows, width = values.buffers()[1], values.offset, len(values), self._width
        if data is None:  # no rows, or only nulls
            return
        if width:
            raw = np.frombuffer(data, np.uint8)[start * width : (start + rows) * width]
            self._bytes[at * width : (at + rows) * width] = raw
        else:
            self._bits.put(at, unpacked_bits(data, start, rows))

    def take(self, rows: int) -> Any:
        data = pa.py_buffer(self._bytes) if self._width else self._bits.take()
        return pa.Array.from_buffers(self._kind, rows, [self._validity.take(), data])


class Lists:
    """Lists of equal size: their entries in a row."""

    def __init__(self, kind: pa.FixedSizeListType, rows: int, entries: Column) -> None:
        self._kind, self._size, self._entries = kind, int(kind.list_size), entries
        self._validity = Validity(rows)

    @property
    def held_bytes(self) -> int:
        return self._entries.held_bytes + self._validity.held_bytes

    def put(self, at: int, values: Any) -> None:
        self._validity.put(at, values)
        entries = values.values.slice(values.offset * self._size, len(values) * self._size)
        self._entries.put(at * self._size, entries)

    def take(self, rows: int) -> Any:
        entries = self._entries.take(rows * self._size)
        return pa.Array.from_buffers(self._kind, rows, [self._validity.take()], children=[entries])


class Extension:
    """Values of an extension type, such as tensors, by their storage."""

    def __init__(self, kind: Any, storage: Column) -> None:
        self._kind, self._storage = kind, storage

    @property
    def held_bytes(self) -> int:
        return self._storage.held_bytes

    def put(self, at: int, values: Any) -> None:
        self._storage.put(at, values.storage)

    def take(self, rows: int) -> Any:
        return pa.ExtensionArray.from_storage(self._kind, self._storage.take(rows))


class Pieces:
    """Values without a fixed width, in pieces as they arrived. Eight pieces are joined into one, and eight of those again."""

    def __init__(self, kind: pa.DataType) -> None:
        self._kind = kind
        self._levels: list[list[Any]] = []

    @property
    def held_bytes(self) -> int:
        return sum(piece.nbytes for level in self._levels for piece in level)

    def put(self, at: int, values: Any) -> None:
        if at == 0:
            self._levels = []
        piece = pa.concat_arrays([values])  # a copy: a slice would keep its whole parent in memory
        for level in self._levels:
            level.append(piece)
            if len(level) < _JOINED:
                return
            piece = pa.concat_arrays(level)
            level.clear()
        self._levels.append([piece])

    def take(self, rows: int) -> Any:
        pieces = [piece for level in reversed(self._levels) for piece in level]
        self._levels = []
        return pa.concat_arrays(pieces) if pieces else pa.array([], self._kind)

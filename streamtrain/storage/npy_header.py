"""What the header of a ``.npy`` file says, checked against the size of the file. Nothing in it is run, and no size in it is
believed."""

from __future__ import annotations

import ast
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["BadHeaderError", "NpyHeader", "read_header"]

_MAGIC = b"\x93NUMPY"
_LENGTH_BYTES = {1: 2, 2: 4, 3: 4}  # by version
_MOST_BYTES = 1 << 18  # of the text of a header: ten thousand fields
_KEYS = {"descr", "fortran_order", "shape"}


class BadHeaderError(ValueError):
    """The file cannot be read. is_damaged: whether it is broken, or of a kind that is not read."""

    def __init__(self, message: str, *, is_damaged: bool = True) -> None:
        super().__init__(message)
        self.is_damaged = is_damaged


@dataclass(frozen=True)
class NpyHeader:
    """dtype: of one value, perhaps with fields. shape: of the array; the first axis is the rows. in_columns: whether values
    that follow each other are of one column (Fortran order). offset: the first byte after the header."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    in_columns: bool
    offset: int

    @property
    def rows(self) -> int:
        """The rows of the array."""
        return self.shape[0]

    @property
    def values_per_row(self) -> int:
        """The values of a row, each with all its fields."""
        return math.prod(self.shape[1:])

    @property
    def row_bytes(self) -> int:
        """The bytes of a row in the file."""
        return self.values_per_row * self.dtype.itemsize


def read_header(read: Callable[[int, int], bytes], nbytes: int) -> NpyHeader:
    """The header of a file. read: gives the bytes between two offsets. nbytes: the size of the file.

    Raises BadHeaderError for a header that no file of this size has, and for objects, which are stored as pickles.
    """
    head = read(0, 12)
    if not head.startswith(_MAGIC):
        raise BadHeaderError("does not begin as a .npy file does")
    version = head[6] if len(head) > 6 else 0
    if version not in _LENGTH_BYTES:
        raise BadHeaderError(f"has the version {version} of the .npy format, but 1, 2 and 3 are read")
    start = 8 + _LENGTH_BYTES[version]
    length = int.from_bytes(head[8:start], "little")
    if start + length > nbytes or len(head) < start:
        raise BadHeaderError(f"ends inside its header: it has {nbytes:,} bytes")
    if length > _MOST_BYTES:
        raise BadHeaderError(f"has a header of {length:,} bytes, but {_MOST_BYTES:,} are the most that are read")
    dtype, shape, in_columns = _parsed(read(start, start + length), "utf-8" if version == 3 else "latin-1")
    if dtype.hasobject or dtype.kind == "T":
        raise BadHeaderError(
            "has Python objects or texts of any length, which are pickles, which can run code: save numbers, or texts of one "
            "length (array.astype(str))",
            is_damaged=False,
        )
    if not shape:
        raise BadHeaderError("is a single value without rows: save an array of one dimension or more", is_damaged=False)
    header = NpyHeader(dtype, shape, in_columns and len(shape) > 1, start + length)
    if not header.row_bytes:
        raise BadHeaderError(f"has rows without bytes: its shape is {shape}, its type {dtype}", is_damaged=False)
    wanted, found = header.rows * header.row_bytes, nbytes - header.offset
    if found < wanted:
        raise BadHeaderError(f"is cut off: its header announces {wanted:,} bytes of values, but it has {found:,}")
    if found > wanted:
        raise BadHeaderError(
            f"goes on after its array: {found - wanted:,} bytes follow, perhaps of another array: save each in a file of its "
            "own",
            is_damaged=False,
        )
    return header


def _parsed(text: bytes, encoding: str) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    try:
        with warnings.catch_warnings(action="ignore"):
            fields = ast.literal_eval(text.decode(encoding))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        raise BadHeaderError("has a header that cannot be parsed") from None
    if not isinstance(fields, dict) or set(fields) != _KEYS:
        raise BadHeaderError(f"has a header without {', '.join(sorted(_KEYS))}, or with more than these")
    shape, in_columns = fields["shape"], fields["fortran_order"]
    if not isinstance(shape, tuple) or not all(type(n) is int and 0 <= n < 1 << 62 for n in shape):
        raise BadHeaderError(f"has the shape {str(shape)[:60]}, which no array has")
    if not isinstance(in_columns, bool):
        raise BadHeaderError("does not say whether it is in Fortran order")
    try:
        dtype = np.lib.format.descr_to_dtype(fields["descr"])
    except (ValueError, TypeError, SyntaxError, KeyError, IndexError, AttributeError, RecursionError, OverflowError):
        raise BadHeaderError(f"has the type {str(fields['descr'])[:60]}, which numpy does not know") from None
    return dtype, shape, in_columns

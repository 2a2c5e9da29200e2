"""The bytes of text, computed from its offsets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["has_text", "plain_bytes", "text_sizes"]

_PIECE_ROWS = 65_536


def has_text(kind: pa.DataType) -> bool:
    """Whether a type is strings or binary of any length, possibly in a dictionary."""
    kind = kind.value_type if isinstance(kind, pa.DictionaryType) else kind
    t = pa.types
    return bool(t.is_string(kind) or t.is_binary(kind) or t.is_large_string(kind) or t.is_large_binary(kind))


def text_sizes(values: Any) -> NDArray[Any]:
    """The bytes of each string, shape (rows,).

    >>> text_sizes(pa.array(["a", "bcd", ""])).tolist()
    [1, 3, 0]
    """
    large = pa.types.is_large_string(values.type) or pa.types.is_large_binary(values.type)
    offsets = np.frombuffer(values.buffers()[1] or bytes(8), np.int64 if large else np.int32)
    return np.diff(offsets[values.offset : values.offset + len(values) + 1])


def plain_bytes(values: Any) -> int:
    """The bytes of all strings of a column together; for a dictionary column, as if it were decoded.

    >>> plain_bytes(pa.array(["a", "bcd"])), plain_bytes(pa.DictionaryArray.from_arrays([1, 1], ["a", "bcd"]))
    (4, 6)
    """
    if not isinstance(values, pa.DictionaryArray):
        return int(text_sizes(values).sum())
    if not len(values.dictionary):
        return 0
    codes = np.frombuffer(values.indices.buffers()[1], values.indices.type.to_pandas_dtype())
    codes, sizes = codes[values.offset : values.offset + len(values)], text_sizes(values.dictionary)
    pieces = (codes[at : at + _PIECE_ROWS] for at in range(0, len(codes), _PIECE_ROWS))
    return sum(
        int(sizes[np.clip(piece, 0, len(sizes) - 1)].sum()) for piece in pieces
    )  # the index of a null is arbitrary

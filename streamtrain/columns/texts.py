"""Text as it stands in Arrow's buffers: bytes, and where each value begins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.storage.arrow import valid

__all__ = ["NGRAMS_PER_BYTE", "text_bytes"]

NGRAMS_PER_BYTE = 3.5  # n-grams of words and of characters, for each byte of text; nominal


def text_bytes(values: pa.Array) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.bool_]]:
    """The bytes of text or binary values, the offsets of each, shape (rows + 1,), and which are not null, shape (rows,). Of
    what a null stands for there are no bytes that count.

    >>> data, offsets, there = text_bytes(pa.array(["ab", None, "c"]))
    >>> bytes(data), offsets.tolist(), there.tolist()
    (b'abc', [0, 2, 2, 3], [True, False, True])
    """
    t = pa.types
    if t.is_null(values.type):
        return np.empty(0, np.uint8), np.zeros(len(values) + 1, np.int64), np.zeros(len(values), np.bool_)
    if isinstance(values, pa.RunEndEncodedArray):
        from pyarrow import compute  # imported on demand: it costs 20 MB

        values = compute.run_end_decode(values)
    if isinstance(values, pa.DictionaryArray):
        values = values.dictionary_decode()
    kind = values.type
    if t.is_string_view(kind) or t.is_binary_view(kind):
        values = values.cast(pa.large_binary())
        kind = values.type
    dtype: Any = np.int64 if t.is_large_string(kind) or t.is_large_binary(kind) else np.int32
    buffers = values.buffers()
    offsets = np.frombuffer(buffers[1] or b"", dtype)[values.offset : values.offset + len(values) + 1].astype(np.int64)
    if not len(offsets):
        offsets = np.zeros(len(values) + 1, np.int64)
    return np.frombuffer(buffers[2] or b"", np.uint8), offsets, valid(values)

"""Text in Arrow's buffers: its bytes, where each value begins, and whether values read like sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.storage.arrow import valid

__all__ = ["NGRAMS_PER_BYTE", "looks_like_text", "mean_bytes", "text_bytes"]

NGRAMS_PER_BYTE = 3.5  # n-grams of words and of characters for each byte of text; nominal
_WORDS, _DISTINCT_SHARE, _FEWEST_VALUES = 4.0, 0.5, 8  # the fewest that sentences have


def text_bytes(values: pa.Array) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.bool_]]:
    """The bytes of text or binary values, shape (bytes,); the offset of each value and of the end, shape (rows + 1,); and which
    values are not null, shape (rows,). The bytes at a null are arbitrary.

    >>> data, offsets, valid = text_bytes(pa.array(["ab", None, "c"]))
    >>> bytes(data), offsets.tolist(), valid.tolist()
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


def looks_like_text(values: Sequence[str]) -> bool:
    """Whether values read like sentences: four words or more on average, and most of them different.

    >>> looks_like_text([f"the cat {i} sat on the mat" for i in range(9)]), looks_like_text(["New York"] * 9)
    (True, False)
    """
    if len(values) < _FEWEST_VALUES or len(set(values)) < _DISTINCT_SHARE * len(values):
        return False
    return sum(len(value.split()) for value in values) >= _WORDS * len(values)


def mean_bytes(values: Sequence[str]) -> float:
    """Bytes of a value in UTF-8, on average; 0 for no values."""
    return sum(len(value.encode()) for value in values) / max(1, len(values))

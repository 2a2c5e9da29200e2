"""Hashes of the values of a column: 32 bits each, whatever the encoding of the values.

Text and bytes are hashed as bytes; whole numbers, booleans, dates and times as 64-bit integers; other numbers as 64-bit
floats. A null is a value too. Two different values have the same hash with probability 2^-32: among a million values there are
about 116 such pairs.
"""

from __future__ import annotations

import zlib

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.columns.numbers import unpacked
from streamtrain.columns.texts import text_bytes
from streamtrain.kernels.hashing import hash_bytes, hash_words, mixed, take
from streamtrain.storage.arrow import valid

__all__ = ["NULL", "hash_values", "seed_of"]

NULL = "null"  # the name of a missing value, for `seed_of`
Words = NDArray[np.uint32]


def seed_of(*names: str) -> int:
    """The seed of a column's hashes: the same for the same names, in any process and on any machine.

    >>> seed_of("city") == seed_of("city"), seed_of("city") == seed_of("town")
    (True, False)
    """
    text = "\\0".join(names).encode()
    return int(mixed(np.array([zlib.crc32(text)], np.uint32))[0])


def hash_values(values: pa.Array, seed: int) -> Words:
    """The hash of each value, shape (rows,), uint32, never 0.

    >>> hash_values(pa.array(["a", "b", None, "a"]), 1).tolist() == hash_values(
    ...     pa.array(["a", "b", None, "a"]).dictionary_encode(), 1).tolist()
    True
    """
    null = int(mixed(np.array([seed ^ seed_of(NULL)], np.uint32))[0]) or 1
    if isinstance(values, pa.RunEndEncodedArray):
        from pyarrow import compute  # imported on demand: it costs 20 MB

        values = compute.run_end_decode(values)
    if pa.types.is_null(values.type):
        return np.full(len(values), null, np.uint32)
    if isinstance(values, pa.DictionaryArray):
        indices, bits = values.indices, values.indices.buffers()[0]
        validity = None if bits is None or not indices.null_count else (np.frombuffer(bits, np.uint8), indices.offset)
        numbers = unpacked(indices)[0].astype(np.int32, copy=False)
        return take(hash_values(values.dictionary, seed), numbers, validity, null)
    hashes = _hash_plain(values, seed)
    return np.where(valid(values), hashes, np.uint32(null)) if values.null_count else hashes


def _hash_plain(values: pa.Array, seed: int) -> Words:
    """The hashes of values that are neither encoded nor nested. At a null the hash is arbitrary."""
    t, kind = pa.types, values.type
    if t.is_fixed_size_binary(kind):
        data = np.frombuffer(values.buffers()[1] or b"", np.uint8)
        offsets = (np.arange(len(values) + 1, dtype=np.int64) + values.offset) * kind.byte_width
        return hash_bytes(data, offsets, seed)
    if _has_bytes(kind):
        data, offsets, _ = text_bytes(values)
        return hash_bytes(data, offsets, seed)
    numbers, _ = unpacked(values)
    if numbers.dtype.kind == "f":
        numbers = (numbers.astype(np.float64) + 0.0).view(np.int64)  # no negative zero
    return hash_words(np.ascontiguousarray(numbers.astype(np.int64)).view(np.uint32).reshape(-1, 2), seed)


def _has_bytes(kind: pa.DataType) -> bool:
    t = pa.types
    text = t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind)
    return bool(text or t.is_binary(kind) or t.is_large_binary(kind) or t.is_binary_view(kind))

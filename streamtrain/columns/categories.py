"""Hashes of the values of a column: 32 bits each, whatever the encoding of the values.

Text and bytes are hashed as bytes; whole numbers, booleans, dates, times and durations as 64-bit integers, or as 128 and 256
bits where they are larger; other numbers as 64-bit floats, but decimals with more digits than a float has as these digits.
Equal numbers have the same hash: 7 as an integer and as ``decimal(10, 0)``, 7.1 as ``decimal(10, 1)`` and ``decimal(10, 2)``. A
null is a value too. Two different values have the same hash with probability 2^-32: among a million values there are about 116
such pairs.
"""

from __future__ import annotations

import zlib
from decimal import Decimal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.columns.decimals import as_float, digits, distinct, fits, to_float64, whole_words, words_of
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
    if t.is_decimal(kind):
        return _hash_decimals(values, seed)
    numbers, _ = unpacked(values.view(pa.int64()) if t.is_duration(kind) else values)
    if numbers.dtype.kind == "f":
        return _hash_floats(numbers.astype(np.float64), seed)
    hashes = _hash_integers(numbers.astype(np.int64).view(np.uint64)[:, None], seed)
    if numbers.dtype == np.uint64 and (large := numbers >= np.uint64(2**63)).any():
        words = np.zeros((int(large.sum()), 2), np.uint64)
        words[:, 0] = numbers[large]
        hashes[large] = _hash_integers(words, seed)
    return hashes


def _hash_decimals(values: pa.Array, seed: int) -> Words:
    hashes, scale = np.empty(len(values), np.uint32), values.type.scale
    if scale <= 0:
        for rows, words in whole_words(values):
            hashes[rows] = _hash_integers(words, seed)
        return hashes
    words = words_of(values)
    integers = words[:, 0].view(np.int64)
    short = fits(words, 1) & (integers > -(10**15)) & (integers < 10**15) & (scale <= 22)  # these are exact in float64
    hashes[short] = _hash_floats(to_float64(words[short], scale), seed)
    if not short.all():
        numbers, codes = distinct(values)
        hashes = np.where(short, hashes, np.array([_hash_digits(number, seed) for number in numbers], np.uint32)[codes])
    return hashes


def _hash_digits(number: Decimal, seed: int) -> int:
    if (same := as_float(number)) is not None:
        return int(_hash_floats(np.array([same]), seed)[0])
    text = np.frombuffer(digits(number).encode(), np.uint8)
    return int(hash_bytes(text, np.array([0, len(text)]), seed)[0])


def _hash_floats(numbers: NDArray[np.float64], seed: int) -> Words:
    return _hash_integers((numbers + 0.0).view(np.uint64)[:, None], seed)  # no negative zero


def _hash_integers(words: NDArray[np.uint64], seed: int) -> Words:
    """words: shape (rows, words), the lowest first."""
    return hash_words(np.ascontiguousarray(words).view(np.uint32), seed)


def _has_bytes(kind: pa.DataType) -> bool:
    t = pa.types
    text = t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind)
    return bool(text or t.is_binary(kind) or t.is_large_binary(kind) or t.is_binary_view(kind))

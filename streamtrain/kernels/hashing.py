"""From values to slots: 32-bit signatures of values, the entries of each row, and a bounded dictionary of signatures.

Compiled where there was a C compiler (``slots.c``), numpy otherwise, to the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import streamtrain.kernels as kernels
from streamtrain.kernels import address

__all__ = ["entries", "find_slots", "floats", "hash_bytes", "hash_words", "mixed", "take"]

Words = NDArray[np.uint32]

_NEXT = np.uint32(0x9E3779B9)
_BUCKET = 8  # BUCKET in slots.c


def mixed(x: Words) -> Words:
    """lowbias32 (Wellons 2018): a bijection of 32 bits that leaves nothing of their order."""
    h = x.astype(np.uint32)
    h ^= h >> np.uint32(16)
    h *= np.uint32(0x7FEB352D)
    h ^= h >> np.uint32(15)
    h *= np.uint32(0x846CA68B)
    return np.asarray(h ^ h >> np.uint32(16))


def _absorb(h: Words, words: Words) -> Words:
    return np.asarray(mixed(h ^ words) + _NEXT)


def _finished(h: Words) -> Words:
    return np.maximum(mixed(h), np.uint32(1))


def hash_words(words: Words, seed: int) -> Words:
    """Signatures of rows of 32-bit words, shape (rows, words) -> (rows,), uint32, never 0.

    >>> hash_words(np.array([[1, 0], [2, 0]], np.uint32), seed=7).tolist() == hash_bytes(
    ...     np.array([1, 0, 2, 0], np.uint32).view(np.uint8), np.array([0, 8, 16]), seed=7).tolist()
    True
    """
    h = np.full(len(words), np.uint32(seed) ^ _size(4 * words.shape[1]), np.uint32)
    for column in words.T:
        h = _absorb(h, column)
    return _finished(h)


def _size(nbytes: int) -> np.uint32:
    return np.uint32(nbytes * int(_NEXT) & 0xFFFFFFFF)


def hash_bytes(data: NDArray[np.uint8], offsets: NDArray[np.int64], seed: int) -> Words:
    """Signatures of strings of bytes, uint32, never 0; string r stands from ``offsets[r]`` to ``offsets[r + 1]``.

    >>> hash_bytes(np.frombuffer(b"abab", np.uint8), np.array([0, 2, 4]), seed=1).tolist()[0] > 0
    True
    """
    rows = len(offsets) - 1
    out = np.empty(rows, np.uint32)
    library = kernels.library()
    if library is not None:
        library.st_hash_bytes(address(data), address(offsets), rows, seed, address(out))
        return out
    starts, sizes = offsets[:-1], np.diff(offsets)
    h = np.uint32(seed) ^ (sizes.astype(np.uint32) * _NEXT)
    padded = np.concatenate([data, np.zeros(4, np.uint8)])
    left, at = np.flatnonzero(sizes > 0), 0
    while len(left):
        bytes_ = padded[starts[left, None] + np.arange(at, at + 4)]
        bytes_[np.arange(at, at + 4) >= sizes[left, None]] = 0
        h[left] = _absorb(h[left], np.ascontiguousarray(bytes_).view("<u4")[:, 0])
        at += 4
        left = left[sizes[left] > at]
    return _finished(h)


_FLOATS = {"i4": 0, "i8": 1, "f4": 2, "f8": 3}  # kinds of st_floats


def floats(numbers: NDArray[Any], bits: NDArray[np.uint8], offset: int) -> NDArray[np.float32] | None:
    """Numbers as float32, NaN where the bit of a row, from ``offset`` on, is 0; shape (rows,). What is too large for float32 is
    infinite. None where no kernel does it for their type.

    >>> made = floats(np.array([1, 2]), np.array([1], np.uint8), 0)
    >>> made is None or made.tolist()[0] == 1
    True
    """
    library, kind = kernels.library(), _FLOATS.get(numbers.dtype.str[1:])
    if library is None or kind is None:
        return None
    out = np.empty(len(numbers), np.float32)
    library.st_floats(address(numbers), kind, address(bits), offset, len(numbers), address(out))
    return out


def take(signatures: Words, codes: NDArray[np.int32], valid: tuple[NDArray[np.uint8], int] | None, null: int) -> Words:
    """``signatures[codes]``, and ``null`` where a row is not valid: a bitmap and the place of the first row's bit in it; the
    codes of such rows may be anything. codes: shape (rows,).

    >>> take(np.array([7, 8], np.uint32), np.array([1, 99, 0], np.int32), (np.array([0b101], np.uint8), 0), 5).tolist()
    [8, 5, 7]
    """
    library = kernels.library()
    if library is not None:
        out = np.empty(len(codes), np.uint32)
        bits, offset = (None, 0) if valid is None else (address(valid[0]), valid[1])
        library.st_take(address(signatures), address(codes), bits, offset, len(codes), null, address(out))
        return out
    if valid is None:
        return signatures[codes]
    there = np.unpackbits(valid[0], bitorder="little")[valid[1] : valid[1] + len(codes)] != 0
    found = np.full(len(codes), null, np.uint32)
    found[there] = signatures[codes[there]]
    return found


def entries(
    features: NDArray[np.float32], fill: NDArray[np.float32] | None, missing: Words, codes: Words | None,
    categories: int, crosses: Sequence[Sequence[int]], seeds: Words, sizes: NDArray[np.int64] | None, total: int,
) -> tuple[NDArray[np.int64], Words]:  # fmt: skip
    """The signatures of each row: of its numbers that are missing, of its categories, of their crosses.

    features: shape (rows, width); NaN is replaced by ``fill``, shape (width,), **in place**, where fill is given. missing:
    signature of each column's being missing. codes: shape (rows, codes), of which the first ``categories`` are entries.
    crosses: columns of codes. seeds: of each
    cross. sizes: entries of another kind in each row, to be put in behind the others. total: how many there are at most.

    Returns indptr, shape (rows + 1,), and the signatures, shape (entries,), with gaps for those of another kind.
    """
    rows, width = features.shape
    count = 0 if codes is None else codes.shape[1]
    indptr, out = np.empty(rows + 1, np.int64), np.empty(total, np.uint32)
    library = kernels.library()
    if library is not None:
        flat = np.array([x for cross in crosses for x in (len(cross), *cross)], np.int32)
        n = library.st_entries(
            address(features), rows, width, None if fill is None else address(fill),
            None if fill is None else address(missing), None if codes is None else address(codes), count, categories,
            address(flat), len(crosses), address(seeds), None if sizes is None else address(sizes), address(indptr),
            address(out),
        )  # fmt: skip
        return indptr, out[:n]
    absent = np.isnan(features) if fill is not None else np.zeros(features.shape, np.bool_)
    at = np.add.reduce(absent, axis=1, dtype=np.int64)
    fixed = categories + len(crosses)
    indptr[0] = 0
    np.cumsum(at + fixed + (0 if sizes is None else sizes), out=indptr[1:])
    row, column = np.nonzero(absent)
    rank = np.arange(len(row)) - np.repeat(np.cumsum(at) - at, at)
    out[indptr[row] + rank] = missing[column]
    if fill is not None:
        np.copyto(features, fill, where=absent)
    for j in range(categories):
        assert codes is not None
        out[indptr[:-1] + at + j] = codes[:, j]
    for k, cross in enumerate(crosses):
        assert codes is not None
        h = np.full(rows, seeds[k], np.uint32)
        for j in cross:
            h = _absorb(h, codes[:, j])
        out[indptr[:-1] + at + categories + k] = _finished(h)
    return indptr, out[: int(indptr[-1])]


def find_slots(
    signatures: Words, places: NDArray[np.uint32], used: NDArray[np.int64], *, most: int, sharing: int, claim: bool
) -> NDArray[np.int32]:
    """The slot of each signature, shape (signatures,), int32 (see `prepare.Slots`).

    places: shape (size, 2), size a power of two: signature and slot; changed in place where ``claim``, and so is used: how
    many slots are taken, and how many signatures were given one that is shared.
    """
    out = np.empty(len(signatures), np.int32)
    library = kernels.library()
    if library is not None:
        library.st_slots(
            address(signatures), len(signatures), address(places), len(places), claim, most, sharing, address(used),
            address(out),
        )  # fmt: skip
        return out
    mask = len(places) // _BUCKET - 1
    distinct, first, inverse = np.unique(signatures, return_index=True, return_inverse=True)
    found = np.empty(len(distinct), np.int32)
    times = np.bincount(inverse, minlength=len(distinct))
    for i in np.argsort(first).tolist():
        found[i] = _find(int(distinct[i]), places, used, mask, most, sharing, claim, int(times[i]))
    return found[inverse]


def _find(
    signature: int, places: NDArray[Any], used: NDArray[Any], mask: int, most: int, sharing: int, claim: bool, times: int
) -> int:  # fmt: skip
    home = signature & mask
    for bucket in (home, (home ^ 1) & mask):
        for place in range(_BUCKET * bucket, _BUCKET * (bucket + 1)):
            if places[place, 0] == signature:
                return int(places[place, 1])
            if places[place, 0] == 0:
                if used[0] == most:
                    break
                if not claim:
                    return 0
                used[0] += 1
                places[place] = signature, used[0]
                return int(used[0])
        else:
            continue
        break
    used[1] += times
    return most + 1 + (signature >> 8) % sharing

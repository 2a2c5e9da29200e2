"""From values to slots: 32-bit hashes of values, the entries of each row, and a bounded vocabulary of hashes.

Compiled (``hashing.c``) or in numpy, with the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.kernels.compiled import BUCKET, HASH_STEP, address, library, number

__all__ = ["entries", "find_slots", "floats", "hash_bytes", "hash_words", "mixed", "scale_entries", "take"]

Words = NDArray[np.uint32]

_STEP = np.uint32(HASH_STEP)
_MOST = float(np.finfo(np.float32).max)
_KINDS = {"i4": "INT32", "i8": "INT64", "f4": "FLOAT32", "f8": "FLOAT64"}  # enum number_kind of kernels.h


def mixed(x: Words) -> Words:
    """lowbias32 (Wellons 2018): a bijection of 32 bits whose results show no trace of the order of its arguments."""
    h = x.astype(np.uint32)
    h ^= h >> np.uint32(16)
    h *= np.uint32(0x7FEB352D)
    h ^= h >> np.uint32(15)
    h *= np.uint32(0x846CA68B)
    return np.asarray(h ^ h >> np.uint32(16))


def _add_word(h: Words, words: Words) -> Words:
    return np.asarray(mixed(h ^ words) + _STEP)


def _finished(h: Words) -> Words:
    return np.maximum(mixed(h), np.uint32(1))


def hash_words(words: Words, seed: int) -> Words:
    """The hash of each row of 32-bit words; never 0. words: shape (rows, words), uint32. Returns shape (rows,), uint32.

    >>> hash_words(np.array([[1, 0], [2, 0]], np.uint32), seed=7).tolist() == hash_bytes(
    ...     np.array([1, 0, 2, 0], np.uint32).view(np.uint8), np.array([0, 8, 16]), seed=7).tolist()
    True
    """
    h = np.full(len(words), np.uint32(seed) ^ _size(4 * words.shape[1]), np.uint32)
    for column in words.T:
        h = _add_word(h, column)
    return _finished(h)


def _size(nbytes: int) -> np.uint32:
    return np.uint32(nbytes * HASH_STEP & 0xFFFFFFFF)


def hash_bytes(data: NDArray[np.uint8], offsets: NDArray[np.int64], seed: int) -> Words:
    """The hash of each string of bytes, shape (rows,), uint32, never 0. String r is ``data[offsets[r] : offsets[r + 1]]``.

    >>> hash_bytes(np.frombuffer(b"abab", np.uint8), np.array([0, 2, 4]), seed=1).tolist()[0] > 0
    True
    """
    rows = len(offsets) - 1
    if (compiled := library()) is not None:
        hashes = np.empty(rows, np.uint32)
        compiled.st_hash_bytes(address(data), address(offsets), rows, seed, address(hashes))
        return hashes
    starts, sizes = offsets[:-1], np.diff(offsets)
    h = np.uint32(seed) ^ (sizes.astype(np.uint32) * _STEP)
    padded = np.concatenate([data, np.zeros(4, np.uint8)])
    left, at = np.flatnonzero(sizes > 0), 0
    while len(left):
        bytes_ = padded[starts[left, None] + np.arange(at, at + 4)]
        bytes_[np.arange(at, at + 4) >= sizes[left, None]] = 0
        h[left] = _add_word(h[left], np.ascontiguousarray(bytes_).view("<u4")[:, 0])
        at += 4
        left = left[sizes[left] > at]
    return _finished(h)


def floats(numbers: NDArray[Any], bits: NDArray[np.uint8], offset: int) -> NDArray[np.float32] | None:
    """Numbers as float32, shape (rows,); infinite if too large. None if no kernel supports their type.

    bits: a row whose bit is 0 gets NaN. offset: the position of the first row's bit.

    >>> converted = floats(np.array([1, 2]), np.array([1], np.uint8), 0)
    >>> converted is None or converted.tolist()[0] == 1
    True
    """
    compiled, kind = library(), _KINDS.get(numbers.dtype.str[1:])
    if compiled is None or kind is None:
        return None
    converted = np.empty(len(numbers), np.float32)
    compiled.st_floats(address(numbers), number(kind), address(bits), offset, len(numbers), address(converted))
    return converted


def take(hashes: Words, codes: NDArray[np.int32], valid: tuple[NDArray[np.uint8], int] | None, null: int) -> Words:
    """``hashes[codes]``, and ``null`` where a row is not valid. codes: shape (rows,); those of rows that are not valid may be
    anything. valid: a bitmap, and the position of the first row's bit in it; None where all rows are valid.

    >>> take(np.array([7, 8], np.uint32), np.array([1, 99, 0], np.int32), (np.array([0b101], np.uint8), 0), 5).tolist()
    [8, 5, 7]
    """
    if (compiled := library()) is not None:
        taken = np.empty(len(codes), np.uint32)
        bits, offset = (None, 0) if valid is None else (address(valid[0]), valid[1])
        compiled.st_take(address(hashes), address(codes), bits, offset, len(codes), null, address(taken))
        return taken
    if valid is None:
        return hashes[codes]
    is_valid = np.unpackbits(valid[0], bitorder="little")[valid[1] : valid[1] + len(codes)] != 0
    taken = np.full(len(codes), null, np.uint32)
    taken[is_valid] = hashes[codes[is_valid]]
    return taken


def entries(
    features: NDArray[np.float32], fill: NDArray[np.float32] | None, missing: Words, hashes: Words | None,
    categories: int, crosses: Sequence[Sequence[int]], seeds: Words, sizes: NDArray[np.int64] | None, total: int,
) -> tuple[NDArray[np.int64], Words]:  # fmt: skip
    """The entries of each row, which are hashes: of its missing numbers, its categories and their crosses.

    features: shape (rows, width); if ``fill``, shape (width,), is given, it replaces NaN **in place**. missing: for each
    column, the entry that says that its number is missing. hashes: of categories and of crossed columns, shape (rows,
    hashes), of which the first ``categories`` are entries. crosses: the columns of ``hashes`` that each cross combines.
    seeds: of each cross. sizes: how many entries the caller adds behind those of each row. total: an upper bound of the
    number of entries.

    Returns indptr, shape (rows + 1,), and the entries, shape (entries,), with gaps for those that the caller adds.
    """
    rows, width = features.shape
    count = 0 if hashes is None else hashes.shape[1]
    indptr, result = np.empty(rows + 1, np.int64), np.empty(total, np.uint32)
    if (compiled := library()) is not None:
        flat = np.array([x for cross in crosses for x in (len(cross), *cross)], np.int32)
        n = compiled.st_entries(
            address(features), rows, width, None if fill is None else address(fill),
            None if fill is None else address(missing), None if hashes is None else address(hashes), count, categories,
            address(flat), len(crosses), address(seeds), None if sizes is None else address(sizes), address(indptr),
            address(result),
        )  # fmt: skip
        return indptr, result[:n]
    absent = np.isnan(features) if fill is not None else np.zeros(features.shape, np.bool_)
    at = np.add.reduce(absent, axis=1, dtype=np.int64)
    fixed = categories + len(crosses)
    indptr[0] = 0
    np.cumsum(at + fixed + (0 if sizes is None else sizes), out=indptr[1:])
    row, column = np.nonzero(absent)
    rank = np.arange(len(row)) - np.repeat(np.cumsum(at) - at, at)
    result[indptr[row] + rank] = missing[column]
    if fill is not None:
        np.copyto(features, fill, where=absent)
    for j in range(categories):
        assert hashes is not None
        result[indptr[:-1] + at + j] = hashes[:, j]
    for k, cross in enumerate(crosses):
        assert hashes is not None
        h = np.full(rows, seeds[k], np.uint32)
        for j in cross:
            h = _add_word(h, hashes[:, j])
        result[indptr[:-1] + at + categories + k] = _finished(h)
    return indptr, result[: int(indptr[-1])]


def find_slots(
    hashes: Words, cells: NDArray[np.uint32], used: NDArray[np.int64], *, most: int, sharing: int, claim: bool
) -> NDArray[np.int32]:
    """The slot of each hash, shape (hashes,), int32 (see `prepare.Vocabulary`).

    cells: the vocabulary, shape (size, 2), size a power of two: hash and slot. used: how many slots are taken, and how many
    hashes got a shared slot. Both are changed in place; cells only if ``claim``.
    """
    if (compiled := library()) is not None:
        slots = np.empty(len(hashes), np.int32)
        compiled.st_find_slots(
            address(hashes),
            len(hashes),
            address(cells),
            len(cells),
            claim,
            most,
            sharing,
            address(used),
            address(slots),
        )
        return slots
    distinct, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    slots = np.empty(len(distinct), np.int32)
    times = np.bincount(inverse, minlength=len(distinct))
    for i in np.argsort(first).tolist():
        slots[i] = _find_slot(int(distinct[i]), cells, used, most, sharing, claim, int(times[i]))
    return slots[inverse]


def scale_entries(
    slots: NDArray[np.int32], values: NDArray[np.float32], table: NDArray[np.float64],
    scaled: NDArray[np.bool_] | None = None, *, learn: bool,
) -> None:  # fmt: skip
    """Divide the values of entries, **in place**, by the root of the mean square of the values that their slots had so far, one
    entry after the other: the result does not depend on how many entries are passed at once.

    table: shape (slots, 2), float64: how many values each slot had that are not 0, and the sum of their squares; with ``learn``
    each entry is added before it is divided. scaled: which entries; None for all.

    >>> table, values = np.zeros((2, 2)), np.array([30, -30, 0], np.float32)
    >>> scale_entries(np.array([1, 1, 1], np.int32), values, table, learn=True)
    >>> values.tolist(), table.tolist()
    ([1.0, -1.0, 0.0], [[0.0, 0.0], [2.0, 1800.0]])
    """
    if (compiled := library()) is not None:
        flags = None if scaled is None else address(scaled.view(np.uint8))
        compiled.st_scale_entries(address(slots), address(values), len(slots), address(table), flags, learn)
        return
    which = np.arange(len(slots)) if scaled is None else np.flatnonzero(scaled)
    which = which[np.argsort(slots[which], kind="stable")]  # the entries of each slot, one after the other
    starts = np.flatnonzero(np.diff(slots[which], prepend=-1))
    sizes = np.diff(starts, append=len(which))
    for turn in range(int(sizes.max(initial=0))):  # the first entry of each slot, then the second, and so on
        some = which[starts[sizes > turn] + turn]
        numbers, rows = values[some].astype(np.float64), slots[some]
        if learn:
            table[rows, 0] += numbers != 0
            table[rows, 1] += numbers * numbers
        counts, squares = table[rows].T
        factors = np.sqrt(np.divide(counts, squares, out=np.ones(len(rows)), where=squares > 0))
        values[some] = np.clip(numbers * factors, -_MOST, _MOST)


def _find_slot(
    hash_: int, cells: NDArray[Any], used: NDArray[Any], most: int, sharing: int, claim: bool, times: int
) -> int:  # fmt: skip
    mask = len(cells) // BUCKET - 1
    home = hash_ & mask
    for bucket in (home, (home ^ 1) & mask):
        for cell in range(BUCKET * bucket, BUCKET * (bucket + 1)):
            if cells[cell, 0] == hash_:
                return int(cells[cell, 1])
            if cells[cell, 0] == 0:
                if used[0] == most:
                    break
                if not claim:
                    return 0
                used[0] += 1
                cells[cell] = hash_, used[0]
                return int(used[0])
        else:
            continue
        break
    used[1] += times
    return most + 1 + (hash_ >> 8) % sharing

"""Texts to hashed n-grams, of words and of characters: what a linear model learns from texts with.

A model on them needs no vocabulary: an n-gram is known by its hash (Weinberger et al. 2009, "Feature hashing for large
scale multitask learning"). Characters beside words make up for misspelling, inflection and writing without spaces.

- White space is what `str.isspace` says. Upper case becomes lower case, as `str.lower` has it, one code point to one, and
  final sigma is sigma. Accents stay.
- A word is a run of letters, marks, numbers and ``_``; one of a single letter is one too. N-grams of words leave out what
  stands between words.
- N-grams of characters stay within what stands between white space, with punctuation, and a space before and after it;
  lengths count code points, these spaces too. It is what scikit-learn's ``analyzer="char_wb"`` finds.

Which code points are letters, or upper case, is told by Unicode 3.2, as every version of Python has it, so that a model
finds the same n-grams everywhere; code points that it does not know are letters, but emoji (U+1F000 to U+1FFFF) are not.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any
from unicodedata import ucd_3_2_0 as unicode

import numpy as np
from numpy.typing import NDArray

from streamtrain import kernels
from streamtrain.batch import Texts
from streamtrain.kernels import address
from streamtrain.kernels.hashing import mixed

__all__ = ["ngrams"]

Found = tuple[NDArray[np.int64], NDArray[np.uint32], NDArray[np.float32]]

_MOST = 8  # LANES in ngrams.c
_PAD = 2 * ord(" ")
_ROOM = 1 << 12  # entries that there is room for at first, at least
_MOST_ROOM = 1 << 30
_LOGARITHMS = [math.log(2), *(1 + math.log(n) for n in range(1, 256))]  # 1 + ln n, and at 0 what a doubling adds
_MOST_COUNTED = 1 << 24  # a count is a float32 in ngrams.c, which goes no further


def ngrams(
    texts: Texts, column: int, seed: int, *, words: tuple[int, int] = (1, 2), characters: tuple[int, int] = (3, 5)
) -> Found:
    """The n-grams of one column of texts, as compressed sparse rows: indptr, int64, shape (rows + 1,); signatures, uint32,
    and values, float32, shape (entries,).

    words, characters: the shortest and the longest n-gram of each kind, up to 8; (0, 0) for none of that kind.

    A signature is a hash of the n-gram, its kind and ``seed``, and never 0. Entries stand in the order in which their
    n-grams first occur, those of words first; a missing text has none. A value is 1 + ln(times the n-gram occurs), from
    256 times on a little less: only the upper 8 bits of the number count. All of a row are scaled so that their squares
    add up to 1; words and characters together, which on generated texts was better than each kind by itself.

    Raises ValueError where lengths are no lengths.

    >>> data = np.frombuffer(b"to be or not to be", np.uint8)
    >>> texts = Texts(data, np.array([[0], [0]]), np.array([[18], [-1]], np.int32))
    >>> indptr, signatures, values = ngrams(texts, 0, seed=1, characters=(0, 0))
    >>> indptr.tolist(), (values / values[3]).tolist()  # to, be, to be, or, be or, not, or not, not to
    ([0, 8, 8], [1.6931471824645996, 1.6931471824645996, 1.6931471824645996, 1.0, 1.0, 1.0, 1.0, 1.0])
    """
    for name, (shortest, longest) in (("words", words), ("characters", characters)):
        if not (shortest == longest == 0 or 1 <= shortest <= longest <= _MOST):
            raise ValueError(
                f"{name}=({shortest}, {longest}): n-grams have lengths from 1 to {_MOST}, the shorter one first; "
                "(0, 0) asks for none"
            )
    starts, sizes = np.ascontiguousarray(texts.starts[:, column]), np.ascontiguousarray(texts.sizes[:, column])
    lengths = np.array([words, characters], np.int64)
    seeds = mixed(np.array([2 * seed % 2**32, (2 * seed + 1) % 2**32], np.uint32))
    library = kernels.library()
    if library is None:
        return _in_python(texts.data, starts, sizes, lengths, seeds)
    return _compiled(_function(library), texts.data, starts, sizes, lengths, seeds)


@functools.cache
def _function(library: ctypes.CDLL) -> Any:
    function, pointer, number = library.st_ngrams, ctypes.c_void_p, ctypes.c_int64
    function.argtypes = [pointer] * 3 + [number] * 2 + [pointer] * 7 + [number, pointer]
    function.restype = number
    return function


def _compiled(
    function: Any, data: NDArray[np.uint8], starts: NDArray[np.int64], sizes: NDArray[np.int32], lengths: NDArray[np.int64],
    seeds: NDArray[np.uint32],
) -> Found:  # fmt: skip
    rows = len(starts)
    symbols, logarithms = _symbols(), np.array(_LOGARITHMS)
    fixed = [address(array) for array in (lengths, seeds, symbols, logarithms)]
    longest = int(sizes.max(initial=0))
    # Room for what texts mostly hold; there may be more, above all in a long one, and memory that is asked for counts.
    nbytes = int(np.maximum(sizes, 0).sum(dtype=np.int64))
    room = min(max(_ROOM, 2 * nbytes), _most(nbytes + len(sizes), lengths))
    indptr, row = np.zeros(rows + 1, np.int64), 0
    signatures, values = np.empty(room, np.uint32), np.empty(room, np.float32)
    while True:
        if room > _MOST_ROOM:
            raise ValueError(f"more than {room // 2:,} n-grams in {rows:,} texts: take fewer or shorter texts at once")
        if len(signatures) < room:
            signatures, values = (_longer(array, int(indptr[row]), room) for array in (signatures, values))
        table = np.empty(256 + 4 * min(room, _most(longest + 1, lengths)), np.uint64)
        row = function(
            address(data), address(starts), address(sizes), row, rows, *fixed,
            address(indptr), address(signatures), address(values), room, address(table),
        )  # fmt: skip
        count = int(indptr[row])
        if row == rows:
            return indptr, signatures[:count], values[:count]
        room *= 2


def _most(nbytes: int, lengths: NDArray[np.int64]) -> int:
    """N-grams of a text, at most; nbytes: its bytes and one more. Of characters there are as many as symbols, for each of
    the lengths; between two runs of them stands white space, but each has a space on either side."""
    return 2 * nbytes * int((lengths[:, 1] - lengths[:, 0] + 1).sum())


def _longer(array: NDArray[Any], count: int, room: int) -> NDArray[Any]:
    longer = np.empty(room, array.dtype)
    longer[:count] = array[:count]
    return longer


@functools.cache
def _symbols() -> NDArray[np.uint32]:
    """Of each code point below 65,536: 0 for white space, else twice what it folds to, plus 1 where it is part of a word."""
    return np.array([_symbol(chr(code)) for code in range(1 << 16)], np.uint32)


def _symbol(character: str) -> int:
    if character.isspace():
        return 0
    kind = unicode.category(character)
    lower = character.lower()[0] if kind in ("Lu", "Lt") else character
    return 2 * ord("σ" if lower == "ς" else lower) + (kind[0] in "LMN" or kind == "Cn" or character == "_")


def _in_python(
    data: NDArray[np.uint8], starts: NDArray[np.int64], sizes: NDArray[np.int32], lengths: NDArray[np.int64],
    seeds: NDArray[np.uint32],
) -> Found:  # fmt: skip
    indptr, signatures, values = [0], list[int](), list[float]()
    for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
        text = bytes(data[start : start + max(0, size)]).decode(errors="replace")
        kinds = [_counts(text, kind, lengths[kind].tolist(), int(seeds[kind])) for kind in range(2)]
        signatures += [signature for counts in kinds for signature in counts]
        values += _scaled([count for counts in kinds for count in counts.values()])
        indptr.append(len(signatures))
    return np.array(indptr), np.array(signatures, np.uint32), np.array(values, np.float32)


def _counts(text: str, kind: int, lengths: list[int], start: int) -> Counter[int]:
    """How often each signature occurs in a text."""
    shortest, longest = lengths
    table = _symbols()
    codes = map(ord, text)
    symbols = [int(table[c]) if c < 1 << 16 else 2 * c + (not 0x1F000 <= c < 0x20000) for c in codes]
    if kind:
        groups = [[_PAD, *run, _PAD] for inside, run in itertools.groupby(symbols, bool) if inside]
    else:
        groups = [
            [
                functools.reduce(_absorbed, run, start)
                for inside, run in itertools.groupby(symbols, (1).__and__)
                if inside
            ]
        ]
    states = [
        state
        for group in (groups if longest else ())
        for state in _states(group, start, min(shortest, len(group)) if kind else shortest, longest)
    ]
    return Counter(np.maximum(mixed(np.array(states, np.uint32)), np.uint32(1)).tolist())


def _states(symbols: list[int], start: int, shortest: int, longest: int) -> Iterator[int]:
    """Of each n-gram; it is what that of n - 1 symbols, one symbol before, becomes."""
    states = [start]
    for symbol in symbols:
        states = [start, *(_absorbed(state, symbol) for state in states[:longest])]
        yield from states[shortest:]


def _absorbed(state: int, symbol: int) -> int:
    state = (state ^ symbol) * 0x7FEB352D % 2**32
    return state ^ state >> 15


def _scaled(counts: list[int]) -> list[float]:
    values = []
    for count in counts:
        n = min(count, _MOST_COUNTED)
        halvings = max(0, n.bit_length() - 8)
        values.append(_LOGARITHMS[n >> halvings] + halvings * _LOGARITHMS[0])
    total = 0.0
    for value in values:  # one after the other, as sum() no longer does
        total += value * value
    return [value * (1 / math.sqrt(total)) for value in values]

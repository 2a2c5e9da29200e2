"""From texts to hashed n-grams of words and of characters, from which a linear model learns.

Such a model needs no vocabulary, because an n-gram is identified by its hash (Weinberger et al. 2009, "Feature hashing for
large scale multitask learning"). N-grams of characters make up for misspelling, inflection and writing without spaces.

- White space is defined by `str.isspace`. Upper case becomes lower case as in `str.lower`, but always one code point for one,
  and final sigma becomes sigma. Accents stay.
- A word is a run of letters, marks, numbers and ``_``; a single letter is a word too. N-grams of words ignore what is
  between the words.
- N-grams of characters stay within a run of characters without white space. Punctuation belongs to the run, and so does a
  space before and after it. Lengths count code points, these spaces included. scikit-learn's ``analyzer="char_wb"`` finds
  the same n-grams.

Unicode 3.2, which every version of Python has, decides which code points are letters and which are upper case, so that a
model finds the same n-grams everywhere. Code points that it does not know are letters, except emoji (U+1F000 to U+1FFFF).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any
from unicodedata import ucd_3_2_0 as unicode

import numpy as np
from numpy.typing import NDArray

from streamtrain.batch import Texts
from streamtrain.kernels.compiled import IN_WORD, LANES, PAD, address, library, number
from streamtrain.kernels.functions import log
from streamtrain.kernels.hashing import mixed

__all__ = ["ngrams"]

SparseRows = tuple[NDArray[np.int64], NDArray[np.uint32], NDArray[np.float32]]
"""indptr, hashes, values"""

_ROOM = 1 << 12  # room for at least this many entries at first
_MOST_ROOM = 1 << 30
_LOGARITHMS = [float(log(2)), *(1 + log(np.arange(1, 256))).tolist()]  # 1 + ln n; at 0, what a doubling of n adds
_MOST_COUNTED = 1 << 24  # ngrams.c counts in float32, which is exact up to here


def ngrams(
    texts: Texts, column: int, seed: int, *, words: tuple[int, int] = (1, 2), characters: tuple[int, int] = (3, 5)
) -> SparseRows:
    """The n-grams of one column of texts, as compressed sparse rows: indptr, shape (rows + 1,), int64; hashes, shape
    (entries,), uint32; and values, shape (entries,), float32.

    words, characters: the lengths of the shortest and the longest n-gram of each kind, up to 8; (0, 0) for none.

    The hash is of the n-gram, its kind and ``seed``, and never 0. The entries of a row are in the order in which their
    n-grams first occur, words before characters; a missing text has no entries. The value of an n-gram that occurs n times is
    1 + ln n, and a little less from 256 times on, as only the upper 8 bits of n are used. The values of a row are then
    scaled so that their squares add up to 1. Words and characters are scaled together: on generated texts this was better
    than scaling each kind separately.

    Raises ValueError if lengths are below 1, above 8 or in the wrong order.

    >>> data = np.frombuffer(b"to be or not to be", np.uint8)
    >>> texts = Texts(data, np.array([[0], [0]]), np.array([[18], [-1]], np.int32))
    >>> indptr, hashes, values = ngrams(texts, 0, seed=1, characters=(0, 0))
    >>> indptr.tolist(), (values / values[3]).tolist()  # to, be, to be, or, be or, not, or not, not to
    ([0, 8, 8], [1.6931471824645996, 1.6931471824645996, 1.6931471824645996, 1.0, 1.0, 1.0, 1.0, 1.0])
    """
    for name, (shortest, longest) in (("words", words), ("characters", characters)):
        if not (shortest == longest == 0 or 1 <= shortest <= longest <= LANES):
            raise ValueError(
                f"{name}=({shortest}, {longest}): lengths of n-grams must be from 1 to {LANES}, the shorter one first; "
                "(0, 0) means no n-grams of this kind"
            )
    starts, sizes = np.ascontiguousarray(texts.starts[:, column]), np.ascontiguousarray(texts.sizes[:, column])
    lengths = np.array([words, characters], np.int64)
    seeds = mixed(np.array([2 * seed % 2**32, (2 * seed + 1) % 2**32], np.uint32))
    if (compiled := library()) is None:
        return _in_python(texts.data, starts, sizes, lengths, seeds)
    return _compiled(compiled.st_ngrams, texts.data, starts, sizes, lengths, seeds)


def _compiled(
    function: Any, data: NDArray[np.uint8], starts: NDArray[np.int64], sizes: NDArray[np.int32], lengths: NDArray[np.int64],
    seeds: NDArray[np.uint32],
) -> SparseRows:  # fmt: skip
    rows = len(starts)
    symbols, logarithms = _symbols(), np.array(_LOGARITHMS)
    fixed = [address(array) for array in (lengths, seeds, symbols, logarithms)]
    longest = int(sizes.max(initial=0))
    # Room for most texts. Long ones may have more n-grams, but room for the largest possible number would take memory.
    nbytes = int(np.maximum(sizes, 0).sum(dtype=np.int64))
    room = min(max(_ROOM, 2 * nbytes), _most(nbytes + len(sizes), lengths))
    indptr, row = np.zeros(rows + 1, np.int64), 0
    hashes, values = np.empty(room, np.uint32), np.empty(room, np.float32)
    while True:
        if room > _MOST_ROOM:
            raise ValueError(
                f"more than {room // 2:,} n-grams in {rows:,} texts: pass fewer or shorter texts in one call"
            )
        if len(hashes) < room:
            hashes, values = (_longer(array, int(indptr[row]), room) for array in (hashes, values))
        table = np.empty(number("LEAST_CELLS") + 4 * min(room, _most(longest + 1, lengths)), np.uint64)
        row = function(
            address(data), address(starts), address(sizes), row, rows, *fixed,
            address(indptr), address(hashes), address(values), room, address(table),
        )  # fmt: skip
        count = int(indptr[row])
        if row == rows:
            return indptr, hashes[:count], values[:count]
        room *= 2


def _most(nbytes: int, lengths: NDArray[np.int64]) -> int:
    """The most n-grams that a text can have. nbytes: its bytes and one more. For each length there is at most one n-gram a
    symbol. There is white space between two runs of characters, but each run has a space on either side."""
    return 2 * nbytes * int((lengths[:, 1] - lengths[:, 0] + 1).sum())


def _longer(array: NDArray[Any], count: int, room: int) -> NDArray[Any]:
    longer = np.empty(room, array.dtype)
    longer[:count] = array[:count]
    return longer


@functools.cache
def _symbols() -> NDArray[np.uint32]:
    """The symbol of each code point below 65,536: 0 for white space, otherwise twice the folded code point, plus ``IN_WORD``
    where it is part of a word."""
    return np.array([_symbol(chr(code)) for code in range(1 << 16)], np.uint32)


def _symbol(character: str) -> int:
    if character.isspace():
        return 0
    kind = unicode.category(character)
    lower = character.lower()[0] if kind in ("Lu", "Lt") else character
    in_word = kind[0] in "LMN" or kind == "Cn" or character == "_"
    return 2 * ord("σ" if lower == "ς" else lower) + IN_WORD * in_word


def _in_python(
    data: NDArray[np.uint8], starts: NDArray[np.int64], sizes: NDArray[np.int32], lengths: NDArray[np.int64],
    seeds: NDArray[np.uint32],
) -> SparseRows:  # fmt: skip
    indptr, hashes, values = [0], list[int](), list[float]()
    for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
        text = bytes(data[start : start + max(0, size)]).decode(errors="replace")
        kinds = [_counts(text, kind, lengths[kind].tolist(), int(seeds[kind])) for kind in range(2)]
        hashes += [hash_ for counts in kinds for hash_ in counts]
        values += _scaled([count for counts in kinds for count in counts.values()])
        indptr.append(len(hashes))
    return np.array(indptr), np.array(hashes, np.uint32), np.array(values, np.float32)


def _counts(text: str, kind: int, lengths: list[int], start: int) -> Counter[int]:
    """How often each hash occurs in a text."""
    shortest, longest = lengths
    table = _symbols()
    codes = map(ord, text)
    symbols = [int(table[c]) if c < 1 << 16 else 2 * c + IN_WORD * (not 0x1F000 <= c < 0x20000) for c in codes]
    if kind:
        groups = [[PAD, *run, PAD] for inside, run in itertools.groupby(symbols, bool) if inside]
    else:
        groups = [
            [
                functools.reduce(_add_symbol, run, start)
                for inside, run in itertools.groupby(symbols, IN_WORD.__and__)
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
    """The hash of each n-gram before it is mixed: that of its first n - 1 symbols, and its last symbol."""
    states = [start]
    for symbol in symbols:
        states = [start, *(_add_symbol(state, symbol) for state in states[:longest])]
        yield from states[shortest:]


def _add_symbol(state: int, symbol: int) -> int:
    state = (state ^ symbol) * 0x7FEB352D % 2**32
    return state ^ state >> 15


def _scaled(counts: list[int]) -> list[float]:
    values = []
    for count in counts:
        n = min(count, _MOST_COUNTED)
        halvings = max(0, n.bit_length() - 8)
        values.append(_LOGARITHMS[n >> halvings] + halvings * _LOGARITHMS[0])
    total = 0.0
    for value in values:  # one after the other, as `sum` no longer does
        total += value * value
    return [value * (1 / math.sqrt(total)) for value in values]

"""N-grams of texts: compiled against Python, and against what scikit-learn finds."""

from __future__ import annotations

import itertools
import math
import zlib
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer

from streamtrain import kernels
from streamtrain.batch import Texts
from streamtrain.kernels import ngrams as module
from streamtrain.kernels.ngrams import ngrams

compiled_only = pytest.mark.skipif(
    not kernels.COMPILED, reason="the kernels were not compiled: there was no C compiler"
)

lengths = st.tuples(st.integers(1, 8), st.integers(0, 7)).map(lambda pair: (pair[0], min(8, sum(pair))))
choices = st.one_of(st.just((0, 0)), lengths)
strings = st.one_of(st.text("ab cä,_Σς\u0130é!日\u0900😀\U00020000\t\u00a0", max_size=60), st.text(max_size=40))


def texts_of(*rows: str | bytes | None) -> Texts:
    """One column; the last text ends where the data does."""
    encoded = [row.encode(errors="ignore") if isinstance(row, str) else row for row in rows]
    sizes = np.array([-1 if row is None else len(row) for row in encoded], np.int32)
    starts = np.cumsum(np.maximum(sizes, 0), dtype=np.int64) - np.maximum(sizes, 0)
    data = np.frombuffer(b"".join(row or b"" for row in encoded), np.uint8)
    return Texts(data, starts[:, None], sizes[:, None])


def in_python(*arguments: Any, **options: Any) -> Any:
    with kernels.using(None):
        return ngrams(*arguments, **options)


def assert_same(one: Any, other: Any) -> None:
    for a, b in zip(one, other, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@compiled_only
@given(st.lists(st.one_of(st.none(), strings), max_size=6), st.integers(0, 2**40), choices, choices)
@example([" ".join([*map(str, range(600))] * 2)], 3, (1, 2), (0, 0))
@example(["a" * 700 + " b" * 300, "A" * 5], 3, (1, 8), (1, 8))
def test_compiled_and_python_give_the_same_bits(
    rows: list[str | None], seed: int, words: tuple[int, int], characters: tuple[int, int]
) -> None:
    texts = texts_of(*rows)
    found = ngrams(texts, 0, seed, words=words, characters=characters)
    assert_same(found, in_python(texts, 0, seed, words=words, characters=characters))
    indptr, hashes, values = found
    assert indptr[0] == 0 and indptr[-1] == len(hashes) == len(values)
    assert (hashes > 0).all()
    for row, (first, last) in enumerate(itertools.pairwise(indptr)):
        if last > first:
            assert math.isclose(float((values[first:last].astype(float) ** 2).sum()), 1, rel_tol=1e-5)
        assert rows[row] or first == last


# Texts that sklearn folds and cuts as we do: no marks, no final sigma, no capital that becomes two letters.
@given(st.text("abcXY zé É,.!_9д Д 日\n😀", max_size=80), lengths, lengths)
def test_n_grams_are_those_of_sklearn(text: str, words: tuple[int, int], characters: tuple[int, int]) -> None:
    options = {"token_pattern": r"(?u)\w+", "ngram_range": words}
    kinds = {
        "words": (words, CountVectorizer(**options)),
        "characters": (characters, CountVectorizer(analyzer="char_wb", ngram_range=characters)),
    }
    for name, (asked, vectorizer) in kinds.items():
        wanted = Counter(vectorizer.build_analyzer()(text))
        _, hashes, values = ngrams(texts_of(text), 0, 5, **({"words": (0, 0), "characters": (0, 0)} | {name: asked}))
        assert len(set(hashes.tolist())) == len(hashes) == len(wanted)
        damped = np.array([1 + math.log(count) for count in wanted.values()])
        # sklearn orders the n-grams of a kind by length, we by position.
        np.testing.assert_allclose(np.sort(values), np.sort(damped) / np.linalg.norm(damped), rtol=1e-6)


def hashes_of(text: str, **options: Any) -> set[int]:
    return set(ngrams(texts_of(text), 0, 1, **options)[1].tolist())


def test_an_n_gram_has_the_same_hash_wherever_it_is() -> None:
    words = {"words": (1, 2), "characters": (0, 0)}
    one, other = hashes_of("red fox, RED", **words), hashes_of("the Fox: red fox", **words)
    assert len(one & other) == 4  # red, fox, red fox, fox red
    assert len(hashes_of("ab ba", words=(2, 2), characters=(0, 0)) & hashes_of("ba ab", **words)) == 0
    assert hashes_of("ΣΑΣ ÉTÉ İ") == hashes_of("σας été i")
    assert hashes_of("a", words=(1, 1), characters=(0, 0)).isdisjoint(hashes_of("a", words=(0, 0), characters=(1, 3)))
    assert hashes_of("red") != set(ngrams(texts_of("red"), 0, 2)[1].tolist())


def test_entries_are_in_the_order_of_first_appearance() -> None:
    _, both, values = ngrams(texts_of("b a b"), 0, 1)
    single = [ngrams(texts_of(word), 0, 1, characters=(0, 0))[1][0] for word in "ba"]
    assert [both[0], both[1]] == single  # b, a, b a, a b, and characters
    assert len(both) == 4 + 2 and (values[0] > values[1]) and values[4] > values[5]


@pytest.mark.parametrize("count", [1, 2, 255, 256, 257, 511, 1000, 70_000])
def test_counts_are_damped(count: int) -> None:
    texts = texts_of("y" + " x" * count)
    found = ngrams(texts, 0, 1, words=(1, 1), characters=(0, 0))
    one, many = found[2].tolist()
    halvings = max(0, count.bit_length() - 8)
    assert math.isclose(many / one, 1 + math.log((count >> halvings) << halvings), rel_tol=1e-6)
    assert math.isclose(many / one, 1 + math.log(count), rel_tol=5e-3)
    assert_same(found, in_python(texts, 0, 1, words=(1, 1), characters=(0, 0)))


def test_parts_and_columns_of_texts() -> None:
    whole = texts_of("one two", None, "", "three", "four five six", "seven")
    table = Texts(whole.data, whole.starts.reshape(3, 2), whole.sizes.reshape(3, 2))
    _, wanted, _ = ngrams(whole, 0, 9)
    indptr, _, _ = ngrams(whole, 0, 9)
    assert (np.diff(indptr) == 0).tolist() == [False, True, True, False, False, False]
    assert_same(ngrams(table, 1, 9), ngrams(texts_of(None, "three", "seven"), 0, 9))
    np.testing.assert_array_equal(ngrams(whole.part(3, 5), 0, 9)[1], wanted[indptr[3] : indptr[5]])
    assert [len(part) for part in ngrams(whole.part(2, 2), 0, 9)] == [1, 0, 0]


@compiled_only
def test_nothing_is_read_beyond_the_end() -> None:
    for end in (b"\xf0", b"\xe6\x97", b"\xc3", b"a\xff", b"\x80", b"\xf7\xbf\xbf\xbf"):
        found = []
        for behind in (b"", b"\xa0zz zz", b"\xbf\xbf\xbf\xbf"):
            text = b"word " + end
            data = np.frombuffer(text + behind, np.uint8)
            found.append(ngrams(Texts(data, np.array([[0]]), np.array([[len(text)]], np.int32)), 0, 1))
        assert_same(found[0], found[1])
        assert_same(found[0], found[2])


@compiled_only
def test_room_grows_where_there_is_too_little(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    rows = ["".join(rng.choice(list("abcdefgh "), size)) for size in (50, 3000, 0, 20_000, 5)]
    wanted = ngrams(texts_of(*rows), 0, 1)
    monkeypatch.setattr(module, "_ROOM", 100)
    assert_same(ngrams(texts_of(*rows), 0, 1), wanted)
    monkeypatch.setattr(module, "_MOST_ROOM", 1000)
    with pytest.raises(ValueError, match="n-grams in 5 texts: pass fewer or shorter"):
        ngrams(texts_of(*rows), 0, 1)


def test_folding_is_the_same_in_every_python() -> None:
    assert zlib.crc32(module._symbols().astype("<u4").tobytes()) == 3211014394


def test_no_hash_is_0() -> None:
    texts, seed = texts_of("a"), 2031251463  # its hash of characters starts as the symbol of a: the next one is 0
    found = ngrams(texts, 0, seed, words=(0, 0), characters=(1, 1))
    assert 1 in found[1] and 0 not in found[1]
    assert_same(found, in_python(texts, 0, seed, words=(0, 0), characters=(1, 1)))


@pytest.mark.parametrize("asked", [(0, 1), (2, 1), (-1, 2), (1, 9), (1, 0)])
def test_lengths_that_cannot_be(asked: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"words=.*lengths of n-grams must be from 1 to 8"):
        ngrams(texts_of("a"), 0, 1, words=asked)
    with pytest.raises(ValueError, match=r"characters=.*\(0, 0\) means no n-grams"):
        ngrams(texts_of("a"), 0, 1, characters=asked)


@pytest.mark.parametrize("text", ["ab" * 1_000_000, "ab " * 700_000, " " * 2_000_000, "é" * 1_000_000])
@compiled_only
def test_long_repeats(text: str) -> None:
    _, hashes, values = ngrams(texts_of(text), 0, 1)
    assert len(hashes) == len(np.unique(hashes)) < 30
    assert math.isclose(float((values.astype(float) ** 2).sum()), bool(text.strip()), rel_tol=1e-5)

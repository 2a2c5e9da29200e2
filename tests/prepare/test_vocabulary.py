"""The dictionary of values: exact while there is room, shared beyond, the same in C and in numpy, whatever the cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import examples

from streamtrain import kernels
from streamtrain.errors import UsageError
from streamtrain.kernels.hashing import entries, hash_bytes, hash_words
from streamtrain.prepare import Vocabulary


def words(seed: int, count: int, distinct: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(1, 2**32, distinct, dtype=np.uint32)[rng.integers(0, distinct, count)]


def test_each_value_has_a_slot_of_its_own_while_there_is_room() -> None:
    slots = Vocabulary(10)
    found = slots.observe(words(0, 3000, 300))
    same = {}
    for value, slot in zip(words(0, 3000, 300).tolist(), found.tolist(), strict=True):
        assert same.setdefault(value, slot) == slot
    assert len(set(same.values())) == len(same) == slots.used and slots.shared == 0
    assert sorted(same.values()) == list(range(1, len(same) + 1)), "in the order in which they came"


def test_what_was_not_seen_is_unknown_until_the_dictionary_is_full() -> None:
    slots = Vocabulary(6)
    slots.observe(np.arange(1, 20, dtype=np.uint32))
    assert slots.transform(np.array([5, 777], np.uint32)).tolist() == [5, 0]
    before = slots.state_dict()
    slots.observe(words(1, 4000, 1000))
    assert slots.used <= 48 and slots.shared > 0.5
    unknown = slots.transform(np.array([123_456_789], np.uint32))
    assert 48 < unknown[0] < slots.width, "it shares a slot, as it would have in training"
    assert before["hashes"].tolist() == list(range(1, 20)), "a state is a copy"


@examples(40)
@given(
    seed=st.integers(0, 99), bits=st.integers(4, 9), distinct=st.integers(1, 800),
    cuts=st.lists(st.integers(0, 1500), max_size=5),
)  # fmt: skip
def test_cut_and_state_change_nothing_and_numpy_finds_the_same(
    seed: int, bits: int, distinct: int, cuts: list[int]
) -> None:
    stream = words(seed, 1500, distinct)
    whole, cut = Vocabulary(bits), Vocabulary(bits)
    expected = whole.observe(stream)
    pieces = []
    for piece in np.split(stream, sorted(cuts)):
        again = Vocabulary(bits)
        again.load_state_dict(cut.state_dict())
        pieces.append(again.observe(piece))
        cut = again
    np.testing.assert_array_equal(np.concatenate(pieces), expected)
    assert cut.shared == whole.shared and cut.used == whole.used
    with kernels.using(None):
        plain = Vocabulary(bits)
        np.testing.assert_array_equal(plain.observe(stream), expected)
        np.testing.assert_array_equal(plain.transform(stream + 1), whole.transform(stream + 1))
        assert plain.shared == whole.shared


@pytest.mark.parametrize("bits", [3, 29, -1])
def test_bits_have_bounds(bits: int) -> None:
    with pytest.raises(UsageError, match="--hash-bits"):
        Vocabulary(bits)


@pytest.mark.parametrize(
    "hashes", [np.array([5, 5], np.uint32), np.arange(1, 100, dtype=np.uint32), np.array([0], np.uint32)]
)
def test_a_state_that_is_none_is_refused(hashes: np.ndarray) -> None:
    slots = Vocabulary(4)
    slots.observe(np.array([3], np.uint32))
    with pytest.raises(ValueError, match="hashes"):
        slots.load_state_dict({"hashes": hashes, "entries": 3, "shared": 0})


@examples(40)
@given(st.lists(st.binary(max_size=21), min_size=1, max_size=30), st.integers(0, 2**32 - 1))
def test_hashes_of_bytes_are_the_same_in_numpy_and_differ(values: list[bytes], seed: int) -> None:
    data = np.frombuffer(b"".join(values), np.uint8)
    offsets = np.cumsum([0, *map(len, values)])
    found = hash_bytes(data, offsets, seed)
    assert (found > 0).all() and len(set(found.tolist())) == len(set(values))
    with kernels.using(None):
        np.testing.assert_array_equal(hash_bytes(data, offsets, seed), found)


def test_hashes_spread_over_all_bits() -> None:
    found = hash_words(np.stack([np.arange(200_000), np.zeros(200_000)], axis=1).astype(np.uint32), seed=3)
    assert len(np.unique(found)) > 199_980, "of 200,000 values about 5 pairs share 32 bits by chance"
    for shift in (0, 8, 16, 24):
        counts = np.bincount((found >> shift) & 255, minlength=256)
        assert abs(counts - 200_000 / 256).max() < 6 * np.sqrt(200_000 / 256)


@examples(60)
@given(
    rows=st.integers(0, 9), width=st.integers(0, 5), count=st.integers(0, 4), categories=st.integers(0, 4),
    seed=st.integers(0, 99), texts=st.booleans(),
)  # fmt: skip
def test_entries_are_the_same_in_numpy(
    rows: int, width: int, count: int, categories: int, seed: int, texts: bool
) -> None:
    rng = np.random.default_rng(seed)
    features = np.where(rng.random((rows, width)) < 0.3, np.nan, rng.normal(size=(rows, width))).astype(np.float32)
    codes = rng.integers(1, 99, (rows, count), dtype=np.uint32) if count else None
    categories = min(categories, count)
    crosses = [(0, count - 1), (count - 1,) * 3] if count > 1 else []
    seeds = np.array([3, 4], np.uint32)[: len(crosses)]
    sizes = rng.integers(0, 3, rows) if texts else None
    total = (
        int(np.isnan(features).sum()) + rows * (categories + len(crosses)) + int(0 if sizes is None else sizes.sum())
    )
    fill, missing = np.full(width, 7, np.float32), np.arange(50, 50 + width, dtype=np.uint32)

    def made() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        own = features.copy()
        indptr, hashes = entries(own, fill, missing, codes, categories, crosses, seeds, sizes, total)
        if sizes is not None:  # what stands in the gaps is anybody's
            gaps = np.concatenate([np.arange(e - n, e) for e, n in zip(indptr[1:], sizes, strict=True)] or [[]])
            hashes = np.delete(hashes, gaps.astype(int))
        return own, indptr, hashes

    first = made()
    with kernels.using(None):
        for one, other in zip(first, made(), strict=True):
            np.testing.assert_array_equal(one, other)
    assert not np.isnan(first[0]).any() and first[1][-1] == total

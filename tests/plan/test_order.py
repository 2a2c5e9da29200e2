"""The order: every row once, in windows that no more than their rows fill, and a function of its arguments alone."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from make import examples
from numpy.typing import NDArray

from streamtrain.plan.order import (
    Piece,
    chunk_order,
    held_out,
    most_streams,
    row_keys,
    row_positions,
    streamed,
    windows,
)

quick = examples(150)

sizes = st.one_of(
    st.lists(st.integers(0, 40), min_size=1, max_size=40),  # mixed, 0-row chunks among them
    st.lists(st.integers(1, 3_000), min_size=1, max_size=1),  # one giant chunk
    st.lists(st.sampled_from([0, 1, 7, 500]), min_size=1, max_size=25),  # giants among small ones
    st.builds(lambda n, k: [n] * k, st.integers(1, 50), st.integers(1, 30)),  # all the same
).map(lambda rows: np.array(rows, np.int64))
orders = {
    "rows": sizes,
    "window_rows": st.integers(1, 600),
    "seed": st.integers(0, 2**40),
    "epoch": st.integers(0, 2**20),
    "shuffle": st.booleans(),
}


def made(rows: NDArray[np.int64], window_rows: int, seed: int, epoch: int, shuffle: bool = True) -> list[list[Piece]]:
    return [list(window) for window in windows(rows, window_rows, seed=seed, epoch=epoch, shuffle=shuffle)]


@quick
@given(**orders)
@example(np.array([2_000, 0, 1, 2_000]), 100, 0, 0, True)
@example(np.array([7] * 53), 186, 0, 0, True)  # one more chunk would fill the first window beyond its rows
def test_each_row_is_in_one_window_and_a_chunk_is_read_from_its_start_to_its_end(
    rows: NDArray[np.int64], window_rows: int, seed: int, epoch: int, shuffle: bool
) -> None:
    order = made(rows, window_rows, seed, epoch, shuffle)
    reached = np.zeros(len(rows), np.int64)
    for window in order:
        assert 0 < sum(piece.rows for piece in window) <= window_rows
        assert len({piece.chunk for piece in window}) == len(window)
        for piece in window:
            assert piece.start == reached[piece.chunk] < piece.stop
            reached[piece.chunk] = piece.stop
    np.testing.assert_array_equal(reached, rows)


def test_chunks_of_more_than_a_quarter_of_a_window_are_streamed() -> None:
    rows = np.array([0, 1, 25, 26, 100, 101])
    assert streamed(rows, 100).tolist() == [False, False, False, True, True, True]
    assert streamed(rows, 100, shuffle=False).tolist() == [False, False, False, False, False, True]
    assert not streamed(rows, int(rows.sum())).any()  # one window holds all
    assert [most_streams(n) for n in (1, 131_071, 131_072, 200_000, 262_144, 10**9)] == [1, 1, 2, 3, 4, 4]


@quick
@given(**orders)
def test_only_streamed_chunks_are_cut_and_few_of_them_are_open_at_a_time(
    rows: NDArray[np.int64], window_rows: int, seed: int, epoch: int, shuffle: bool
) -> None:
    large, most = streamed(rows, window_rows, shuffle=shuffle), most_streams(window_rows) if shuffle else 1
    open_chunks: set[int] = set()
    for window in made(rows, window_rows, seed, epoch, shuffle):
        for piece in window:
            whole = piece.rows == rows[piece.chunk]
            assert whole or large[piece.chunk]
            open_chunks.discard(piece.chunk)
            if piece.stop < rows[piece.chunk]:
                open_chunks.add(piece.chunk)
        assert len(open_chunks) <= most


def test_large_windows_draw_from_several_streams_at_once() -> None:
    rows = np.full(9, 400_000)
    order = made(rows, 300_000, 0, 0)
    assert most_streams(300_000) == 4
    assert all(len(window) >= 4 for window in order[:-3])
    for window in order[:4]:
        assert max(p.rows for p in window) - min(p.rows for p in window) <= 4
    open_chunks: set[int] = set()
    for window in order:
        open_chunks |= {p.chunk for p in window if p.stop < 400_000}
        open_chunks -= {p.chunk for p in window if p.stop == 400_000}
        assert len(open_chunks) <= 4


def test_streamed_and_whole_chunks_enter_every_window_in_proportion() -> None:
    rows = np.array([10] * 300 + [1_500] * 4)  # a third of the rows in chunks that are not cut
    for window in made(rows, 450, 0, 0):
        whole = sum(p.rows for p in window if rows[p.chunk] == 10)
        assert abs(whole / sum(p.rows for p in window) - 1 / 3) < 0.05


@quick
@given(**orders)
def test_the_same_arguments_give_the_same_windows(
    rows: NDArray[np.int64], window_rows: int, seed: int, epoch: int, shuffle: bool
) -> None:
    before = np.random.get_state()[1].tolist()  # noqa: NPY002 - the global state must not be touched
    first = made(rows, window_rows, seed, epoch, shuffle)
    assert first == made(rows.copy(), window_rows, seed, epoch, shuffle)
    assert before == np.random.get_state()[1].tolist()  # noqa: NPY002


@pytest.mark.parametrize(("rows", "window_rows"), [([10] * 200, 100), ([10] * 20 + [400] * 20, 100), ([90] * 50, 100)])
def test_epochs_and_seeds_differ_and_file_order_is_file_order(rows: list[int], window_rows: int) -> None:
    table = np.array(rows)
    orders = [[p for w in made(table, window_rows, s, e) for p in w] for s, e in ((0, 0), (0, 1), (1, 0), (1, 1))]
    for i, first in enumerate(orders):
        assert all(first != other for other in orders[:i])
        assert [p.chunk for p in first] != sorted(p.chunk for p in first)
    plain = [p for w in made(table, window_rows, 5, 5, False) for p in w]
    assert plain == sorted(plain, key=lambda p: (p.chunk, p.start))


@quick
@given(orders["rows"], st.integers(4, 600), orders["seed"], orders["epoch"])
def test_windows_are_of_even_size(rows: NDArray[np.int64], window_rows: int, seed: int, epoch: int) -> None:
    found = [sum(p.rows for p in window) for window in made(rows, window_rows, seed, epoch)]
    if len(found) > 1:  # none is a small rest: chunks that are not cut hold a quarter of a window at most
        assert min(found) > window_rows // 4 - 1
    if rows[rows > 0].size and (large := streamed(rows, window_rows)).any() and large[rows > 0].all():
        assert max(found) - min(found) <= 1  # streams can be cut anywhere


@quick
@given(st.integers(1, 30), st.integers(1, 200), st.integers(4, 50), orders["seed"])
def test_windows_of_equal_chunks_are_as_few_as_can_be_and_differ_by_one(
    n: int, chunks: int, fit: int, seed: int
) -> None:
    found = [sum(p.rows for p in window) for window in made(np.full(chunks, n), fit * n, seed, 0)]
    assert len(found) == -(-chunks // fit)
    assert max(found) - min(found) <= n


def test_chunks_are_permuted_without_preference() -> None:
    first = np.array([chunk_order(8, seed=seed, epoch=3)[0] for seed in range(2_000)])
    assert np.bincount(first, minlength=8).min() > 180  # 250 expected


@quick
@given(st.lists(st.integers(0, 2**62), min_size=1, max_size=50), st.sampled_from([0.0, 0.1, 0.5, 0.99]))
def test_held_out_depends_on_the_position_alone(positions: list[int], fraction: float) -> None:
    together = held_out(np.array(positions), fraction)
    assert together.tolist() == [bool(held_out(np.array([p]), fraction)[0]) for p in positions]
    more = held_out(np.array(positions), fraction + 0.005)
    assert (more >= together).all()  # a larger share holds out the same rows, and others


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("stride", [1, 2, 1_000, 65_536])
def test_the_asked_share_is_held_out_however_rows_are_laid_out(fraction: float, stride: int) -> None:
    out = held_out(np.arange(200_000) * stride, fraction)
    assert abs(out.mean() - fraction) < 5 * np.sqrt(fraction * (1 - fraction) / 200_000)


@pytest.mark.parametrize("rows_each", [10, 10_000_000])
def test_the_memory_of_an_order_grows_with_chunks_and_not_with_rows(rows_each: int) -> None:
    rows = np.full(20_000, rows_each)
    for window_rows in (50 * rows_each, rows_each * 2):  # whole, and streamed
        tracemalloc.start()
        pieces = sum(
            len(window) for window, _ in zip(windows(rows, window_rows, seed=0, epoch=0), range(300), strict=False)
        )
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert pieces >= 300
        assert peak < 60 * len(rows) + 100_000


def places(rows: int, window: int, seed: int = 0) -> NDArray[np.int64]:
    return row_positions(0, rows, rows, row_keys(seed=seed, epoch=0, window=window))


def test_the_places_of_rows_depend_on_seed_epoch_and_window() -> None:
    keys = [row_keys(seed=s, epoch=e, window=w) for s in (0, 1) for e in (0, 1) for w in (0, 1)]
    orders = {tuple(row_positions(0, 50, 50, k).tolist()) for k in keys}
    assert len(orders) == 8


@pytest.mark.parametrize("rows", [2, 3, 7, 100, 1_000])
def test_every_row_comes_to_stand_everywhere_equally_often(rows: int) -> None:
    """Chi-squared over (row, tenth of the window) for many windows; bounds five standard deviations wide."""
    windows_made, parts = 4_000 if rows <= 100 else 400, min(rows, 10)
    counts = np.zeros((rows, parts))
    for window in range(windows_made):
        counts[np.arange(rows), places(rows, window) * parts // rows] += 1
    expected = windows_made * np.bincount(np.arange(rows) * parts // rows, minlength=parts) / rows
    chi = ((counts - expected) ** 2 / expected).sum()
    freedom = (rows - 1) * (parts - 1)
    assert abs(chi - freedom) < 5 * np.sqrt(2 * freedom) + 5


@pytest.mark.parametrize("rows", [100, 1_000, 65_536, 100_003])
def test_neighbours_are_torn_apart_as_in_a_random_permutation(rows: int) -> None:
    """Distances of rows that were d apart, the halves of a Feistel network among them, are those of random pairs: the
    mean is rows / 3, the standard deviation of one distance rows / sqrt(18)."""
    side = int(np.ceil(np.sqrt(rows)))
    for apart in (1, 2, side - 1, side, side + 1, rows // 2):
        found = np.concatenate([np.abs(np.diff(places(rows, w)[:: max(1, apart)])) for w in range(20)])
        assert abs(found.mean() / rows - 1 / 3) < 5 / np.sqrt(18 * len(found)) + 1 / rows


def test_the_order_of_three_rows_is_each_of_six_equally_often() -> None:
    found = [tuple(places(3, w).tolist()) for w in range(6_000)]
    assert all(abs(found.count(order) - 1_000) < 5 * np.sqrt(1_000) for order in set(found))
    assert len(set(found)) == 6

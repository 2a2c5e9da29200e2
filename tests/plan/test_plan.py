"""The plan: stated defaults, terms that sum to the peak, refusals whose advice is true."""

from __future__ import annotations

import re
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from make import examples

from streamtrain.errors import BudgetRefused, UsageError
from streamtrain.memory.sizes import format_bytes, parse_bytes
from streamtrain.plan.memory_model import Demand, default_window_rows
from streamtrain.plan.order import windows
from streamtrain.plan.plan import Plan, default_batch_size, solve
from streamtrain.plan.term import Term
from streamtrain.storage.reader import ChunkTable

quick = examples(60)

MB = 10**6


def demand(rows: Any, columns: int = 40, *, streams: bool = True, **changes: Any) -> Demand:
    """Float32 columns, as a Parquet reader declares them."""
    rows = np.asarray(rows, np.int64)
    decoded = rows * 4 * columns
    table = ChunkTable(lambda i: f"part:{i}", rows, decoded, 2 * decoded + np.minimum(decoded, columns * 2**20))

    def stream_bytes(i: int, slice_rows: int) -> int:
        one = int(2 * min(slice_rows, rows[i]) * 4 * columns)
        return one + int(min(2 * columns * 2**20, 2 * decoded[i]))

    found = Demand(
        table=table, decoded_row_bytes=4.0 * columns, window_row_bytes=4.0 * columns + 4,
        batch_row_bytes=16.0 * columns, baseline_bytes=100 * MB, largest_column_share=1 / columns,
        stream_bytes=stream_bytes if streams else None,
    )  # fmt: skip
    return replace(found, **changes)


demands = st.builds(
    demand,
    st.one_of(
        st.builds(lambda n, k: [n] * k, st.sampled_from([0, 1, 1_000, 65_536, 10**6, 3 * 10**7]), st.integers(1, 200)),
        st.lists(st.sampled_from([0, 1, 1_000, 20_000, 122_880, 10**6, 10**8]), min_size=1, max_size=60),
    ).filter(any),
    st.sampled_from([1, 3, 40, 1_000]),
    streams=st.booleans(),
    baseline_bytes=st.integers(60 * MB, 160 * MB),
    terms=st.sampled_from([0, MB, 50 * MB]).map(lambda size: (Term("learner", size, "learner"),)),
    open_bytes=st.sampled_from([0, MB, 25 * MB]),
)
budgets = st.integers(20, 3_000).map(lambda n: n * MB)


@pytest.mark.parametrize("rows", [1, 999, 16_000, 31_999, 32_000, 63_999, 64_000, 1_023_999, 1_024_000, 10**7, 10**10])
def test_the_default_batch_is_the_power_of_two_at_or_below_a_thousandth_of_the_rows(rows: int) -> None:
    size = default_batch_size(rows)
    assert size in {16, 32, 64, 128, 256, 512, 1024}
    assert size == 1024 or 2 * size > rows / 1000
    assert size == 16 or size <= rows / 1000
    assert solve(demand([rows], 1), budget_bytes=10**12, budget_given=False).batch_size == size


@pytest.mark.parametrize(
    ("rows", "chunks", "row_bytes", "expected"),
    [
        (1_600_000, 10, 160.0, 1_600_000),  # 256 MB: the whole set
        (1_600_001, 10, 160.0, 1_600_000),  # a row more: 16 chunks would be all, but at most 256 MB
        (100_000_000, 1_000, 160.0, 1_600_000),  # 16 chunks, no more than 256 MB
        (20_000_000, 1_000, 16.0, 1_000_000),  # 5 %
        (20_000_000, 200, 16.0, 1_600_000),  # 16 chunks
        (10**9, 10_000, 16.0, 16_000_000),  # 5 % would be 800 MB
        (5, 5, 10.0**9, 1),  # a row larger than all that is allowed
    ],
)
def test_the_default_window_is_as_stated(rows: int, chunks: int, row_bytes: float, expected: int) -> None:
    assert default_window_rows(rows, chunks, row_bytes) == expected
    each = np.full(chunks, rows // chunks)
    each[: rows % chunks] += 1
    asked = replace(demand(each, 1), decoded_row_bytes=row_bytes, window_row_bytes=4.0)
    assert solve(asked, budget_bytes=10**12, budget_given=False).window_rows == expected


@quick
@given(demands, budgets, st.integers(60 * MB, 500 * MB))
def test_an_explicit_budget_sets_the_window_by_nominal_constants(made: Demand, budget: int, other: int) -> None:
    first = solve(made, budget_bytes=budget, budget_given=True)
    second = solve(replace(made, baseline_bytes=other), budget_bytes=budget, budget_given=True, threads=1)
    assume(first.fits and second.fits)
    assert (first.window_rows, first.windows, first.batch_size) == (
        second.window_rows,
        second.windows,
        second.batch_size,
    )


def test_an_explicit_budget_caps_the_window_at_30_percent_above_100_mb_and_the_learner() -> None:
    made = demand([65_536] * 2_000, terms=(Term("learner", 50 * MB, "learner"),))
    free = solve(made, budget_bytes=10**12, budget_given=True).window_rows
    assert free == default_window_rows(made.table.total_rows, 2_000, 164.0)
    window = solve(made, budget_bytes=400 * MB, budget_given=True).window_rows
    assert window * 164 + 164 >= 0.9 * 0.3 * 250 * MB and window * 164 <= 0.3 * 250 * MB


def test_a_larger_budget_is_not_refused_because_a_package_takes_room() -> None:
    made = replace(demand([200_000] * 6), baseline_bytes=185 * MB, package_bytes=80 * MB)
    fits = [solve(made, budget_bytes=budget * MB, budget_given=True).fits for budget in range(200, 500, 5)]
    assert fits == sorted(fits) and fits[-1]


def test_an_explicit_budget_leaves_room_for_the_streams_that_a_window_needs() -> None:
    made = demand(
        [10**6] * 60, baseline_bytes=110 * MB
    )  # a stream of 40 columns takes 84 MB, a large window four of them
    plan = solve(made, budget_bytes=400 * MB, budget_given=True)
    assert plan.fits and 131_072 <= plan.window_rows < 0.3 * 300 * MB / 172
    assert not solve(made, budget_bytes=400 * MB, budget_given=True, window_rows=300_000).fits


def test_one_stream_is_open_at_a_time_in_file_order() -> None:
    asked: dict[str, Any] = {"budget_bytes": 10**10, "budget_given": True, "window_rows": 300_000}
    mixed, plain = (
        solve(demand([10**6] * 9), **asked, shuffle=shuffle).term_bytes["streams"] for shuffle in (True, False)
    )
    assert mixed == 4 * plain > 0


@quick
@given(demands, budgets, budgets)
def test_without_a_budget_the_window_does_not_depend_on_free_memory(made: Demand, free: int, later: int) -> None:
    first = solve(made, budget_bytes=free, budget_given=False)
    second = solve(made, budget_bytes=later, budget_given=False)
    assume(first.fits and second.fits)
    assert (first.window_rows, first.windows, first.batch_size) == (
        second.window_rows,
        second.windows,
        second.batch_size,
    )


@quick
@given(demands, budgets, st.booleans(), st.booleans())
def test_the_peak_is_the_sum_of_the_terms(made: Demand, budget: int, given_: bool, shuffle: bool) -> None:
    plan = solve(made, budget_bytes=budget, budget_given=given_, shuffle=shuffle)
    assert plan.peak_bytes == sum(plan.term_bytes.values()) and all(size >= 0 for size in plan.term_bytes.values())
    assert plan.fits == (plan.peak_bytes <= budget)
    assert (
        plan.term_bytes["baseline"] == made.baseline_bytes and plan.term_bytes.get("learner", 0) == made.learner_bytes
    )
    held = min(plan.windows_in_flight, plan.windows)
    assert plan.term_bytes["windows"] >= held * plan.window_rows * made.window_row_bytes
    table, large = made.table, plan.streamed_chunks
    assert (plan.term_bytes["streams"] > 0) == (large > 0)
    whole = table.rows <= (plan.window_rows // 4 if shuffle and plan.windows > 1 else plan.window_rows)
    if whole.any() and table.rows[whole].max() > 0:
        assert plan.term_bytes["reads"] >= int(table.read_peak_bytes[whole].max() * plan.read_share)


@quick
@given(demands, st.integers(1, 10**7), st.booleans())
def test_windows_are_counted(made: Demand, window_rows: int, shuffle: bool) -> None:
    assume(made.table.total_rows / window_rows < 2_000)
    plan = solve(made, budget_bytes=10**12, budget_given=True, window_rows=window_rows, shuffle=shuffle)
    order = windows(made.table.rows, plan.window_rows, seed=0, epoch=0, shuffle=shuffle)
    assert plan.windows == sum(1 for _ in order)
    assert plan.window_rows == min(window_rows, made.table.total_rows)


def refusal(plan: Plan) -> str:
    with pytest.raises(BudgetRefused) as caught:
        plan.require_fits()
    return str(caught.value)


@quick
@given(demands, budgets, st.booleans(), st.booleans(), st.one_of(st.none(), st.integers(1, 10**7)))
@example(demand([10**6] * 20), 400 * MB, True, True, None)
@example(demand([10**8]), 80 * MB, True, True, None)
def test_a_refusal_lists_every_term_and_its_advice_is_true(
    made: Demand, budget: int, given_: bool, shuffle: bool, window_rows: int | None
) -> None:
    asked: dict[str, Any] = {"shuffle": shuffle, "threads": 2}
    plan = solve(made, budget_bytes=budget, budget_given=given_, window_rows=window_rows, **asked)
    assume(not plan.fits)
    first, *lines, last = refusal(plan).splitlines()
    assert first.startswith(f"the plan needs {format_bytes(plan.peak_bytes)}, ") and format_bytes(budget) in first
    listed = [re.fullmatch(r"  (\w+) +(.+)", line) for line in lines]
    assert {m[1]: m[2].strip() for m in listed if m} == {n: format_bytes(size) for n, size in plan.term_bytes.items()}
    order = [plan.term_bytes[m[1]] for m in listed if m]
    assert order == sorted(order, reverse=True)
    assert last.startswith("What would help: --memory ") and last.endswith("Nothing was read.")

    more = parse_bytes(last.split("--memory ")[1].split()[0])
    assert more > budget or not given_
    assert solve(made, budget_bytes=more, budget_given=True, window_rows=window_rows, **asked).fits
    if found := re.search(r"--window-rows (\d+)", last):
        assert int(found[1]) < plan.window_rows
        assert solve(made, budget_bytes=budget, budget_given=given_, window_rows=int(found[1]), **asked).fits
    elif solve(made, budget_bytes=budget, budget_given=given_, window_rows=plan.batch_size, **asked).fits:
        assert plan.window_rows <= plan.batch_size


@quick
@given(demands, budgets, st.booleans(), st.one_of(st.none(), st.integers(1, 10**7)), st.integers(-MB, MB))
def test_the_peak_of_a_refused_plan_is_enough_in_another_process_and_hardly_less_is(
    made: Demand, budget: int, shuffle: bool, window_rows: int | None, other: int
) -> None:
    asked: dict[str, Any] = {"budget_given": True, "shuffle": shuffle, "window_rows": window_rows}
    plan = solve(made, budget_bytes=budget, **asked)
    assume(not plan.fits)
    assert plan.peak_bytes == plan.enough_bytes == parse_bytes(format_bytes(plan.peak_bytes))
    assert solve(replace(made, baseline_bytes=made.baseline_bytes + other), budget_bytes=plan.peak_bytes, **asked).fits
    less = plan.peak_bytes * 9 // 10 - 4 * MB
    assert less <= budget or not solve(made, budget_bytes=less, **asked).fits


def test_a_smaller_batch_is_advised_where_batches_are_what_does_not_fit() -> None:
    made = demand([20_000] * 50, scratch_bytes=lambda rows: rows * MB)
    plan = solve(made, budget_bytes=300 * MB, budget_given=True)
    found = re.search(r"--batch-size (\d+)", refusal(plan))
    assert found and solve(made, budget_bytes=300 * MB, budget_given=True, batch_size=int(found[1])).fits
    assert not solve(made, budget_bytes=300 * MB, budget_given=True, batch_size=2 * int(found[1])).fits


def test_the_chunks_that_a_warning_names_need_no_slices() -> None:
    plan = solve(demand([10**6] * 20), budget_bytes=10**10, budget_given=True, window_rows=10**5)
    found = re.search(r"--chunk-rows (\d+)", plan.warnings[0])
    assert found
    again = solve(demand([int(found[1])] * 1_000), budget_bytes=10**10, budget_given=True, window_rows=10**5)
    assert not again.streamed_chunks and not again.warnings


@quick
@given(demands, budgets, st.integers(1, 2_000), st.booleans())
@example(demand([10**6] * 20, baseline_bytes=115 * MB), 250 * MB, 150, True)
def test_what_fits_a_budget_fits_a_larger_one(made: Demand, budget: int, more: int, shuffle: bool) -> None:
    # Windows come in steps, and a step up may cost more than the budget grew: the plan leaves a quarter of the room
    # above 100 MB free for a process that is larger than that.
    larger = budget + more * MB
    assume(1.04 * (made.baseline_bytes - 100 * MB) <= 0.25 * (larger - 100 * MB - made.learner_bytes) - 2)
    before = solve(made, budget_bytes=budget, budget_given=True, shuffle=shuffle)
    after = solve(made, budget_bytes=larger, budget_given=True, shuffle=shuffle)
    assert after.fits or not before.fits


@quick
@given(demands, budgets, st.integers(1, 2_000), st.integers(1, 10**7))
def test_what_fits_with_a_given_window_fits_a_larger_budget(made: Demand, budget: int, more: int, window: int) -> None:
    before = solve(made, budget_bytes=budget, budget_given=True, window_rows=window)
    after = solve(made, budget_bytes=budget + more * MB, budget_given=True, window_rows=window)
    assert after.fits or not before.fits


def test_the_knobs_give_way_before_the_plan_is_refused_and_the_order_stays() -> None:
    made = demand([65_536] * 400)
    plans = [
        solve(made, budget_bytes=budget * MB, budget_given=False, window_rows=300_000, threads=4)
        for budget in range(160, 500)
    ]
    knobs = [(p.windows_in_flight, p.threads, p.read_share, p.slice_rows) for p in plans if p.fits]
    assert not plans[0].fits and knobs[0][:2] == (1, 1) and knobs[-1][:2] == (2, 4)
    assert len(set(knobs)) > 5 and [k[:2] for k in knobs] == sorted(k[:2] for k in knobs)
    assert len({(p.window_rows, p.windows, p.batch_size, p.streamed_chunks) for p in plans}) == 1
    least = min(p.budget_bytes for p in plans if p.fits)
    assert all(p.fits for p in plans if p.budget_bytes >= least)


@pytest.mark.parametrize("asked", [{"batch_size": 0}, {"window_rows": 0}, {"threads": -1}])
def test_settings_that_cannot_be(asked: dict[str, int]) -> None:
    (name, value), *_ = asked.items()
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} {value}"):
        solve(demand([10]), budget_bytes=10**9, budget_given=True, **asked)


def test_large_chunks_are_warned_of() -> None:
    warned = solve(demand([10**6] * 20), budget_bytes=10**10, budget_given=True, window_rows=10**6).warnings
    assert len(warned) == 1 and "20 of 20 chunks" in warned[0] and "4 of them at a time" in warned[0]
    assert solve(demand([1_000] * 20), budget_bytes=10**10, budget_given=True).warnings == []


@pytest.mark.parametrize("budget_mb", [60, 400])
def test_a_million_chunks_are_planned_in_the_memory_that_the_plan_states(budget_mb: int) -> None:
    made = demand(np.full(10**6, 20_000))
    tracemalloc.start()
    plan = solve(replace(made, open_bytes=0), budget_bytes=budget_mb * MB, budget_given=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert plan.chunks == 10**6 and plan.rows == 2 * 10**10
    assert peak < plan.term_bytes["order"]


def test_tiny_windows_of_many_rows_are_planned_at_once() -> None:
    plan = solve(demand([10**10]), budget_bytes=10**9, budget_given=True, window_rows=1)
    assert plan.windows == 10**10

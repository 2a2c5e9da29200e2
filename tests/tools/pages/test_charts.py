"""What the charts are made of: axes, lines, stages, scores."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streamtrain.tools.pages.axis import Axis, byte_axis, log_ticks, score_scale, time_axis
from streamtrain.tools.pages.chart import Line, runs
from streamtrain.tools.pages.memory import LIMITS, SERIES, Timeline, time_parts, verdict
from streamtrain.tools.pages.scores import LINES, score_charts

MakeProfile = Callable[..., dict[str, Any]]


def check_ticks(axis: Axis, most: float) -> None:
    values, labels = [value for value, _ in axis.ticks], [label for _, label in axis.ticks]
    assert values[0] == 0 and most <= axis.top
    assert values == sorted(values) and values[-1] <= axis.top * (1 + 1e-6)
    assert len(set(labels)) == len(labels)
    assert 2 <= len(labels) <= 9


@given(st.integers(1, 10**15))
def test_an_axis_of_bytes_holds_the_most_and_has_a_few_different_ticks(most: int) -> None:
    check_ticks(byte_axis(most), most)


@given(st.floats(1e-6, 1e7))
def test_an_axis_of_time_holds_the_span_and_has_a_few_different_ticks(span: float) -> None:
    check_ticks(time_axis(span), span)


@example([999915989.0, 999912999.0])
@given(st.lists(st.floats(-1e9, 1e9).filter(lambda value: value == 0 or abs(value) > 1e-9), min_size=1))
def test_an_axis_of_scores_holds_them_all(values: list[float]) -> None:
    height, axis = score_scale(values)
    heights = [height(value) for value in values]
    assert -1e-6 * axis.top <= min(heights) and max(heights) <= axis.top
    assert sorted(heights) == [height(value) for value in sorted(values)]
    labels = [label for _, label in axis.ticks]
    assert len(set(labels)) == len(labels) <= 9 and all(0 <= tick <= axis.top * (1 + 1e-6) for tick, _ in axis.ticks)


@given(st.integers(1, 10**12), st.integers(1, 10**12))
def test_an_axis_of_rows_has_a_few_different_ticks_within_it(first: int, more: int) -> None:
    ticks = log_ticks(first, first + more)
    assert 1 <= len(ticks) <= 9 and len({label for _, label in ticks}) == len(ticks)
    assert all(first <= rows <= first + more for rows, _ in ticks)


def test_scores_are_a_chart_each_and_what_is_not_scored_is_left_out() -> None:
    held = {"loss": 0.4, "auc": float("nan"), "targets": {"a": {"loss": 0.1}}}
    lines = [
        {
            "epoch": epoch,
            "rows_seen": rows,
            "seconds": rows / 1e4,
            "progressive": {"loss": 100 / rows, "auc": None},
            "holdout": hold,
        }
        for epoch, rows, hold in ((0, 1024, None), (0, 5000, held), (1, 8192, None), (1, 10_000, held))
    ]
    ((name, chart),) = score_charts(lines).items()
    assert name == "loss" and [curve.line.key for curve in chart.curves] == ["progressive", "holdout"]
    assert chart.curves[1].texts == ["–", "0.4000", "–", "0.4000"]
    assert chart.curves[1].path(chart.x).count("M") == 1  # one line, across what was not scored
    assert [(band.name, band.stop) for band in chart.bands][-1] == ("epoch 2", 1.0)
    assert score_charts([]) == {} == score_charts(lines[:0])


@given(st.lists(st.none() | st.integers()))
def test_runs_are_all_that_is_not_missing(values: list[int | None]) -> None:
    found = list(runs(values))
    assert [value for run in found for value in values[run]] == [value for value in values if value is not None]
    assert all(values[a.stop] is None for a, _ in pairwise(found))


def test_the_budget_is_shown_unless_it_would_press_all_else_to_the_ground(profile: MakeProfile) -> None:
    assert "budget" in Timeline(profile(budget_bytes=800_000_000)).shown()
    assert "budget" not in Timeline(profile(budget_bytes=8_000_000_000)).shown()
    assert Timeline(profile(measured=False)).shown() == ("planned", "budget")


def test_one_moment_and_none_have_a_span(profile: MakeProfile) -> None:
    assert Timeline(profile(1)).span_seconds > 0
    assert Timeline(profile(0)).bands() == [] and Timeline(profile(0)).peak is None


def test_bands_cover_the_time_in_order(profile: MakeProfile) -> None:
    bands = Timeline(profile()).bands()
    assert [band.name for band in bands] == ["open", "target", "train", "end"]
    assert all(a.stop == b.start for a, b in pairwise(bands))
    assert (bands[0].start, bands[-1].stop) == (0, 1)


def test_a_little_less_than_no_time_is_none() -> None:
    assert [part.seconds for part in time_parts({"time": {"wait": 1.0, "other": -1e-6}})] == [1.0, 0.0]


def test_a_peak_that_was_not_measured_is_no_verdict() -> None:
    holds, text = verdict({"planned_peak_bytes": 300, "measured_peak_bytes": None, "budget_bytes": 500})
    assert holds is None and "300 B" in text and "500 B" in text


def luminance(colour: str) -> float:
    """Relative luminance, as in WCAG 2."""
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("line", [*SERIES, *LIMITS, *LINES], ids=lambda line: line.key)
def test_lines_stand_out_from_their_ground(line: Line) -> None:
    for colour, grounds in ((line.light, ("#ffffff", "#f1f3f6")), (line.dark, ("#171b21", "#1c2129"))):
        for ground in grounds:
            lighter, darker = sorted((luminance(colour), luminance(ground)), reverse=True)
            assert (lighter + 0.05) / (darker + 0.05) >= 4.4

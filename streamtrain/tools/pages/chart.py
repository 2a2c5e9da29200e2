"""The chart of a page: lines over time, or over rows. ``chart.html`` draws it, and ``page.js`` makes it interactive.

Horizontal positions are shares of the width, so that the chart fits any width while its text keeps its size. Each curve is
drawn once, in a frame of 1000 by 1000 that ends at its own maximum; a transform scales it to the axis. Every line has an
axis; that of the highest visible line is shown. So the script only chooses an axis; without a script the first choice stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from streamtrain.tools.pages.axis import Axis

__all__ = ["Band", "Change", "Chart", "Curve", "Limit", "Line", "runs"]

_FRAME = 1000
_NAMED_SHARE, _NAMED_WHERE_WIDE_SHARE = 0.12, 0.06  # a narrower band has no room for its name
_NAMED_LEFT_SHARE = 0.7
_TABLE_ROWS = 100


@dataclass(frozen=True)
class Line:
    """The name and style of a line: its colours on a light and on a dark background, and the lengths of its dashes."""

    key: str
    name: str
    meaning: str
    light: str
    dark: str
    dash: tuple[int, ...] = ()

    @property
    def dasharray(self) -> str:
        return " ".join(map(str, self.dash))


@dataclass(frozen=True)
class Band:
    """A named stretch of the chart. start, stop: shares of the width."""

    name: str
    start: float
    stop: float

    @property
    def middle(self) -> float:
        return (self.start + self.stop) / 2

    @property
    def look(self) -> str | None:
        """The CSS class of its name; None where the band is too narrow for a name."""
        share = self.stop - self.start
        return "stage" if share >= _NAMED_SHARE else "stage between" if share >= _NAMED_WHERE_WIDE_SHARE else None


@dataclass(frozen=True)
class Change:
    """A moment from which on the curves mean something else. at: a share of the width."""

    name: str
    at: float

    @property
    def is_right(self) -> bool:
        """Whether it is so far right that its name stands left of it."""
        return self.at > _NAMED_LEFT_SHARE


@dataclass(frozen=True)
class Curve:
    """A line with a height for each moment, in units of the axis; None where it is unknown.

    texts: the values for people. total: the text for the whole line in the legend. joined: whether the line continues across
    unknown heights.
    """

    line: Line
    heights: Sequence[float | None]
    texts: Sequence[str]
    total: str
    joined: bool = False

    @property
    def most(self) -> float | None:
        return max((height for height in self.heights if height is not None), default=None)

    def path(self, x: Sequence[float]) -> str:
        """The curve as an SVG path. A single value becomes a line of length 0, which its round ends make a dot."""
        places, heights, most = list(x), list(self.heights), self.most or 1
        if self.joined:
            known = [i for i, height in enumerate(heights) if height is not None]
            places, heights = [places[i] for i in known], [heights[i] for i in known]
        parts = []
        for run in runs(heights):
            points = [
                f"{_FRAME * at:.5g} {_FRAME * height / most:.4g}"
                for at, height in zip(places[run], heights[run], strict=True)
                if height is not None
            ]
            parts.append("M" + "L".join(points) + ("h0" if len(points) == 1 else ""))
        return "".join(parts)


@dataclass(frozen=True)
class Limit:
    """A horizontal line. right: whether its name is at the right end."""

    line: Line
    most: float
    text: str
    right: bool = False


@dataclass(frozen=True)
class Chart:
    """Curves and limits over the same moments.

    x: the positions of the moments, in shares of the width. ticks: shares with labels. moments: a text for each. cells: the
    first cells of its row in the table, under the first of ``heads``. axis: makes the axis for a height. label: the name of
    the slider for screen readers. total: the heading of the curves' totals. shown: the lines that are visible at first.
    chosen: the moment that is selected at first; note: what is special about it.
    """

    x: Sequence[float]
    ticks: Sequence[tuple[float, str]]
    moments: Sequence[str]
    curves: Sequence[Curve]
    axis: Callable[[float], Axis]
    label: str
    total: str
    heads: Sequence[tuple[str, str]]
    cells: Sequence[Sequence[str]]
    shown: Sequence[str]
    chosen: int
    note: str = ""
    title: str = ""
    limits: Sequence[Limit] = ()
    bands: Sequence[Band] = ()
    changes: Sequence[Change] = ()
    part: ClassVar[str] = "chart"

    @property
    def levels(self) -> dict[str, float]:
        """The maximum of each line that has values."""
        curves = {curve.line.key: curve.most for curve in self.curves if curve.most is not None}
        return curves | {limit.line.key: limit.most for limit in self.limits}

    @property
    def first(self) -> str | None:
        """The line whose axis is shown at first: the highest visible one."""
        levels = self.levels
        return max(self.shown, key=lambda key: levels[key], default=None)

    @property
    def top(self) -> float:
        """The end of the axis that is shown at first."""
        return self.axis(self.levels.get(self.first or "", 0)).top

    @property
    def axes(self) -> dict[str, Axis]:
        return {key: self.axis(level) for key, level in self.levels.items()}

    @property
    def data(self) -> dict[str, Any]:
        """What the script reads."""
        return {
            "x": [float(f"{at:.6g}") for at in self.x],
            "chosen": self.chosen,
            "note": self.note,
            "moments": self.moments,
            "curves": {curve.line.key: curve.heights for curve in self.curves},
            "texts": {curve.line.key: curve.texts for curve in self.curves},
            "most": self.levels,
            "tops": {key: axis.top for key, axis in self.axes.items()},
        }

    @property
    def table(self) -> tuple[str, list[list[str]]]:
        """The chart as a table, for readers who cannot see it: a sentence about its moments, and a row for each of them."""
        every = -(-len(self.x) // _TABLE_ROWS)
        rows = sorted({*range(0, len(self.x), every), len(self.x) - 1, self.chosen})
        and_note = f", and {self.note}" if self.note else ""
        of_all = "each moment" if every == 1 else f"one in {every} of {len(self.x):,} moments{and_note}"
        known = [curve for curve in self.curves if curve.most is not None]
        return of_all, [[*self.cells[i], *(curve.texts[i] for curve in known)] for i in rows]


def runs(values: Sequence[Any]) -> Iterator[slice]:
    """Yield the stretches of values without None: a line is broken where a value is missing.

    >>> [values[run] for values in [[1, 2, None, None, 3]] for run in runs(values)]
    [[1, 2], [3]]
    """
    start = None
    for i, value in enumerate([*values, None]):
        if value is None and start is not None:
            yield slice(start, i)
            start = None
        elif value is not None and start is None:
            start = i

"""The one picture of a page: lines over something that grows, as numbers that ``chart.html`` draws and ``page.js`` answers by.

Positions across are shares of the width, so that the chart fits any width while its text keeps its size. Each curve is drawn
once, in a frame of 1000 by 1000 that ends at its own most; a transform scales it to the axis. There is an axis for each line,
and the one of the highest line in view is shown: so the script has only to choose, and without it the first choice stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from streamtrain.tools.pages.axis import Axis

__all__ = ["Band", "Chart", "Curve", "Limit", "Line", "runs"]

_FRAME = 1000
_NAMED_SHARE, _NAMED_WHERE_WIDE_SHARE = 0.12, 0.06  # a narrower band has no room for its name
_TABLE_ROWS = 100


@dataclass(frozen=True)
class Line:
    """How a line is called and looks: its colours on light and on dark ground, and the lengths of its dashes."""

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
    """A stretch of the chart that has a name. start, stop: shares of the width."""

    name: str
    start: float
    stop: float

    @property
    def middle(self) -> float:
        return (self.start + self.stop) / 2

    @property
    def look(self) -> str | None:
        """The class of its name, None where it is too narrow for one."""
        share = self.stop - self.start
        return "stage" if share >= _NAMED_SHARE else "stage between" if share >= _NAMED_WHERE_WIDE_SHARE else None


@dataclass(frozen=True)
class Curve:
    """A line with a height for each moment, in units of the axis; None where it is not known. texts: how the values read.

    total: what the legend says of the whole line. joined: whether the line goes on across what is not known.
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
        """The curve for SVG. A value that stands alone becomes a line of no length, which its round ends make a dot."""
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
    """A level line. right: whether its name stands at the right end."""

    line: Line
    most: float
    text: str
    right: bool = False


@dataclass(frozen=True)
class Chart:
    """Curves and limits over the same moments.

    x: where the moments are, in shares of the width. ticks: shares with labels. moments: how each reads. cells: the first
    cells of its row in the table, under the first of ``heads``. axis: the one that holds a height. label: what a screen reader
    calls a moment. total: the heading of the curves' totals. shown: the lines to show at first. chosen: the moment that is read
    at first; note: what that one is.
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
    part: ClassVar[str] = "chart"

    @property
    def levels(self) -> dict[str, float]:
        """The most of each line that has one."""
        curves = {curve.line.key: curve.most for curve in self.curves if curve.most is not None}
        return curves | {limit.line.key: limit.most for limit in self.limits}

    @property
    def first(self) -> str | None:
        """The line whose axis is shown at first: the highest in view."""
        levels = self.levels
        return max(self.shown, key=lambda key: levels[key], default=None)

    @property
    def top(self) -> float:
        """Where the axis ends at first."""
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
        """The picture for those who do not see it: which moments it holds, and a row for each of them."""
        every = -(-len(self.x) // _TABLE_ROWS)
        rows = sorted({*range(0, len(self.x), every), len(self.x) - 1, self.chosen})
        and_note = f", and {self.note}" if self.note else ""
        of_all = "each moment" if every == 1 else f"one in {every} of {len(self.x):,} moments{and_note}"
        known = [curve for curve in self.curves if curve.most is not None]
        return of_all, [[*self.cells[i], *(curve.texts[i] for curve in known)] for i in rows]


def runs(values: Sequence[Any]) -> Iterator[slice]:
    """The stretches of values without a None: where one is missing, a line is broken.

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

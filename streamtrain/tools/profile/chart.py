"""The timeline of a profile as SVG inside HTML, and the data with which the page's script makes it answer.

Positions across are in per cent, so that the chart fits any width while its text keeps its size. Each curve is drawn once,
in a frame of 1000 by 1000 that ends at its own most; a transform scales it to the axis. There is an axis for each line,
and the one of the largest line in view is shown: so the script has only to choose, and without it the first choice stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from streamtrain.memory.sizes import format_bytes
from streamtrain.tools.profile.axis import time_axis
from streamtrain.tools.profile.markup import Markup, element, folded, table
from streamtrain.tools.profile.picture import LIMITS, SERIES, Line, Timeline, runs
from streamtrain.tools.profile.text import format_seconds, shortened

__all__ = ["chart", "colours", "data"]

_FRAME = 1000
_NAMED_SHARE, _NAMED_WHERE_WIDE_SHARE = 0.12, 0.04  # a narrower stage has no room for its name
_TABLE_ROWS = 100
_MOST_LETTERS = 20
_UNKNOWN = "not measured"


def colours() -> str:
    """Optimizers that give each line its colour, as ``--line`` of whatever carries its key."""
    lines = (*SERIES, *LIMITS)
    dark = "".join(f'[data-line="{line.key}"]{{--line:{line.dark}}}' for line in lines)
    hidden = "".join(
        f'.chart:has([data-toggles="{line.key}"]:not(:checked)) svg [data-line="{line.key}"]{{display:none}}'
        for line in lines
    )
    light = "".join(f'[data-line="{line.key}"]{{--line:{line.light}}}' for line in lines)
    return f"{light}{hidden}@media screen and (prefers-color-scheme:dark){{{dark}}}"


def data(timeline: Timeline) -> dict[str, Any]:
    """What the script reads: the moments, how they read, and how large each line and its axis is."""
    known = [line.key for line in (*SERIES, *LIMITS) if timeline.most(line.key) is not None]
    return {
        "seconds": timeline.seconds,
        "span": timeline.span_seconds,
        "peak": timeline.peak,
        "moments": [_moment(timeline, i) for i in range(len(timeline))],
        "curves": timeline.curves,
        "sizes": {key: [_size(size) for size in sizes] for key, sizes in timeline.curves.items()},
        "most": {key: timeline.most(key) for key in known},
        "tops": {key: timeline.axis([key]).top for key in known},
    }


def _limits(timeline: Timeline) -> list[Line]:
    return [line for line in LIMITS if line.key in timeline.limits]


def _moment(timeline: Timeline, i: int) -> str:
    rows = timeline.rows[i]
    learned = "" if rows is None else f", {rows:,} rows learned"
    return f"{format_seconds(timeline.seconds[i])}: {timeline.stages[i]}{learned}"


def _size(size: int | None) -> str:
    return _UNKNOWN if size is None else format_bytes(size)


def chart(timeline: Timeline) -> Markup:
    """The timeline: picture, legend with a switch for each line, and a table of the moments."""
    if not len(timeline):
        return element("p", "No moment was recorded.")
    shown = timeline.shown()
    label = f"A moment of the run, which took {format_seconds(timeline.seconds[-1])}"
    frame = element("div", _picture(timeline, shown), class_="frame", id="frame", data_label=label)
    hint = element(
        "p", "Point at the picture, or choose it and use the arrow keys, to read any moment; Escape leads back to the peak.",
        class_="hint scripted",
    )  # fmt: skip
    moment = element("p", id="moment", class_="moment scripted")
    return element(
        "div", moment, frame, hint, _legend(timeline, shown), _moments_table(timeline), class_="chart", id="chart"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.4g}%"


def _picture(timeline: Timeline, shown: Sequence[str]) -> Markup:
    top = timeline.axis(shown).top
    curves = [_curve(timeline, line, top) for line in SERIES if timeline.most(line.key) is not None]
    # The budget's line first: the name of the plan may stand across it.
    limits = [_limit(line, timeline.limits[line.key], top) for line in reversed(_limits(timeline))]
    frame = element(
        "svg", *curves, viewBox=f"0 0 {_FRAME} {_FRAME}", preserveAspectRatio="none", width="100%", height="100%",
        class_="curves",
    )  # fmt: skip
    marks = [element("circle", r=4, data_line=line.key, class_="mark") for line in SERIES]
    if "budget" in timeline.limits and "budget" not in shown:
        far = f"↑ budget {format_bytes(timeline.limits['budget'])}"
        limits.append(element("text", far, x="100%", y=-8, class_="far"))
    cursor = element("g", element("line", y1=0, y2="100%"), *marks, class_="cursor", id="cursor")
    return element(
        "svg", *_bands(timeline), *_axes(timeline, shown), *_seconds(timeline), frame, *limits, cursor, class_="plot",
        width="100%", height="100%", role="img", aria_label="Memory over time, as in the table below",
    )  # fmt: skip


def _bands(timeline: Timeline) -> list[Markup]:
    span, bands = timeline.span_seconds, []
    for i, band in enumerate(timeline.bands()):
        share = (band.stop - band.start) / span
        middle = _percent((band.start + band.stop) / 2 / span)
        kind = "stage" if share >= _NAMED_SHARE else "stage between"
        width, start = _percent(share), _percent(band.start / span)
        parts = [element("rect", x=start, width=width, height="100%", class_="odd" if i % 2 else "even")]
        if share >= _NAMED_WHERE_WIDE_SHARE:
            parts.append(element("text", shortened(band.stage, _MOST_LETTERS), x=middle, y=-8, class_=kind))
        bands.append(element("g", *parts, class_="band"))
    return bands


def _axes(timeline: Timeline, shown: Sequence[str]) -> list[Markup]:
    first = max(shown, key=lambda key: timeline.most(key) or 0, default=None)
    axes = []
    for line in (*SERIES, *LIMITS):
        if timeline.most(line.key) is not None:
            axis = timeline.axis([line.key])
            ticks = [(_percent(1 - axis.share(size)), label) for size, label in axis.ticks]
            lines = [element("line", x1=0, x2="100%", y1=y, y2=y) for y, _ in ticks]
            labels = [element("text", label, x=-8, y=y, dy="0.35em") for y, label in ticks]
            hidden = None if line.key == first else "none"
            axes.append(element("g", *lines, *labels, class_="axis", data_axis=line.key, display=hidden))
    return axes


def _seconds(timeline: Timeline) -> list[Markup]:
    axis = time_axis(timeline.span_seconds)
    marks = [(_percent(axis.share(seconds)), label) for seconds, label in axis.ticks]
    kinds = ("seconds", "seconds between")  # what stands between is left out where it is narrow
    return [
        element("text", label, x=x, y="100%", dy="1.5em", class_=kinds[i % 2]) for i, (x, label) in enumerate(marks)
    ]


def _curve(timeline: Timeline, line: Line, top: float) -> Markup:
    most = timeline.most(line.key) or 1
    scale = f"translate(0 {_FRAME}) scale(1 {-most / top:.6g})"
    path = element(
        "path", d=_path(timeline, line.key, most), stroke_dasharray=_dash(line), vector_effect="non-scaling-stroke"
    )
    return element("g", path, class_="curve", data_line=line.key, data_curve=line.key, transform=scale)


def _path(timeline: Timeline, key: str, most: int) -> str:
    """A value that stands alone becomes a line of no length, which its round ends make a dot."""
    values, span, parts = timeline.curves[key], timeline.span_seconds, []
    for run in runs(values):
        xs = (f"{_FRAME * seconds / span:.5g}" for seconds in timeline.seconds[run])
        points = [
            f"{x} {_FRAME * size / most:.4g}" for x, size in zip(xs, values[run], strict=True) if size is not None
        ]
        parts.append("M" + "L".join(points) + ("h0" if len(points) == 1 else ""))
    return "".join(parts)


def _dash(line: Line) -> str | None:
    return " ".join(map(str, line.dash)) or None


def _limit(line: Line, size: int, top: float) -> Markup:
    y = _percent(1 - size / top)
    optimizer = element("line", x1=0, x2="100%", y1=y, y2=y, stroke_dasharray=_dash(line))
    where = {"x": "100%", "text_anchor": "end", "dx": -6} if line.key == "budget" else {"x": 0, "dx": 6}
    name = element("text", f"{line.name} {format_bytes(size)}", y=y, dy="-0.4em", **where)
    outside = "none" if size > top else None
    return element("g", optimizer, name, class_="limit", data_line=line.key, data_limit=line.key, display=outside)


def _legend(timeline: Timeline, shown: Sequence[str]) -> Markup:
    heads = [
        element("th", "line", scope="col"),
        element("th", "then", scope="col", class_="number scripted", id="then"),
        element("th", "most", scope="col", class_="number"),
        element("th", "what it is", scope="col", class_="wide"),
    ]
    lines = [_legend_row(timeline, line, shown) for line in (*SERIES, *_limits(timeline))]
    caption = element("caption", "The lines, and the memory that each stands for", class_="unseen")
    head, body = element("thead", element("tr", *heads)), element("tbody", *lines)
    return element("div", element("table", caption, head, body), class_="legend scroll")


def _legend_row(timeline: Timeline, line: Line, shown: Sequence[str]) -> Markup:
    most = timeline.most(line.key)
    toggle = element(
        "input", type="checkbox", data_toggles=line.key, checked=line.key in shown, disabled=most is None,
        autocomplete="off",
    )  # fmt: skip
    stroke = element("line", x1=2, x2=30, y1=6, y2=6, stroke_dasharray=_dash(line))
    swatch = element("svg", stroke, class_="swatch", width=32, height=12, aria_hidden="true")
    name = element("th", element("label", toggle, swatch, line.name), scope="row", data_line=line.key)
    return element(
        "tr",
        name,
        element("td", _size(most) if line in LIMITS else None, class_="number scripted", data_value=line.key),
        element("td", _size(most), class_="number"),
        element("td", line.meaning, class_="wide"),
    )


def _moments_table(timeline: Timeline) -> Markup:
    """The picture for those who do not see it: all moments where they are few, else every so many, and the peak."""
    every = -(-len(timeline) // _TABLE_ROWS)
    chosen = {*range(0, len(timeline), every), len(timeline) - 1}
    if timeline.peak is not None:
        chosen.add(timeline.peak)
    known = [line for line in SERIES if timeline.most(line.key) is not None]
    heads = [("time", "when"), ("stage", ""), ("rows", "number"), *((line.name, "number") for line in known)]
    of_all = "each moment" if every == 1 else f"one in {every} of {len(timeline):,} moments, and the peak"
    rows = (_moment_cells(timeline, i, known) for i in sorted(chosen))
    return folded(f"The timeline as a table ({of_all})", table(heads, rows))


def _moment_cells(timeline: Timeline, i: int, known: Sequence[Line]) -> list[str]:
    rows = "" if timeline.rows[i] is None else f"{timeline.rows[i]:,}"
    sizes = (_size(timeline.curves[line.key][i]) for line in known)
    return [format_seconds(timeline.seconds[i]), timeline.stages[i], rows, *sizes]

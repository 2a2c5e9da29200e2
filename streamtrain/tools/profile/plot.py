"""A memory profile as a picture in a file: PNG, SVG or PDF, drawn by matplotlib.

matplotlib is an extra (``pip install "streamtrain[plot]"``). It is imported only when something is drawn, because the import
takes about 40 MB.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamtrain.errors import UsageError, printable
from streamtrain.memory.sizes import format_bytes
from streamtrain.tools.pages.axis import time_axis
from streamtrain.tools.pages.chart import Line, runs
from streamtrain.tools.pages.memory import LIMITS, SERIES, Timeline, stages, verdict
from streamtrain.tools.pages.output_file import require_file, written
from streamtrain.tools.pages.text import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot", "require_plot"]

_ENDINGS = (".png", ".svg", ".pdf")
_TEXT, _MUTED, _GRID, _BAND = "#1c2128", "#57606a", "#e6e9ed", "#f1f3f6"
_FILL = "#7db3e0"
_NAME_LETTERS, _STAGE_LETTERS = 80, 20
_NAMED_SHARE = 0.035  # a narrower stage has no room for its name


def require_plot(path: str | Path, data: Any = None) -> Path:
    """Return the path if a picture can be drawn there; call it before a profile is taken.

    Raises UsageError for another ending than .png, .svg or .pdf, for a folder that does not exist or cannot be written, and
    without matplotlib.

    >>> require_plot("memory.bmp")
    Traceback (most recent call last):
    ...
    streamtrain.errors.UsageError: memory.bmp: must end in .png, .svg or .pdf
    """
    shown, file = printable(str(path)), require_file(path, _ENDINGS, data)
    if find_spec("matplotlib") is None:
        raise UsageError(f'{shown}: needs matplotlib, which is not installed: pip install "streamtrain[plot]"')
    return file


def plot(profile: Mapping[str, Any], path: str | Path) -> None:
    """Draw the timeline and the stages of a profile in the format of the ending: .png, .svg or .pdf.

    profile: the JSON of ``streamtrain profile``. Names are shown as they are, never as mathematics. Raises UsageError as
    `require_plot` does.

    >>> import tempfile
    >>> memory = {"budget_bytes": 512, "planned_peak_bytes": 300, "measured_peak_bytes": 256}
    >>> moments = [{"seconds": s, "stage": "train", "resident_bytes": 200 + s} for s in range(3)]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     plot({"data": "$x$.parquet", "memory": memory, "timeline": moments}, Path(folder, "memory.png"))
    ...     Path(folder, "memory.png").read_bytes()[1:4]
    b'PNG'
    """
    file = require_plot(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5 + 0.4 * len(stages(profile))), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    _draw(figure, profile)
    kind = file.suffix.lower().removeprefix(".")
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=r"Glyph .* missing from", category=UserWarning
        )  # a box is drawn instead
        with written(file) as beside:
            figure.savefig(beside, format=kind, facecolor="white")


def _draw(figure: Figure, profile: Mapping[str, Any]) -> None:
    from matplotlib.text import Text

    timeline, found = Timeline(profile), stages(profile)
    above, below = figure.subplots(2, 1, height_ratios=(4, 0.4 * max(1, len(found))))
    words = {"data": "Memory profile of ", "target": "target "}
    names = {word: profile[key] for key, word in words.items() if profile.get(key) is not None}
    lines = [word + shortened(str(name), _NAME_LETTERS) for word, name in names.items()]
    figure.suptitle("\n".join(lines or ["Memory profile"]), color=_TEXT, fontsize=12)
    _draw_timeline(above, timeline)
    above.set_title(verdict(profile["memory"])[1], loc="left", color=_MUTED, fontsize=9, pad=20)
    _draw_stages(below, profile)
    for axes in (above, below):
        axes.set_facecolor("white")
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, pad=6, colors=_MUTED, labelsize=9)
    for text in figure.findobj(Text):  # names are neither mathematics nor TeX, whatever the settings of matplotlib are
        text.set_parse_math(False)
        text.set_usetex(False)


def _draw_timeline(axes: Axes, timeline: Timeline) -> None:
    shown = timeline.shown()
    size, time = timeline.axis(shown), time_axis(timeline.span_seconds)
    axes.set_xlim(0, time.top)
    axes.set_ylim(0, size.top)
    axes.set_xticks([tick for tick, _ in time.ticks], [label for _, label in time.ticks])
    axes.set_yticks([tick for tick, _ in size.ticks], [label for _, label in size.ticks])
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    _draw_bands(axes, timeline)
    for line in SERIES:
        if line.key in shown:
            _draw_curve(axes, timeline, line)
    for line in LIMITS:
        if line.key in shown:
            axes.axhline(timeline.limits[line.key], color=line.light, linewidth=1.3, linestyle=_dash(line))
            _name_limit(axes, line, timeline.limits[line.key])
    if "budget" in timeline.limits and "budget" not in shown:
        far = f"↑ budget {format_bytes(timeline.limits['budget'])}"
        axes.set_title(far, loc="right", color=LIMITS[1].light, fontsize=9, pad=20)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=len(SERIES), frameon=False, labelcolor=_TEXT,
                    fontsize=9, handlelength=3)  # fmt: skip


def _draw_curve(axes: Axes, timeline: Timeline, line: Line) -> None:
    """A curve, broken where a value is missing; a single value is a dot."""
    values = timeline.curves[line.key]
    drawn = [float("nan") if value is None else value for value in values]
    look: dict[str, Any] = {"color": line.light, "clip_on": False}
    axes.plot(timeline.seconds, drawn, linewidth=1.6, linestyle=_dash(line), label=line.name, **look)
    alone = [run.start for run in runs(values) if run.stop - run.start == 1]
    if alone:
        axes.plot([timeline.seconds[i] for i in alone], [drawn[i] for i in alone], "o", markersize=4, **look)


def _dash(line: Line) -> Any:
    return (0, tuple(length / 2 for length in line.dash)) if line.dash else "solid"


def _name_limit(axes: Axes, line: Line, size: int) -> None:
    x, offset, side = (1, -6, "right") if line.key == "budget" else (0, 6, "left")
    axes.annotate(
        f"{line.name} {format_bytes(size)}", (x, size), (offset, 4), ("axes fraction", "data"), "offset points",
        color=line.light, ha=side, fontsize=9, zorder=5, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
    )  # fmt: skip


def _draw_bands(axes: Axes, timeline: Timeline) -> None:
    span = timeline.span_seconds
    for i, band in enumerate(timeline.bands()):
        if i % 2 == 0:
            axes.axvspan(span * band.start, span * band.stop, color=_BAND, linewidth=0, zorder=0)
        if band.stop - band.start >= _NAMED_SHARE:
            axes.annotate(
                shortened(band.name, _STAGE_LETTERS), (span * band.middle, 1), (0, 5), ("data", "axes fraction"),
                "offset points", color=_MUTED, ha="center", fontsize=9,
            )  # fmt: skip


def _draw_stages(axes: Axes, profile: Mapping[str, Any]) -> None:
    found = stages(profile)
    places = range(len(found))
    planned, measured = [s.planned_bytes for s in found], [s.measured_bytes or 0 for s in found]
    most = max([*planned, *measured], default=0) or 1
    axes.barh(places, measured, height=0.62, color=_FILL)
    axes.barh(places, planned, height=0.62, facecolor="none", edgecolor=_TEXT, linestyle="--")
    for i, stage in enumerate(found):
        took = "not measured" if stage.measured_bytes is None else f"{format_bytes(stage.measured_bytes)} measured"
        text = f"{took}, {format_bytes(stage.planned_bytes)} planned"
        axes.annotate(text, (max(planned[i], measured[i]), i), (6, 0), "data", "offset points", color=_TEXT, va="center",
                      fontsize=9)  # fmt: skip
    axes.set_xlim(0, 1.45 * most)  # room for the text beside the longest bar
    axes.set_xticks([])
    axes.set_yticks(places, [shortened(stage.name, _STAGE_LETTERS) for stage in found])
    axes.invert_yaxis()
    axes.set_title("Memory by stage: measured filled, planned as an outline", loc="left", color=_MUTED, fontsize=9)

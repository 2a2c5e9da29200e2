"""Memory over time, by stage, and time by part: the numbers that the page and the plot draw.

A report is the JSON of ``streamtrain profile`` or of a run: a dict with ``timeline`` (moments in order), ``stages`` (planned
and measured bytes), ``memory`` and ``time``. Values that were not measured are None. Pure arithmetic, no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from streamtrain.memory.sizes import format_bytes, shares
from streamtrain.plan.term import STAGES
from streamtrain.tools.pages.axis import Axis, byte_axis, time_axis
from streamtrain.tools.pages.chart import Band, Chart, Curve, Limit, Line
from streamtrain.tools.pages.text import format_seconds, percent, shortened

__all__ = ["LIMITS", "SERIES", "StageBytes", "TimePart", "Timeline", "memory_chart", "stages", "time_parts", "verdict"]

_FAR = 3  # a budget this many times larger than everything else is hidden at first
_MOST_LETTERS = 20
_UNKNOWN = "not measured"

SERIES = (
    Line("resident_bytes", "resident", "all memory of the process: what the budget bounds", "#0b61a4", "#6cb6ff"),
    Line("anonymous_bytes", "anonymous", "the part of it that no file backs", "#c2410c", "#ffa657", (7, 3)),
    Line("arrow_bytes", "Arrow pool", "what Arrow has allocated", "#15803d", "#6bd68a", (3, 3)),
    Line("window_bytes", "windows", "rows held to be shuffled", "#7e22ce", "#d2a8ff"),
    Line("reading_bytes", "reading", "what the reads under way may take", "#a16207", "#e3c04f", (9, 3, 2, 3)),
)
LIMITS = (
    Line("planned", "planned peak", "what the plan said the process would take", "#57606a", "#a9b4c0", (2, 4)),
    Line("budget", "budget", "the most that the process may take", "#c9184a", "#ff7b93", (8, 5)),
)

_MEANINGS = {str(stage): meaning for stage, meaning in STAGES.items()}
_TIMES = {
    "read": "reading and decoding, beside the loop: summed over threads",
    "wait": "the learner had nothing to learn from",
    "learn": "predicting, scoring and learning",
    "validation": "scoring the validation data",
    "checkpoint": "writing checkpoints",
    "other": "everything else in the loop",
}


@dataclass(frozen=True)
class StageBytes:
    """A stage of the pipeline: bytes planned and measured, and its share of what was measured."""

    name: str
    meaning: str
    planned_bytes: int
    measured_bytes: int | None
    share: float | None


@dataclass(frozen=True)
class TimePart:
    """A part of the time: seconds, and the share of the loop (None for what ran beside the loop)."""

    name: str
    meaning: str
    seconds: float
    share: float | None


class Timeline:
    """The moments of a report as columns.

    seconds, rows, stages: one value a moment. curves: bytes a moment, by the key of each of `SERIES` that was recorded.
    limits: bytes, by the key of each of `LIMITS` that is known.

    >>> moments = [{"seconds": s, "stage": stage, "resident_bytes": n} for s, stage, n in
    ...            [(0.0, "open", 80), (0.5, "train", 200), (2.0, "train", None)]]
    >>> timeline = Timeline({"timeline": moments, "memory": {"planned_peak_bytes": 210, "budget_bytes": 9000}})
    >>> timeline.bands()
    [Band(name='open', start=0.0, stop=0.25), Band(name='train', start=0.25, stop=1.0)]
    >>> timeline.most("resident_bytes"), timeline.most("budget"), timeline.most("arrow_bytes"), timeline.peak
    (200, 9000, None, 1)
    >>> timeline.shown()
    ('resident_bytes', 'planned')
    """

    def __init__(self, report: Mapping[str, Any]) -> None:
        moments = report.get("timeline") or []
        memory = report.get("memory") or {}
        limits = {"planned": memory.get("planned_peak_bytes"), "budget": memory.get("budget_bytes")}
        recorded = [line.key for line in SERIES if any(line.key in moment for moment in moments)]
        self.seconds: list[float] = [moment["seconds"] for moment in moments]
        self.rows: list[int | None] = [moment.get("rows") for moment in moments]
        self.stages: list[str] = [str(moment.get("stage") or "") for moment in moments]
        self.curves = {key: [moment.get(key) for moment in moments] for key in recorded}
        self.limits: dict[str, int] = {key: size for key, size in limits.items() if size is not None}

    def most(self, key: str) -> int | None:
        """The most bytes of a line; None if it was never measured."""
        if key in self.limits:
            return self.limits[key]
        return max((size for size in self.curves.get(key, ()) if size is not None), default=None)

    @property
    def peak(self) -> int | None:
        """The moment of the most resident memory; None if it was never measured."""
        most = self.most("resident_bytes")
        return None if most is None else self.curves["resident_bytes"].index(most)

    @property
    def span_seconds(self) -> float:
        """How long the picture is; never 0."""
        return max(self.seconds, default=0.0) or 1.0

    def shown(self) -> tuple[str, ...]:
        """The lines that are visible at first: all measured ones, and the budget unless it is far above them."""
        measured = {line.key: most for line in (*SERIES, *LIMITS) if (most := self.most(line.key)) is not None}
        budget = measured.pop("budget", None)
        if budget is not None and budget <= _FAR * max(measured.values(), default=budget):
            measured["budget"] = budget
        return tuple(measured)

    def axis(self, keys: Sequence[str]) -> Axis:
        """An axis of bytes up to the highest of these lines."""
        return byte_axis(max((self.most(key) or 0 for key in keys), default=0))

    def bands(self) -> list[Band]:
        """The stages of the run, one after the other. A stage ends where the next one starts."""
        starts = [i for i, stage in enumerate(self.stages) if i == 0 or stage != self.stages[i - 1]]
        begins = [self.seconds[i] / self.span_seconds for i in starts]
        stops = [*begins[1:], *(seconds / self.span_seconds for seconds in self.seconds[-1:])]
        return [Band(self.stages[i], a, b) for i, a, b in zip(starts, begins, stops, strict=True)]


def memory_chart(timeline: Timeline) -> Chart:
    """The timeline as a chart; it has at least one moment."""
    axis, span = time_axis(timeline.span_seconds), timeline.span_seconds
    peak, times = timeline.peak, [format_seconds(seconds) for seconds in timeline.seconds]
    rows = ["" if rows is None else f"{rows:,}" for rows in timeline.rows]
    lines = [line for line in SERIES if line.key in timeline.curves]
    measured = [line for line in lines if timeline.most(line.key) is not None]
    limits = [
        Limit(line, timeline.limits[line.key], format_bytes(timeline.limits[line.key]), right=line.key == "budget")
        for line in LIMITS
        if line.key in timeline.limits
    ]
    return Chart(
        x=[seconds / span for seconds in timeline.seconds],
        ticks=[(axis.share(tick), label) for tick, label in axis.ticks],
        moments=[
            time + (f": {stage}" if stage else "") + (f", {n} rows learned" if n else "")
            for time, stage, n in zip(times, timeline.stages, rows, strict=True)
        ],
        curves=[
            Curve(line, timeline.curves[line.key], list(map(_size, timeline.curves[line.key])), _size(timeline.most(line.key)))
            for line in lines
        ],
        axis=byte_axis,
        label=f"A moment of the run, which took {format_seconds(timeline.seconds[-1])}",
        total="most",
        heads=[("time", "when"), ("stage", ""), ("rows", "number"), *((line.name, "number") for line in measured)],
        cells=list(zip(times, timeline.stages, rows, strict=True)),
        shown=timeline.shown(),
        chosen=len(times) - 1 if peak is None else peak,
        note="" if peak is None else "the peak",
        limits=limits,
        bands=[Band(shortened(band.name, _MOST_LETTERS), band.start, band.stop) for band in timeline.bands()],
    )  # fmt: skip


def _size(size: int | None) -> str:
    return _UNKNOWN if size is None else format_bytes(size)


def stages(report: Mapping[str, Any]) -> list[StageBytes]:
    """The stages of the pipeline, in the order of the report; for a report without stages, the terms of its plan."""
    terms = (report.get("memory") or {}).get("terms") or {}
    by_stage = report.get("stages") or {name: term for name, term in terms.items() if any(term.values())}
    return [
        StageBytes(name, _MEANINGS.get(name, ""), stage["planned_bytes"], stage["measured_bytes"], stage.get("share"))
        for name, stage in by_stage.items()
    ]


def time_parts(report: Mapping[str, Any]) -> list[TimePart]:
    """Return the parts of the time. Reads run in their own threads beside the loop, so they have no share of it.

    >>> [(part.name, part.share) for part in time_parts({"time": {"read": 9.0, "wait": 1.0, "learn": 3.0, "other": 0.0}})]
    [('read', None), ('wait', 0.25), ('learn', 0.75), ('other', 0.0)]
    """
    spent = {name: max(seconds, 0.0) for name, seconds in (report.get("time") or {}).items()}  # -1e-6 may be left over
    loop = shares({name: seconds for name, seconds in spent.items() if name != "read"})
    return [TimePart(name, _TIMES.get(name, ""), seconds, loop.get(name)) for name, seconds in spent.items()]


def verdict(memory: Mapping[str, Any]) -> tuple[bool | None, str]:
    """Return whether the process kept its budget (None if the peak was not measured), and a sentence about it.

    >>> verdict({"planned_peak_bytes": 300, "measured_peak_bytes": 250, "budget_bytes": 500})
    (True, 'The budget holds: the process took 250 B at most, 50 % of the 500 B that it may take.')
    >>> verdict({"planned_peak_bytes": 300, "measured_peak_bytes": 550, "budget_bytes": 500})
    (False, 'The budget does not hold: the process took 550 B at most, 50 B more than the 500 B that it may take.')
    """
    planned, measured, budget = (memory[f"{name}_bytes"] for name in ("planned_peak", "measured_peak", "budget"))
    allowed = f"the {format_bytes(budget)} that it may take."
    if measured is None:
        return None, f"The peak cannot be measured on this system: the plan needs {format_bytes(planned)} of {allowed}"
    took = f"the process took {format_bytes(measured)} at most"
    if measured <= budget:
        return True, f"The budget holds: {took}, {percent(measured / budget)} of {allowed}"
    return False, f"The budget does not hold: {took}, {format_bytes(measured - budget)} more than {allowed}"

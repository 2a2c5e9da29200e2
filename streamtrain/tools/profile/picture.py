"""What the pictures of a memory profile show, as numbers: the page and the plot draw, here is what they agree on.

A profile is the JSON of ``streamtrain profile``, a plain dict: ``timeline`` (moments in order), ``stages`` (bytes planned
and measured), ``memory`` and ``time`` as in the report of a fit. What was not measured is None. Pure arithmetic, no I/O.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from streamtrain.memory.sizes import format_bytes, shares
from streamtrain.plan.term import STAGES
from streamtrain.tools.profile.axis import Axis, byte_axis
from streamtrain.tools.profile.text import percent

__all__ = [
    "LIMITS",
    "SERIES",
    "Band",
    "Line",
    "StageBytes",
    "TimePart",
    "Timeline",
    "runs",
    "stages",
    "time_parts",
    "verdict",
]

_FAR = 3  # a budget this many times above all else would press it to the ground


@dataclass(frozen=True)
class Line:
    """A line of the timeline: where its values stand, what it is called, how it looks on light and on dark ground."""

    key: str
    name: str
    meaning: str
    light: str
    dark: str
    dash: tuple[int, ...] = ()


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
    "other": "everything else in the loop",
}


@dataclass(frozen=True)
class Band:
    """A stretch of the timeline that is one stage of the run."""

    stage: str
    start: float
    stop: float


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
    """Where time went: in seconds, and as a share of the loop's (None for what went on beside the loop)."""

    name: str
    meaning: str
    seconds: float
    share: float | None


class Timeline:
    """The moments of a profile as columns.

    seconds, rows, stages: one value a moment. curves: bytes a moment, by the key of each of `SERIES`. limits: bytes, by
    the key of each of `LIMITS` that is known.

    >>> moments = [{"seconds": s, "stage": stage, "resident_bytes": n} for s, stage, n in
    ...            [(0.0, "open", 80), (0.5, "train", 200), (2.0, "train", None)]]
    >>> timeline = Timeline({"timeline": moments, "memory": {"planned_peak_bytes": 210, "budget_bytes": 9000}})
    >>> timeline.bands()
    [Band(stage='open', start=0.0, stop=0.5), Band(stage='train', start=0.5, stop=2.0)]
    >>> timeline.most("resident_bytes"), timeline.most("budget"), timeline.most("arrow_bytes"), timeline.peak
    (200, 9000, None, 1)
    >>> timeline.shown()
    ('resident_bytes', 'planned')
    """

    def __init__(self, profile: Mapping[str, Any]) -> None:
        moments = profile.get("timeline") or []
        memory = profile["memory"]
        limits = {"planned": memory.get("planned_peak_bytes"), "budget": memory.get("budget_bytes")}
        self.seconds: list[float] = [moment["seconds"] for moment in moments]
        self.rows: list[int | None] = [moment.get("rows") for moment in moments]
        self.stages: list[str] = [str(moment.get("stage") or "") for moment in moments]
        self.curves = {line.key: [moment.get(line.key) for moment in moments] for line in SERIES}
        self.limits: dict[str, int] = {key: size for key, size in limits.items() if size is not None}

    def __len__(self) -> int:
        return len(self.seconds)

    def most(self, key: str) -> int | None:
        """The most bytes of a line; None if it was never measured."""
        if key in self.limits:
            return self.limits[key]
        return max((size for size in self.curves.get(key, ()) if size is not None), default=None)

    @property
    def peak(self) -> int | None:
        """The moment of the most resident memory; None if it was never measured."""
        resident, most = self.curves["resident_bytes"], self.most("resident_bytes")
        return None if most is None else resident.index(most)

    @property
    def span_seconds(self) -> float:
        """How long the picture is; never 0."""
        return max(self.seconds, default=0.0) or 1.0

    def shown(self) -> tuple[str, ...]:
        """The lines to show at first: all that were measured; the budget too, unless it is far above them."""
        known = {line.key: most for line in (*SERIES, *LIMITS) if (most := self.most(line.key)) is not None}
        budget = known.pop("budget", None)
        if budget is not None and budget <= _FAR * max(known.values(), default=budget):
            known["budget"] = budget
        return tuple(known)

    def axis(self, keys: Sequence[str]) -> Axis:
        """The axis of bytes that holds these lines."""
        return byte_axis(max((self.most(key) or 0 for key in keys), default=0))

    def bands(self) -> list[Band]:
        """The stages of the run, one after the other. A stage ends where the next one starts."""
        starts = [i for i, stage in enumerate(self.stages) if i == 0 or stage != self.stages[i - 1]]
        stops = [self.seconds[i] for i in starts[1:]] + self.seconds[-1:]
        return [Band(self.stages[i], self.seconds[i], stop) for i, stop in zip(starts, stops, strict=True)]


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


def stages(profile: Mapping[str, Any]) -> list[StageBytes]:
    """The stages of the pipeline, in the order of the profile."""
    return [
        StageBytes(name, _MEANINGS.get(name, ""), stage["planned_bytes"], stage["measured_bytes"], stage["share"])
        for name, stage in (profile.get("stages") or {}).items()
    ]


def time_parts(profile: Mapping[str, Any]) -> list[TimePart]:
    """Where the time went. Reads go on beside the loop, in threads of their own: they are no share of it.

    >>> [(part.name, part.share) for part in time_parts({"time": {"read": 9.0, "wait": 1.0, "learn": 3.0, "other": 0.0}})]
    [('read', None), ('wait', 0.25), ('learn', 0.75), ('other', 0.0)]
    """
    spent = {name: max(seconds, 0.0) for name, seconds in (profile.get("time") or {}).items()}  # -1e-6 may be left over
    loop = shares({name: seconds for name, seconds in spent.items() if name != "read"})
    return [TimePart(name, _TIMES.get(name, ""), seconds, loop.get(name)) for name, seconds in spent.items()]


def verdict(memory: Mapping[str, Any]) -> tuple[bool | None, str]:
    """Whether the budget holds (None: the peak was not measured), and a sentence that says so.

    >>> verdict({"planned_peak_bytes": 300, "measured_peak_bytes": 250, "budget_bytes": 500})
    (True, 'The budget holds: the process took 250 B at most, 50 % of the 500 B that it may take.')
    >>> verdict({"planned_peak_bytes": 300, "measured_peak_bytes": 550, "budget_bytes": 500})
    (False, 'The budget does not hold: the process took 550 B at most, 50 B more than the 500 B that it may take.')
    """
    planned, measured, budget = (memory[f"{name}_bytes"] for name in ("planned_peak", "measured_peak", "budget"))
    allowed = f"the {format_bytes(budget)} that it may take."
    if measured is None:
        return None, f"The peak cannot be measured on this system: planned are {format_bytes(planned)} of {allowed}"
    took = f"the process took {format_bytes(measured)} at most"
    if measured <= budget:
        return True, f"The budget holds: {took}, {percent(measured / budget)} of {allowed}"
    return False, f"The budget does not hold: {took}, {format_bytes(measured - budget)} more than {allowed}"

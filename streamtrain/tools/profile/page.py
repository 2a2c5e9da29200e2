"""A memory profile as one HTML page: opens from a file, needs no network, prints, and answers to pointer and keyboard."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from streamtrain.memory.sizes import format_bytes
from streamtrain.runs.report import memory_table
from streamtrain.tools.profile import chart
from streamtrain.tools.profile.markup import Markup, document, element, folded, joined, table
from streamtrain.tools.profile.picture import Timeline, stages, time_parts, verdict
from streamtrain.tools.profile.text import format_seconds, percent, shortened

__all__ = ["page"]

_CLASSES, _TITLE_LETTERS = 20, 80
_MARKS = {True: "✓", False: "✗", None: "?"}
_WORDS = {True: "holds", False: "broken", None: "unknown"}
_COUNTS = ("rows", "rows_seen", "batches", "epochs")


def page(profile: Mapping[str, Any]) -> str:
    """The page of a profile: a whole HTML document, to be written as UTF-8.

    profile: the JSON of ``streamtrain profile``. All that it names (data, columns, classes, warnings) is escaped. What it
    lacks beyond ``memory`` is left out of the page. Raises KeyError where ``memory`` or one of its sizes is missing.

    >>> memory = {"budget_bytes": 512, "planned_peak_bytes": 300, "measured_peak_bytes": 256, "terms": {}}
    >>> html = page({"data": "<b>.parquet", "target": "y", "memory": memory})
    >>> "The budget holds: the process took 256 B at most, 50 %" in html, "&lt;b&gt;.parquet" in html
    (True, True)
    """
    timeline = Timeline(profile)
    sections = [
        _section("What to change", _list(profile.get("advice"))),
        _section("Warnings", _list(profile.get("warnings")), "warnings"),
        _section("Memory over time", chart.chart(timeline) if "timeline" in profile else None),
        _section("Memory by stage", _stages(profile), "stages"),
        _section("Where the time went", _time(profile)),
        _section("Scores", _scores(profile.get("metrics") or {}), "scores"),
        _section("The run", _run(profile)),
        _section("Details", _details(profile)),
    ]
    body = element("main", _headline(profile), *sections)
    title = f"Memory profile of {shortened(str(profile.get('data', 'a fit')), _TITLE_LETTERS)}"
    return document(title, body, chart.data(timeline), chart.colours())


def _section(title: str, content: Markup | None, kind: str | None = None) -> Markup | None:
    return element("section", element("h2", title), content, class_=kind) if content else None


def _list(texts: Iterable[str] | None) -> Markup | None:
    items = [element("li", *_lines(text)) for text in texts or ()]
    return element("ul", *items) if items else None


def _lines(text: str) -> list[str | Markup]:
    """The lines of a text, below one another; those after the first as they were set."""
    first, *others = text.split("\n")
    return [first, *(element("div", line, class_="line") for line in others)]


def _headline(profile: Mapping[str, Any]) -> Markup:
    memory = profile["memory"]
    holds, sentence = verdict(memory)
    names = [
        joined(word, element("code", str(profile[key]), class_="name"))
        for word, key in (("of ", "data"), (", target ", "target"))
        if profile.get(key) is not None
    ]
    return element(
        "header",
        element("h1", "Memory profile"),
        element("p", *names, class_="subject") if names else None,
        element("p", element("span", _MARKS[holds], class_="sign", aria_hidden="true"), sentence,
                class_=f"verdict {_WORDS[holds]}", id="verdict"),
        _cards(memory),
    )  # fmt: skip


def _cards(memory: Mapping[str, Any]) -> Markup:
    planned, measured, budget = (memory[f"{name}_bytes"] for name in ("planned_peak", "measured_peak", "budget"))
    ratio = f"{planned / measured:.3g} times the measured peak" if measured else "before anything was read"
    given = "as asked for" if memory.get("budget_given", True) else "half of what was available"
    most = max(planned, measured or 0, budget, 1)
    cards = [
        ("measured peak", measured, "of the whole process", "measured"),
        ("planned peak", planned, ratio, "planned"),
        ("budget", budget, given, "budget"),
    ]
    return element("div", *(_card(*card, most) for card in cards), class_="cards")


def _card(name: str, size: int | None, note: str, kind: str, most: int) -> Markup:
    return element(
        "div",
        element("h2", name),
        element("p", "not measured" if size is None else format_bytes(size), class_="figure"),
        element("p", note, class_="note"),
        _bar(kind, (size or 0) / most),
        class_=f"card {kind}",
    )


def _bar(kind: str, share: float, planned_share: float | None = None) -> Markup:
    """A bar of a share of its width; what was planned is an outline around it."""
    parts = [element("rect", width=f"{100 * max(share, 0):.4g}%", height="100%", rx=2, class_=f"bar-{kind}")]
    if planned_share is not None:
        outline = f"{100 * planned_share:.4g}%"
        parts.append(element("rect", width=outline, height="100%", rx=2, class_="bar-outline"))
    return element("svg", *parts, class_="bar", width="100%", height=12, aria_hidden="true")


def _stages(profile: Mapping[str, Any]) -> Markup | None:
    found = stages(profile)
    most = max((max(stage.planned_bytes, stage.measured_bytes or 0) for stage in found), default=0) or 1
    heads = [("stage", ""), ("planned", "number"), ("measured", "number"), ("share", "number"), ("", "bars"),
             ("what it is", "wide")]  # fmt: skip
    rows = [
        (
            stage.name,
            format_bytes(stage.planned_bytes),
            _size(stage.measured_bytes),
            _percent(stage.share),
            _bar("measured", (stage.measured_bytes or 0) / most, stage.planned_bytes / most),
            stage.meaning,
        )
        for stage in found
    ]
    memory = profile["memory"]
    peak = format_bytes(memory["planned_peak_bytes"]), _size(memory["measured_peak_bytes"])
    foot = ("peak", *peak, "", "", "of the whole process")
    bars = element("span", "Bars: measured filled, planned as an outline. ", class_="wide")
    note = element("p", bars, "Share: of what was measured.", class_="hint")
    return joined(table(heads, rows, foot), note) if rows else None


def _size(size: int | None) -> str:
    return "–" if size is None else format_bytes(size)


def _percent(share: float | None) -> str:
    return "–" if share is None else percent(share)


def _time(profile: Mapping[str, Any]) -> Markup | None:
    parts = time_parts(profile)
    most = max((part.seconds for part in parts), default=0.0) or 1.0
    heads = [("", ""), ("time", "number"), ("of the loop", "number"), ("", "bars"), ("what it is", "wide")]
    rows = [
        (
            part.name,
            format_seconds(part.seconds),
            _percent(part.share),
            _bar("beside" if part.share is None else "measured", part.seconds / most),
            part.meaning,
        )
        for part in parts
    ]
    return table(heads, rows) if rows else None


def _scores(metrics: Mapping[str, Any]) -> Markup | None:
    found = {name: scores for name, scores in metrics.items() if scores}
    names = list(dict.fromkeys(score for scores in found.values() for score in scores))
    heads = [("", ""), *((name, "number") for name in names)]
    rows = [(name, *(_score(scores.get(score)) for score in names)) for name, scores in found.items()]
    return table(heads, rows) if rows else None


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _run(profile: Mapping[str, Any]) -> Markup | None:
    facts: dict[str, Any] = {name: profile[name] for name in _COUNTS if name in profile}
    if "seconds" in profile:
        facts["time"] = format_seconds(profile["seconds"])
        facts["rows per second"] = f"{profile.get('rows_per_second') or 0:,.0f}"
    facts |= {name: profile.get(name) for name in ("learner", "loss", "task")}
    facts |= profile.get("plan") or {}
    facts |= {"run folder": profile.get("run"), "rows skipped": len(profile.get("skipped") or ()) or None}
    items = [_fact(name.replace("_", " "), value) for name, value in facts.items() if value is not None]
    return element("dl", *items, class_="facts") if items else None


def _fact(name: str, value: Any) -> Markup:
    shown = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return element("div", element("dt", name), element("dd", shown, class_="name"))


def _details(profile: Mapping[str, Any]) -> Markup | None:
    """What is long: closed until somebody asks."""
    heads = [("term", ""), ("planned", "number"), ("measured", "number")]
    terms = table(heads, memory_table(dict(profile["memory"])))
    settings = table(
        [("setting", ""), ("value", "")],
        [
            (name, element("span", _setting(value), class_="name"))
            for name, value in (profile.get("settings") or {}).items()
        ],
    )
    classes = profile.get("classes") or []
    more = f", and {len(classes) - _CLASSES:,} more" if len(classes) > _CLASSES else ""
    listed = [element("code", str(name), class_="name") for name in classes[:_CLASSES]]
    spaced = [part for name in listed for part in (name, " ")][:-1]
    return joined(
        folded("Every term of the plan", terms) if profile["memory"]["terms"] else None,
        folded(f"The target's classes ({len(classes):,})", element("p", *spaced, more)) if classes else None,
        folded("Settings", settings) if profile.get("settings") else None,
    )


def _setting(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)

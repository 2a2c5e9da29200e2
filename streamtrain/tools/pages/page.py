"""A report as a page: its content arranged into sections, the verdict first."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from streamtrain.memory.sizes import format_bytes
from streamtrain.metrics.scores import SCORE_KINDS
from streamtrain.runs.report import memory_table
from streamtrain.tools.pages.memory import LIMITS, SERIES, Timeline, memory_chart, stages, time_parts, verdict
from streamtrain.tools.pages.parts import Bar, Card, Facts, Folded, Section, Table, Texts, Verdict
from streamtrain.tools.pages.render import render
from streamtrain.tools.pages.scores import LINES, score_charts
from streamtrain.tools.pages.text import format_date, format_score, format_seconds, percent, shortened

__all__ = ["page"]

_CLASSES, _TITLE_LETTERS, _SKIPPED = 20, 80, 100
_VERDICT_LOOKS = {True: "good", False: "bad", None: "doubt"}
_DATES = ("started", "finished", "changed")
_COUNTS = ("rows", "rows_seen", "batches", "epochs", "resumes")
_NUMBER, _WIDE, _NAME = "number", "wide", "name"


def page(report: Mapping[str, Any], title: str = "Memory profile", verdicts: Iterable[Verdict] = ()) -> str:
    """Return a whole HTML document, to be written as UTF-8.

    report: the JSON of ``streamtrain profile`` or of a run. The page leaves out what it lacks. It may also have ``data``
    and ``target``; ``lines``, those of ``metrics.jsonl``; and ``columns``, features and targets as ``model.json`` describes
    them. Everything is escaped. verdicts: sentences that come before the one about memory.

    >>> memory = {"budget_bytes": 512, "planned_peak_bytes": 300, "measured_peak_bytes": 256, "terms": {}}
    >>> html = page({"data": "<b>.parquet", "target": "y", "memory": memory})
    >>> "The budget holds: the process took 256 B at most, 50 %" in html, "&lt;b&gt;.parquet" in html
    (True, True)
    """
    memory, subject = report.get("memory"), report.get("data") or report.get("run")
    shown = [
        *verdicts,
        *([Verdict(_VERDICT_LOOKS[holds], text) for holds, text in [verdict(memory)]] if memory else []),
    ]
    scores = Section("Scores", _scores(report), "scores")
    sections = [
        Section("What to change", _texts(report.get("advice"))),
        Section("Warnings", _texts(report.get("warnings")), "warnings"),
        Section("Rows skipped", _skipped(report.get("skipped") or []), "warnings"),
        *([scores] if "lines" in report else []),
        Section("Memory over time", _memory(report)),
        Section("Memory by stage", _stages(report), "stages"),
        Section("Where the time went", _time(report)),
        *([] if "lines" in report else [scores]),
        Section("What the columns became", _columns(report)),
        Section("The run", _run(report)),
        Section("Settings that were changed", _changes(report)),
        Section("Models that it continues", _lineage(report)),
        Section("Details", _details(report)),
    ]
    return render(
        f"{title} of {shortened(str(subject or 'a fit'), _TITLE_LETTERS)}",
        (*SERIES, *LIMITS, *LINES),
        heading=title,
        subject=[(word, name) for word, name in (("of ", subject), (", target ", report.get("target"))) if name],
        verdicts=shown,
        cards=_cards(report),
        sections=[section for section in sections if section.parts],
    )


def _texts(texts: Iterable[str] | None) -> list[Texts]:
    sentences = list(texts or ())
    return [Texts(sentences)] if sentences else []


def _cards(report: Mapping[str, Any]) -> list[Card]:
    memory = report.get("memory")
    if memory is None:
        return _score_cards(report)
    planned, measured, budget = (memory[f"{name}_bytes"] for name in ("planned_peak", "measured_peak", "budget"))
    ratio = f"{planned / measured:.3g} times the measured peak" if measured else "before anything was read"
    given = "as --memory said" if memory.get("budget_given", True) else "half of what was available"
    most = max(planned, measured or 0, budget, 1)
    peak = "not measured" if measured is None else format_bytes(measured)
    return [
        *_score_cards(report),
        Card("measured peak", peak, "of the whole process", Bar((measured or 0) / most)),
        Card("planned peak", format_bytes(planned), ratio, Bar(planned / most, "planned")),
        Card("budget", format_bytes(budget), given, Bar(budget / most, "budget")),
    ]


def _score_cards(report: Mapping[str, Any]) -> list[Card]:
    """The loss of a run, on the rows that judge it best; none for a profile."""
    metrics = report.get("metrics") or {}
    best = next((kind for kind in reversed(SCORE_KINDS) if metrics.get(kind)), None)
    loss = metrics[best].get("loss") if best and "lines" in report else None
    return [] if loss is None else [Card("loss", format_score(loss), f"{best} score")]


def _memory(report: Mapping[str, Any]) -> list[Any]:
    if report.get("timeline"):
        return [memory_chart(Timeline(report))]
    return [Texts(["No timeline was recorded."])] if report.get("memory") else []


def _stages(report: Mapping[str, Any]) -> list[Table]:
    shown_stages = stages(report)
    if not shown_stages:
        return []
    most = max(max(stage.planned_bytes, stage.measured_bytes or 0) for stage in shown_stages) or 1
    has_shares, has_meanings = any(stage.share for stage in shown_stages), any(stage.meaning for stage in shown_stages)
    heads = [("stage", ""), ("planned", _NUMBER), ("measured", _NUMBER), ("share", _NUMBER), ("", "bars"),
             ("what it is", _WIDE)]  # fmt: skip
    rows = [
        [
            stage.name,
            format_bytes(stage.planned_bytes),
            _size(stage.measured_bytes),
            _percent(stage.share),
            Bar((stage.measured_bytes or 0) / most, "measured", stage.planned_bytes / most),
            stage.meaning,
        ]
        for stage in shown_stages
    ]
    memory = report["memory"]
    peak = format_bytes(memory["planned_peak_bytes"]), _size(memory["measured_peak_bytes"])
    rows.append(["peak", *peak, "", "", "of the whole process"])
    kept = [i for i in range(6) if (i != 3 or has_shares) and (i != 5 or has_meanings)]
    heads, (*rows, foot) = [heads[i] for i in kept], [[row[i] for i in kept] for row in rows]
    hint = "Bars: measured filled, planned as an outline." + (" Share: of what was measured." if has_shares else "")
    return [Table(heads, rows, foot, hint)]


def _size(size: int | None) -> str:
    return "–" if size is None else format_bytes(size)


def _percent(share: float | None) -> str:
    return "–" if share is None else percent(share)


def _time(report: Mapping[str, Any]) -> list[Table]:
    parts = time_parts(report)
    most = max((part.seconds for part in parts), default=0.0) or 1.0
    heads = [("part", ""), ("time", _NUMBER), ("of the loop", _NUMBER), ("", "bars"), ("what it is", _WIDE)]
    rows = [
        [
            part.name,
            format_seconds(part.seconds),
            _percent(part.share),
            Bar(part.seconds / most, "beside" if part.share is None else "measured"),
            part.meaning,
        ]
        for part in parts
    ]
    return [Table(heads, rows)] if rows else []


def _scores(report: Mapping[str, Any]) -> list[Any]:
    """The first score as a chart, all of them at the end as a table; folded: each target, each class, the other charts."""
    metrics = {name: scores for name, scores in (report.get("metrics") or {}).items() if scores}
    names = list(dict.fromkeys(name for scores in metrics.values() for name in scores if name != "targets"))
    heads = [("rows", ""), *((name, _NUMBER) for name in names)]
    charts = score_charts(report.get("lines") or [])
    parts: list[Any] = list(charts.values())[:1]
    if metrics:
        rows = [[kind, *(_score(scores.get(name)) for name in names)] for kind, scores in metrics.items()]
        parts.append(Table(heads, rows))
    targets = [(kind, target, own) for kind in metrics for target, own in (metrics[kind].get("targets") or {}).items()]
    if targets:
        rows = [[target, kind, *(_score(own.get(name)) for name in names)] for kind, target, own in targets]
        parts.append(Folded("Each target", Table([("target", _NAME), *heads], rows)))
    if report.get("per_class"):
        columns = list(report["per_class"][0])
        rows = [[_value(row[name]) for name in columns] for row in report["per_class"]]
        parts.append(
            Folded("Each class", Table([(name, _NUMBER if i else _NAME) for i, name in enumerate(columns)], rows))
        )
    return [*parts, *(Folded(name.replace("_", " "), chart) for name, chart in list(charts.items())[1:])]


def _score(value: Any) -> str:
    return format_score(value) if isinstance(value, (int, float)) else "–"


def _value(value: Any) -> str:
    """A value as text: a name, a count or a share."""
    if isinstance(value, float):
        return f"{value:,.0f}" if value > 1 and value.is_integer() else format_score(value)
    return "–" if value is None else f"{value:,}" if type(value) is int else str(value)


def _skipped(entries: list[Mapping[str, Any]]) -> list[Any]:
    if not entries:
        return []
    rows = [[entry["chunk"], f"{entry['rows']:,}", entry["error"]] for entry in entries[:_SKIPPED]]
    more = f"; the first {_SKIPPED} chunks of {len(entries):,}" if len(entries) > _SKIPPED else ""
    hint = f"{sum(entry['rows'] for entry in entries):,} rows were skipped, of {entries[0]['source']}{more}."
    return [Table([("chunk", _NAME), ("rows", _NUMBER), ("error", "")], rows, hint=hint)]


def _columns(report: Mapping[str, Any]) -> list[Any]:
    columns = report.get("columns") or []
    heads = [("column", _NAME), ("type", _NAME), ("became", ""), ("why", _WIDE)]
    table = Table(
        heads, [[str(column.get(key) or "–") for key in ("name", "type", "role", "why")] for column in columns]
    )
    facts = [(name.replace("_", " "), _value(value)) for name, value in (report.get("preparation") or {}).items()]
    return [*([table] if columns else []), *([Facts(facts)] if columns and facts else [])]


def _run(report: Mapping[str, Any]) -> list[Facts]:
    facts: dict[str, Any] = {name: format_date(report[name]) for name in _DATES if report.get(name)}
    facts |= {name: report[name] for name in _COUNTS if report.get(name) is not None}
    if report.get("best_epoch") is not None:
        facts["kept"] = f"the model of epoch {report['best_epoch'] + 1}"
    if "seconds" in report:
        facts["time"] = format_seconds(report["seconds"])
        facts["rows per second"] = f"{report.get('rows_per_second') or 0:,.0f}"
    facts |= {name: report.get(name) for name in ("learner", "loss", "task")}
    facts |= report.get("plan") or {}
    facts |= {"run folder": report.get("run")}
    facts |= report.get("versions") or {}
    shown = [(name.replace("_", " "), _value(value)) for name, value in facts.items() if value is not None]
    return [Facts(shown)] if shown else []


def _changes(report: Mapping[str, Any]) -> list[Table]:
    rows = [
        [change["setting"], _setting(change["was"]), _setting(change["is"]), f"{change['rows_seen']:,}"]
        for change in report.get("changes") or []
    ]
    return [Table([("setting", _NAME), ("was", ""), ("is", ""), ("after rows", _NUMBER)], rows)] if rows else []


def _lineage(report: Mapping[str, Any]) -> list[Table]:
    rows = [[run["run"], f"{run['rows_seen']:,}"] for run in report.get("lineage") or []]
    return [Table([("run", _NAME), ("rows learned", _NUMBER)], rows)] if rows else []


def _details(report: Mapping[str, Any]) -> list[Folded]:
    """Long tables, closed until the reader opens them."""
    parts, memory, classes = [], report.get("memory") or {}, report.get("classes") or []
    if memory.get("terms") and report.get("stages"):
        heads = [("term", ""), ("planned", _NUMBER), ("measured", _NUMBER)]
        parts.append(Folded("Every term of the plan", Table(heads, memory_table(dict(memory)))))
    if classes:
        more = [f"and {len(classes) - _CLASSES:,} more"] if len(classes) > _CLASSES else []
        parts.append(Folded(f"The target's classes ({len(classes):,})", Texts([*map(str, classes[:_CLASSES]), *more])))
    if report.get("settings"):
        rows = [[name, _setting(value)] for name, value in report["settings"].items()]
        parts.append(Folded("Settings", Table([("setting", _NAME), ("value", _NAME)], rows)))
    return parts


def _setting(value: Any) -> str:
    if value is None:
        return "not given"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)

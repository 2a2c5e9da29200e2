"""Scores over the rows learned: a chart for each score, from the lines of ``metrics.jsonl``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from streamtrain.metrics.scores import SCORE_KINDS
from streamtrain.tools.pages.axis import log_share, log_ticks, score_scale
from streamtrain.tools.pages.chart import Band, Change, Chart, Curve, Line
from streamtrain.tools.pages.text import format_score, format_seconds

__all__ = ["LINES", "score_charts"]

_NARROWEST_SHARE = 0.01  # of the width: narrower epochs are not drawn
_STYLES = {
    "progressive": ("each batch before it was learned, averaged since the start", "#0b61a4", "#6cb6ff"),
    "holdout": ("rows held out, at the end of each epoch", "#c2410c", "#ffa657", (7, 3)),
    "validation": ("the validation data, at the end of each epoch", "#7e22ce", "#d2a8ff", (3, 3)),
}
LINES = tuple(Line(kind, kind, *_STYLES[kind]) for kind in SCORE_KINDS)  # type: ignore[arg-type]


def score_charts(lines: Sequence[Mapping[str, Any]]) -> dict[str, Chart]:
    """Return a chart for each score that has a value, by name.

    lines: ``epoch``, ``rows_seen``, ``seconds`` and the scores of each kind, in the order of the rows; and ``changed``, the
    setting that was changed there.

    >>> lines = [{"epoch": 0, "rows_seen": rows, "seconds": 1.0, "progressive": {"loss": loss, "auc": None}}
    ...          for rows, loss in ((1000, 0.6), (10_000, 0.4), (100_000, 0.3))]
    >>> charts = score_charts(lines)
    >>> list(charts), charts["loss"].x, charts["loss"].curves[0].total
    (['loss'], [0.0, 0.5, 1.0], '0.3000')
    """
    names = dict.fromkeys(name for line in lines for kind in SCORE_KINDS for name in line.get(kind) or {})
    charts = {name: _chart(name, lines) for name in names}
    return {name: chart for name, chart in charts.items() if chart is not None}


def _chart(name: str, lines: Sequence[Mapping[str, Any]]) -> Chart | None:
    columns = {line: [_value(entry.get(line.key), name) for entry in lines] for line in LINES}
    columns = {line: values for line, values in columns.items() if any(value is not None for value in values)}
    if not columns:
        return None
    height, axis = score_scale([value for values in columns.values() for value in values if value is not None])
    rows = [max(1, entry["rows_seen"]) for entry in lines]
    x = [log_share(seen, rows[0], rows[-1]) for seen in rows]
    cells = [
        (f"{seen:,}", str(entry["epoch"] + 1), format_seconds(entry["seconds"]))
        for seen, entry in zip(rows, lines, strict=True)
    ]
    changes = [f"{entry['changed']} changed" if "changed" in entry else "" for entry in lines]
    curves = []
    for line, values in columns.items():
        texts = ["–" if value is None else format_score(value) for value in values]
        last = next(text for value, text in zip(values[::-1], texts[::-1], strict=True) if value is not None)
        heights = [None if value is None else height(value) for value in values]
        curves.append(Curve(line, heights, texts, last, joined=True))
    return Chart(
        x=x,
        ticks=[(log_share(tick, rows[0], rows[-1]), label) for tick, label in log_ticks(rows[0], rows[-1])],
        moments=[
            f"{seen} rows learned: epoch {epoch}, {time}" + (f"; {change}" if change else "")
            for (seen, epoch, time), change in zip(cells, changes, strict=True)
        ],
        curves=curves,
        axis=lambda _: axis,
        label=f"A moment of the run, by the rows learned: its {name}",
        title=f"{name.replace('_', ' ')}, over the rows learned (logarithmic)",
        total="last",
        heads=[("rows", "number"), ("epoch", "number"), ("time", "number"), *((line.name, "number") for line in columns)],
        cells=cells,
        shown=[line.key for line in columns],
        chosen=len(lines) - 1,
        bands=_epochs(lines, x),
        changes=[Change(name, at) for name, at in zip(changes, x, strict=True) if name],
    )  # fmt: skip


def _epochs(lines: Sequence[Mapping[str, Any]], x: Sequence[float]) -> list[Band]:
    bands, start = [], 0.0
    for epoch, entries in groupby(range(len(lines)), key=lambda i: lines[i]["epoch"]):
        stop = x[list(entries)[-1]]
        bands.append(Band(f"epoch {epoch + 1}", start, stop))
        start = stop
    return [band for band in bands if band.stop - band.start >= _NARROWEST_SHARE]


def _value(scores: Mapping[str, Any] | None, name: str) -> float | None:
    value = (scores or {}).get(name)
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None

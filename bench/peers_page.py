"""The page bench/ACCURACY.md: a summary, and for each set a table of every model beside ours."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterable, Sequence
from typing import Any

LIBRARIES = ("streamtrain", "scikit-learn", "vowpalwabbit", "numpy", "pyarrow")
METRICS = {"classify": ("loss", "accuracy", "auc"), "regress": ("rmse", "r2")}
HEAD = """# How good the models are

Written by `python bench/accuracy.py`. Test rows of real tables, default settings; test rows are never learned. "Original order"
is that of the files, several of which are sorted or grouped; "shuffled" is a copy that was shuffled before. Peers get the
shuffled rows: scikit-learn with numbers standardised, categories one-hot, missing values at the mean; Vowpal Wabbit the raw
columns, its defaults. Seconds are those of the training, without start and imports of the peers; ours with everything.

"""


def summary(results: Iterable[Any]) -> str:
    """One line for each set and thing wanted."""
    rows = []
    for result in results:
        for check in result.checks:
            found, wanted = _share(check) if check.is_share else _figure(check, result.set)
            rows.append([result.set.name, check.what, found, wanted, "yes" if check.met else "NO"])
    return table(["set", "what", "found", "wanted", "met"], rows)


def _share(check: Any) -> tuple[str, str]:
    found = "–" if check.found is None else f"{check.found:.2%} apart"
    return found, f"at most {check.wanted:.0%}"


def _figure(check: Any, case: Any) -> tuple[str, str]:
    sign = "≥" if case.more_is_better else "≤"
    return f"{case.metric} {number(check.found, case.metric)}", f"{sign} {number(check.wanted, case.metric)}"


def page(results: Sequence[Any]) -> str:
    parts = [HEAD, _libraries(), "\n\n## Summary\n\n", summary(results), "\n"]
    for result in results:
        parts += [f"\n## {result.set.name}\n\n{_about(result)}\n\n", _models(result), "\n"]
        parts += [f"\n{name}: {words}\n" for name, words in result.failed.items()]
    return "".join(parts)


def _about(result: Any) -> str:
    dropped = f" Left out: {', '.join(result.set.exclude)}." if result.set.exclude else ""
    return f"{result.rows:,} rows, target `{result.set.target}`; judged by {result.set.metric}.{dropped}"


def _models(result: Any) -> str:
    known = {name for scores in result.scores.values() for name in scores}
    metrics = [name for name in METRICS[result.set.task] if name in known]
    rows = []
    for name, scores in result.scores.items():
        rows.append([name, *(number(scores.get(metric), metric) for metric in metrics), f"{scores['seconds']:.1f}"])
    return table(["model", *metrics, "seconds"], rows)


def number(value: float | None, metric: str) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if metric == "rmse" else f"{value:.4f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose columns are aligned for readers of the text, too."""
    cells = [list(head), *map(list, rows)]
    wide = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, wide, strict=True)) + " |" for row in cells
    ]
    lines.insert(1, "| " + " | ".join("-" * width for width in wide) + " |")
    return "\n".join(lines)


def _libraries() -> str:
    found = [f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES if _installed(name)]
    return f"{', '.join(found)}; Python {platform.python_version()}, {os.cpu_count()} cores."


def _installed(name: str) -> bool:
    return any(True for _ in importlib.metadata.distributions(name=name))

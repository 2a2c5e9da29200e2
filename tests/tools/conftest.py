"""Profiles to draw: made up, by formulas, so that every value is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

MakeProfile = Callable[..., dict[str, Any]]

HOSTILE = [
    "<script>window.broken = 1</script>",
    "</script><script>window.broken = 1</script>",
    "<!--<script>",
    "-->]]>",
    '"><img src=x onerror="window.broken = 1">',
    "' onmouseover='window.broken = 1",
    "</title></style><svg onload=window.broken=1>",
    "</details></table></main>",
    "&lt;b&gt; &amp;",
    r"$\frac{1$ \\x ${data} $title {0} %s",
    "line\none\ttab \x00\x1b[31m\r",
    "\u2028\u2029\u202e\ufeff\udcff\U0001f4a5",
    "x" * 3000,
]


def moment(seconds: float) -> dict[str, Any]:
    """The memory of the made-up run at a time (it takes 10 seconds)."""
    stage = "open" if seconds < 0.5 else "target" if seconds < 2 else "train" if seconds < 9.9 else "end"
    windows = int(90e6 * math.sin(seconds) ** 2) if stage == "train" else 0
    reading = 40_000_000 if stage == "train" else 0
    return {
        "seconds": seconds,
        "rows": int(max(0.0, seconds - 2) * 10_000),
        "stage": stage,
        "resident_bytes": 100_000_000 + windows + reading,
        "anonymous_bytes": 60_000_000 + windows + reading,
        "arrow_bytes": windows // 4 + reading,
        "window_bytes": windows,
        "reading_bytes": reading,
    }


def _profile(moments: int = 101, *, budget_bytes: int = 400_000_000, measured: bool = True) -> dict[str, Any]:
    timeline = [moment(10 * i / max(1, moments - 1)) for i in range(moments)]
    if not measured:
        timeline = [entry | {key: None for key in entry if key.endswith("_bytes")} for entry in timeline]
    peak = 231_000_000 if measured else None
    sizes = {"baseline": (100, 99), "reading": (50, 40), "windows": (100, 90), "batches": (1, 1), "learner": (2, 1),
             "other": (20, 0)}  # fmt: skip
    stages = {
        name: {
            "planned_bytes": planned * 10**6,
            "measured_bytes": took * 10**6 if measured else None,
            "share": took / 231 if measured else None,
        }
        for name, (planned, took) in sizes.items()
    }
    terms = {name: {key: stage[key] for key in ("planned_bytes", "measured_bytes")} for name, stage in stages.items()}
    return {
        "rows": 80_000, "rows_seen": 80_000, "batches": 1250, "epochs": 1, "seconds": 10.0, "rows_per_second": 10_000.0,
        "learner": "linear", "loss": "logistic", "task": "classify", "classes": ["no", "yes"], "batch_size": 64,
        "metrics": {"progressive": {"loss": 0.5, "accuracy": 0.75, "auc": None}, "holdout": None, "validation": None},
        "memory": {
            "budget_bytes": budget_bytes, "budget_given": True, "baseline_bytes": 100_000_000,
            "planned_peak_bytes": 273_000_000, "measured_peak_bytes": peak, "terms": terms,
        },
        "plan": {"chunks": 80, "windows": 8, "window_rows": 10_000, "windows_in_flight": 2, "batch_size": 64, "workers": 2,
                 "streamed_chunks": 0},
        "time": {"read": 12.0, "wait": 1.0, "learn": 6.5, "other": 0.5},
        "warnings": ["few chunks are mixed"], "skipped": [], "run": "runs/one",
        "settings": {"target": "clicked", "features": None, "exclude": ["user id"], "epochs": 1}, "fingerprint": None,
        "timeline": timeline, "stages": stages, "advice": ["a budget of 250MB would do"],
        "data": "clicks/*.parquet", "target": "clicked",
    }  # fmt: skip


@pytest.fixture
def profile() -> MakeProfile:
    """Makes profiles: of so many moments, with a budget, measured or not."""
    return _profile


@pytest.fixture
def hostile() -> dict[str, Any]:
    """A profile in which every text that somebody else may have chosen is an attack, or looks like one."""
    return poisoned(_profile(), HOSTILE)


@pytest.fixture
def harmless() -> dict[str, Any]:
    """The same with texts that look like nothing."""
    return poisoned(_profile(), [f"text {i}" for i in range(len(HOSTILE))])


def poisoned(profile: dict[str, Any], texts: list[str]) -> dict[str, Any]:
    """The profile with the texts in all places that hold names."""
    long = " ".join(texts)
    entry = {"planned_bytes": 1000, "measured_bytes": 900, "share": 0.1}
    extra = dict.fromkeys(texts, entry)
    memory = profile["memory"] | {"terms": profile["memory"]["terms"] | extra}
    return profile | {
        "data": long, "target": long, "classes": texts * 9, "warnings": texts, "advice": texts, "run": long, "learner": long,
        "loss": long, "settings": {"target": long, "features": texts} | {text: text for text in texts}, "memory": memory,
        "columns": [{"name": text, "type": text, "role": text, "why": text} for text in texts], "per_class": [{"class": long}],
        "skipped": [{"source": long, "chunk": text, "rows": 1, "error": text} for text in texts],
        "lineage": [{"run": text, "rows_seen": 1} for text in texts], "versions": {text: text for text in texts},
        "started": long, "lines": [{"epoch": 0, "rows_seen": 9, "seconds": 1.0, "progressive": dict.fromkeys(texts[:2], 0.5)}],
        "stages": profile["stages"] | extra, "metrics": {text: {text: 0.5} for text in texts},
        "time": profile["time"] | dict.fromkeys(texts, 1.0), "plan": profile["plan"] | {text: text for text in texts},
        "timeline": [entry | {"stage": long if i > 50 else entry["stage"]} for i, entry in enumerate(profile["timeline"])],
    }  # fmt: skip

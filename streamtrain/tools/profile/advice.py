"""What to change: rules that look at what a profile measured. Pure: a dict in, sentences out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from streamtrain.memory.sizes import format_bytes
from streamtrain.plan.plan import GOOD_CHUNK_BYTES, good_chunk_rows

__all__ = ["advice"]

MB = 10**6
_TELLING_SECONDS = 1.0  # what took less was spent on getting started
_BOUND_SHARE = 0.4  # of the loop's time: what it spends more on is what holds it up
_TINY_CHUNK_BYTES = MB  # decoded
_READS_SHARE = 0.3  # of the planned peak
_SLACK, _SPARE_BYTES = 1.5, 100 * MB
_MIXED_SHARE = 0.02  # of the rows in a window: less mixes sorted data badly


def advice(profile: Mapping[str, Any]) -> list[str]:
    """Sentences, the most useful first; none where nothing stands out.

    profile: a report of `fit` with ``data_rows`` and ``decoded_bytes``, both of all that one epoch reads, and ``chunk_bytes``:
    what the plan's reads and streams take.

    >>> sizes = {"budget_bytes": 400, "budget_given": True, "planned_peak_bytes": 390, "measured_peak_bytes": 450}
    >>> plan = {"chunks": 10, "windows": 2, "window_rows": 500, "streamed_chunks": 0, "workers": 2}
    >>> spent = {"read": 10.0, "wait": 8.0, "learn": 1.0, "other": 1.0}
    >>> advice({"memory": sizes, "plan": plan, "data_rows": 1000, "decoded_bytes": 10**8, "chunk_bytes": 0,
    ...         "time": spent})[0]
    'the process went over its budget: give --memory 1MB, or find out what took it'
    """
    found = (rule(profile) for rule in _RULES)
    return [sentence for sentence in found if sentence]


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def _share(profile: Mapping[str, Any], part: str) -> float:
    spent = profile["time"]
    whole = float(spent["wait"] + spent["learn"] + spent["other"])
    return float(spent[part]) / whole if whole > _TELLING_SECONDS else 0.0


def _over_budget(profile: Mapping[str, Any]) -> str | None:
    memory = profile["memory"]
    peak, budget = memory["measured_peak_bytes"], memory["budget_bytes"]
    if peak is None or peak <= budget:
        return None
    return f"the process went over its budget: give --memory {-(-peak * 11 // (10 * MB))}MB, or find out what took it"


def _reading_bound(profile: Mapping[str, Any]) -> str | None:
    share = _share(profile, "wait")
    if share <= _BOUND_SHARE or _tiny_chunks(profile):
        return None
    return (
        f"the learner waited for rows {_percent(share)} of the time: reading holds it up; read fewer columns (--features, "
        "--exclude), or store the data in a faster codec (lz4, snappy)"
    )


def _learning_bound(profile: Mapping[str, Any]) -> str | None:
    share = _share(profile, "learn")
    if share <= 2 * _BOUND_SHARE:
        return None
    return f"learning took {_percent(share)} of the time: larger batches (--batch-size) cost less a row"


def _tiny_chunks(profile: Mapping[str, Any]) -> str | None:
    chunks, decoded = profile["plan"]["chunks"], profile["decoded_bytes"]
    if chunks < 100 or decoded / chunks >= _TINY_CHUNK_BYTES:
        return None
    wanted = _good_chunk_rows(profile)
    return (
        f"chunks are small, {format_bytes(int(decoded / chunks))} each: most of reading them is looking for them; "
        f"`streamtrain rechunk --chunk-rows {wanted}` makes them about {format_bytes(GOOD_CHUNK_BYTES)}"
    )


def _large_chunks(profile: Mapping[str, Any]) -> str | None:
    memory, plan = profile["memory"], profile["plan"]
    reads = profile["chunk_bytes"]
    if not plan["streamed_chunks"] and reads <= _READS_SHARE * memory["planned_peak_bytes"]:
        return None
    wanted = _good_chunk_rows(profile)
    streamed = f"{plan['streamed_chunks']:,} of {plan['chunks']:,} chunks are too large for a window and are streamed"
    why = streamed if plan["streamed_chunks"] else f"reads take {format_bytes(reads)} of the plan: chunks are large"
    return f"{why}; `streamtrain rechunk --chunk-rows {wanted}` lets a window mix more of them"


def _small_window(profile: Mapping[str, Any]) -> str | None:
    plan, rows = profile["plan"], profile["data_rows"]
    if plan["windows"] <= 1 or plan["window_rows"] >= _MIXED_SHARE * rows or not profile["memory"]["budget_given"]:
        return None
    share = plan["window_rows"] / rows
    return f"a window mixes {_percent(share)} of the rows: for sorted data give a larger --memory"


def _spare_budget(profile: Mapping[str, Any]) -> str | None:
    memory = profile["memory"]
    peak, budget = memory["measured_peak_bytes"], memory["budget_bytes"]
    needed = memory["planned_peak_bytes"]
    if peak is None or not memory["budget_given"] or budget < _SLACK * needed or budget - needed < _SPARE_BYTES:
        return None
    rows = profile["plan"]["window_rows"]
    return f"--memory {-(-needed * 51 // (50 * MB))}MB --window-rows {rows} would do for the same windows"


def _good_chunk_rows(profile: Mapping[str, Any]) -> int:
    return good_chunk_rows(profile["decoded_bytes"] / profile["data_rows"])


_RULES: tuple[Callable[[Mapping[str, Any]], str | None], ...] = (
    _over_budget, _tiny_chunks, _reading_bound, _learning_bound, _large_chunks, _small_window, _spare_budget,
)  # fmt: skip

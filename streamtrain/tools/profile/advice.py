"""Advice on settings and data, from what a profile measured. Pure: a dict in, sentences out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from streamtrain.memory.sizes import format_bytes
from streamtrain.plan.plan import GOOD_CHUNK_BYTES, good_chunk_rows

__all__ = ["advice"]

MB = 10**6
_TELLING_SECONDS = 1.0  # a shorter loop spends its time on starting
_BOUND_SHARE = 0.4  # of the loop's time: a part that takes more is the bottleneck
_SHORT_STEP_SECONDS = (
    2e-4  # a shorter step takes about the same time for any batch; with longer steps larger batches save little
)
_TINY_CHUNK_BYTES = MB  # decoded
_READS_SHARE = 0.3  # of the planned peak
_SLACK, _SPARE_BYTES = 1.5, 100 * MB
_MIXED_SHARE = 0.02  # of the rows: a smaller window mixes sorted data badly


def advice(profile: Mapping[str, Any]) -> list[str]:
    """Return sentences, the most useful first; none where there is nothing to say.

    profile: a report of `fit`, with ``data_rows`` and ``decoded_bytes`` of one epoch, and ``chunk_bytes``, the bytes
    of the plan's reads and streams.

    >>> sizes = {"budget_bytes": 400, "budget_given": True, "planned_peak_bytes": 390, "measured_peak_bytes": 450}
    >>> plan = {"chunks": 10, "windows": 2, "window_rows": 500, "streamed_chunks": 0, "batch_size": 16}
    >>> spent = {"read": 10.0, "wait": 8.0, "learn": 1.0, "other": 1.0}
    >>> data = {"data_rows": 1000, "decoded_bytes": 10**8, "chunk_bytes": 0, "batches": 63}
    >>> advice({"memory": sizes, "plan": plan, "time": spent} | data)[0]
    'the process took 450 B, more than its budget of 400 B: give --memory 1MB, or find what else took memory'
    """
    sentences = (rule(profile) for rule in _RULES)
    return [sentence for sentence in sentences if sentence]


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def _share(profile: Mapping[str, Any], part: str) -> float:
    loop = sum(seconds for name, seconds in profile["time"].items() if name != "read")
    return float(profile["time"][part] / loop) if loop > _TELLING_SECONDS else 0.0


def _over_budget(profile: Mapping[str, Any]) -> str | None:
    memory = profile["memory"]
    peak, budget = memory["measured_peak_bytes"], memory["budget_bytes"]
    if peak is None or peak <= budget:
        return None
    over = f"the process took {format_bytes(peak)}, more than its budget of {format_bytes(budget)}"
    return f"{over}: give --memory {-(-peak * 11 // (10 * MB))}MB, or find what else took memory"


def _reading_bound(profile: Mapping[str, Any]) -> str | None:
    share = _share(profile, "wait")
    if share <= _BOUND_SHARE or _tiny_chunks(profile):
        return None
    return (
        f"the learner waited for rows {_percent(share)} of the time, so reading is the bottleneck: read fewer columns "
        "(--features, --exclude), or store the data with a faster codec (lz4, snappy)"
    )


def _learning_bound(profile: Mapping[str, Any]) -> str | None:
    share, batches, size = _share(profile, "learn"), profile["batches"], profile["plan"]["batch_size"]
    step = profile["time"]["learn"] / max(1, batches)
    if share <= 2 * _BOUND_SHARE or step >= _SHORT_STEP_SECONDS:
        return None
    return (
        f"learning took {_percent(share)} of the time, in {batches:,} short steps of {1000 * step:.2g} ms: larger batches "
        f"(--batch-size {4 * size}, now {size}) take less time a row; but fewer steps may learn less from as many rows, so "
        "compare the loss of both profiles"
    )


def _tiny_chunks(profile: Mapping[str, Any]) -> str | None:
    chunks, decoded = profile["plan"]["chunks"], profile["decoded_bytes"]
    if chunks < 100 or decoded / chunks >= _TINY_CHUNK_BYTES:
        return None
    wanted = _good_chunk_rows(profile)
    return (
        f"chunks are small, {format_bytes(int(decoded / chunks))} each, and finding one takes longer than reading it: "
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
    return f"{why}: with `streamtrain rechunk --chunk-rows {wanted}` a window mixes more of them"


def _small_window(profile: Mapping[str, Any]) -> str | None:
    plan, rows = profile["plan"], profile["data_rows"]
    if plan["windows"] <= 1 or plan["window_rows"] >= _MIXED_SHARE * rows or not profile["memory"]["budget_given"]:
        return None
    share = plan["window_rows"] / rows
    return f"a window mixes {_percent(share)} of the rows: where the data are sorted, give a larger --memory"


def _spare_budget(profile: Mapping[str, Any]) -> str | None:
    memory = profile["memory"]
    peak, budget = memory["measured_peak_bytes"], memory["budget_bytes"]
    needed = memory["planned_peak_bytes"]
    if peak is None or not memory["budget_given"] or budget < _SLACK * needed or budget - needed < _SPARE_BYTES:
        return None
    rows = profile["plan"]["window_rows"]
    return f"--memory {-(-needed * 51 // (50 * MB))}MB --window-rows {rows} is enough for the same windows"


def _good_chunk_rows(profile: Mapping[str, Any]) -> int:
    return good_chunk_rows(profile["decoded_bytes"] / profile["data_rows"])


_RULES: tuple[Callable[[Mapping[str, Any]], str | None], ...] = (
    _over_budget, _tiny_chunks, _reading_bound, _learning_bound, _large_chunks, _small_window, _spare_budget,
)  # fmt: skip

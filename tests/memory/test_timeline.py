"""Memory over time: bounded, without a gap, the same record before and after a checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import examples

import streamtrain
from streamtrain.memory import timeline as module
from streamtrain.memory.timeline import Timeline
from streamtrain.runs.checkpoint import Checkpoints
from streamtrain.train.trainer import Trainer


def recorded(timeline: Timeline, seconds: float, *, start: float = 0.0, step: float = 0.05) -> Timeline:
    """A record of a run that is looked at every ``step`` seconds."""
    for now in np.arange(start, seconds, step):
        if timeline.is_due(float(now)):
            timeline.record(float(now), "train", {"rows": int(now * 100), "window_bytes": 1, "reading_bytes": 2})
    return timeline


@pytest.mark.parametrize("seconds", [1.0, 100.0, 103.0, 5_000.0])
def test_it_stays_small_and_covers_the_run(seconds: float) -> None:
    timeline = recorded(Timeline(), seconds)
    times = [moment["seconds"] for moment in timeline.moments()]
    assert len(times) <= 512 and times == sorted(times) and len(set(times)) == len(times)
    assert times[0] <= 0.2 * max(1, seconds / 50) and times[-1] > seconds * 0.98 - 0.3
    gaps = np.diff(times)
    assert gaps.max() <= 4 * max(0.2, seconds / 256) + 0.1
    assert seconds < 100 or len(times) > 250
    assert sum(array.nbytes for array in timeline.state_dict().values()) < 34_000


def test_the_moments_with_more_memory_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """One moment in fifty takes a gigabyte: the record of a long run shows it still."""
    sizes = iter(10**9 if n % 50 == 7 else 10**8 for n in range(10**6))
    monkeypatch.setattr(module, "resident_now", lambda: (next(sizes), 5))
    timeline = Timeline()
    for second in range(1, 1000):
        timeline.record(second * 0.2, "train", {})
    peaks = [moment for moment in timeline.moments() if moment["resident_bytes"] == 10**9]
    assert len(peaks) >= 999 // 50


@examples(30)
@given(st.floats(0.1, 300.0), st.floats(1.0, 300.0))
def test_a_resumed_run_continues_the_record(before: float, more: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "resident_now", lambda: (10**8, 10**7))
        undisturbed, first, again = recorded(Timeline(), before), recorded(Timeline(), before), Timeline()
        again.load_state_dict(first.state_dict())
        for timeline in (undisturbed, again):
            recorded(timeline, before + more, start=before)
    for one, other in zip(undisturbed.moments(), again.moments(), strict=True):
        assert (one["seconds"], one["rows"]) == (other["seconds"], other["rows"])


def test_what_cannot_be_measured_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "resident_now", lambda: None)
    timeline = Timeline()
    timeline.record(1.0, "validate", {"rows": 3})
    (moment,) = timeline.moments()
    assert (moment["resident_bytes"], moment["anonymous_bytes"], moment["rows"]) == (None, None, 3)
    assert (moment["seconds"], moment["stage"]) == (1.0, "validate") and moment["arrow_bytes"] >= 0


@pytest.mark.parametrize(
    "change",
    [
        {"moments": np.zeros((3, 7), np.int64)}, {"moments": np.zeros((600, 8), np.int64)}, {"moments": np.zeros((3, 8))},
        {"moments": np.full((1, 8), 9, np.int64)}, {"clock": np.array([0.0, 0.0])}, {"clock": np.array([1.0])},
    ],
)  # fmt: skip
def test_another_state_is_refused(change: dict[str, Any]) -> None:
    good = recorded(Timeline(), 5.0).state_dict()
    with pytest.raises(ValueError, match="a timeline"):
        Timeline().load_state_dict(good | change)
    with pytest.raises(KeyError):
        Timeline().load_state_dict({})


# -- of a fit --------------------------------------------------------------------------------------------------------------

KEYS = ["seconds", "stage", "resident_bytes", "anonymous_bytes", "arrow_bytes", "rows", "window_bytes", "reading_bytes"]


def data(rows: int = 3000) -> dict[str, Any]:
    x = np.random.default_rng(0).normal(size=rows)
    return {"x": x, "y": (x > 0).astype(int)}


@pytest.mark.skipif(sys.platform != "linux", reason="measures this process")
def test_a_report_has_memory_times_and_versions(tmp_path: Path) -> None:
    result = streamtrain.fit(data(), target="y", out=tmp_path / "r", epochs=3, validate=data())
    report = result.as_dict()
    moments = report["timeline"]
    assert moments and all(list(moment) == KEYS for moment in moments)
    assert moments[-1]["rows"] == report["rows_seen"] and moments[-1]["seconds"] <= report["seconds"]
    peak = report["memory"]["measured_peak_bytes"]
    assert max(moment["resident_bytes"] for moment in moments) < 1.02 * peak  # Linux counts both to some pages
    assert report["time"]["validation"] > 0 and report["time"]["other"] >= 0
    parts = [report["time"][name] for name in ("wait", "learn", "validation", "checkpoint", "other")]
    assert sum(parts) == pytest.approx(report["rows_seen"] / report["rows_per_second"], rel=0.02)
    assert report["started"] <= report["finished"] and report["started"].endswith("+00:00")
    assert (
        report["versions"]["streamtrain"] == streamtrain.__version__ and report["versions"]["numpy"] == np.__version__
    )


def test_a_run_that_is_resumed_keeps_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_SECONDS", 0.001)

    def stop(now: Any) -> None:
        if now.epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        streamtrain.fit(data(30_000), target="y", out=tmp_path / "r", epochs=3, progress=stop)
    checkpoints = Checkpoints(tmp_path / "r/checkpoints")
    header = checkpoints.newest()
    assert header is not None
    kept = checkpoints.arrays()["timeline.moments"]
    report = streamtrain.fit(data(30_000), out=tmp_path / "r", resume=True).as_dict()
    assert len(report["timeline"]) > len(kept) > 0
    assert [round(m["seconds"] * 1000) for m in report["timeline"]][: len(kept)] == kept[:, 0].tolist()
    assert report["started"] == header["started"]


def test_validation_is_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_SECONDS", 0.0001)
    stages: list[str] = []
    monkeypatch.setattr(Trainer, "now", lambda self: stages.append(self.stage) or {"rows": 0})
    streamtrain.fit(data(50_000), target="y", validate=data(200_000))
    assert {"train", "validate"} == set(stages)

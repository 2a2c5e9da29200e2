"""What a profile measures, how long it trains, and what it advises."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make import CommandLine, Done, run_streamtrain

import streamtrain
from streamtrain.errors import UsageError
from streamtrain.storage import Chunk
from streamtrain.tools.profile.advice import advice
from streamtrain.tools.profile.recorder import Recorder

MB = 10**6
WAIT = 120
linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is measured on Linux")


class Endless:
    """So many chunks that no test sees their end."""

    schema = pa.schema([("x", pa.float32()), ("y", pa.int8())])

    def chunks(self) -> list[Chunk]:
        return [Chunk(f"part {i}", 1000, 5000, 5000) for i in range(20_000)]

    def read(self, chunk: Chunk, columns: list[str]) -> pa.RecordBatch:
        x = np.random.default_rng(int(chunk.key.split()[1])).normal(size=chunk.rows).astype("f4")
        return pa.record_batch({"x": x, "y": (x > 0).astype("i1")}).select(columns)

    def fingerprint(self) -> str:
        return "endless"


def endless(**options: Any) -> Any:
    return streamtrain.profile(Endless(), target="y", classes=["0", "1"], window_rows=10_000, **options)


def test_it_stops_after_so_many_rows() -> None:
    found = endless(max_rows=30_000, max_seconds=None)
    assert 30_000 <= found.report.rows_seen < 20_000_000
    assert found.report.rows == found.report.rows_seen
    assert found.data_rows == 20_000_000 and found.decoded_bytes == 20_000_000 * 5


def test_it_stops_after_so_many_seconds() -> None:
    found = endless(max_seconds=0.3)
    assert 0 < found.report.rows_seen < 20_000_000
    assert found.report.loop_seconds >= 0.3


@pytest.mark.parametrize("limit", [{"max_seconds": 0}, {"max_rows": -1}, {"max_seconds": float("nan")}])
def test_limits_that_are_none_are_refused(limit: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"--max-.*: must be a"):
        endless(**limit)


@linux
def test_the_stages_add_up_and_the_timeline_shows_them() -> None:
    for _ in range(50):  # a read may lie between two moments
        found = endless(max_rows=100_000).as_dict()
        memory, stages, timeline = found["memory"], found["stages"], found["timeline"]
        if any(m["reading_bytes"] for m in timeline):
            break
    assert sum(s["planned_bytes"] for s in stages.values()) == memory["planned_peak_bytes"]
    assert sum(s["measured_bytes"] or 0 for s in stages.values()) >= memory["measured_peak_bytes"]
    measured = [s for s in stages.values() if s["measured_bytes"] is not None]
    assert sum(round(1000 * s["share"]) for s in measured) == 1000 and all(s["share"] >= 0 for s in measured)
    assert sorted(term for s in stages.values() for term in s["terms"]) == sorted(memory["terms"])
    assert stages["windows"]["measured_bytes"] == 2 * 10_000 * 8
    seconds = [m["seconds"] for m in timeline]
    assert seconds == sorted(seconds) and {m["stage"] for m in timeline} == {"open", "train", "end"}
    assert max(m["window_bytes"] for m in timeline) == 2 * 10_000 * 8
    assert max(m["reading_bytes"] for m in timeline) > 0
    assert 0 < max(m["rows"] for m in timeline) <= found["rows_seen"]
    assert all(0 < m["anonymous_bytes"] < m["resident_bytes"] <= 1.01 * memory["measured_peak_bytes"] for m in timeline)
    json.dumps(found)


def test_a_long_timeline_is_thinned_and_keeps_its_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamtrain.tools.profile.recorder._SECONDS", 0.0005)
    monkeypatch.setattr("streamtrain.tools.profile.recorder._MOST", 20)
    recorder = Recorder()
    with recorder:
        import time

        while recorder._every < 0.004:
            time.sleep(0.001)
    assert 10 <= len(recorder.moments) <= 21
    assert recorder.moments[0]["seconds"] < 0.1


def profiled(folder: Path, *flags: Any) -> Done:
    """Profile a small table, in a process of its own."""
    table = pa.table({"x<b>": np.arange(4000.0), "y": np.arange(4000) % 2})
    pq.write_table(table, folder / "d.parquet")
    done = run_streamtrain("profile", folder / "d.parquet", "--target", "y", *flags)
    assert done.code == 0, done.err
    return done


def test_the_command_shows_the_table_and_writes_page_and_picture(tmp_path: Path) -> None:
    done = profiled(tmp_path, "--html", tmp_path / "m.html", "--plot", tmp_path / "m.svg")
    for word in ("planned", "measured", "share", "baseline", "windows", "peak", "budget", "time"):
        assert word in done.out
    assert "The budget holds" in (tmp_path / "m.html").read_text(encoding="utf-8")
    assert (tmp_path / "m.svg").read_text(encoding="utf-8").startswith("<?xml")


@pytest.mark.slow
def test_the_command_prints_json(tmp_path: Path) -> None:
    found = profiled(tmp_path, "--json").json
    assert {"timeline", "stages", "advice", "memory", "plan", "time"} <= set(found)


@pytest.mark.parametrize(
    "flags", [["--plot", "m.bmp"], ["--html", "none/m.html"], ["--max-seconds", "0"], ["--max-rows", "0"]]
)
def test_what_cannot_be_is_said_before_anything_is_read(
    tmp_path: Path, flags: list[str], cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = cli("profile", "no such data", "--target", "y", *flags)
    assert code == 2 and out == ""
    assert err.startswith("error: ") and flags[1] in err and err.count("\n") == 1


def profile(**changes: Any) -> dict[str, Any]:
    """A profile of which nothing is to be said, with changes."""
    memory = {
        "budget_bytes": 400 * MB,
        "budget_given": True,
        "planned_peak_bytes": 390 * MB,
        "measured_peak_bytes": 380 * MB,
    }
    plan = {"chunks": 100, "windows": 10, "window_rows": 100_000, "streamed_chunks": 0, "batch_size": 64, "workers": 2}
    base = {"memory": memory, "plan": plan, "data_rows": 10**6, "decoded_bytes": 10**9, "rows": 10**6, "batches": 10_000,
            "chunk_bytes": 8 * MB}  # fmt: skip
    spent = {"time": {"read": 10.0, "wait": 3.0, "learn": 6.0, "other": 1.0}}
    return base | spent | {k: base[k] | v if isinstance(v, dict) and k in base else v for k, v in changes.items()}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, []),
        ({"time": {"read": 1, "wait": 5, "learn": 5, "other": 0}}, ["waited for rows 50 %"]),
        ({"time": {"read": 1, "wait": 1, "learn": 9, "other": 0}}, []),  # in steps of 0.9 ms: larger ones gain little
        (
            {"time": {"read": 1, "wait": 1, "learn": 9, "other": 0}, "batches": 100_000},
            ["learning took 90 %", "100,000 short steps of 0.09 ms", "--batch-size 256, now 64", "compare the loss"],
        ),
        ({"time": {"read": 1, "wait": 5, "learn": 5, "other": 0}, "batches": 100_000}, ["waited for rows 50 %"]),
        ({"time": {"read": 0, "wait": 0, "learn": 0, "other": 0}}, []),
        ({"time": {"read": 0, "wait": 0.9, "learn": 0, "other": 0}}, []),
        ({"memory": {"measured_peak_bytes": 500 * MB}}, ["took 500 MB, more than its budget of 400 MB: give --memory 550MB"]),
        ({"memory": {"measured_peak_bytes": None}}, []),
        ({"plan": {"chunks": 5000}}, ["small, 200 kB each", "--chunk-rows 8192"]),
        ({"plan": {"streamed_chunks": 3}}, ["3 of 100 chunks", "--chunk-rows 8192"]),
        ({"chunk_bytes": 200 * MB}, ["reads take 200 MB", "--chunk-rows 8192"]),
        ({"plan": {"window_rows": 15_000}}, ["mixes 1.5 % of the rows"]),
        (
            {"memory": {"planned_peak_bytes": 200 * MB, "measured_peak_bytes": 190 * MB}},
            ["--memory 204MB --window-rows", "is enough for the same windows"],
        ),
        ({"memory": {"planned_peak_bytes": 200 * MB, "budget_given": False}}, []),
    ],
)  # fmt: skip
def test_advice_follows_from_what_was_measured(changes: dict[str, Any], says: list[str]) -> None:
    found = " / ".join(advice(profile(**changes)))
    assert bool(found) == bool(says)
    for part in says:
        assert part in found

"""The harness of bench/kills.py: two of its cases, and what it sees."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import streamtrain

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import kills
import kills_cycles
import kills_runs

ROWS = 3000


@pytest.mark.slow
def test_two_runs_are_killed_and_resumed() -> None:
    command = [sys.executable, kills.__file__, "--count", "2"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "| Parquet | 1 |" in ended.stdout and "| Zarr | 1 |" in ended.stdout and "2 cases, 0 wrong" in ended.stdout


def run(out: Path, **settings: Any) -> Path:
    x = np.random.default_rng(0).normal(size=ROWS)
    streamtrain.fit({"x": x, "y": (x > 0.5).astype(int)}, target="y", out=out, memory="1GB", **settings)
    return out


def test_the_comparison_sees_another_run_and_files_that_were_left(tmp_path: Path) -> None:
    one, same, other = run(tmp_path / "one"), run(tmp_path / "same"), run(tmp_path / "other", seed=1)
    assert kills_runs.differences(one, same) == []
    assert kills_runs.differences(one, other)[:2] == ["model.safetensors", "model.json"]
    assert "metrics.jsonl" in kills_runs.differences(one, other)
    (same / "checkpoints" / ".writing-abc").mkdir()
    assert [wrong.split(":")[0] for wrong in kills_runs.differences(one, same)] == ["files left or missing"]


def test_a_case_follows_from_its_number_and_all_kinds_come() -> None:
    cases = [kills.choose(0, number) for number in range(200)]
    assert cases == [kills.choose(0, number) for number in range(200)] and cases[3] != kills.choose(1, 3)
    assert {case.scenario for case in cases[:9]} == set(kills.SCENARIOS)
    assert 45 < sum(len(case.kills) == 2 for case in cases) < 90
    assert 30 < sum(kill.aimed for case in cases for kill in case.kills) < 100
    assert sum(case.alone for case in cases) == 20


@pytest.mark.parametrize(
    ("name", "noise", "grown"), [("peak_bytes", 104_000_000, 106_000_000), ("files", 6, 7), ("handles", 13, 14)]
)
def test_what_grows_is_seen(name: str, noise: int, grown: int) -> None:
    usual = kills_cycles.Cycle("SIGINT", 100, 10**8, 6, 10)
    assert kills_cycles.growth([usual] * 10 + [usual._replace(**{name: noise})] * 10) == []
    assert len(kills_cycles.growth([usual] * 10 + [usual._replace(**{name: grown})] * 10)) == 1

"""One long run, stopped and resumed many times: nothing may grow, and its end must be that of a run that nobody stopped."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from kills_data import MEMORY, ROWS, brief, fit
from kills_runs import TIMEOUT_S, differences, ended, finish, start, stop

from streamtrain.runs.checkpoint import Checkpoints
from streamtrain.runs.lock import LOCK

SCENARIO = "Parquet"
LEAST_S, MOST_S = 0.3, 3.0  # of training, before it is stopped
MARGIN = 1.3  # so that the last cycle does not come to the end
COMPARED = 10  # cycles, of the first and of the last
MEMORY_NOISE, HANDLES_NOISE = 1.05, 3  # times as much, and as many more: are no growth
SAMPLES = 15  # of the open handles, which are more while a file is read


class Cycle(NamedTuple):
    """signal: that stopped it. rows: that the last checkpoint has learned. peak_bytes: VmHWM shortly before it was stopped;
    handles: open ones then, the median of some samples. files: in the run's folder, after that."""

    signal: str
    rows: int
    peak_bytes: int
    files: int
    handles: int


def cycle(count: int, seed: int, work: Path) -> bool:
    """Stop a run so often, and print each time how it was; whether anything was wrong."""
    rng = np.random.default_rng([seed, count])
    probe = work / "probe"
    if wrong := finish(fit(work, SCENARIO, probe), probe.with_suffix(".log"), alone=True):
        raise RuntimeError(wrong)
    speed = json.loads((probe / "report.json").read_text())["rows_per_second"]
    seconds = MARGIN * count * (LEAST_S + MOST_S) / 2 + 2 * MOST_S
    epochs = 1 + int(seconds * speed / ROWS)
    once, often, log = work / "once", work / "often", work / "often.log"
    whole = {"alone": True, "seconds": TIMEOUT_S + 10 * MOST_S * count}
    wrong = finish([*fit(work, SCENARIO, once), "--epochs", str(epochs)], work / "once.log", **whole)
    print("| cycle | stopped by | rows learned | peak memory | files | open handles |\n|" + " ---: |" * 6)
    cycles: list[Cycle] = []
    while not wrong and len(cycles) < count:
        number, expected = ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL))[len(cycles) % 2]
        more = ["--epochs", str(epochs), *(["--resume"] if cycles else [])]
        pid = start([*fit(work, SCENARIO, often, "4"), *more], log, alone=True)
        peak_bytes, handles, wrong = watch(pid, often, rng.uniform(LEAST_S, MOST_S))
        code = stop(pid, number)
        if not wrong and code != expected:
            wrong = f"exit code {code}"
        known = Checkpoints(often / "checkpoints").look()
        files = sum(path.is_file() for path in often.rglob("*"))
        cycles.append(Cycle(number.name, known["cursor"]["rows_seen"] if known else 0, peak_bytes, files, handles))
        print(shown(len(cycles), cycles[-1]), flush=True)
    wrong = wrong or finish([*brief(work, SCENARIO, often, "1", MEMORY[1]), "--resume"], log, **whole)
    wrong = wrong or "; ".join(differences(once, often) + growth(cycles))
    print(f"{len(cycles)} cycles, {epochs} epochs: {wrong or 'the same end, nothing grew'}")
    return bool(wrong)


def watch(pid: int, out: Path, seconds: float) -> tuple[int, int, str]:
    """Let it train for so long. Its peak memory in bytes and its open handles, then; what was wrong, if anything."""
    wrong = until_it_trains(pid, out) or ("it ended" if ended(pid, seconds) else "")
    handles = []
    while not wrong and len(handles) < SAMPLES:
        handles.append(len(os.listdir(f"/proc/{pid}/fd")))
        wrong = "it ended" if ended(pid, 0.01) else ""
    return (0, 0, wrong) if wrong else (1024 * int(status(pid)["VmHWM"].split()[0]), int(median(handles)), "")


def until_it_trains(pid: int, out: Path) -> str:
    """Wait until it holds the run's lock; what was wrong, if anything."""
    over = time.perf_counter() + TIMEOUT_S
    while time.perf_counter() < over:
        if (out / LOCK).exists() and f"process {pid} " in (out / LOCK).read_text():
            return ""
        if ended(pid, 0.01):
            return "it ended before it began"
    return "it did not begin"


def status(pid: int) -> dict[str, str]:
    """What the kernel tells of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def growth(cycles: Sequence[Cycle]) -> list[str]:
    """What has grown from the first cycles to the last: the median of memory or handles by more than is noise, or the most
    files."""
    first, last = cycles[:COMPARED], cycles[-COMPARED:]
    before, after = (median(cycle.peak_bytes for cycle in some) / 1e6 for some in (first, last))
    wrong = [f"memory grew from {before:.1f} to {after:.1f} MB"] if after > MEMORY_NOISE * before else []
    before, after = (median(cycle.handles for cycle in some) for some in (first, last))
    wrong += [f"open handles grew from {before:g} to {after:g}"] if after > before + HANDLES_NOISE else []
    before, after = (max(cycle.files for cycle in some) for some in (first, last))
    return wrong + ([f"files grew from {before} to {after}"] if after > before else [])


def shown(number: int, cycle: Cycle) -> str:
    """A row of the table."""
    return f"| {number} | {cycle.signal} | {cycle.rows:,} | {cycle.peak_bytes / 1e6:.1f} MB | {cycle.files} | {cycle.handles} |"

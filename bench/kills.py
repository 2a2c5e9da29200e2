"""Kills fits at random instants, resumes them, and compares with runs that nobody disturbed.

A case starts `fit --out RUN --checkpoint-seconds 0` as a process of its own, waits for an instant somewhere between its start
and shortly after its end, and ends it with SIGKILL; one in three resumed processes is killed as well. One kill in four waits
for a checkpoint that is being written. The last resume goes to the end, and what is in the folder then must be, bit for bit,
what the undisturbed run wrote: weights, scores, report. Other threads and another budget resume than those that began.

Every tenth case is a command line of its own, the others are forked from a process that has imported everything.

    python bench/kills.py --count 200
    python bench/kills.py --cycles 50       one long run, stopped and resumed fifty times

The cases follow from the seed and a number. With --cycles, SIGINT and SIGKILL take turns, and neither memory nor files nor
open handles may grow.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
from kills_cycles import cycle
from kills_data import MEMORY, SCENARIOS, WORKERS, brief, fit, make
from kills_runs import TIMEOUT_S, being_written, differences, ended, finish, start, stop

AT_ONCE = 2
START_S = 1.2  # of Python, where a case is a command line
INSTANTS = ("before the first", "mid-run", "in a write", "after the end")


class Kill(NamedTuple):
    """share: of the undisturbed run's seconds, after which it comes. aimed: at the next write of a checkpoint after that."""

    share: float
    aimed: bool


@dataclass(frozen=True)
class Case:
    """kills: of one process after the other. threads, memory: of each process. alone: command lines of their own. brief:
    what resumes is told only what it must be."""

    number: int
    scenario: str
    kills: tuple[Kill, ...]
    threads: tuple[str, ...]
    memory: tuple[str, ...]
    alone: bool
    brief: bool


class Found(NamedTuple):
    """instants: at which of INSTANTS each kill came. wrong: what was, if anything."""

    case: Case
    instants: tuple[str, ...]
    wrong: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=0, help="how many cases")
    parser.add_argument("--cycles", type=int, default=0, help="how often to stop one run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true", help="show every case")
    asked = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="kills-"))
    make(work)
    wrong = bool(asked.count) and kill_often([choose(asked.seed, n) for n in range(asked.count)], work, asked.verbose)
    wrong |= bool(asked.cycles) and cycle(asked.cycles, asked.seed, work)
    if wrong:
        print(f"to be looked at: {work}")
    else:
        shutil.rmtree(work)
    sys.exit(wrong)


# -- cases -------------------------------------------------------------------------------------------------------------


def choose(seed: int, number: int) -> Case:
    rng = np.random.default_rng([seed, number])
    aimed, twice = rng.random(2) < 0.25, rng.random() < 1 / 3
    most = 0.7 if twice or aimed[0] else 1.1  # what is killed then has an end before it
    kills = [Kill(rng.uniform(0, most), bool(aimed[0])), Kill(rng.uniform(0, 0.7), bool(aimed[1]))][: 1 + twice]
    processes = len(kills) + 1
    threads = tuple(map(str, rng.choice(WORKERS, processes)))
    memory = tuple(map(str, rng.choice(MEMORY, processes)))
    names = list(SCENARIOS)
    return Case(
        number, names[number % len(names)], tuple(kills), threads, memory, number % 10 == 9, bool(rng.random() < 0.5)
    )


def kill_often(cases: Sequence[Case], work: Path, verbose: bool) -> bool:
    """Whether anything was wrong."""
    began, names = time.perf_counter(), sorted({case.scenario for case in cases})
    with ProcessPoolExecutor(AT_ONCE, get_context("fork")) as pool:  # each has one thread, and so may fork
        seconds = dict(zip(names, pool.map(partial(undisturbed, work), names, timeout=10 * TIMEOUT_S), strict=True))
        if verbose:
            print({name: round(took, 1) for name, took in seconds.items()}, flush=True)
        found = []
        for one in pool.map(partial(try_out, work, seconds), cases, timeout=len(cases) * TIMEOUT_S):
            found.append(one)
            if verbose or one.wrong:
                print(f"{one.case}: {', '.join(one.instants)}: {one.wrong or 'the same'}", flush=True)
    print(markdown(found))
    wrong = sum(bool(one.wrong) for one in found)
    print(f"{len(found)} cases, {wrong} wrong, {time.perf_counter() - began:.0f} s")
    return bool(wrong)


def undisturbed(work: Path, scenario: str) -> float:
    """Run a scenario to its end, in a folder of its name; the seconds that it took. Raises RuntimeError if it fails."""
    out = work / scenario
    wrong = finish(fit(work, scenario, out), log_of(out)) or predict(work, scenario, out)
    if wrong:
        raise RuntimeError(f"{out}, undisturbed: {wrong}")
    return json.loads((out / "report.json").read_text())["seconds"]


def predict(work: Path, scenario: str, out: Path) -> str:
    """Predict beside the run; what was wrong, if anything."""
    data = work / SCENARIOS[scenario][0].replace("damaged", "parquet")  # which cannot be read
    return finish(["predict", str(out), str(data), "--out", str(out.with_suffix(".parquet"))], log_of(out))


def log_of(out: Path) -> Path:
    return out.with_suffix(".log")


def try_out(work: Path, seconds: dict[str, float], case: Case) -> Found:
    """Kill, resume, compare. The run's folder stays where anything was wrong."""
    out, instants = work / f"case-{case.number}", []
    expected = work / case.scenario
    for attempt in range(len(case.kills) + 1):
        threads, memory = case.threads[attempt], case.memory[attempt]
        arguments = fit(work, case.scenario, out, threads, memory)
        if case.brief and any(out.glob("checkpoints/*.safetensors")):
            arguments = brief(work, case.scenario, out, threads, memory)
        arguments += ["--resume"] if attempt else []
        if attempt == len(case.kills):
            break
        kill = case.kills[attempt]
        wait = kill.share * seconds[case.scenario] + START_S * case.alone
        instant = killed(arguments, out, kill, wait, case.alone)
        if instant not in INSTANTS:
            return Found(case, tuple(instants), f"{instant}: {log_of(out).read_text()[-500:].strip()}")
        instants.append(instant)
    wrong = finish(arguments, log_of(out), alone=case.alone) or "; ".join(differences(expected, out))
    if not wrong and case.number % 10 == 0:
        other, own = (folder.with_suffix(".parquet") for folder in (expected, out))
        wrong = predict(work, case.scenario, out)
        wrong = wrong or ("" if pq.read_table(own).equals(pq.read_table(other)) else "predictions differ")
    if not wrong:
        shutil.rmtree(out)
    return Found(case, tuple(instants), wrong)


def killed(arguments: Sequence[str], out: Path, kill: Kill, wait: float, alone: bool) -> str:
    """Start a process and kill it after so many seconds; at which of INSTANTS that was, or what else was its end."""
    left = being_written(out)  # by the process before
    pid = start(arguments, log_of(out), alone=alone)
    over = time.perf_counter() + wait + TIMEOUT_S
    if not ended(pid, wait) and kill.aimed:
        while not (being_written(out) - left or ended(pid, 0.0002) or time.perf_counter() > over):
            pass
    code, hangs = stop(pid, signal.SIGKILL), time.perf_counter() > over
    if hangs or code not in (0, -signal.SIGKILL):
        return "a hang" if hangs else f"exit code {code}"
    if code == 0 or (out / "report.json").exists():
        return "after the end"
    if being_written(out) - left:
        return "in a write"
    return "mid-run" if any(out.glob("checkpoints/*.safetensors")) else "before the first"


def markdown(found: Sequence[Found]) -> str:
    """How often what was killed when; a table."""
    names = ("cases", "killed twice", *INSTANTS, "wrong")
    lines = ["| scenario | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(names)]
    for scenario in (*SCENARIOS, "all"):
        some = [one for one in found if scenario in (one.case.scenario, "all")]
        counts = Counter(instant for one in some for instant in one.instants)
        twice, wrong = sum(len(one.instants) == 2 for one in some), sum(bool(one.wrong) for one in some)
        row = [len(some), twice, *(counts[instant] for instant in INSTANTS), wrong]
        lines += [f"| {scenario} | " + " | ".join(map(str, row)) + " |"] if some else []
    return "\n".join(lines)


if __name__ == "__main__":
    main()

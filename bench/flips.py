"""Damages checkpoints a little, hundreds of times, and resumes from them.

Fits are stopped by SIGKILL behind a checkpoint, and of a copy of what they left the newest checkpoint gets one bit flipped, is
cut off, or has up to 1 kB of it zeroed. `fit --resume` must see it, each time. Where the checkpoint before is there, it goes on
from that one, says so, and ends with what the undisturbed run wrote, bit for bit: weights, scores, report. Every other case has
nothing but the damaged one: one error, exit code 2, and a folder that is left as it was.

Each resume is forked from a process that has imported everything; every fiftieth is a command line of its own.

    python bench/flips.py --count 500
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from forks import command, run
from kills_data import table, write
from kills_runs import differences

from streamtrain.model import tensors
from streamtrain.runs.checkpoint import Checkpoints, CheckpointSchedule
from streamtrain.runs.lock import LOCK

ROWS = 4000
TIMEOUT_S = 60
GOOD = ("fell back", "error")
DAMAGES = ("flip", "flip", "flip", "truncate", "zero")  # chosen at random
_COMMON = "--batch-size 64 --window-rows 1000 --memory 500MB --target"
#: how to fit, and the number of checkpoints after which it is stopped
KINDS: dict[str, tuple[str, int]] = {
    "text, categories": (f"{_COMMON} y --exclude z,m --as t=text --epochs 2", 6),
    "softmax": (f"{_COMMON} m --features a,b,c,k --epochs 2", 7),
    "patience": (f"{_COMMON} y --features a,b,c,k --holdout 0.1 --patience 2 --epochs 4", 12),
    "regression": (f"{_COMMON} z --features a,b,c --optimizer adam --epochs 2", 4),
}


@dataclass(frozen=True)
class Case:
    """One damage: to which kind of run, how, where. start, size: bytes; bit: of the byte at ``start``. alone: the checkpoint
    before is not there."""

    number: int
    kind: str
    damage: str
    start: int
    size: int
    bit: int

    @property
    def alone(self) -> bool:
        return self.number // len(KINDS) % 2 == 1


class Found(NamedTuple):
    """What came of a case: one of GOOD, or what was wrong. where: what was hit, the header or the arrays."""

    case: Case
    where: str
    outcome: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500, help="how many cases")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true", help="show every case")
    asked = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="flips-") as folder:
        work = Path(folder)
        make(work)
        found = []
        for number in range(asked.count):
            found.append(one := tried(choose(work, asked.seed, number), work))
            if asked.verbose or one.outcome not in GOOD:
                print(f"{one.case}: {one.outcome}", flush=True)
    wrong = sum(one.outcome not in GOOD for one in found)
    print(markdown(found))
    print(f"{len(found):,} cases, {wrong} wrong, {time.perf_counter() - began:.0f} s")
    sys.exit(bool(wrong))


# -- runs --------------------------------------------------------------------------------------------------------------


def make(work: Path) -> None:
    """Data; and of each kind an undisturbed run, ``whole``, and one that was stopped, ``stopped``. Raises RuntimeError where
    that fails."""
    write(work / "data", [table(ROWS // 2, seed) for seed in range(2)], 200)
    for kind, (_, saves) in KINDS.items():
        (work / kind).mkdir()
        ended = run(command(*fit(work, kind, work / kind / "whole")), TIMEOUT_S)
        if ended.code:
            raise RuntimeError(f"{kind}, undisturbed: {ended.err}")
        ended = run(stopping(command(*fit(work, kind, work / kind / "stopped")), saves), TIMEOUT_S)
        left = sorted(os.listdir(work / kind / "stopped/checkpoints"))
        if ended.code != -signal.SIGKILL or len(left) != 2:
            raise RuntimeError(f"{kind}, stopped: exit code {ended.code}, {left}: {ended.err}")


def fit(work: Path, kind: str, out: Path) -> list[str]:
    return ["fit", str(work / "data"), "--out", str(out), *KINDS[kind][0].split()]


def stopping(work: Callable[[], None], saves: int) -> Callable[[], None]:
    """The same, with a checkpoint after each look at the clock, killed behind this many."""

    def stopped() -> None:
        save, done = Checkpoints.save, iter(range(1, saves + 1))

        def saved(self: Checkpoints, *what: Any) -> None:
            save(self, *what)
            if next(done) == saves:
                os.kill(os.getpid(), signal.SIGKILL)

        Checkpoints.save, CheckpointSchedule.due = saved, lambda *_, **__: True  # type: ignore[assignment, method-assign]
        work()

    return stopped


# -- cases -------------------------------------------------------------------------------------------------------------


def choose(work: Path, seed: int, number: int) -> Case:
    rng, kind = np.random.default_rng([seed, number]), list(KINDS)[number % len(KINDS)]
    whole = np.frombuffer(newest(work / kind / "stopped").read_bytes(), np.uint8)
    start, size, damage = int(rng.integers(len(whole))), int(2 ** rng.uniform(0, 10)), str(rng.choice(DAMAGES))
    if rng.random() < 1 / 3:  # headers are small
        start = int(rng.integers(header_bytes(whole.tobytes())))
    if damage == "zero":  # what is zero stays so: from the next byte that is not
        start += int(np.flatnonzero(whole[start:])[0]) if whole[start:].any() else start - len(whole)
    return Case(number, kind, damage, start, size, int(rng.integers(8)))


def newest(out: Path) -> Path:
    return max((out / "checkpoints").iterdir())


def header_bytes(whole: bytes) -> int:
    return 8 + int.from_bytes(whole[:8], "little")


def damaged(whole: bytes, case: Case) -> bytes:
    changed = bytearray(whole)
    if case.damage == "flip":
        changed[case.start] ^= 1 << case.bit
    elif case.damage == "zero":
        changed[case.start : case.start + case.size] = bytes(len(changed[case.start : case.start + case.size]))
    else:
        del changed[case.start :]
    return bytes(changed)


def tried(case: Case, work: Path, change: Callable[[Path, Case], None] | None = None) -> Found:
    """Damage, resume, judge. change: what is done to the newest checkpoint; None: what the case says."""
    out = Path(shutil.copytree(work / case.kind / "stopped", work / "run"))
    path = newest(out)
    whole = path.read_bytes()
    where = "header" if case.start < header_bytes(whole) else "arrays"
    if change is None:
        path.write_bytes(damaged(whole, case))
    else:
        change(path, case)
    if case.alone:
        min((out / "checkpoints").iterdir()).unlink()
    before = contents(out)
    outcome = "nothing was damaged" if path.read_bytes() == whole else resumed(case, work, out, path, before)
    shutil.rmtree(out)
    return Found(case, where, outcome)


def contents(folder: Path) -> dict[str, bytes]:
    """All files, but for the lock that a killed process leaves."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != LOCK}


def resumed(case: Case, work: Path, out: Path, path: Path, before: dict[str, bytes]) -> str:
    """What came of it."""
    arguments = ["fit", str(work / "data"), "--out", str(out), "--resume", "--json"]
    code, said, err = on_its_own(arguments) if case.number % 50 == 49 else run(command(*arguments), TIMEOUT_S)[:3]
    if code is None:
        return "a hang"
    if "Traceback" in err or code not in (0, 2):
        return f"exit code {code}: {err[-500:].strip()}"
    if code == 2:
        if not case.alone:
            return f"an error with a good checkpoint beside: {err.strip()}"
        if said or err.count("\n") != 1 or not err.startswith("error: ") or str(path) not in err:
            return f"not one error that names it: {said[:100]} {err[-500:].strip()}"
        return "error" if contents(out) == before else "an error, but the folder was changed"
    if case.alone:
        return f"went on without a checkpoint: {'; '.join(differences(work / case.kind / 'whole', out)) or 'the same'}"
    wrong = differences(work / case.kind / "whole", out)
    warnings = [line for line in json.loads(said)["warnings"] if line.startswith(f"{path}: ")]
    if len(warnings) != 1 or "the checkpoint before it is used" not in warnings[0] or warnings[0] not in err:
        wrong.insert(0, "was not said")
    return "; ".join(wrong) or "fell back"


def on_its_own(arguments: Sequence[str]) -> tuple[int | None, str, str]:
    """A command line: exit code, stdout, stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "streamtrain", *arguments], capture_output=True, text=True, timeout=TIMEOUT_S
    )
    return done.returncode, done.stdout, done.stderr


def forge(path: Path, case: Case) -> None:
    """Another weight, and a checksum that is right: nothing can see that, but whoever compares the ends."""
    found = tensors.load(path, sealed=True)
    found.arrays["model.learner.weights"].flat[0] += 1
    tensors.save(path, found.arrays, metadata=found.metadata, sealed=True)


def markdown(found: Sequence[Found]) -> str:
    """How often what came of which damage to which kind of run."""
    counts = Counter((one.case.kind, one.case.damage, one.where) for one in found)
    good = Counter((one.case.kind, one.case.damage, one.where, one.outcome) for one in found)
    lines = ["| run | damage | from | cases | fell back | error | wrong |", "| --- | --- | --- |" + " ---: |" * 4]
    for key in sorted(counts, key=lambda key: (list(KINDS).index(key[0]), *key[1:])):
        row = [counts[key], *(good[*key, name] for name in GOOD)]
        lines.append(f"| {' | '.join(key)} | " + " | ".join(map(str, [*row, row[0] - sum(row[1:])])) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

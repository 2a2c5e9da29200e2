"""Fits under other libraries and processors, as far as one machine can show them: the same bits everywhere?

Each setting of the environment is a process of its own. It fits every loss with every optimizer, several targets, penalties,
weights of rows and classes, categories, text, missing numbers, times, a hold-out, another class later; once with the compiled
kernels and once without; and it resumes a run that was stopped in the first environment. Compared is the hash of everything
that each fit has learned and scored. OPENBLAS_CORETYPE chooses OpenBLAS's kernels, NPY_DISABLE_CPU_FEATURES numpy's loops,
GLIBC_TUNABLES the functions of the C library.

    python bench/exact.py --rows 20000
"""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import streamtrain
from streamtrain import kernels
from streamtrain.learn import LOSSES, OPTIMIZERS
from streamtrain.model.model import Model

_CORES = ("Haswell", "Zen", "Sandybridge", "Prescott", "SkylakeX")
_NO_AVX512, _NO_AVX2 = "X86_V4 AVX512_ICL AVX512_SPR", "X86_V3 X86_V4 AVX512_ICL AVX512_SPR"
_OLD_GLIBC = "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4,-AVX512F,-AVX2_Usable,-FMA_Usable"
ENVIRONMENTS: dict[str, dict[str, str]] = {
    "as it is": {},
    **{f"OpenBLAS for {core}": {"OPENBLAS_CORETYPE": core} for core in _CORES},
    "numpy without AVX-512": {"NPY_DISABLE_CPU_FEATURES": _NO_AVX512},
    "numpy without AVX2 and FMA": {"NPY_DISABLE_CPU_FEATURES": _NO_AVX2},
    "glibc without AVX2 and FMA": {"GLIBC_TUNABLES": _OLD_GLIBC},
    "all of an old processor": {
        "OPENBLAS_CORETYPE": "Prescott", "NPY_DISABLE_CPU_FEATURES": _NO_AVX2, "GLIBC_TUNABLES": _OLD_GLIBC,
    },
}  # fmt: skip
_TIMEOUT_S = 600
_RESUMED = "resumed"


def write(path: Path, rows: int) -> Path:
    """Write a table. What makes it is numpy, whose bits depend on the processor: so it is made once."""
    made = table(rows)
    with pa.ipc.new_file(path, made.schema) as file:
        file.write_table(made)
    return path


def table(rows: int) -> pa.Table:
    """Columns of every role, and targets of every task."""
    r = np.random.default_rng(0)
    x = r.normal(size=(rows, 11)).astype(np.float32)
    score, noise = x @ r.normal(size=(11, 10)), r.gumbel(size=(rows, 10))
    words = np.array([f"word{k}" for k in range(300)])
    start = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    return pa.table({
        **{f"x{k}": x[:, k] for k in range(11)},
        "gaps": pa.array(x[:, 0], mask=r.random(rows) < 0.1),
        "city": [f"city {k}" for k in r.integers(0, 50, rows)],
        "note": [" ".join(part) for part in words[r.integers(0, 300, (rows, 6))]],
        "at": [start + dt.timedelta(seconds=int(s)) for s in r.integers(0, 10**8, rows)],
        "weight": r.integers(0, 4, rows) / 2,
        "ten": np.argmax(score + noise, axis=1),
        "two": np.where(score[:, 0] + noise[:, 0] > 0, "yes", "no"),
        "other": np.where(score[:, 1] + noise[:, 1] > 0, "yes", "no"),
        "number": score[:, 2] + noise[:, 2],
        "second": score[:, 3] + noise[:, 3],
        "third": score[:, 4] + noise[:, 4],
        "count": r.poisson(np.exp(np.clip(score[:, 5] / 3, -3, 3))).astype(np.float32),
    })  # fmt: skip


NUMBERS = [f"x{k}" for k in range(11)]
EVERYTHING = [*NUMBERS, "gaps", "city", "note", "at"]
_TARGETS = {"softmax": "ten", "logistic": "two", "hinge": "two", "poisson": "count"}


def cases() -> dict[str, dict[str, Any]]:
    """The settings of every fit, by a name."""
    made: dict[str, dict[str, Any]] = {}
    for loss in LOSSES:
        for optimizer in OPTIMIZERS:
            target = _TARGETS.get(loss, "number")
            settings = {"target": target, "loss": loss, "optimizer": optimizer, "features": NUMBERS}
            made[f"{loss}, {optimizer}"] = settings | ({"task": "regress"} if target == "count" else {})
    for optimizer in OPTIMIZERS:
        common: dict[str, Any] = {"optimizer": optimizer, "features": EVERYTHING, "l1": 1e-4, "l2": 1e-3}
        made |= {
            f"numbers, {optimizer}": common | {"target": ["number", "second", "third"], "l1": 0.0},
            f"two of two, {optimizer}": common | {"target": ["two", "other"]},
            f"softmax, penalties, {optimizer}": common | {"target": "ten"},
            f"logistic, penalties, {optimizer}": common | {"target": "two"},
        }
    for loss in LOSSES:
        target = _TARGETS.get(loss, "number")
        settings = {"target": target, "loss": loss, "features": EVERYTHING, "weight": "weight", "holdout": 0.2}
        made[f"{loss}, weights"] = settings | ({"task": "regress"} if target == "count" else {})
    made["everything, twice"] = {"target": "two", "features": EVERYTHING, "holdout": 0.2, "epochs": 2}
    made["classes, weighed"] = {"target": "ten", "features": EVERYTHING, "class_weight": "balanced", "holdout": 0.2}
    return made


def learned(result: Any) -> str:
    """The hash of all that a fit has learned, and of its scores."""
    digest = hashlib.sha256(json.dumps(result.report.metrics, sort_keys=True).encode())
    model: Model = result.model
    for state in (model.learner.state_dict(), model.preparation.state_dict()):
        for name in sorted(state):
            digest.update(name.encode() + np.ascontiguousarray(state[name]).tobytes())
    return digest.hexdigest()[:16]


def hashes(data: Path, names: Sequence[str], stopped: Path | None = None) -> dict[str, str]:
    """The hash of each of these fits, of all if there are none; and of the resumed run, a copy of the stopped one, if given."""
    known = cases()
    found = {name: learned(streamtrain.fit(data, seed=1, **known[name])) for name in names or known}
    if stopped is None:
        return found
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(stopped, Path(folder, "run"))
        return found | {_RESUMED: learned(streamtrain.fit(data, out=copy, resume=True))}


def stop(data: Path, folder: Path) -> str:
    """Stop a run in the middle, and leave it in the folder. Returns the hash of a whole one."""
    settings = cases()["softmax, adam"]

    def interrupt(now: Any) -> None:
        if now.rows_seen > 200:
            raise KeyboardInterrupt

    try:
        streamtrain.fit(data, out=folder, progress=interrupt, **settings)
    except KeyboardInterrupt:
        return learned(streamtrain.fit(data, **settings))
    raise AssertionError("the run was not stopped")


@contextmanager
def without_compiled(is_so: bool) -> Iterator[None]:
    """Take numpy's loops in place of the compiled ones."""
    if not is_so:
        yield
        return
    with kernels.using(None):
        yield


def in_environment(environment: dict[str, str], data: Path, *arguments: Any) -> dict[str, str]:
    """The hashes of a process with this environment."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), "--child", str(data), *map(str, arguments)],
        env=os.environ | environment, stdout=subprocess.PIPE, text=True, check=True, timeout=_TIMEOUT_S,
    )  # fmt: skip
    found: dict[str, str] = json.loads(done.stdout)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--child", type=Path)
    parser.add_argument("--without-kernels", action="store_true")
    parser.add_argument("--stop", type=Path)
    parser.add_argument("--stopped", type=Path)
    parser.add_argument("cases", nargs="*")
    asked = parser.parse_args()
    if asked.child is not None:
        with without_compiled(asked.without_kernels):
            whole = {} if asked.stop is None else {_RESUMED: stop(asked.child, asked.stop)}
            print(json.dumps(hashes(asked.child, asked.cases, asked.stopped) | whole))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        return compare(asked.rows, Path(folder))


def compare(rows: int, folder: Path) -> int:
    """Compare all environments. Returns 1 if bits differ between them."""
    different = 0
    kinds: list[dict[str, str]] = []
    data = write(folder / "data.arrow", rows)
    for kind, more in (("compiled kernels", ()), ("numpy in place of the kernels", ("--without-kernels",))):
        wanted: dict[str, str] = {}
        stopped = folder / f"{len(kinds)}"
        print(f"{kind}: {len(cases())} fits of {rows:,} rows, and a run that goes on elsewhere")
        for name, environment in ENVIRONMENTS.items():
            found = in_environment(environment, data, *more, "--stopped" if wanted else "--stop", stopped)
            wanted = wanted or found
            unlike = [case for case in wanted if found[case] != wanted[case]]
            different += len(unlike)
            print(f"  {name}: {'the same bits' if not unlike else 'OTHER BITS: ' + '; '.join(unlike)}", flush=True)
        kinds.append(wanted)
    unlike = [case for case in kinds[0] if kinds[0][case] != kinds[1][case]]
    print(
        f"compiled and numpy: {len(kinds[0]) - len(unlike)} fits have the same bits, {len(unlike)} not: {'; '.join(unlike)}"
    )
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main())

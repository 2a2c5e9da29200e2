"""Fits under other libraries and processors, as far as one machine can show them: the same bits everywhere?

Each setting of the environment is a process of its own. It fits every loss with every optimizer, several targets, penalties,
weights of rows and classes, categories, text, missing numbers, times, a hold-out, another class later; once with the compiled
kernels and once without. Printed is the hash of everything that each fit has learned and scored. OPENBLAS_CORETYPE chooses
OpenBLAS's kernels, NPY_DISABLE_CPU_FEATURES numpy's loops, GLIBC_TUNABLES the functions of the C library.

    python bench/exact.py --rows 20000
"""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
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
    made["everything"] = {"target": "two", "features": EVERYTHING, "holdout": 0.2, "epochs": 2}
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


def hashes(chosen: dict[str, dict[str, Any]], rows: int) -> dict[str, str]:
    """The hash of each fit."""
    data = table(rows)
    return {name: learned(streamtrain.fit(data, seed=1, **settings)) for name, settings in chosen.items()}


@contextmanager
def without_compiled(is_so: bool) -> Iterator[None]:
    """Take numpy's loops in place of the compiled ones."""
    if not is_so:
        yield
        return
    with kernels.using(None):
        yield


def in_environment(environment: dict[str, str], *arguments: str) -> dict[str, str]:
    """The hashes of a process with this environment."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), "--child", *arguments],
        env=os.environ | environment, capture_output=True, text=True, check=True, timeout=_TIMEOUT_S,
    )  # fmt: skip
    found: dict[str, str] = json.loads(done.stdout)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--child", action="store_true")
    parser.add_argument("--without-kernels", action="store_true")
    asked = parser.parse_args()
    if asked.child:
        with without_compiled(asked.without_kernels):
            print(json.dumps(hashes(cases(), asked.rows)))
        return 0
    different = 0
    for kind, more in (("compiled kernels", ()), ("numpy in place of the kernels", ("--without-kernels",))):
        wanted: dict[str, str] = {}
        print(f"{kind}: {len(cases())} fits of {asked.rows:,} rows")
        for name, environment in ENVIRONMENTS.items():
            found = in_environment(environment, "--rows", str(asked.rows), *more)
            wanted = wanted or found
            unlike = [case for case in wanted if found[case] != wanted[case]]
            different += len(unlike)
            print(f"  {name}: {'the same bits' if not unlike else 'OTHER BITS: ' + '; '.join(unlike)}", flush=True)
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main())

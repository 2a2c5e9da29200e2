"""Arrays of 2 GB within 300 MB: memory maps, and ``.npy`` files, in C and in Fortran order.

Each case is fitted in a process of its own, whose peak is ``VmHWM``: pages of maps count. The rows are the same in each, so the
loss must be the same too. Exits with 1 where a process took more than its budget or plan, or learned something else.

    python bench/arrays.py [--bytes 2e9] [--budget 300MB]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import streamtrain
from streamtrain.memory.sizes import parse_bytes

FEATURES, BLOCK_ROWS = 19, 1 << 18
RECORD = np.dtype([("X", "<f4", (FEATURES,)), ("y", "<f4")])
CASES = {
    "path of a structured .npy": "'table.npy'",
    "memory map of a structured array": "np.load('table.npy', mmap_mode='r')",
    "memory maps (X, y)": "(np.load('X.npy', mmap_mode='r'), np.load('y.npy', mmap_mode='r'))",
    "memory maps (X, y), X in Fortran order": "(np.load('F.npy', mmap_mode='r'), np.load('y.npy', mmap_mode='r'))",
    "predict: path of X.npy": "'X.npy'",
    "predict: path of X.npy in Fortran order": "'F.npy'",
}
CHILD = """
import json, time, numpy as np, streamtrain
start, data = time.perf_counter(), {data}
if {is_fit}:
    report = streamtrain.fit(data, target="y", memory="{budget}").report.as_dict()
    rows, planned, loss = report["rows"], report["memory"]["planned_peak_bytes"], report["metrics"]["progressive"]
else:
    done = streamtrain.predict("model", data, out="predictions.parquet", memory="{budget}")
    rows, planned, loss = done["rows"], None, None
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
peak = int(status["VmHWM"].split()[0]) * 1024
print(json.dumps(dict(peak=peak, planned=planned, rows=rows, loss=loss, seconds=time.perf_counter() - start)))
"""


def write(folder: Path, rows: int) -> None:
    """The arrays, block by block."""
    weights = np.random.default_rng(0).normal(size=FEATURES).astype("f4")
    table = np.lib.format.open_memmap(folder / "table.npy", "w+", RECORD, (rows,))
    X = np.lib.format.open_memmap(folder / "X.npy", "w+", np.float32, (rows, FEATURES))
    F = np.lib.format.open_memmap(folder / "F.npy", "w+", np.float32, (rows, FEATURES), fortran_order=True)
    y = np.lib.format.open_memmap(folder / "y.npy", "w+", np.float32, (rows,))
    for start in range(0, rows, BLOCK_ROWS):
        rng = np.random.default_rng(start)
        part = rng.normal(size=(min(BLOCK_ROWS, rows - start), FEATURES)).astype("f4")
        stop = start + len(part)
        X[start:stop] = F[start:stop] = table["X"][start:stop] = part
        y[start:stop] = table["y"][start:stop] = part @ weights


def measured(folder: Path, data: str, budget: str, *, is_fit: bool) -> dict[str, Any]:
    """What one case took."""
    code = CHILD.format(data=data, budget=budget, is_fit=is_fit)
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=1800)
    if done.returncode:
        sys.exit(f"{data}: {done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--bytes", type=float, default=2e9, help="of the rows")
    parser.add_argument("--budget", default="300MB")
    arguments = parser.parse_args()
    rows, most = int(arguments.bytes / RECORD.itemsize), parse_bytes(arguments.budget)
    is_broken = False
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)
        write(folder, rows)
        streamtrain.fit(np.load(folder / "table.npy", mmap_mode="r")[:1000], target="y", out=folder / "model")
        print(f"{rows:,} rows of {RECORD.itemsize} bytes, --memory {arguments.budget}\n")
        print(f"{'case':<42}{'rows/s':>12}{'planned MB':>12}{'peak MB':>10}")
        losses = set()
        for case, data in CASES.items():
            got = measured(folder, data, arguments.budget, is_fit=not case.startswith("predict"))
            losses.add(json.dumps(got["loss"])) if got["loss"] else None
            planned = got["planned"] or most
            is_broken |= got["peak"] > min(most, planned) or got["rows"] != rows
            print(
                f"{case:<42}{rows / got['seconds']:>12,.0f}{planned / 1e6:>12.1f}{got['peak'] / 1e6:>10.1f}", flush=True
            )
    print(f"\n{'the same loss in each' if len(losses) == 1 else f'several losses: {losses}'}")
    return int(is_broken or len(losses) != 1)


if __name__ == "__main__":
    sys.exit(main())

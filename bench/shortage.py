"""Fits and other commands under ever less memory: budgets (``--memory``), and limits of the system (``ulimit -d``), in steps.

Each must end with 0, 3 or 4, in bounded time, without a traceback: never "this is a bug", never by a signal. With a budget the
peak must be within it, unless the process is above it before any data are opened. See scripts/measure.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import zarr

WAIT = 120
BASELINE = 112_000_000  # the least budget that a process with all libraries of a format can keep

CHILD = """
import sys
from streamtrain.cli import main
try:
    main(sys.argv[1:])
finally:
    with open("/proc/self/status") as status:
        print("peak", next(line.split()[1] for line in status if line.startswith("VmHWM")), file=sys.stderr)
"""


def make(folder: Path) -> dict[str, str]:
    rng = np.random.default_rng(0)
    columns = {f"x{i}": rng.normal(size=100_000) for i in range(20)} | {"y": rng.integers(0, 2, 100_000)}
    text = {
        "t": [f"word {i % 5000} and {i % 77}" for i in range(100_000)],
        "c": [f"{i % 30_000}" for i in range(100_000)],
    }
    table = pa.table(columns | text)
    pq.write_table(table, folder / "a.parquet", row_group_size=20_000)
    pq.write_table(table, folder / "many.parquet", row_group_size=20)
    pa.csv.write_csv(table, folder / "a.csv")
    pa.feather.write_feather(table, folder / "a.arrow")
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table.slice(0, 20_000).to_pylist()))
    group = zarr.create_group(folder / "a.zarr")
    for name, values in columns.items():
        group.create_array(name, data=values, chunks=(10_000,))
    return {name: str(folder / name) for name in ("a.parquet", "many.parquet", "a.csv", "a.arrow", "a.jsonl", "a.zarr")}


def run(arguments: list[str], data_limit: int | None) -> tuple[int, str, int]:
    """The exit code, stderr, and the peak in bytes (0 if the process died)."""
    limit = partial(resource.setrlimit, resource.RLIMIT_DATA, (data_limit, data_limit)) if data_limit else None
    command = [sys.executable, "-c", CHILD, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT, preexec_fn=limit)
    except subprocess.TimeoutExpired:
        return -1, "did not end", 0
    peak = re.search(r"peak (\d+)", done.stderr)
    return done.returncode, done.stderr, int(peak[1]) * 1024 if peak else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--only", help="one kind of data")
    options = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kinds = make(folder)
        for kind, data in kinds.items():
            if options.only not in (None, kind):
                continue
            for label, sizes in (
                ("--memory", np.linspace(90, 260, options.steps)),
                ("ulimit -d", np.linspace(60, 400, options.steps)),
            ):
                outcomes: Counter[int] = Counter()
                for size in sizes:
                    limit = int(size * 10**6)
                    budget = ["--memory", str(limit)] if label == "--memory" else []
                    code, said, peak = run(["fit", data, "--target", "y", *budget], None if budget else limit)
                    outcomes[code] += 1
                    over = bool(budget) and peak > max(limit, BASELINE)
                    if code not in (0, 3, 4) or "Traceback" in said or over:
                        wrong += 1
                        print(f"  {kind} {label} {size:.0f} MB: exit {code}, peak {peak / 1e6:.0f} MB: {said[-1500:]}")
                print(
                    f"{kind:13} {label:9} {', '.join(f'{n} x exit {code}' for code, n in sorted(outcomes.items()))}",
                    flush=True,
                )
    print(f"wrong: {wrong}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())

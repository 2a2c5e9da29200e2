"""What checkpoints cost: seconds each and share of the run, for models of about 1 kB, 10 MB and 1 GB.

    python bench/checkpoint.py [--sizes small,medium,large] [--seconds 120] [--ways 30,0] [--json]

Each size is fitted twice, with the default of a checkpoint every 30 s and with ``--checkpoint-seconds 0``, which leaves only
the rule that none comes before 50 times as long has gone by as the last one took. Epochs are chosen so that a run takes about
so many seconds (three times as many for the large model, so that some checkpoints come on the way). The last checkpoint, which
comes whatever the rule says, counts too.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

MB = 10**6


@dataclass(frozen=True)
class Size:
    """A model: classes, values of a category (0: numbers alone), bits of its slots, rows an epoch, and how long to run."""

    classes: int
    values: int
    bits: int
    rows: int
    times: int = 1


SIZES = {
    "small": Size(2, 0, 10, 1_000_000),
    "medium": Size(2, 2_000_000, 19, 2_000_000),
    "large": Size(60, 2_000_000, 20, 2_000_000, 3),
}


def write(size: Size, path: Path) -> None:
    """Numbers, one category of many values, and a class that follows from both."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(size.rows, 10)).astype(np.float32)
    columns: dict[str, Any] = {f"x{j}": x[:, j] for j in range(10)}
    y = x[:, 0].round().astype(np.int64)
    if size.values:
        columns["name"] = rng.integers(0, size.values, size.rows).astype(np.int32)
        y += columns["name"]
    columns["y"] = (y % size.classes).astype(np.int32)
    pq.write_table(pa.table(columns), path, row_group_size=100_000, use_dictionary=False)


def fit(size: Size, data: Path, out: Path, epochs: int, every: float) -> dict[str, Any]:
    """The report of a fit in a process of its own."""
    command = [sys.executable, "-m", "streamtrain", "fit", str(data), "--target", "y", "--out", str(out), "--json"]
    command += ["--epochs", str(epochs), "--checkpoint-seconds", str(every), "--hash-bits", str(size.bits)]
    command += ["--batch-size", "1024", "--memory", "6GB"] + (["--as", "name=category"] if size.values else [])
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measured(name: str, size: Size, seconds: float, folder: Path, ways: Sequence[float]) -> list[dict[str, Any]]:
    """A row of the table for each of the ways."""
    data = folder / f"{name}.parquet"
    write(size, data)
    one = fit(size, data, folder / f"{name}-one", 1, 1e9)
    epoch = one["rows_seen"] / one["rows_per_second"]
    epochs = max(1, round(seconds * size.times / epoch))
    rows = []
    for every in ways:
        out = folder / f"{name}-{every:g}"
        report = fit(size, data, out, epochs, every)
        files = sorted((out / "checkpoints").iterdir())
        count = int(files[-1].stem.removeprefix("checkpoint-"))
        loop = report["rows_seen"] / report["rows_per_second"]
        spent = report["time"]["checkpoint"]
        rows.append({
            "model": name,
            "model_bytes": (out / "model.safetensors").stat().st_size,
            "checkpoint_bytes": files[-1].stat().st_size,
            "every": every,
            "run_seconds": round(loop, 1),
            "checkpoints": count,
            "seconds_each": round(spent / count, 4),
            "share": round(spent / loop, 5),
            "planned_bytes": report["memory"]["terms"]["checkpoint"]["planned_bytes"],
            "measured_bytes": report["memory"]["terms"]["checkpoint"]["measured_bytes"],
        })  # fmt: skip
        for path in files:
            path.unlink()
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", default=",".join(SIZES))
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--ways", default="30,0", help="values of --checkpoint-seconds")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    rows = []
    for name in asked.sizes.split(","):
        with tempfile.TemporaryDirectory() as folder:
            rows += measured(
                name, SIZES[name], asked.seconds, Path(folder), [float(way) for way in asked.ways.split(",")]
            )
    if asked.json:
        print(json.dumps(rows))
        return 0
    print("| model | file | every | run | checkpoints | seconds each | share of the run | planned copy | measured |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for row in rows:
        every = f"{row['every']:g} s" if row["every"] else "as the rule allows"
        sizes = [
            f"{row[k] / MB:,.3g} MB" for k in ("model_bytes", "checkpoint_bytes", "planned_bytes", "measured_bytes")
        ]
        print(
            f"| {sizes[0]} | {sizes[1]} | {every} | {row['run_seconds']:.0f} s | {row['checkpoints']} | "
            f"{row['seconds_each']:.3f} | {row['share']:.2%} | {sizes[2]} | {sizes[3]} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

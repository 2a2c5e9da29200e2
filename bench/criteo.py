"""Tables like Criteo's: how fast beside Vowpal Wabbit, and whether a million categories fit into the memory.

    python bench/criteo.py speed --rows 4000000 --dir /tmp/criteo      # rows/s and log-loss, ours and Vowpal Wabbit's
    python bench/criteo.py memory                                       # three columns of 1M categories in 500 MB

`speed`: preparation and logistic learning by `streamtrain fit` from Parquet, against Vowpal Wabbit from its own cache, which
holds rows that are parsed and hashed already. Both hash to 2^20, learn in one pass, and are taken in turn; medians count.
Only the ratio is to be trusted, and only on a quiet machine: Vowpal Wabbit's two threads wait for each other, so whatever
else runs slows it more than us. Log-loss is progressive; Vowpal Wabbit's is the best of several settings. Exits 1 where
ours is not twice as fast, or its loss is worse. Needs `pip install 'streamtrain[bench]'`, and 1 GB of disk a million rows.

`memory`: trains, then predicts rows of which no category was seen; peaks are those of the processes. Exits 1 over the budget.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peers_tables
import peers_vw
import pyarrow as pa
import pyarrow.parquet as pq

BITS = "20"
TIMES_FASTER = 2.0
SETTINGS = ("", "--power_t 0.3", "-l 0.2", "-l 1", "--l2 1e-7", "--coin")  # of Vowpal Wabbit; the first is timed
TIMEOUT_S = 3600


def cli(*arguments: str) -> tuple[dict[str, Any], dict[str, float]]:
    """A command of streamtrain in a process of its own: its JSON; its peak_bytes and cpu_seconds, with start and imports."""
    command = [sys.executable, "-m", "streamtrain", *arguments, "--json"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen(command, stdout=printed)
        ends, peak = time.monotonic() + TIMEOUT_S, 0
        while process.poll() is None:
            peak = max(peak, peers_vw.peak_bytes(process.pid))
            if time.monotonic() > ends:
                process.kill()
                process.wait()
                raise SystemExit(f"{' '.join(command)}: not done after {TIMEOUT_S} s")
            time.sleep(0.01)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)}: exit {process.returncode}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        printed.seek(0)
        return json.load(printed), {"peak_bytes": peak, "cpu_seconds": cpu}


def table(folder: Path, made: peers_tables.Clicks, rows: int, compression: str) -> float:
    """The table in this folder, written unless it is there; the log-loss of its true model."""
    noted = folder.with_suffix(".json")
    if not noted.exists():
        loss = peers_tables.write(made, folder, rows, compression)
        noted.write_text(json.dumps({"true_loss": loss}))
    return float(json.loads(noted.read_text())["true_loss"])


def row_groups(folder: Path) -> Iterator[pa.Table]:
    for path in sorted(folder.glob("*.parquet")):
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group)


def vowpal_cache(folder: Path) -> list[str]:
    """The same rows as Vowpal Wabbit's cache; the arguments that train from it."""
    cache, text = folder.with_suffix(".cache"), folder.with_suffix(".txt")
    how = ["-d", str(text), "--cache_file", str(cache), "-b", BITS, "--loss_function", "logistic"]
    if not cache.exists():
        peers_vw.write(row_groups(folder), text, "label", [0, 1])
        peers_vw.drive(*how)
        text.unlink()
    return how


def speed(asked: argparse.Namespace, root: Path) -> dict[str, Any]:
    made = peers_tables.Clicks()
    folders = {codec: root / f"{codec}-{asked.rows}" for codec in asked.codecs.split(",")}
    for codec, folder in folders.items():
        true_loss = table(folder, made, asked.rows, codec)
    how = vowpal_cache(folder)
    losses = {setting: peers_vw.drive(*how, *setting.split())["loss"] for setting in SETTINGS}
    vowpal: list[dict[str, float]] = []
    ours: dict[str, list[dict[str, float]]] = {codec: [] for codec in folders}
    for _ in range(asked.repeats):
        for codec, folder in folders.items():
            report, took = cli("fit", str(folder), "--target", "label", "--hash-bits", BITS, *asked.extra)
            loss = report["metrics"]["progressive"]["loss"]
            ours[codec].append(took | {"rows_per_second": report["rows_per_second"], "loss": loss})
            ran = peers_vw.drive(*how)
            vowpal.append(ran | {"rows_per_second": ran["rows"] / ran["seconds"]})
    theirs = medians(vowpal)
    found = {codec: medians(runs) for codec, runs in ours.items()}
    for run in found.values():
        run["ratio"] = run["rows_per_second"] / theirs["rows_per_second"]
    best = min(losses.values())
    met = all(run["ratio"] >= TIMES_FASTER and run["loss"] <= best for run in found.values())
    return {
        "rows": asked.rows,
        "true_loss": true_loss,
        "ours": found,
        "vowpal_wabbit": theirs,
        "losses": losses,
        "met": met,
    }


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def memory(asked: argparse.Namespace, root: Path) -> dict[str, Any]:
    made, other = (peers_tables.Clicks(20, (asked.values,) * 3, skew=0.0, seed=seed) for seed in (0, 1))
    train, unseen, run = root / f"wide-{asked.rows}", root / "unseen", root / "run"
    true_loss = table(train, made, asked.rows, "zstd")
    table(unseen, other, asked.rows // 10, "zstd")  # other names for all categories
    limit = ["--memory", asked.memory]
    shutil.rmtree(run, ignore_errors=True)  # of the last time
    report, fitting = cli("fit", str(train), "--target", "label", "--out", str(run), *limit, *asked.extra)
    predicted, predicting = cli("predict", str(run), str(unseen), "--out", str(root / "predicted.parquet"), *limit)
    likely = pq.read_table(root / "predicted.parquet")["probability_1"].to_pylist()
    budget = report["memory"]["budget_bytes"]
    finite = len(likely) == predicted["rows"] and all(math.isfinite(p) for p in likely)
    return {
        "rows": report["rows"],
        "rows_per_second": report["rows_per_second"],
        "loss": report["metrics"]["progressive"]["loss"],
        "true_loss": true_loss,
        "budget_bytes": budget,
        "fit_peak_bytes": fitting["peak_bytes"],
        "predict_peak_bytes": predicting["peak_bytes"],
        "predicted_rows": predicted["rows"],
        "met": finite and max(fitting["peak_bytes"], predicting["peak_bytes"]) <= budget,
    }


def speed_text(result: dict[str, Any]) -> str:
    theirs = result["vowpal_wabbit"]
    runs = {f"ours, {codec}": run for codec, run in result["ours"].items()} | {"Vowpal Wabbit": theirs}
    lines = [f"{'':<16}{'rows/s':>12}{'log-loss':>10}{'peak MB':>10}{'CPU s':>8}{'ratio':>8}"]
    for name, run in runs.items():
        numbers = f"{run['rows_per_second']:>12,.0f}{run['loss']:>10.5f}{run['peak_bytes'] / 1e6:>10.0f}"
        lines.append(f"{name:<16}{numbers}{run['cpu_seconds']:>8.1f}{run.get('ratio', 1):>8.2f}")
    tried = ", ".join(f"{setting or 'defaults'} {loss:.5f}" for setting, loss in result["losses"].items())
    met = "met" if result["met"] else "NOT MET"
    lines += [
        f"log-loss of the truth {result['true_loss']:.5f}; of Vowpal Wabbit: {tried}",
        f"of Vowpal Wabbit's peak {theirs['baseline_bytes'] / 1e6:.0f} MB are Python",
        f"wanted {TIMES_FASTER:g} times the rows/s, no worse a loss: {met}",
    ]
    return "\n".join(lines)


def memory_text(result: dict[str, Any]) -> str:
    peaks = f"fit {result['fit_peak_bytes'] / 1e6:.0f} MB, predict {result['predict_peak_bytes'] / 1e6:.0f} MB"
    loss = f"log-loss {result['loss']:.4f} (truth {result['true_loss']:.4f})"
    met = "met" if result["met"] else "NOT MET"
    return f"{result['rows']:,} rows, {loss}; peaks of {result['budget_bytes'] / 1e6:.0f} MB: {peaks}: {met}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    fast, small = commands.add_parser("speed"), commands.add_parser("memory")
    for command in (fast, small):
        command.add_argument("--rows", type=int, default=4_000_000, help="in blocks of 50,000")
        command.add_argument(
            "--dir", type=Path, help="where to keep the data between runs (default: a temporary folder)"
        )
        command.add_argument("--json", action="store_true")
        command.add_argument("extra", nargs="*", help="further flags for fit, after --")
    fast.add_argument("--repeats", type=int, default=3)
    fast.add_argument("--codecs", default="zstd,snappy")
    small.add_argument("--memory", default="500MB")
    small.add_argument("--values", type=int, default=1_000_000, help="categories of each column")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = asked.dir or Path(scratch)
        root.mkdir(parents=True, exist_ok=True)
        result = speed(asked, root) if asked.command == "speed" else memory(asked, root)
    text = speed_text(result) if asked.command == "speed" else memory_text(result)
    print(json.dumps(result) if asked.json else text)
    return 0 if result["met"] else 1


if __name__ == "__main__":
    sys.exit(main())

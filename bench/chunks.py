"""What many small chunks and many files cost: planned and measured memory, and CPU seconds, in a process of its own for each.

    python bench/chunks.py [tiny] [files] [groups] [zarr] [text] [ipc]

tiny: 5,000 to 200,000 row groups in one file. groups: 1,000,000 row groups of 5 columns over 1,000 files. files: 100,000 files
of 10 row groups and 5 columns. zarr: 1,000,000 Zarr chunks. text: 100,000 CSV files. ipc: 100,000 record batches. Files are
links to one file. Without names: all of them, which takes half an hour and 2 GB of disk. Exits with 1 if a process took more
than was planned, or if the plan was more than 1.2 times what it took.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr

MB = 10**6
MOST = 1.2  # planned over taken
LINKS = 10_000  # to one file: file systems allow some ten thousand
SAMPLE_SECONDS = 0.005


def table(rows: int, columns: int) -> pa.Table:
    """Numbers, and a class."""
    rng = np.random.default_rng(0)
    numbers = {f"x{i}": rng.normal(size=rows).astype(np.float32) for i in range(columns - 1)}
    return pa.table({**numbers, "y": rng.integers(0, 2, rows)})


def row_groups(path: Path, groups: int, rows: int, columns: int) -> Path:
    """A Parquet file of so many row groups of so many rows."""
    pq.write_table(table(groups * rows, columns), path, row_group_size=rows)
    return path


def copies(source: Path, folder: Path, count: int) -> Path:
    """A folder of so many files that are links to a few copies of one."""
    for start in range(0, count, LINKS):
        part = folder / f"{start:07}"
        part.mkdir(parents=True)
        first = part / f"0{source.suffix}"
        first.write_bytes(source.read_bytes())
        for i in range(1, min(LINKS, count - start)):
            os.link(first, part / f"{i}{source.suffix}")
    return folder


def tiny(folder: Path) -> Iterator[tuple[str, Path]]:
    for groups, rows, columns in ((5_000, 10, 2), (20_000, 10, 2), (60_000, 10, 2), (200_000, 1, 2), (20_000, 1, 10)):
        path = row_groups(folder / f"{groups}-{rows}-{columns}.parquet", groups, rows, columns)
        yield f"one file, {groups:,} row groups of {rows} rows and {columns} columns", path


def groups(folder: Path) -> Iterator[tuple[str, Path]]:
    one = row_groups(folder / "1000.parquet", 1_000, 10, 5)
    yield "1,000 files of 1,000 row groups of 10 rows and 5 columns", copies(one, folder / "groups", 1_000)


def files(folder: Path) -> Iterator[tuple[str, Path]]:
    one = row_groups(folder / "10.parquet", 10, 10, 5)
    yield "100,000 files of 10 row groups of 10 rows and 5 columns", copies(one, folder / "files", 100_000)


def zarr_chunks(folder: Path) -> Iterator[tuple[str, Path]]:
    rows, rng = 2_500_000, np.random.default_rng(0)
    group = zarr.open_group(folder / "chunks.zarr", mode="w")
    for name, values in (("y", rng.integers(0, 2, rows).astype("i1")), ("x", rng.normal(size=rows).astype("f4"))):
        group.create_array(name, data=values, chunks=(5,), compressors=None)
    yield f"{2 * rows // 5:,} Zarr chunks of 5 numbers", folder / "chunks.zarr"


def text(folder: Path) -> Iterator[tuple[str, Path]]:
    one = folder / "one.csv"
    one.write_text("x,y\n" + "".join(f"{i / 7:.3f},{i % 2}\n" for i in range(10)))
    yield "100,000 CSV files of 10 rows", copies(one, folder / "text", 100_000)


def ipc(folder: Path) -> Iterator[tuple[str, Path]]:
    data, path = table(1_000_000, 5), folder / "batches.arrow"
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, data.schema) as out:
        out.write_table(data, max_chunksize=10)
    yield "one Arrow file, 100,000 record batches of 10 rows", path


LAYOUTS: dict[str, Callable[[Path], Iterator[tuple[str, Path]]]] = {
    "tiny": tiny, "groups": groups, "files": files, "zarr": zarr_chunks, "text": text, "ipc": ipc,
}  # fmt: skip


def run(command: str, path: Path) -> tuple[dict[str, Any], int, float, float]:
    """The JSON of a command with 1 GB, its peak resident memory, its CPU seconds and its seconds."""
    arguments = [command, str(path), "--target", "y", "--memory", "1GB", "--json"]
    started, before, peak = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN), 0
    with subprocess.Popen(
        [sys.executable, "-m", "streamtrain", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        ended = threading.Event()

        def watch() -> None:
            nonlocal peak
            while not ended.wait(SAMPLE_SECONDS):
                try:
                    status = Path(f"/proc/{process.pid}/status").read_text()
                except OSError:
                    return
                found = [line for line in status.splitlines() if line.startswith("VmHWM")]
                peak = max([peak, *(1024 * int(line.split()[1]) for line in found)])

        watcher = threading.Thread(target=watch)
        watcher.start()
        out, errors = process.communicate()
        ended.set()
        watcher.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)}: exit {process.returncode}: {errors.decode()[-500:]}")
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = now.ru_utime + now.ru_stime - before.ru_utime - before.ru_stime
    found: dict[str, Any] = json.loads(out)
    return found, peak, cpu, time.perf_counter() - started


def main() -> int:
    broken = False
    print("| layout | plan: MB, CPU s | fit: planned | taken | ratio | windows | CPU s | seconds |")
    print("| :--- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in sys.argv[1:] or LAYOUTS:
        with tempfile.TemporaryDirectory() as folder:
            for what, path in LAYOUTS[name](Path(folder)):
                plan, _, planning, _ = run("plan", path)
                fit, taken, cpu, seconds = run("fit", path)
                planned = fit["memory"]["planned_peak_bytes"]
                broken |= not taken <= planned <= MOST * taken
                first = plan["memory"]["planned_peak_bytes"]
                print(
                    f"| {what} | {first / MB:.0f}, {planning:.0f} | {planned / MB:.0f} | {taken / MB:.0f} "
                    f"| {planned / taken:.3f} | {fit['plan']['windows']} | {cpu:.0f} | {seconds:.0f} |",
                    flush=True,
                )
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())

"""What bench/kills.py learns from: small tables of many kinds, from which learning takes some seconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr

ROWS = 20_000
WORKERS, MEMORY = ("1", "4"), ("500MB", "800MB")  # the first is the undisturbed run's

BITS = "--hash-bits 14"  # the first checkpoint comes the sooner the smaller a model can become
NUMBERS = f"--features a,b,c,k {BITS}"

#: a data set, and how to learn from it for some seconds
SCENARIOS: dict[str, tuple[str, str]] = {
    "Parquet": ("parquet", f"--target y --exclude z,m --as t=text {BITS} --epochs 24"),
    "Zarr": ("zarr", f"--target y --as k=category {BITS} --window-rows 4000 --epochs 40"),
    "Parquet in slices": ("groups", f"--target y --exclude z,m --as t=text {BITS} --window-rows 1500 --epochs 20"),
    "held-out rows": ("parquet", f"--target y {NUMBERS} --window-rows 5000 --holdout 0.1 --epochs 45"),
    "early stopping": ("parquet", f"--target y {NUMBERS} --validate other --patience 15 --epochs 60"),
    "regression": ("parquet", f"--target z {NUMBERS} --window-rows 5000 --batch-size 64 --epochs 18"),
    "softmax": ("parquet", f"--target m {NUMBERS} --window-rows 5000 --batch-size 64 --epochs 14"),
    "damaged chunk": (
        "damaged",
        f"--target y {NUMBERS} --on-error skip --max-skipped 0.2 --window-rows 5000 --epochs 50",
    ),
    "larger model": ("words", "--target y --as t=text --hash-bits 18 --epochs 36"),
}


def fit(work: Path, scenario: str, out: Path, threads: str = WORKERS[0], memory: str = MEMORY[0]) -> list[str]:
    """The arguments of a run from its beginning."""
    options = SCENARIOS[scenario][1].replace("--validate other", f"--validate {work / 'other'}")
    return [*brief(work, scenario, out, threads, memory), *options.split()]


def brief(work: Path, scenario: str, out: Path, threads: str, memory: str) -> list[str]:
    """As few as a resume needs."""
    how = ["--checkpoint-seconds", "0", "--threads", threads, "--memory", memory]
    return ["fit", str(work / SCENARIOS[scenario][0]), "--out", str(out), *how]


def make(work: Path) -> None:
    """Each data set, in a folder of its name."""
    for name in ("parquet", "other", "damaged"):
        write(work / name, [table(ROWS // 4, seed + 10 * (name == "other")) for seed in range(4)], 1000)
    write(work / "groups", [pa.concat_tables(table(ROWS // 4, seed) for seed in range(4))], ROWS // 2)
    write(work / "words", [table(ROWS, 0, words=40_000).select(["a", "t", "y"])], 2000)
    path = work / "damaged" / "1.parquet"
    pages = pq.read_metadata(path).row_group(2).column(1)
    damaged = bytearray(path.read_bytes())
    damaged[pages.data_page_offset + pages.total_compressed_size - 9] ^= 1
    path.write_bytes(damaged)
    group, columns = zarr.create_group(work / "zarr"), table(ROWS, 0)
    numbers = np.stack([columns["b"].to_numpy(), columns["c"].to_numpy()], axis=1)
    group.create_array("X", data=numbers.astype("f4"), chunks=(1000, 2))
    group.create_array("k", data=np.array([int(name[1:]) for name in columns["k"].to_pylist()]), chunks=(1000,))
    group.create_array("y", data=columns["y"].to_numpy(), chunks=(1000,))


def write(folder: Path, tables: Sequence[pa.Table], group_rows: int) -> None:
    folder.mkdir()
    options: dict[str, Any] = {"row_group_size": group_rows, "write_page_checksum": True, "use_dictionary": False}
    for number, rows in enumerate(tables):
        pq.write_table(rows, folder / f"{number}.parquet", **options)


def table(rows: int, seed: int, words: int = 3000) -> pa.Table:
    """Numbers, of which some are missing, a category and text; y is one of two classes, m one of four, z a number."""
    rng = np.random.default_rng(seed)
    x, kinds, text = rng.normal(size=(rows, 3)), rng.integers(0, 50, rows), rng.integers(0, words, (rows, 4))
    z = x @ [1.0, -2.0, 0.5] + 0.2 * (kinds % 7) + 0.3 * (text[:, 0] % 5) + rng.normal(size=rows)
    return pa.table(
        {
            "a": pa.array(x[:, 0], mask=rng.random(rows) < 0.1),
            "b": x[:, 1].astype("f4"),
            "c": x[:, 2],
            "k": [f"k{kind}" for kind in kinds],
            "t": [" ".join(f"w{word}" for word in row) for row in text],
            "y": (z > 1).astype(int),
            "m": [f"m{part}" for part in np.digitize(z, [-1, 1, 3])],
            "z": z,
        }
    )

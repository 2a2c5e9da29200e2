"""AnnData stores within a budget: dense and CSR, 100,000 x 20,000, 3 % filled. Rows a second and the peak.

The stores are written in blocks, as AnnData lays them out (4 cell types; every fourth gene is higher in one of them).
Each fit runs in a process of its own; one that takes more than the budget ends this program with 1. `--annbatch PYTHON`
also reads the CSR store with annbatch's loader, by a Python in which annbatch is installed (it needs 3.12): that one only
reads, in batches of the same size, and learns nothing.

    python bench/sparse_rows.py --memory 500MB [--annbatch .../bin/python] [--rows 100000] [--genes 20000]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import zarr

FILLED, BLOCK = 0.03, 1000
CELL_TYPES = ["B", "NK", "T", "M"]
STRINGS = {"encoding-type": "string-array", "encoding-version": "0.2.0"}
ARRAY = {"encoding-type": "array", "encoding-version": "0.2.0"}

ANNBATCH = """
import json, sys, time
import anndata, zarr
from annbatch import Loader
group = zarr.open_group(sys.argv[1], mode="r")
started = time.perf_counter()
loader = Loader(batch_size=int(sys.argv[2]), chunk_size=256, preload_nchunks=16, shuffle=True, preload_to_gpu=False)
loader.add_dataset(anndata.io.sparse_dataset(group["X"]))
rows = sum(batch["X"].shape[0] for batch in loader)
seconds = time.perf_counter() - started
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024
print(json.dumps({"rows": rows, "rows_per_second": rows / seconds, "peak": peak}))
"""


def annotated(path: Path, cell_type: np.ndarray, genes: int) -> zarr.Group:
    """A store with `obs` and `var`; its X is for the caller to write."""
    root = zarr.create_group(path, attributes={"encoding-type": "anndata", "encoding-version": "0.1.0"})
    frame = {"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index"}
    obs = root.create_group("obs", attributes=frame | {"column-order": ["cell_type"]})
    var = root.create_group("var", attributes=frame | {"column-order": []})
    for group, letter, count in ((obs, "c", len(cell_type)), (var, "g", genes)):
        names = np.array([f"{letter}{i}" for i in range(count)], np.dtypes.StringDType())
        group.create_array("_index", data=names).attrs.update(STRINGS)
    kind = {"encoding-type": "categorical", "encoding-version": "0.2.0", "ordered": False}
    column = obs.create_group("cell_type", attributes=kind)
    column.create_array("codes", data=cell_type, config={"write_empty_chunks": True}).attrs.update(ARRAY)
    column.create_array("categories", data=np.array(CELL_TYPES, np.dtypes.StringDType())).attrs.update(STRINGS)
    return root


def write(folder: Path, rows: int, genes: int) -> tuple[Path, Path]:
    """The same cells twice: `csr.zarr` and `dense.zarr`."""
    random = np.random.default_rng(0)
    cell_type = random.integers(0, len(CELL_TYPES), rows).astype("i1")
    filled = int(genes * FILLED)
    sparse, dense = folder / "csr.zarr", folder / "dense.zarr"
    x = annotated(sparse, cell_type, genes).create_group(
        "X", attributes={"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": [rows, genes]}
    )
    entries, chunk = rows * filled, BLOCK * filled
    data = x.create_array("data", shape=(entries,), dtype="f4", chunks=(chunk,))
    indices = x.create_array("indices", shape=(entries,), dtype="i4", chunks=(chunk,))
    x.create_array("indptr", data=np.arange(rows + 1, dtype="i8") * filled)
    table = annotated(dense, cell_type, genes).create_array("X", shape=(rows, genes), dtype="f4", chunks=(100, genes))
    table.attrs.update(ARRAY)
    for start in range(0, rows, BLOCK):
        labels = cell_type[start : start + BLOCK]
        of_block = np.stack([np.sort(random.choice(genes, filled, replace=False)) for _ in labels])
        counts = random.integers(1, 5, of_block.shape) + 2 * (of_block % len(CELL_TYPES) == labels[:, None])
        span = slice(start * filled, (start + len(labels)) * filled)
        data[span], indices[span] = counts.ravel(), of_block.ravel()
        block = np.zeros((len(labels), genes), "f4")
        np.put_along_axis(block, of_block, counts.astype("f4"), 1)
        table[start : start + len(labels)] = block
    return sparse, dense


def fit(store: Path, memory: str) -> dict[str, float]:
    command = [sys.executable, "-m", "streamtrain", "fit", str(store), "--target", "obs/cell_type"]
    command += ["--features", "X", "--memory", memory, "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{store.name}: exit {done.returncode}\n{done.stderr}")
    report = json.loads(done.stdout)
    kept = report["memory"]
    return {
        "rows": report["rows_seen"],
        "rows_per_second": report["rows_per_second"],
        "batch_size": report["batch_size"],
        "accuracy": report["metrics"]["progressive"]["accuracy"],
        "planned": kept["planned_peak_bytes"],
        "peak": kept["measured_peak_bytes"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument("--memory", default="500MB")
    parser.add_argument("--annbatch", metavar="PYTHON", help="a Python in which annbatch is installed")
    parser.add_argument("--folder", help="where the stores are written for a while (about 1 GB)")
    asked = parser.parse_args()
    broken = False
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        for store in write(Path(folder), asked.rows, asked.genes):
            found = fit(store, asked.memory)
            broken |= found["peak"] > found["planned"]
            print(
                f"{store.name:<11} fit within {asked.memory}: {found['rows']:,} rows, "
                f"{found['rows_per_second']:,.0f} rows/s, "
                f"planned {found['planned'] / 1e6:.0f} MB, taken {found['peak'] / 1e6:.0f} MB, right {found['accuracy']:.3f}",
                flush=True,
            )
        if asked.annbatch:
            command = [asked.annbatch, "-c", ANNBATCH, str(Path(folder) / "csr.zarr"), str(found["batch_size"])]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"annbatch: exit {done.returncode}\n{done.stderr}")
            other = json.loads(done.stdout)
            print(
                f"csr.zarr    annbatch, reading only: {other['rows']:,} rows, {other['rows_per_second']:,.0f} rows/s, "
                f"taken {other['peak'] / 1e6:.0f} MB"
            )
    sys.exit(broken)


if __name__ == "__main__":
    main()

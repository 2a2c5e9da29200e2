"""How much slower training is where each request takes 50 ms more: rows a second with and without, over the same proxy.

    python bench/remote.py --rows 3000000                    # makes the data, serves them with nginx
    python bench/remote.py --data FOLDER --target y          # of your own: a Parquet file or folder, or a Zarr store

Needs nginx and `pip install 'streamtrain[remote,test]'`. Every run is a process of its own; the fastest
of ``--repeats`` counts.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HELPERS = Path(__file__).resolve().parent.parent / "tests/storage/remote"
sys.path.insert(0, str(HELPERS))

import servers  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--data", type=Path, help="instead of data that are made")
    parser.add_argument("--target", default="y")
    parser.add_argument("--format", default="parquet", choices=["parquet", "zarr"])
    parser.add_argument("--latency", type=float, default=50, help="milliseconds")
    parser.add_argument("--memory", default="1GB")
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        work = Path(made)
        data = asked.data or work / f"data{'.zarr' if asked.format == 'zarr' else ''}"
        if asked.data is None:
            cli("make", "clicks", "--rows", str(asked.rows), "--out", str(data), "--format", asked.format)
        (work / "nginx").mkdir()
        with servers.nginx(data.resolve().parent, work / "nginx") as port:
            result = compare(asked, data.resolve(), port)
    print(json.dumps(result) if asked.json else table(result))


def compare(asked: argparse.Namespace, data: Path, port: int) -> dict[str, Any]:
    runs = {"local": best(asked, str(data))}
    for name, seconds in (("no latency", 0.0), ("latency", asked.latency / 1000)):
        with proxied(port, seconds) as url:
            runs[name] = best(asked, f"{url}/{data.name}")
    ratio = runs["latency"]["rows_per_second"] / runs["no latency"]["rows_per_second"]
    same = len({run["weights"] for run in runs.values()}) == 1
    return {"latency_ms": asked.latency, "ratio": round(ratio, 3), "same_weights": same, "runs": runs}


@contextmanager
def proxied(port: int, seconds: float) -> Any:
    """The server behind a proxy that waits so long before each request, in a process of its own."""
    own = servers.free_port()
    with servers.running([sys.executable, str(HELPERS / "proxy.py"), str(own), str(port), str(seconds)], own):
        yield f"http://127.0.0.1:{own}"


def best(asked: argparse.Namespace, data: str) -> dict[str, Any]:
    """The fastest of several fits: rows/s of the training loop, seconds of everything, what was asked of the server."""
    runs = []
    for _ in range(asked.repeats):
        with tempfile.TemporaryDirectory() as made:
            began = time.perf_counter()
            out = ["--out", f"{made}/run", "--memory", asked.memory, "--threads", str(asked.threads), "--json"]
            report = json.loads(cli("fit", data, "--target", asked.target, *out))
            seconds = round(time.perf_counter() - began, 2)
            weights = hashlib.sha256((Path(made) / "run/model.safetensors").read_bytes()).hexdigest()
        memory = report["memory"]
        runs.append(
            {
                "rows_per_second": report["rows_per_second"],
                "seconds": seconds,
                "remote": report["remote"],
                "weights": weights,
            }
            | {
                "wait": report["time"]["wait"],
                "read": report["time"]["read"],
                "peak_bytes": memory["measured_peak_bytes"],
            }
            | {"planned_bytes": memory["planned_peak_bytes"]}
        )
    return max(runs, key=lambda run: run["rows_per_second"])


def cli(*arguments: str) -> str:
    command = [sys.executable, "-m", "streamtrain", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def table(result: dict[str, Any]) -> str:
    lines = [f"{'':<12}{'rows/s':>12}{'seconds':>10}{'wait':>8}{'requests':>10}{'peak MB':>10}"]
    for name, run in result["runs"].items():
        asked = run["remote"]["requests"] if run["remote"] else 0
        numbers = f"{run['rows_per_second']:>12,.0f}{run['seconds']:>10.1f}{run['wait']:>8.2f}{asked:>10}"
        lines.append(f"{name:<12}{numbers}{run['peak_bytes'] / 1e6:>10.0f}")
    same = "the same weights" if result["same_weights"] else "DIFFERENT WEIGHTS"
    return "\n".join([*lines, f"ratio with {result['latency_ms']:g} ms: {result['ratio']} ({same})"])


if __name__ == "__main__":
    main()

"""A table with hundreds of thousands of distinct categories, in a process of its own, within its budget."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROWS = 100_000
BUDGET = 300 * 10**6

_CHILD = """
import json, sys
from pathlib import Path
import streamtrain

def most():
    status = Path("/proc/self/status").read_text()
    return 1000 * int(status.split("VmHWM:")[1].split()[0])

known, unseen, run, out, memory = sys.argv[1:]
result = streamtrain.fit(known, target="y", memory=memory, out=run).as_dict()
peaks = [most()]
scored = [streamtrain.evaluate(run, data, memory=memory)["metrics"]["accuracy"] for data in (known, unseen)]
peaks.append(most())
rows = streamtrain.predict(run, unseen, out=out, memory=memory)["rows"]
peaks.append(most())
print(json.dumps({"fit": result, "peaks": peaks, "accuracy": scored, "rows": rows}))
"""


def write(path: Path, prefix: str, seed: int) -> Path:
    """20 numbers, and three columns in which no two rows have the same name."""
    rng = np.random.default_rng(seed)
    columns: dict[str, Any] = {f"x{j}": rng.normal(size=ROWS).astype(np.float32) for j in range(20)}
    score = columns["x0"] - columns["x1"]
    for j in range(3):
        columns[f"c{j}"] = [f"{prefix}-{j}-{i:010d}-category" for i in range(ROWS)]
    pq.write_table(pa.table(columns | {"y": (score > 0).astype(np.int8)}), path, row_group_size=25_000)
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="VmHWM is read from /proc")
def test_distinct_categories_beyond_number_keep_to_the_budget(tmp_path: Path) -> None:
    known, unseen = write(tmp_path / "known.parquet", "known", 0), write(tmp_path / "unseen.parquet", "unseen", 1)
    command = [
        sys.executable,
        "-c",
        _CHILD,
        *map(str, (known, unseen, tmp_path / "run", tmp_path / "p.parquet", BUDGET)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert max(found["peaks"]) <= BUDGET, found["peaks"]
    assert found["fit"]["memory"]["measured_peak_bytes"] <= found["fit"]["memory"]["planned_peak_bytes"] <= BUDGET
    preparation = found["fit"]["preparation"]
    assert preparation["slots_used"] == 3 * 2 ** (preparation["hash_bits"] - 2)  # the dictionary is full
    assert 0.3 < preparation["shared_entries"] < 0.7  # and says how many of the values share a slot
    assert any("--hash-bits" in warning for warning in found["fit"]["warnings"])
    assert found["rows"] == ROWS
    assert min(found["accuracy"]) > 0.9  # what is not known adds nothing
    assert sum(file.stat().st_size for file in (tmp_path / "run").iterdir()) < 60 * 10**6
    predicted = pq.read_table(tmp_path / "p.parquet")["probability_1"].to_numpy()
    assert np.isfinite(predicted).all() and predicted.std() > 0.2

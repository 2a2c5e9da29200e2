"""Ctrl-C at many moments from the start of the process on: each must end it with 130, and without a traceback.

A process cannot answer before its first line runs. What happens until then is Python's: it dies of the signal while it has no
handler for it (-2), and prints a traceback while it imports ``site``. How long that lasts is measured beside it, with an
empty program. See scripts/measure.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

WAIT = 60


def interrupted(command: list[str], delay: float, number: int) -> tuple[int, str]:
    """The exit code and stderr of a command that gets a signal so many seconds after its start."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    time.sleep(delay)
    process.send_signal(number)
    try:
        said = process.communicate(timeout=WAIT)[1]
        return process.returncode, said
    finally:
        if process.poll() is None:
            process.kill()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--most", type=float, default=0.6, help="seconds")
    options = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        data = str(Path(folder, "a.parquet"))
        x = np.random.default_rng(0).normal(size=20_000)
        pq.write_table(pa.table({"x": x, "y": (x > 0).astype("i1")}), data)
        fit = ["fit", data, "--target", "y", "--epochs", "100000"]
        script = str(Path(sys.executable).with_name("streamtrain"))
        commands = {"streamtrain": [script, *fit], "python -m streamtrain": [sys.executable, "-m", "streamtrain", *fit],
                    "an empty program": [sys.executable, "-c", "while True: pass"]}  # fmt: skip
        for number in (signal.SIGINT, signal.SIGTERM):
            for name, command in commands.items():
                outcomes: Counter[str] = Counter()
                last = 0.0
                for delay in np.linspace(0, options.most, options.count):
                    code, said = interrupted(command, float(delay), number)
                    good = code == 128 + number and "Traceback" not in said
                    outcomes[f"{code}{' with a traceback' if 'Traceback' in said else ''}"] += 1
                    last = last if good else float(delay)
                    if not good and number == signal.SIGINT and "Traceback" in said and "streamtrain/" in said:
                        wrong += 1
                        print(said)
                shown = ", ".join(f"{count} x {outcome}" for outcome, count in outcomes.most_common())
                print(
                    f"{signal.Signals(number).name} {name}: {shown}; the last other one after {last * 1000:.0f} ms",
                    flush=True,
                )
    print(f"tracebacks out of streamtrain: {wrong}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())

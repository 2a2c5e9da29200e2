"""Vowpal Wabbit beside us: tables as its text, its driver in a process of its own.

    python bench/peers_vw.py -d data.txt --loss_function logistic      # the driver; prints what it measured as JSON

The driver is the one of the Python package `vowpalwabbit`: parser and learner are native code on two threads, as in the
program `vw`. What is timed is the driver, without Python's start or imports.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

LOSS = {"classify": "logistic", "regress": "squared"}
TIMEOUT_S = 3600


def lines(table: pa.Table, target: str, classes: list[Any] | None = None) -> pa.Array:
    """Each row as a line: numbers as ``name:value``, all else as ``name_value``; what is missing or zero left out.

    ``classes`` are the target's values in order: two become -1 and 1, more 1, 2, ...; None leaves the target a number.
    """
    labels = table[target].combine_chunks()
    if classes is not None:
        labels = pc.add(pc.index_in(labels, pa.array(classes, labels.type)), 1)
        labels = pc.subtract(pc.multiply(labels, 2), 3) if len(classes) == 2 else labels
    fields = [pc.binary_join_element_wise(labels.cast(pa.string()), " |", "")]
    for name in table.column_names:
        if name != target:
            fields.append(_field(name, table[name].combine_chunks()))
    return pc.binary_join_element_wise(*fields, " ", null_handling="skip")


def _field(name: str, values: pa.Array) -> pa.Array:
    number = pa.types.is_integer(values.type) or pa.types.is_floating(values.type)
    text = values.cast(pa.string())
    if number:  # a zero changes nothing in a linear model, and images are full of them
        text = pc.if_else(pc.equal(values, 0), None, text)
    if not number:
        text = pc.replace_substring_regex(text, "[ :|]", "_")  # they mean something to its parser
    return pc.binary_join_element_wise(f"{name}:" if number else f"{name}_", text, "")


def write(tables: Iterable[pa.Table], path: Path, target: str, classes: list[Any] | None = None) -> None:
    with path.open("w") as file:
        for table in tables:
            file.write("\n".join(lines(table, target, classes).to_pylist()) + "\n")


def drive(*arguments: str) -> dict[str, Any]:
    """What the driver measured: rows, seconds, cpu_seconds, loss (mean, progressive), peak_bytes; in a process of its own."""
    command = [sys.executable, __file__, *arguments]
    found = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    if found.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {found.returncode}: {found.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(found.stdout.splitlines()[-1])
    return result


def predictions(path: Path) -> list[list[float]]:
    """The numbers of each line of a file of predictions; ``1:0.5 2:0.5`` gives both probabilities."""
    return [[float(word.rpartition(":")[2]) for word in line.split()] for line in path.read_text().splitlines()]


def main(arguments: list[str]) -> None:
    import vowpalwabbit  # type: ignore[import-untyped]

    before = peak_bytes()
    began, cpu = time.perf_counter(), time.process_time()
    driver = vowpalwabbit.Workspace(arg_list=[*arguments, "--quiet"])
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    rows = driver.get_weighted_examples()
    result = {"rows": round(rows), "seconds": seconds, "cpu_seconds": cpu, "loss": driver.get_sum_loss() / max(rows, 1)}
    driver.finish()
    print(json.dumps(result | {"peak_bytes": peak_bytes(), "baseline_bytes": before}))


def peak_bytes(process: int | str = "self") -> int:
    """The most resident memory of a process so far; 0 where it has ended."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


if __name__ == "__main__":
    main(sys.argv[1:])

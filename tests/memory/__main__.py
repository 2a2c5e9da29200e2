"""Run the memory matrix and write its table to bench/MEMORY.md.

python tests/memory                   all of it: eight minutes, 20 GB of disk at most
python tests/memory zarr squared      cases with these words in their names; the table is printed, not written
python tests/memory --short           three cases, a minute; likewise
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from matrix_cases import CASES, SHORT
from matrix_more import MEASUREMENTS
from matrix_run import Matrix
from matrix_table import line, measured_line, write


def main() -> int:
    parser = argparse.ArgumentParser(prog="python tests/memory", description=__doc__)
    parser.add_argument("words", nargs="*", help="run the cases with all of these words in their names, write nothing")
    parser.add_argument("--short", action="store_true", help="run three cases, write nothing")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--dir", help="where to make the data (default: a temporary folder)")
    parser.add_argument("--json", help="write everything that was measured to this file")
    options = parser.parse_args()
    few = SHORT if options.short else CASES
    cases = [case for case in few if all(word in case.name for word in options.words)]
    whole = not options.words and not options.short
    started, broken, rows = time.perf_counter(), 0, []
    with tempfile.TemporaryDirectory(dir=options.dir) as scratch:
        matrix = Matrix(Path(scratch), cases, jobs=options.jobs)
        try:
            for case in cases:
                row = matrix.rows[case].result()
                rows.append(row)
                broken += bool(row.breaches())
                print(line(row), *row.breaches(), flush=True)
        finally:
            matrix.close()
    more = []
    if whole:
        for measure in MEASUREMENTS:
            with tempfile.TemporaryDirectory(dir=options.dir) as scratch:
                more.append(measure(Path(scratch) / "data"))
            broken += not more[-1].holds
            print(measured_line(more[-1]), flush=True)
    print(f"{len(rows)} cases, {broken} broken, {time.perf_counter() - started:.0f} s", file=sys.stderr)
    if options.json:
        found = [vars(r) | {"case": vars(r.case), "breaches": r.breaches()} for r in rows]
        Path(options.json).write_text(json.dumps(found))
    if whole:
        write(rows, more)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())

"""Files that other people's writers made, good and damaged: the rows that pyarrow reads, or one clear error.

Each file goes through `inspect`, through a full read of its supported columns, and through `fit` on a column chosen as
target, each with --memory 500MB in a process of its own, which is given 60 s. Wrong are: an abort, a hang, a traceback,
another exit code than 0, 2, 3 or 4, more than one error, other values than pyarrow reads, more memory than the budget.

    python bench/corpora.py ../shared/corpora
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from forks import Ended, command, run

import streamtrain
from streamtrain.errors import BudgetError, StreamtrainError
from streamtrain.kernels.crash import answer_crashes
from streamtrain.memory.monitor import Monitor
from streamtrain.memory.process import reset_peak
from streamtrain.storage.checked import open_stream

BUDGET_BYTES = 500_000_000
ALLOWED = (0, 2, 3, 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="names of files, a,b: these alone")
    parser.add_argument("--verbose", action="store_true", help="show what each file gave")
    asked = parser.parse_args()
    files = [path for path in find(asked.folder) if not asked.only or path.name in asked.only.split(",")]
    wrong = 0
    for path in files:
        for step, ended, problem in examine(path):
            wrong += bool(problem)
            if problem or asked.verbose:
                how = f"exit {ended.code}, {ended.seconds:.1f} s, {ended.peak_bytes // 10**6} MB"
                print(f"{path.parent.name}/{path.name}: {step}: {how}: {problem or 'fine'}")
                print("    " + (ended.err or ended.out)[:400].strip().replace("\n", "\n    "))
    print(f"{len(files)} files, {wrong} steps wrong")
    sys.exit(bool(wrong or not files))


def find(folder: Path) -> list[Path]:
    """The Parquet files below a folder, also encrypted ones."""
    return sorted(p for p in folder.rglob("*") if ".parquet" in p.name and p.suffix != ".json" and p.is_file())


def examine(path: Path) -> Iterator[tuple[str, Ended, str]]:
    """Each step, how it ended, and what is wrong with that."""
    ended = run(command("inspect", str(path), "--json"))
    yield "inspect", ended, unclear(ended, path)

    ours, theirs = run(lambda: print(read(path))), run(lambda: print(read_with_pyarrow(path)))
    yield "read", ours, unclear(ours, path) or differs(ours, theirs)

    columns = numbers(ended)
    for policy in ([], ["--on-error", "skip", "--max-skipped", "1"]):
        ended = run(command("fit", str(path), *settings(columns), *policy, "--memory", "500MB", "--json"))
        yield " ".join(["fit", *policy[:2]]), ended, unclear(ended, path) or miscounts(ended, theirs)
        if ended.code == 0:
            break


def settings(columns: list[str]) -> list[str]:
    """The last column of numbers is to be predicted from the others."""
    *features, target = columns or ["there is none"]
    named = ["--features", ",".join(f'"{name}"' for name in features)] if features else []
    return ["--target", target, "--task", "regress", *named]


def miscounts(ended: Ended, theirs: Ended) -> str:
    """Whether rows were lost that are not in the ledger."""
    if ended.code or theirs.code:  # pyarrow reads all columns here, we some
        return ""
    found = json.loads(ended.out)
    rows = found["rows"] + sum(entry["rows"] for entry in found["skipped"])
    if not json.loads(theirs.out):  # all columns are nested, which pyarrow is not asked for here
        return ""
    expected = rows_of(theirs)
    return f"{rows} rows, but pyarrow reads {expected}" if rows != expected else ""


def unclear(ended: Ended, path: Path) -> str:
    """What is wrong with the way in which a child ended, if anything."""
    if ended.code is None:
        return "hung"
    if ended.code not in ALLOWED:
        return f"exit code {ended.code}"
    if ended.peak_bytes > BUDGET_BYTES:
        return f"took {ended.peak_bytes:,} bytes"
    if "Traceback" in ended.err:
        return "a traceback"
    errors = sum(line.startswith("error:") for line in ended.err.splitlines())
    if errors != (ended.code != 0) or (ended.code and ended.out):
        return f"{errors} errors, {len(ended.out)} characters on stdout"
    return ""


def differs(ours: Ended, theirs: Ended) -> str:
    """Whether what we read is not what pyarrow reads."""
    if ours.code:
        return "refused, but pyarrow reads it" if theirs.code == 0 else ""
    if theirs.code:
        return f"read, but pyarrow says: {theirs.err.strip().splitlines()[-1]}"
    found, expected = json.loads(ours.out), json.loads(theirs.out)
    wrong = [name for name in found if found[name] != expected.get(name)]
    return f"other values in {wrong}" if wrong else ""


def rows_of(ended: Ended) -> int:
    return max((rows for rows, _ in json.loads(ended.out).values()), default=0)


def numbers(ended: Ended) -> list[str]:
    """The names of columns that hold numbers, of what `inspect` printed."""
    if ended.code:
        return []
    kinds = ("int", "uint", "float", "double", "half", "bool", "decimal")
    return [c["name"] for c in json.loads(ended.out)["columns"] if c["type"].startswith(kinds)]


def read(path: Path) -> str:
    """Rows and a hash of the values of each supported column, through our reader, in slices, under the budget."""
    answer_crashes("nowhere")
    try:
        reset_peak()
        with Monitor(BUDGET_BYTES, {}) as monitor:
            reader = streamtrain.open_reader(path)
            found = {f.name: Values() for f in reader.schema if not pa.types.is_nested(f.type)}
            for chunk in reader.chunks():
                for batch in open_stream(reader, chunk, list(found), 1000):
                    monitor.check()
                    for name, column in zip(found, batch.columns, strict=True):
                        found[name].add(column)
        return json.dumps({name: values.summary() for name, values in found.items()})
    except (StreamtrainError, MemoryError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(4 if isinstance(error, (BudgetError, MemoryError)) else 2)


def read_with_pyarrow(path: Path) -> str:
    # in microseconds, as we read them: nanoseconds do not hold the year 9999
    file = pq.ParquetFile(path, page_checksum_verification=True, coerce_int96_timestamp_unit="us")
    found = {f.name: Values() for f in file.schema_arrow if not pa.types.is_nested(f.type)}
    for name, values in found.items():
        for batch in file.iter_batches(columns=[name]) if file.num_row_groups else ():
            values.add(batch.column(0))
    promised = sum(file.metadata.row_group(group).num_rows for group in range(file.num_row_groups))
    if any(values.rows != promised for values in found.values()):
        raise ValueError(f"not the {promised} rows that the footer says")
    return json.dumps({name: values.summary() for name, values in found.items()})


class Values:
    """A column's values, as far as they must be kept to be compared."""

    def __init__(self) -> None:
        self.rows, self._digest = 0, hashlib.sha256()

    def add(self, column: Any) -> None:
        self.rows += len(column)
        if pa.types.is_timestamp(column.type):  # Python's own end in the year 9999
            column = column.cast(pa.int64())
        self._digest.update("".join(f"{value!r}\n" for value in column.to_pylist()).encode(errors="surrogatepass"))

    def summary(self) -> list[Any]:
        return [self.rows, self._digest.hexdigest()]


if __name__ == "__main__":
    main()

"""Damages files a little, thousands of times, and trains on them.

Single bits are flipped, files cut off, ranges zeroed: in the pages of Parquet files with page checksums, in the chunks
and shards of Zarr stores with CRC32C, and in Parquet footers whose hash a run has recorded. `fit` must end with one error,
with an entry in the ledger (every other case runs with --on-error skip), or with exactly the weights of the undamaged data.
Of a damaged footer, other weights are allowed where the recorded fingerprint tells. Never: a death, a hang, a traceback.

Every eleventh case is a command line of its own. The others share children; the one in which a child died or hung is done
again on the command line, which must answer.

    python bench/fuzz.py --cases 2000
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from forks import Ended, command, run
from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec

import streamtrain
from streamtrain.errors import StreamtrainError

ROWS, CHUNK_ROWS = 1200, 200
SHARED_CASES = 40  # that a child takes
TIMEOUT_S = 60
GOOD = ("error", "ledger", "same", "fingerprint")
WINDOWS = (None, 90)  # rows: whole chunks, and chunks in slices
DAMAGES = ("flip", "flip", "flip", "truncate", "zero")  # chosen at random

PARQUET: dict[str, dict[str, Any]] = {
    "snappy": {"compression": "snappy", "use_dictionary": False},
    "zstd": {"compression": "zstd", "use_dictionary": False, "data_page_version": "2.0"},
    "uncompressed": {"compression": "none", "use_dictionary": False, "data_page_size": 500},
    "dictionary": {"compression": "none"},
    "text": {"compression": "snappy"},
    "footer": {"compression": "none"},
}
ZARR: dict[str, dict[str, Any]] = {
    "zarr crc32c": {"chunks": (CHUNK_ROWS,), "compressors": [Crc32cCodec()]},
    "zarr zstd": {"chunks": (CHUNK_ROWS,), "compressors": [ZstdCodec(), Crc32cCodec()]},
    "zarr shards": {
        "chunks": (50,),
        "shards": (CHUNK_ROWS,),
        "compressors": [Crc32cCodec()],
        "serializer": BytesCodec(),
    },
}


@dataclass(frozen=True)
class Case:
    """One damage: to which data, how, where. start, size: bytes; bit: of the byte at ``start``."""

    number: int
    data: str
    damage: str
    file: str
    start: int
    size: int
    bit: int
    window_rows: int | None

    @property
    def skips(self) -> bool:
        return self.number % 2 == 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true", help="show every case")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        make(work / "data")
        expected = expect(work)
        cases = [choose(work / "data", asked.seed, number) for number in range(asked.cases)]
        found = dict(outcomes(cases, work, expected))
    for case in cases if asked.verbose else ():
        print(f"{case}: {found[case.number].strip()}")
    print(table(cases, found))
    wrong = [(case, found[case.number]) for case in cases if found[case.number].split(":")[0] not in GOOD]
    for case, outcome in wrong:
        print(f"{case}: {outcome}")
    print(f"{len(found):,} cases, {len(wrong)} wrong")
    sys.exit(bool(wrong))


def make(folder: Path) -> None:
    """Each data set, in a folder of its name."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 3))
    y = (x @ [1.0, -2.0, 0.5] > 0).astype(int)
    columns = {"a": x[:, 0].astype("f4"), "b": x[:, 1], "c": (100 * x[:, 2]).astype("i4")}
    for name, options in PARQUET.items():
        named = pa.array([("no", "yes, indeed")[k] for k in y]) if name == "text" else y
        target = folder / name / "a.parquet"
        target.parent.mkdir(parents=True)
        pq.write_table(
            pa.table(columns | {"y": named}), target, row_group_size=CHUNK_ROWS, write_page_checksum=True, **options
        )
    for name, options in ZARR.items():
        group = zarr.create_group(folder / name)
        for column, values in (columns | {"y": y}).items():
            group.create_array(column, data=values, config={"write_empty_chunks": True}, **options)


def expect(work: Path) -> dict[tuple[str, int | None], bytes]:
    """The weights of the undamaged data, by data and rows of a window."""
    found = {}
    for name in (*PARQUET, *ZARR):
        for rows in WINDOWS:
            ended = run(lambda name=name, rows=rows: train(work / "data" / name, rows, False, work / "run") and None)
            if ended.code:
                raise SystemExit(f"{name} undamaged: {ended.err}")
            found[name, rows] = taken(work / "run")
    return found


def taken(folder: Path) -> bytes:
    """The weights of a run, whose folder goes."""
    weights = (folder / "model.safetensors").read_bytes()
    shutil.rmtree(folder)
    return weights


def choose(folder: Path, seed: int, number: int) -> Case:
    rng = np.random.default_rng([seed, number])
    data = (*PARQUET, *ZARR)[number // 2 % (len(PARQUET) + len(ZARR))]
    files = [p for p in sorted((folder / data).rglob("*")) if p.is_file() and p.name != "zarr.json"]
    path = files[rng.integers(len(files))]
    end = path.stat().st_size
    first, last = 0, end
    damage = str(rng.choice(DAMAGES))
    if data in PARQUET:
        footer = end - 8 - int.from_bytes(path.read_bytes()[-8:-4], "little")
        first, last = (footer, end) if data == "footer" else (4, footer)
        damage = "flip" if data == "footer" and damage == "truncate" else damage  # would be without any footer
    start = int(rng.integers(first, last))
    size = min(last - start, int(2 ** rng.uniform(0, 10)))
    window = WINDOWS[int(rng.integers(2))]
    return Case(number, data, damage, str(path.relative_to(folder)), start, size, int(rng.integers(8)), window)


def apply(case: Case, folder: Path) -> bytes:
    """Damage the file; returns what it was."""
    path = folder / case.file
    whole = path.read_bytes()
    damaged = bytearray(whole)
    if case.damage == "flip":
        damaged[case.start] ^= 1 << case.bit
    elif case.damage == "zero":
        damaged[case.start : case.start + case.size] = bytes(case.size)
    else:
        del damaged[case.start :]
    path.write_bytes(damaged)
    return whole


def outcomes(
    cases: Sequence[Case], work: Path, expected: dict[tuple[str, int | None], bytes]
) -> Iterator[tuple[int, str]]:
    """The number of each case, and what came of it."""
    recorded = streamtrain.open_reader(work / "data" / "footer").fingerprint()

    def alone(case: Case) -> str:
        return on_the_command_line(case, work, expected[case.data, case.window_rows], recorded)

    shared = [case for case in cases if case.number % 11]
    for case in cases:
        if case.number % 11 == 0:
            yield case.number, alone(case)
    while shared:
        some = shared[:SHARED_CASES]
        ended = run(lambda some=some: in_process(some, work, expected, recorded), TIMEOUT_S * 4)
        done = [json.loads(line) for line in ended.out.splitlines()]
        yield from done
        shared = shared[len(done) :]
        if len(done) < len(some):
            shutil.rmtree(work / "data")  # the child may have left it damaged
            make(work / "data")
            yield shared[0].number, alone(shared[0])
            shared = shared[1:]


def in_process(
    cases: Sequence[Case], work: Path, expected: dict[tuple[str, int | None], bytes], recorded: str | None
) -> None:
    """Print the number and the outcome of each case, as JSON, as soon as it is known."""
    for case in cases:
        whole = apply(case, work / "data")
        try:
            skipped = train(work / "data" / case.data, case.window_rows, case.skips, work / "run")
            outcome = judge(case, skipped, taken(work / "run"), work, expected[case.data, case.window_rows], recorded)
        except (StreamtrainError, MemoryError) as error:
            outcome = f"error: {error}" if str(error) else "an error without words"
        except Exception as error:
            outcome = f"traceback: {type(error).__name__}: {error}"
        (work / "data" / case.file).write_bytes(whole)
        print(json.dumps([case.number, outcome]), flush=True)


def train(data: Path, window_rows: int | None, skips: bool, out: Path) -> list[Any]:
    """Returns what was skipped."""
    policy: dict[str, Any] = {"on_error": "skip", "max_skipped": 1.0} if skips else {}
    return list(
        streamtrain.fit(data, target="y", window_rows=window_rows, memory="500MB", out=out, **policy).report.skipped
    )


def judge(case: Case, skipped: list[Any], weights: bytes, work: Path, expected: bytes, recorded: str | None) -> str:
    """Of a run that came to an end."""
    if skipped:
        return "ledger"
    if weights == expected:
        return "same"
    if case.data == "footer" and streamtrain.open_reader(work / "data" / "footer").fingerprint() != recorded:
        return "fingerprint"
    return "other weights"


def on_the_command_line(case: Case, work: Path, expected: bytes, recorded: str | None) -> str:
    whole = apply(case, work / "data")
    options = ["--target", "y", "--memory", "500MB", "--out", str(work / "run"), "--json"]
    options += ["--on-error", "skip", "--max-skipped", "1"] if case.skips else []
    options += ["--window-rows", str(case.window_rows)] if case.window_rows else []
    ended = run(command("fit", str(work / "data" / case.data), *options), TIMEOUT_S)
    outcome = shown(ended, work)
    if not outcome:
        outcome = judge(case, json.loads(ended.out)["skipped"], taken(work / "run"), work, expected, recorded)
    (work / "data" / case.file).write_bytes(whole)
    return outcome


def shown(ended: Ended, work: Path) -> str:
    """What people saw, unless there was a result."""
    if ended.code == 0:
        return ""
    if ended.code is None:
        return "a hang"
    if ended.code not in (2, 3, 4) or "Traceback" in ended.err:
        return f"exit code {ended.code}: {ended.err[-300:]}"
    if ended.out or sum(line.startswith("error: ") for line in ended.err.splitlines()) != 1:
        return f"not one error: {ended.out[:100]} {ended.err[-300:]}"
    if (work / "run").exists():
        return "a run was left"
    return ended.err[ended.err.index("error: ") :]  # warnings of the plan may stand before it


def table(cases: Sequence[Case], found: dict[int, str]) -> str:
    """How often what came of which damage to which data; as Markdown."""
    counts = Counter((case.data, case.damage, found[case.number].split(":")[0]) for case in cases)
    names = [*GOOD, *sorted({outcome for *_, outcome in counts} - set(GOOD))]
    lines = ["| data | damage | cases | " + " | ".join(names) + " |", "| --- | --- | ---: |" + " ---: |" * len(names)]
    for data in (*PARQUET, *ZARR):
        for damage in sorted(set(DAMAGES)):
            row = [counts[data, damage, name] for name in names]
            if sum(row):
                lines.append(f"| {data} | {damage} | {sum(row)} | " + " | ".join(map(str, row)) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

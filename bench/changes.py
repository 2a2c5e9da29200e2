"""Changes data in place between the stop of a run and its resume, and checks that nothing goes unnoticed.

Of each format there are 100 MB: Parquet with and without page checksums, a Zarr store, a CSV. A fit is stopped in its first
epoch, when it has read a part of them. Then up to 5,000 bytes anywhere in the files are replaced, 50 times each format. What
that changes is found out without the digests of streamtrain: everything is decoded before and after. Each time the run is
resumed three ways, on a copy of its folder:

- with `--verify full`: an error that names the chunk, if a chunk that was read before has other values;
- as it is: refused, if a file with chunks that were not read before was written; otherwise an error once the chunk is read
  again;
- with the times as they were (the stamps of the changed files are put into the checkpoint): an error if a chunk that was read
  before has other values. A chunk that was not read before may pass.

    python bench/changes.py --count 200 --megabytes 100
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import zarr

import streamtrain
from streamtrain import open_reader
from streamtrain.errors import StreamtrainError
from streamtrain.load.digests import Digests, RunDigest
from streamtrain.model import tensors
from streamtrain.runs.checkpoint import Checkpoints
from streamtrain.storage.files.stamps import Stamped
from streamtrain.train.history import Scores

COLUMNS = 8
ASKED: dict[str, Any] = {"target": "y", "epochs": 2, "memory": "1GB", "batch_size": 512}
MOST_BYTES, WINDOW_ROWS = 5_000, 150_000


# -- the data ------------------------------------------------------------------------------------------------------------


def parts(rows: int, each: int) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
    rng = np.random.default_rng(0)
    for start in range(0, rows, each):
        n = min(each, rows - start)
        x = rng.normal(size=(COLUMNS, n))
        yield {f"x{i}": x[i] for i in range(COLUMNS)} | {"y": (x[0] > 0).astype(np.int64)}


def parquet(path: Path, nbytes: int, *, checksums: bool) -> Path:
    with pq.ParquetWriter(
        path, pa.table(next(parts(1, 1))).schema, compression="none", use_dictionary=False,
        write_page_checksum=checksums,
    ) as writer:  # fmt: skip
        for part in parts(nbytes // (8 * (COLUMNS + 1)), 32_768):
            writer.write_table(pa.table(part))
    return path


def zarr_store(path: Path, nbytes: int) -> Path:
    rows = nbytes // (8 * (COLUMNS + 1))
    group, start = zarr.create_group(path), 0
    for name, values in next(parts(1, 1)).items():
        group.create_array(name, shape=(rows,), chunks=(32_768,), dtype=values.dtype, compressors=None, filters=None)
    for part in parts(rows, 32_768):
        for name, values in part.items():
            group[name][start : start + len(values)] = values  # type: ignore[index]
        start += len(part["y"])
    return path


def text(path: Path, nbytes: int) -> Path:
    with path.open("wb") as file:
        for i, part in enumerate(parts(nbytes // (19 * COLUMNS), 32_768)):
            pa.csv.write_csv(pa.table(part), file, pa.csv.WriteOptions(include_header=not i))
    return path


FORMATS: dict[str, Callable[[Path, int], Path]] = {
    "Parquet": lambda folder, n: parquet(folder / "data.parquet", n, checksums=False),
    "Parquet, checksums": lambda folder, n: parquet(folder / "data.parquet", n, checksums=True),
    "Zarr": lambda folder, n: zarr_store(folder / "data.zarr", n),
    "CSV": lambda folder, n: text(folder / "data.csv", n),
}


# -- what has changed ------------------------------------------------------------------------------------------------------


def contents(data: Path) -> dict[str, str] | str:
    """A hash of the values of each chunk, by its key, or why it cannot be read; one reason, if the data cannot be opened."""
    found = {}
    try:
        reader = open_reader(data)
        chunks = list(reader.chunks())
    except StreamtrainError as error:
        return str(error)
    for chunk in chunks:
        digest = hashlib.blake2b()
        try:
            batches = reader.read(chunk, reader.schema.names)
            for values in batches.columns:
                digest.update(values.to_numpy(zero_copy_only=False).tobytes())
                digest.update(str(values.null_count).encode())
            found[chunk.key] = digest.hexdigest()
        except (StreamtrainError, ValueError) as error:
            found[chunk.key] = str(error)
    return found


@contextmanager
def changed(files: list[Path], rng: np.random.Generator) -> Iterator[str]:
    """Replace some bytes of one of the files, chosen by size, and put them back at the end."""
    sizes = np.array([file.stat().st_size for file in files])
    file = files[int(rng.choice(len(files), p=sizes / sizes.sum()))]
    n = min(int(rng.integers(1, MOST_BYTES + 1)), file.stat().st_size)
    at = int(rng.integers(0, file.stat().st_size - n + 1))
    with file.open("r+b") as handle:
        handle.seek(at)
        before = handle.read(n)
        new = before
        while new == before:
            new = digits(before, rng) if file.suffix == ".csv" else others(file, at, n, rng)
        handle.seek(at)
        handle.write(new)
    try:
        yield f"{n:,} bytes of {file.name} at {at:,}"
    finally:
        with file.open("r+b") as handle:
            handle.seek(at)
            handle.write(before)


def others(file: Path, at: int, n: int, rng: np.random.Generator) -> bytes:
    """Bytes from nearby, in every tenth change random ones. Values are 8 bytes, so most remain plausible."""
    if rng.random() < 0.1:
        return rng.bytes(n)
    with file.open("rb") as handle:
        handle.seek(min(max(0, at + 8 * int(rng.integers(-2000, 2000))), file.stat().st_size - n))
        return handle.read(n)


def digits(before: bytes, rng: np.random.Generator) -> bytes:
    """The same text with other digits, so that it is still a table of numbers; labels stay."""
    given = np.frombuffer(before, np.uint8).copy()
    is_digit = (given >= ord("0")) & (given <= ord("9"))
    is_label = np.append(given[1:] == ord("\n"), True)
    chosen = np.flatnonzero(is_digit & ~is_label)
    if not len(chosen):
        given[rng.integers(len(given))] = ord("1")
    given[chosen] = rng.integers(ord("1"), ord("9") + 1, len(chosen))
    return given.tobytes()


# -- the runs ------------------------------------------------------------------------------------------------------------


def stopped(data: Path, out: Path) -> None:
    """A run that is stopped once it has learned a part of the first epoch."""
    on_the_way, stop = Scores.on_the_way, 0.4 * sum(chunk.rows for chunk in open_reader(data).chunks())

    def counted(scores: Any, rows_seen: int, *more: Any) -> Any:
        if rows_seen >= stop:
            signal.raise_signal(signal.SIGINT)
        return on_the_way(scores, rows_seen, *more)

    Scores.on_the_way = counted  # type: ignore[method-assign]
    try:
        streamtrain.fit(data, out=out, window_rows=WINDOW_ROWS, **ASKED)
    except KeyboardInterrupt:
        return
    finally:
        Scores.on_the_way = on_the_way  # type: ignore[method-assign]
    raise RuntimeError("the run ended before it was stopped: give more --megabytes")


def read_before(data: Path, out: Path) -> set[str]:
    """The keys of the chunks that the run has read."""
    checkpoints = Checkpoints(out / "checkpoints")
    checkpoints.newest()
    keys = [chunk.key for chunk in open_reader(data).chunks()]
    return {keys[i] for i in np.flatnonzero(checkpoints.arrays()["digests.all"])}


def put_times_back(data: Path, out: Path) -> None:
    """Put the stamps of the files as they are now into the checkpoint."""
    reader = open_reader(data)
    assert isinstance(reader, Stamped)
    for path in (out / "checkpoints").glob("*.safetensors"):
        found = tensors.load(path, sealed=True)
        arrays = {name: array for name, array in found.arrays.items() if name != "sha256"}
        tensors.save(path, arrays | {"digests.stamps": reader.stamps().values}, metadata=found.metadata, sealed=True)


def resumed(data: Path, run: Path, *, times_back: bool = False, **more: Any) -> str | None:
    """The error of a resume; None if it goes on to the end."""
    copy = run.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run, copy)
    try:
        if times_back:
            put_times_back(data, copy)
        streamtrain.fit(data, out=copy, resume=True, **more)
    except StreamtrainError as error:
        return str(error)
    return None


OUTCOMES = {
    "goes on": "None",
    "error: the fingerprint differs": "the contents are not",
    "error: names the chunks": "not the same now",
    "error: names the chunk": "differ from those that were read before",
    "error: files were written, chunks of them not read": "so nothing shows whether these are the same",
}


def outcome(error: str | None) -> str:
    return next((name for name, text in OUTCOMES.items() if text in str(error)), "error: cannot be read or learned")


def judge(data: Path, run: Path, known: set[str], before: dict[str, str], what: str) -> tuple[list[str], list[str]]:
    """What was found of one change, and what is wrong with it."""
    after = contents(data)
    others = set(before) if isinstance(after, str) else {key for key in before if after.get(key) != before[key]}
    was_read, was_not = others & known, others - known
    kind = "a chunk that was read" if was_read else "a chunk that was not read" if was_not else "no value"
    full, plain = resumed(data, run, verify="full"), resumed(data, run)
    back = resumed(data, run, times_back=True) if not isinstance(after, str) else "cannot be opened"
    counts, wrong = [kind], []
    names = [full is not None and key in full for key in was_read]
    for how, error in (("verify", full), ("resume", plain), ("times back", back)):
        counts.append(f"{kind}: {how}: {outcome(error)}")
        if was_read and error is None:
            wrong.append(f"{what}: {sorted(was_read)}: {how} goes on")
    if was_read and not any(names) and not isinstance(after, str) and "the contents are not" not in str(full):
        wrong.append(f"{what}: {sorted(was_read)}: --verify full does not name the chunk: {full}")
    if was_not and plain is None:
        wrong.append(f"{what}: {sorted(was_not)}: resumes without a word")
    return counts, wrong


# -- the cost --------------------------------------------------------------------------------------------------------------


def cost(folder: Path, epochs: int) -> None:
    """Print the processor time of digests for each row of 40 float32, in a loader that reads: measured around the calls in the
    reading thread, chunk by chunk; and that of a whole loader with and without digests, one after the other."""
    path, rng = folder / "cost.parquet", np.random.default_rng(0)
    with pq.ParquetWriter(
        path, pa.schema([(f"x{i}", pa.float32()) for i in range(40)]), use_dictionary=False
    ) as writer:
        for _ in range(8):
            writer.write_table(pa.table({f"x{i}": rng.normal(size=65_536).astype("f4") for i in range(40)}))
    spent, each, loaders = [0], list[float](), dict[bool, list[float]]({True: [], False: []})
    add, values = RunDigest.add, RunDigest.values

    def timed(call: Any) -> Any:
        def inner(*found: Any) -> Any:
            began = time.thread_time_ns()
            result = call(*found)
            spent[0] += time.thread_time_ns() - began
            if call is values:
                each.append(spent[0] / 65_536)
                spent[0] = 0
            return result

        return inner

    source = streamtrain.Source.open(path)
    plan = source.plan(batch_size=1024, memory="1GB", threads=1)
    for epoch in range(2 * epochs):
        digested = epoch % 2 == 0
        RunDigest.add, RunDigest.values = (timed(add), timed(values)) if epoch >= epochs else (add, values)  # type: ignore[method-assign]
        with streamtrain.Loader(
            replace(source, digests=Digests(source.table) if digested else None), plan, epochs=1
        ) as loader:
            began, rows = time.process_time(), sum(len(batch) for batch in loader.runs(64))
            if epoch < epochs:
                loaders[digested].append((time.process_time() - began) / rows * 1e9)
    print(
        f"digests of rows of 40 float32, ns of processor time a row: {_spread(each)}, {len(each)} chunks of 65,536 rows"
    )
    for digested, times in loaders.items():
        print(
            f"a loader {'with' if digested else 'without'} digests, one thread: {_spread(times)}, {len(times)} epochs"
        )


def _spread(times: list[float]) -> str:
    low, middle, high = np.quantile(times, [0.1, 0.5, 0.9])
    return f"{low:.1f}, {middle:.1f}, {high:.1f} (10 %, median, 90 %)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="changes, over all formats")
    parser.add_argument("--megabytes", type=int, default=100, help="of each format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", type=Path, default=None, help="where to write the data")
    parser.add_argument("--cost", type=int, default=40, metavar="EPOCHS", help="how often the cost is measured")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        cost(Path(folder), options.cost)
    problems: list[str] = []
    for name, make in FORMATS.items():
        started, counts = time.perf_counter(), Counter[str]()
        with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
            data = make(Path(folder), options.megabytes * 10**6)
            files = [file for file in (data.rglob("*") if data.is_dir() else [data]) if file.is_file()]
            stored = sum(file.stat().st_size for file in files)
            run = Path(folder, "run")
            stopped(data, run)
            before, known = contents(data), read_before(data, run)
            assert isinstance(before, dict)
            rng = np.random.default_rng([options.seed, len(name)])
            for _ in range(options.count // len(FORMATS)):
                with changed(files, rng) as what:
                    found, wrong = judge(data, run, known, before, what)
                counts.update(found)
                problems += [f"{name}: {each}" for each in wrong]
            error = resumed(data, run, times_back=True)  # everything is as it was
            problems += [f"{name}: unchanged data: {error}"] if error else []
        seconds = time.perf_counter() - started
        print(f"{name}: {stored:,} bytes, {len(known)} of {len(before)} chunks read before the stop; {seconds:.0f} s")
        for kind, n in sorted(counts.items()):
            print(f"  {n:4}  {kind}")
        print(flush=True)
    print(f"{len(problems)} wrong")
    for problem in problems:
        print(f"  {problem}")
    os._exit(bool(problems))


if __name__ == "__main__":
    main()

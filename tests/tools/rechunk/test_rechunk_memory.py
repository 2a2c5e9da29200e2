"""A copy stays within its budget, or is refused before anything is read; and what it reports."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from make import CommandLine, Unreadable, budget_above, rows_of, write_parquet, zarr_group

import streamtrain
from streamtrain import BudgetRefused, rechunk
from streamtrain.errors import CorruptError
from streamtrain.memory.sizes import readable_above
from streamtrain.plan.term import Term
from streamtrain.storage.reader import Chunk, ChunkTable
from streamtrain.tools.rechunk.plan import Demand, most_bytes, solve

# -- the plan ----------------------------------------------------------------------------------------------------------------

MB = 10**6


def demand(rows: list[int], peaks: list[int], **more: Any) -> Demand:
    table = ChunkTable(str, rows, [n * 8 for n in rows], peaks)

    def output(n: int) -> list[Term]:
        return [Term("footers", MB, "output"), Term("chunk", 8 * n, "output"), Term("writes", 2 * MB, "output")]

    return Demand(table, 50 * MB, output, **more)


def test_the_terms_add_up() -> None:
    made = demand([10**6], [30 * MB], open_bytes=3 * MB, opened_bytes=2 * MB)
    plan = solve(made, chunk_rows=10**5, budget_bytes=10**9, budget_given=True)
    terms = {"baseline": 50 * MB, "footers": 4 * MB, "reads": 30 * MB, "chunk": 800_000, "writes": 2 * MB}
    least = 8 * MB + int(0.04 * sum(terms.values()))
    assert plan.term_bytes == {**terms, "margin": readable_above(sum(terms.values()) + least) - sum(terms.values())}
    assert plan.fits and plan.peak_bytes == sum(plan.term_bytes.values())


def test_large_chunks_are_streamed_in_slices_that_fit() -> None:
    streams = lambda chunk, rows: 20 * MB + 1000 * rows  # noqa: E731
    made = demand([1000, 10**6], [10 * MB, 10**9], stream_bytes=streams)
    found = {}
    for budget in (97, 110, 200):
        plan = solve(made, chunk_rows=1000, budget_bytes=budget * MB, budget_given=True)
        assert plan.fits
        chunks = made.table[0], made.table[1]
        found[budget] = [plan.slice_rows(chunk) for chunk in chunks]
        assert all(rows is None or streams(None, rows) <= plan.term_bytes["reads"] for rows in found[budget])
    assert found == {97: [None, 4096], 110: [None, 16_384], 200: [None, 65_536]}
    refused = solve(made, chunk_rows=1000, budget_bytes=80 * MB, budget_given=True)
    assert not refused.fits and refused.term_bytes["reads"] == int(1.02 * (20 * MB + 256 * 1000))


def test_rows_that_may_be_larger_than_metadata_tell_are_read_a_few_at_a_time() -> None:
    streams = lambda chunk, rows: 1 * MB + 100 * rows  # noqa: E731
    small, large = Chunk("small", 1000, 8000, MB), Chunk("large", 10**5, 8 * 10**5, 2 * MB)
    for stream_bytes, loose, wanted in ((streams, True, 1024), (streams, False, None), (None, True, None)):
        made = demand([1000, 10**5], [MB, 2 * MB], stream_bytes=stream_bytes, loose=loose)
        plan = solve(made, chunk_rows=1000, budget_bytes=10**9, budget_given=True)
        assert [plan.slice_rows(chunk) for chunk in (small, large)] == [None, wanted]


def test_a_refusal_lists_every_term_and_what_would_help(tmp_path: Path) -> None:
    reader = Unreadable(pa.schema([("x", pa.int64())]), rows=10**8, peak=10**6)
    memory = budget_above(300 * MB)
    with pytest.raises(BudgetRefused) as refused:
        rechunk(reader, out=tmp_path / "out", chunk_rows=50_000_000, memory=memory)
    lines = str(refused.value).splitlines()
    assert re.fullmatch(r"the plan needs \S+ [MG]B, \S+ [MG]B more than the budget of \S+ [MG]B:", lines[0])
    terms = {line.split()[0]: line for line in lines[1:-1]}
    assert set(terms) == {"baseline", "footers", "reads", "chunk", "writes", "margin"}
    found = re.fullmatch(
        r"What would help: --memory (\d+)MB or more, or --chunk-rows (\d+)\. Nothing was read\.", lines[-1]
    )
    assert found and not list(tmp_path.iterdir())
    for better in ({"memory": f"{found[1]}MB"}, {"chunk_rows": int(found[2])}):
        with pytest.raises(CorruptError, match="rows were read"):  # accepted
            rechunk(reader, **{"out": tmp_path / "out", "chunk_rows": 50_000_000, "memory": memory, **better})


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 50)), min_size=1, max_size=8), st.integers(1, 40))
def test_the_most_that_successive_rows_take(chunks: list[tuple[int, int]], rows: int) -> None:
    table = ChunkTable(str, [n for n, _ in chunks], [n * each for n, each in chunks], [0] * len(chunks))
    each = [each for n, each in chunks for _ in range(n)]
    most = max((sum(each[i : i + rows]) for i in range(len(each))), default=0)
    assert most_bytes(table, rows, 0.0) == most
    assert most_bytes(table, rows, 50.0) == 0


linux = pytest.mark.skipif(sys.platform != "linux", reason="VmHWM is read from /proc")

# -- memory, each in a fresh process ---------------------------------------------------------------------------------------

COPY = """
import json, sys
import streamtrain
try:
    print(json.dumps(streamtrain.rechunk(**json.loads(sys.argv[1]))))
except MemoryError as refused:
    print(json.dumps(str(refused)))
with open("/proc/self/status") as status:
    print(next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM")))
"""


def fresh(**options: Any) -> tuple[Any, int]:
    """What a process of its own returned, and its peak."""
    command = [
        sys.executable,
        "-c",
        COPY,
        json.dumps({k: str(v) if isinstance(v, Path) else v for k, v in options.items()}),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    found, peak = done.stdout.splitlines()
    return json.loads(found), int(peak)


def least_budget(**options: Any) -> int:
    refused, _ = fresh(**options, memory="1MB")
    found = re.search(r"--memory (\d+)MB or more", refused)
    assert found, refused
    return int(found[1]) * MB


def small(rng: np.random.Generator) -> pa.Table:
    return pa.table({f"x{j}": rng.random(50, np.float32) for j in range(10)})


def tiny(path: Path, rng: np.random.Generator) -> None:
    first = write_parquet(path / "0000.parquet", small(rng))
    for i in range(1, 2000):
        shutil.copyfile(first, path / f"{i:04d}.parquet")


def groups(path: Path, rng: np.random.Generator) -> None:
    table = small(rng)
    with pq.ParquetWriter(path, table.schema) as writer:
        for _ in range(2000):
            writer.write_table(table)


def coded(path: Path, columns: dict[str, pa.Array]) -> None:
    """Dictionaries that a reader makes plain, in one row group."""
    table = pa.table(columns)
    with pq.ParquetWriter(path, table.schema, store_schema=False) as writer:
        writer.write_table(table, row_group_size=table.num_rows)


def words(path: Path, rng: np.random.Generator) -> None:
    """A GB as plain text."""
    repeats = pa.array([f"{i:05d}" * 200 for i in range(300)])  # 1 kB each
    codes = [pa.array(rng.integers(0, 300, 500_000, np.int32)) for _ in range(2)]
    coded(path, dict(zip("st", (pa.DictionaryArray.from_arrays(some, repeats) for some in codes), strict=True)))


def photos(path: Path, rng: np.random.Generator) -> None:
    """A file of 500 kB, read as 600 MB."""
    values = pa.array([rng.bytes(2000) for _ in range(100)])
    coded(path, {"photo": pa.DictionaryArray.from_arrays(pa.array(np.arange(300_000, dtype=np.int32) % 100), values)})


def zarr_arrays(path: Path, rng: np.random.Generator, rows: int, columns: int, chunk: int) -> None:
    X = {"data": rng.random((rows, columns), np.float32), "chunks": (chunk, columns)}
    zarr_group(path, X=X, y={"data": np.arange(rows), "chunks": (chunk,)})


def integers(path: Path, rng: np.random.Generator) -> None:
    table = pa.table({f"x{i}": rng.integers(0, 2**60, 300_000) for i in range(10)})
    write_parquet(path, table, row_group_size=300_000, compression="none")


LAYOUTS: dict[str, Callable[[Path, np.random.Generator], None]] = {
    "tiny": tiny, "groups.parquet": groups, "words.parquet": words, "photos.parquet": photos, "integers.parquet": integers,
    "hundreds.zarr": partial(zarr_arrays, rows=30_000, columns=20, chunk=100),
    "giant.zarr": partial(zarr_arrays, rows=800_000, columns=40, chunk=400_000),
}  # fmt: skip


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The path of a layout, which is written when it is first asked for."""
    root = tmp_path_factory.mktemp("layouts")

    def path(name: str) -> Path:
        if not (root / name).exists():
            LAYOUTS[name](root / name, np.random.default_rng(0))
        return root / name

    return path


#: with the slow ones each layout and each format once; the others: pytest -m memory
CASES = [
    ("words.parquet", "parquet", 65_536), ("hundreds.zarr", "parquet", 10_000),
    *(
        pytest.param(*case, marks=pytest.mark.slow)
        for case in (
            ("tiny", "zarr", 10_000), ("groups.parquet", "parquet", 65_536), ("giant.zarr", "zarr", 65_536),
            ("integers.parquet", "parquet", 100_000),
        )
    ),
    *(
        pytest.param(*case, marks=pytest.mark.memory)
        for case in (
            ("tiny", "parquet", 65_536), ("hundreds.zarr", "zarr", 10_000), ("giant.zarr", "parquet", 65_536),
            ("integers.parquet", "zarr", 100_000),
        )
    ),
]  # fmt: skip


@linux
@pytest.mark.parametrize(("name", "format", "chunk_rows"), CASES)
def test_the_least_budget_holds(
    layouts: Callable[[str], Path], tmp_path: Path, name: str, format: str, chunk_rows: int
) -> None:
    options: dict[str, Any] = {
        "data": layouts(name),
        "out": tmp_path / "out",
        "format": format,
        "chunk_rows": chunk_rows,
    }
    budget = least_budget(**options)
    done, peak = fresh(**options, memory=budget)
    memory = done["memory"]
    assert peak <= budget, f"{peak:,} of {budget:,}"
    assert memory["measured_peak_bytes"] <= memory["planned_peak_bytes"] <= budget
    assert memory["planned_peak_bytes"] <= 1.5 * peak
    assert budget < 320 * MB


@pytest.mark.slow
@linux
@pytest.mark.parametrize("format", ["parquet", "zarr"])
def test_one_giant_row_group_within_300_mb(tmp_path: Path, format: str) -> None:
    rows, rng = 1_600_000, np.random.default_rng(0)  # of 50 float32: 320 MB, more than the budget by themselves
    column = pa.array(rng.random(rows, np.float32))
    table = pa.table({f"x{i}": column for i in range(50)})
    source = write_parquet(
        tmp_path / "in.parquet", table, row_group_size=rows, use_dictionary=False, compression="none"
    )
    done, peak = fresh(data=source, out=tmp_path / "out", chunk_rows=65_536, memory="300MB", format=format)
    assert (done["rows"], done["chunks"]) == (rows, 25)
    assert done["memory"]["measured_peak_bytes"] <= peak <= 300 * MB
    last = streamtrain.open_reader(tmp_path / "out").chunks()[-1]
    found = streamtrain.open_reader(tmp_path / "out").read(last, ["x49"])
    assert found["x49"].to_numpy()[-5:].tolist() == column[-5:].to_pylist()


@pytest.mark.slow
@linux
def test_text_that_is_longer_than_metadata_tell(tmp_path: Path) -> None:
    """Parquet holds it as codes, whatever it would take written out. Zarr cannot, and stops before it is too much."""
    texts = pa.array([f"{i:05d}" * 2000 for i in range(20)])
    codes = pa.array(np.arange(20_000, dtype=np.int32) % 20)
    table = pa.table({"s": pa.DictionaryArray.from_arrays(codes, texts), "x": np.arange(20_000)})
    with pq.ParquetWriter(tmp_path / "in.parquet", table.schema, store_schema=False) as writer:
        writer.write_table(table)  # 200 MB of text
    options: dict[str, Any] = {"data": tmp_path / "in.parquet", "out": tmp_path / "out", "chunk_rows": 20_000}
    budget = least_budget(**options)
    _, peak = fresh(**options, memory=budget)
    assert peak <= budget <= 150 * MB
    for out in ("a", "b"):
        options = {"data": tmp_path / "in.parquet", "out": tmp_path / out, "chunk_rows": 20_000, "format": "zarr"}
        if out == "a":
            stopped, peak = fresh(**options, memory="200MB")
            assert re.search(
                r"rows of one chunk take more than .* longer than metadata tell.*smaller --chunk-rows", stopped
            )
            assert not (tmp_path / "a").exists()
        else:
            done, peak = fresh(**{**options, "chunk_rows": 1000}, memory="200MB")
            assert done["chunks"] == 20
        assert peak <= 200 * MB
    store: Any = zarr.open_group(tmp_path / "b", mode="r")
    assert store["s"][-20:].tolist() == texts.to_pylist() and store["s"].shape == (20_000,)


@pytest.mark.slow
@linux
def test_bytes_that_repeat(layouts: Callable[[str], Path], tmp_path: Path) -> None:
    """Arrow has them written out, so they are read a few at a time, whatever metadata say."""
    options: dict[str, Any] = {"data": layouts("photos.parquet"), "out": tmp_path / "out", "chunk_rows": 2000}
    assert least_budget(**options) < 150 * MB
    done, peak = fresh(**options, memory="160MB")
    assert done["chunks"] == 150 and peak <= 160 * MB


def test_the_report_has_the_shape_of_the_others(tmp_path: Path) -> None:
    done = rechunk({"x": np.arange(100.0)}, out=tmp_path / "out", chunk_rows=30, memory="1GB")
    assert set(done) == {"rows", "columns", "chunks", "chunk_rows", "format", "path", "stored_bytes", "memory"}
    fit = streamtrain.fit({"x": np.arange(100.0), "y": np.arange(100) % 2}, target="y", memory="1GB").as_dict()
    assert set(done["memory"]) == set(fit["memory"])
    assert all(set(term) == {"planned_bytes", "measured_bytes"} for term in done["memory"]["terms"].values())
    assert done["memory"]["budget_bytes"] == 10**9 and done["memory"]["budget_given"] is True
    assert done["stored_bytes"] == sum(p.stat().st_size for p in (tmp_path / "out").iterdir())
    assert rechunk({"x": np.arange(100.0)}, out=tmp_path / "b", chunk_rows=30)["memory"]["budget_given"] is False


# -- the command line ------------------------------------------------------------------------------------------------------


def test_the_command(tmp_path: Path, cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_parquet(tmp_path / "in" / "a.parquet", pa.table({"x\x1b[31m": np.arange(10.0)}))
    done = cli("rechunk", "in", "--out", "o\nut", "--chunk-rows", 4, "--format", "zarr", "--json")
    report = done.json
    assert (done.code, report["rows"], report["chunks"], report["path"]) == (0, 10, 3, "o\nut")
    done = cli("rechunk", "o\nut", "--out", "b\nack", "--chunk-rows", 4, "--format", "parquet")
    assert done.code == 0 and "10 rows of 1 column in b\\nack: 3 chunks of 4 rows, parquet" in done.out
    assert re.search(r"^peak +\d+ MB +\d+ MB$", done.out, re.MULTILINE)
    again = cli("rechunk", "in", "--out", "b\nack", "--chunk-rows", 4)
    assert again.code == 2 and again.err.startswith("error: --out") and not again.out
    small = cli("rechunk", "in", "--out", "c", "--chunk-rows", 4, "--memory", "20MB")
    assert small.code == 3 and not small.out and "baseline" in small.err and not (tmp_path / "c").exists()
    assert rows_of(tmp_path / "b\nack") == {"x\x1b[31m": list(range(10))}

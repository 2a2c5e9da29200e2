"""Data with a known truth: the same rows however they are stored, a best loss that is true, nothing half-written."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from streamtrain.errors import SchemaError, UsageError
from streamtrain.storage.parquet.writer import ParquetTableWriter
from streamtrain.tools.make import default_chunk_rows, make
from streamtrain.tools.make import order as order_module
from streamtrain.tools.make.problems import block_rows

NAMES = ["clicks", "clusters", "regression"]
ROWS, COLUMNS = 70_001, 13  # more than four blocks, and no multiple of anything
assert block_rows(COLUMNS) * 4 < ROWS


def read(folder: str | Path) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """All rows of a Parquet set: features, shape (rows, columns), and targets."""
    table = pa.concat_tables([pq.read_table(p, use_threads=False) for p in sorted(Path(folder).glob("*.parquet"))])
    return np.stack([c.to_numpy() for c in table.drop(["y"]).columns], axis=1), table["y"].to_numpy()


def true_losses(truth: dict[str, Any], x: NDArray[np.float32], y: NDArray[Any]) -> NDArray[np.float64]:
    """The losses of the model that ``_truth.json`` describes, from the stored rows, in float64."""
    z = (x.astype(np.float64) - truth["offsets"]) / truth["scales"]
    score = z @ np.transpose(truth["weights"]) + truth["bias"]
    if truth["name"] == "regression":
        return np.asarray((y - score) ** 2)
    scores = np.stack([np.zeros(len(y)), score], axis=1) if truth["name"] == "clicks" else score
    return np.asarray(np.logaddexp.reduce(scores, axis=1) - scores[np.arange(len(y)), y])


@pytest.fixture(scope="module", params=NAMES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return make(request.param, rows=ROWS, columns=COLUMNS, out=tmp_path_factory.mktemp("made") / request.param, seed=3)


def test_says_what_it_made(made: dict[str, Any]) -> None:
    name = Path(made["path"]).name
    x, y = read(made["path"])
    assert set(made) == {"rows", "columns", "path", "target", "task", "best_loss"}
    assert (made["rows"], made["columns"], made["target"]) == (ROWS, COLUMNS, "y") == (len(y), x.shape[1], "y")
    assert made["task"] == ("regress" if name == "regression" else "classify")
    assert (str(x.dtype), str(y.dtype)) == ("float32", "float32" if name == "regression" else "int8")
    assert {p.name for p in Path(made["path"]).iterdir()} == {"part-000.parquet", "_truth.json"}


def test_best_loss_is_that_of_the_true_model_on_the_rows_written(made: dict[str, Any]) -> None:
    truth = json.loads((Path(made["path"]) / "_truth.json").read_text())
    losses = true_losses(truth, *read(made["path"]))
    assert made["best_loss"] == truth["best_loss"] == pytest.approx(losses.mean(), rel=2e-5)


def test_no_better_model_is_near(made: dict[str, Any]) -> None:
    """The truth is a minimum: a step in any direction of the weights or the bias is worse, beyond chance."""
    truth = json.loads((Path(made["path"]) / "_truth.json").read_text())
    x, y = read(made["path"])
    for part in ("weights", "bias"):
        for step in (-0.1, 0.1):
            value = np.array(truth[part])
            value[(0,) * value.ndim] += step
            assert true_losses(truth | {part: value}, x, y).mean() > made["best_loss"]


def test_clicks_columns_are_wild(tmp_path: Path) -> None:
    x, _ = read(make("clicks", rows=2000, columns=40, out=tmp_path / "d")["path"])
    spread, middle = x.std(axis=0, dtype=np.float64), np.abs(x.mean(axis=0, dtype=np.float64))
    assert spread.min() < 1e-4
    assert spread.max() > 1e4
    assert (middle / spread > 10).sum() >= 10
    assert np.median(middle / spread) < 5


@pytest.mark.parametrize(
    "how",
    [
        {"chunk_rows": 1000},
        {"files": 4},
        {"chunk_rows": 15_000, "files": 3, "compression": "none"},
        {"compression": "snappy", "chunk_rows": ROWS + 5},
    ],
    ids=str,
)
def test_rows_do_not_depend_on_how_they_are_stored(made: dict[str, Any], how: dict[str, Any], tmp_path: Path) -> None:
    other = make(Path(made["path"]).name, rows=ROWS, columns=COLUMNS, out=tmp_path / "d", seed=3, **how)
    assert other["best_loss"] == made["best_loss"]
    for a, b in zip(read(made["path"]), read(other["path"]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_zarr_holds_the_same_rows(made: dict[str, Any], tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    other = make(Path(made["path"]).name, rows=ROWS, columns=COLUMNS, out=tmp_path / "d", seed=3, format="zarr")
    group = zarr.open_group(other["path"], mode="r")
    x, y = read(made["path"])
    assert other["best_loss"] == made["best_loss"]
    assert {p.name for p in (tmp_path / "d").iterdir()} == {"X", "y", "zarr.json", "_truth.json"}
    np.testing.assert_array_equal(group["X"][:], x)
    np.testing.assert_array_equal(group["y"][:], y)


def test_fewer_rows_are_the_first_of_more_and_a_seed_is_its_own(made: dict[str, Any], tmp_path: Path) -> None:
    name = Path(made["path"]).name
    x, y = read(made["path"])
    less, lessy = read(make(name, rows=40_000, columns=COLUMNS, seed=3, out=tmp_path / "less")["path"])
    np.testing.assert_array_equal(less, x[:40_000])
    np.testing.assert_array_equal(lessy, y[:40_000])
    other, _ = read(make(name, rows=40_000, columns=COLUMNS, seed=4, out=tmp_path / "other")["path"])
    assert not np.isin(other[:, 0], less[:, 0]).all()
    assert len(np.unique(x[:, 0])) > 0.9 * ROWS  # no block repeats another


@pytest.mark.parametrize("run_bytes", [2_000, 1_500_000])  # buckets of a few rows; runs of several blocks
def test_sorted_is_the_stable_sort_of_the_same_rows(
    made: dict[str, Any], run_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order_module, "RUN_BYTES", run_bytes)
    seen: list[int] = []
    name = Path(made["path"]).name
    other = make(
        name, rows=ROWS, columns=COLUMNS, seed=3, out=tmp_path / "d", sorted=True, files=2, progress=seen.append
    )
    x, y = read(made["path"])
    got, goty = read(other["path"])
    by_target = np.argsort(y, kind="stable")
    np.testing.assert_array_equal(goty, y[by_target])
    np.testing.assert_array_equal(got, x[by_target])
    assert other["best_loss"] == made["best_loss"]
    assert seen == sorted(seen)
    assert seen[-1] == ROWS


def test_chunks_and_files_are_as_asked(tmp_path: Path) -> None:
    make("clicks", rows=10_007, columns=3, files=3, chunk_rows=1500, out=tmp_path / "d")
    files = [pq.ParquetFile(p) for p in sorted((tmp_path / "d").glob("*.parquet"))]
    groups = [[f.metadata.row_group(i).num_rows for i in range(f.num_row_groups)] for f in files]
    assert groups == [[1500, 1500, 335], [1500, 1500, 336], [1500, 1500, 336]]
    assert files[0].schema_arrow.names == ["x0", "x1", "x2", "y"]
    assert files[0].metadata.row_group(0).column(0).compression == "ZSTD"
    assert default_chunk_rows(40) == 65_536


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"name": "click"}, "NAME click: must be one of clicks, clusters, regression; did you mean clicks?"),
        ({"name": "?"}, "NAME ?: must be one of clicks, clusters, regression"),
        ({"rows": 0}, "--rows 0: must be at least 1"),
        ({"columns": 0}, "--columns 0: must be at least 1"),
        ({"files": 0}, "--files 0: must be at least 1"),
        ({"files": 11}, "--files 11: must be at most --rows 10"),
        ({"chunk_rows": 0}, "--chunk-rows 0: must be at least 1"),
        ({"chunk_rows": 2**27}, "--chunk-rows 134217728: must be at most 67,108,864"),
        ({"seed": -1}, "--seed -1: must be at least 0"),
        ({"compression": "ztsd"}, "--compression ztsd: must be one of"),
        ({"format": "csv"}, "--format csv: must be one of parquet, zarr"),
        ({"format": "zarr", "files": 2}, "--files 2: must be 1 for zarr"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused_before_any_io(wrong: dict[str, Any], says: str, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"name": "clicks", "rows": 10, "out": tmp_path / "d"} | wrong
    with pytest.raises(UsageError) as caught:
        make(**asked)
    assert says in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("all of it")
    for out in (tmp_path / "full", tmp_path / "full" / "thesis.txt"):
        with pytest.raises(UsageError, match="not an empty folder"):
            make("clicks", rows=10, out=out)
    assert [p.name for p in tmp_path.rglob("*")] == ["full", "thesis.txt"]
    (tmp_path / "empty").mkdir()
    assert make("clicks", rows=10, out=tmp_path / "empty")["rows"] == 10


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("how", [{}, {"sorted": True}, {"format": "zarr"}], ids=str)
def test_nothing_half_written_remains(
    error: type[BaseException], how: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how.get("format") != "zarr":  # whose threads may still write
        monkeypatch.setattr("streamtrain.state._REMOVAL_SECONDS", 0.0)

    def stop(done: int) -> None:
        if done > 1500:
            assert list(tmp_path.rglob("*")), "nothing was written yet: this test would show nothing"
            raise error

    with pytest.raises(error):
        make("clicks", rows=10_000, columns=300, chunk_rows=500, out=tmp_path / "d", progress=stop, **how)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="VmHWM is Linux's")
@pytest.mark.parametrize(
    "how", [{}, *(pytest.param(how, marks=pytest.mark.slow) for how in ({"sorted": True}, {"format": "zarr"}))], ids=str
)
def test_memory_is_that_of_a_chunk(how: dict[str, Any], tmp_path: Path) -> None:
    """80 MB of rows in chunks of 10 MB: the peak grows by a few chunks, whatever the rows."""
    code = """
import json, pathlib, sys
from streamtrain.tools.make import make
def peak():
    return next(int(s.split()[1]) for s in open("/proc/self/status") if s.startswith("VmHWM")) * 1024
how = json.loads(sys.argv[2])
make("regression", rows=1000, out=sys.argv[1] + "/small", **how)  # imports
pathlib.Path("/proc/self/clear_refs").write_text("5")
before = peak()
make("regression", rows=500_000, compression="none", out=sys.argv[1] + "/d", **how)
print(before, peak() - before)
"""
    run = [sys.executable, "-c", code, str(tmp_path), json.dumps(how)]
    before, grew = map(int, subprocess.run(run, check=True, capture_output=True, text=True).stdout.split())
    limit = 60e6 if how else 40e6
    assert grew < limit, f"grew by {grew / 1e6:.0f} MB over {before / 1e6:.0f}, limit {limit / 1e6:.0f}"


SCHEMA = pa.schema([("a", pa.int64()), ("b", pa.string()), ("c", pa.float64())])


def rows_of(start: int, stop: int) -> pa.RecordBatch:
    n = range(start, stop)
    return pa.record_batch([list(n), [f"s{i % 5}" for i in n], [i / 2 for i in n]], schema=SCHEMA)


def test_writer_cuts_row_groups_exactly_whatever_arrives(tmp_path: Path) -> None:
    cuts = [0, 1, 1, 3, 60, 61, 120, 137]
    with ParquetTableWriter(tmp_path / "t.parquet", SCHEMA, chunk_rows=25) as writer:
        for start, stop in itertools.pairwise(cuts):
            writer.write(rows_of(start, stop))
        assert [p.name for p in tmp_path.glob("*/*")] == ["t.parquet"] and not (tmp_path / "t.parquet").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["t.parquet"]
    file = pq.ParquetFile(tmp_path / "t.parquet", page_checksum_verification=True)
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [25] * 5 + [12]
    assert file.read().equals(pa.Table.from_batches([rows_of(0, 137)]))
    group = file.metadata.row_group(0)
    assert [group.column(i).has_dictionary_page for i in range(3)] == [True, True, False]


def test_writer_arrays_may_be_reused(tmp_path: Path) -> None:
    buffer = np.zeros(10, np.float32)
    with ParquetTableWriter(tmp_path / "t.parquet", pa.schema([("x", pa.float32())]), chunk_rows=25) as writer:
        for i in range(5):
            buffer[:] = i
            writer.write({"x": buffer})
    assert pq.read_table(tmp_path / "t.parquet")["x"].to_pylist() == [float(i) for i in range(5) for _ in range(10)]


def test_a_flipped_bit_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    with ParquetTableWriter(path, pa.schema([("x", pa.float32())]), chunk_rows=1000, compression="none") as writer:
        writer.write({"x": np.random.default_rng(0).standard_normal(1000, np.float32)})
    data = bytearray(path.read_bytes())
    data[2000] ^= 4
    path.write_bytes(data)
    with pytest.raises(OSError, match="CRC"):
        pq.ParquetFile(path, page_checksum_verification=True).read()


def test_writer_leaves_nothing_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"

    def write(*parts: Any) -> None:
        with ParquetTableWriter(path, SCHEMA, chunk_rows=5) as writer:
            for part in parts:
                writer.write(part)
                assert list(tmp_path.glob(".writing-*/t.parquet"))

    with pytest.raises(SchemaError):
        write(rows_of(0, 12), {"a": [1]})
    assert not list(tmp_path.iterdir())
    wrongs: list[dict[str, Any]] = [{"chunk_rows": 0}, {"chunk_rows": 5, "compression": "rar"}]
    for wrong in wrongs:
        with pytest.raises(UsageError):
            ParquetTableWriter(path, SCHEMA, **wrong)
    assert not list(tmp_path.iterdir())

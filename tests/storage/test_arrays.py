"""Arrays that are streamed: memory maps, arrays in chunks, sparse matrices, datasets of other libraries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
import xarray as xr
import zarr

import streamtrain
from streamtrain import open_reader
from streamtrain.errors import ColumnError, CorruptError, SchemaError, UsageError
from streamtrain.storage import arrays as arrays_module
from streamtrain.storage.arrays import ArraysReader
from streamtrain.storage.mapped import Mapped

ROWS = 1000


def values_of(reader: Any, name: str) -> Any:
    parts = [reader.read(chunk, [name]).column(0) for chunk in reader.chunks()]
    if isinstance(parts[0], pa.FixedShapeTensorArray):
        return np.concatenate([part.to_numpy_ndarray() for part in parts])
    return pa.chunked_array(parts).to_numpy()


class InChunks:
    """An array as h5py gives it: only slices of it can be read."""

    def __init__(self, values: Any, chunks: tuple[int, ...]) -> None:
        self._values, self.shape, self.dtype, self.chunks, self.most = values, values.shape, values.dtype, chunks, 0

    def __getitem__(self, rows: slice) -> Any:
        self.most = max(self.most, rows.stop - rows.start)
        return self._values[rows]

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("all of it was read")


class Counted(InChunks):
    """One that knows which rows were read."""

    reads: list[tuple[int, int]]

    def __getitem__(self, rows: slice) -> Any:
        self.reads = [*getattr(self, "reads", []), (rows.start, rows.stop)]
        return super().__getitem__(rows)


@pytest.mark.parametrize("order", ["C", "F"])
def test_memory_maps(tmp_path: Path, order: Any) -> None:
    X = np.random.default_rng(0).normal(size=(ROWS, 3)).astype(">f4" if order == "C" else "f8")
    np.save(tmp_path / "X.npy", np.asarray(X, order=order))
    mapped, y = np.load(tmp_path / "X.npy", mmap_mode="r"), np.arange(ROWS) % 2
    for given, wanted in ((mapped, X), (mapped[10:900:3], X[10:900:3]), (np.asarray(mapped)[::-1], X[::-1])):
        reader: Any = open_reader((given, y[: len(given)]))
        assert isinstance(reader, ArraysReader) and np.array_equal(values_of(reader, "X"), wanted)
    assert (
        open_reader((mapped, y)).fingerprint()
        == open_reader((np.load(tmp_path / "X.npy", mmap_mode="r"), y)).fingerprint()
    )
    np.save(tmp_path / "Z.npy", np.asarray(X + 1, order=order))
    assert (
        open_reader((np.load(tmp_path / "Z.npy", mmap_mode="r"), y)).fingerprint()
        != open_reader((mapped, y)).fingerprint()
    )
    assert streamtrain.fit((mapped, y), target="y").report.rows == ROWS


def test_pages_of_a_map_that_is_written_to_are_kept(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(ROWS))
    written: Any = np.load(tmp_path / "x.npy", mmap_mode="r+")
    written[:] = np.arange(ROWS)
    assert np.array_equal(values_of(open_reader({"x": written}), "x"), np.arange(ROWS))
    assert np.array_equal(written, np.arange(ROWS))
    copied: Any = np.load(tmp_path / "x.npy", mmap_mode="c")
    with pytest.raises(UsageError, match=r"mode 'c'.*mode 'r'"):
        open_reader({"x": copied})


@pytest.mark.parametrize(("shape", "order"), [((10_000_000,), "C"), ((50_000, 200), "F")])
def test_a_map_larger_than_the_budget_of_a_process(tmp_path: Path, shape: tuple[int, ...], order: str) -> None:
    """The pages that were read are given back: the peak of a process that reads 80 MB grows by less than half of that."""
    code = """
import numpy as np, streamtrain, pyarrow as pa
x = np.lib.format.open_memmap("x.npy", "w+", np.float64, SHAPE, ORDER == "F"); x[:] = 1; x.flush(); del x
def peak(): return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1])
reader = streamtrain.open_reader({"x": np.load("x.npy", mmap_mode="r")})
reader.read(reader.chunks()[0], ["x"])  # what Arrow imports for the first array
open("/proc/self/clear_refs", "w").write("5")
before, total = peak(), 0
for chunk in reader.chunks(): total += reader.read(chunk, ["x"]).num_rows
print(total, peak() - before)
"""
    code = code.replace("SHAPE", repr(shape)).replace("ORDER", repr(order))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    rows, grown = map(int, done.stdout.split())
    assert rows == shape[0] and grown < 40_000


def test_arrays_in_chunks_are_read_in_slices() -> None:
    X = np.random.default_rng(0).normal(size=(ROWS, 4)).astype("f4")
    chunked, y = InChunks(X, (128, 4)), np.arange(ROWS) % 2
    reader: Any = open_reader({"X": chunked, "y": y, "text": InChunks(np.array([b"a", b"bc"] * 500, object), (100,))})
    assert np.array_equal(values_of(reader, "X"), X) and values_of(reader, "text")[1] == "bc"
    assert {chunk.rows % 128 for chunk in reader.chunks()} <= {0, ROWS % 128}
    masked = InChunks(np.ma.masked_equal(np.arange(ROWS), 3), (100,))
    assert pd.isna(values_of(open_reader({"m": masked}), "m")[3])
    with pytest.raises(SchemaError, match="have 1000 and 3 rows"):
        open_reader((chunked, np.arange(3)))
    with pytest.raises(ColumnError, match="objects such as a dict"):
        values_of(open_reader({"o": InChunks(np.array([{}], object), (1,))}), "o")


def test_streams_are_what_is_read_and_each_stored_chunk_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays_module, "_CHUNK_ROWS", 350)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(ROWS, 4)).astype("f4")
    np.save(tmp_path / "m.npy", X[:, 0])
    stored = zarr.create_array(tmp_path / "z.zarr", data=X[:, 1], chunks=(90,), shards=(450,))
    table = xr.Dataset({"x": ("row", X[:, 2])}).chunk({"row": 77})
    counted = Counted(X, (300, 4))
    data = {
        "X": counted, "map": np.load(tmp_path / "m.npy", mmap_mode="r"), "zarr": stored, "dask": table["x"],
        "memory": zarr.array(X[:, 3], chunks=(64,)), "y": np.arange(ROWS), "sparse": sp.csr_array(X.round()),
    }  # fmt: skip
    reader: Any = open_reader(data)
    assert [each.rows for each in reader.chunks()] == [300, 300, 300, 100]
    for each in reader.chunks():
        whole = reader.read(each, list(data))
        for rows in (7, 130, ROWS):
            counted.reads = []
            batches = list(reader.stream(each, list(data), rows))
            assert pa.Table.from_batches(batches).combine_chunks().to_batches()[0].equals(whole)
            assert {batch.num_rows for batch in batches[:-1]} <= {rows}
            assert counted.reads == sorted(set(counted.reads))
            assert all(a % 300 == 0 for a, _ in counted.reads)
            assert reader.stream_peak_bytes(each, rows) > 0


def test_zarr_objects(tmp_path: Path) -> None:
    X, y = np.random.default_rng(0).normal(size=(ROWS, 4)).astype("f4"), np.arange(ROWS) % 2
    group = zarr.create_group(tmp_path / "g.zarr")
    group.create_array("X", data=X, chunks=(128, 4))
    group.create_array("y", data=y, chunks=(100,))
    assert open_reader(group).fingerprint() == open_reader(tmp_path / "g.zarr").fingerprint()
    for arrays in ((group["X"], y), (group["X"], group["y"]), (zarr.array(X, chunks=(64, 4)), group["y"])):
        reader = open_reader(arrays)
        assert np.array_equal(values_of(reader, "X"), X) and np.array_equal(values_of(reader, "y"), y)
    next((tmp_path / "g.zarr/X/c").glob("3/*")).unlink()
    with pytest.raises(CorruptError, match="missing"):
        values_of(open_reader((group["X"], y)), "X")
    with pytest.raises(UsageError, match="in a MemoryStore"):
        open_reader(zarr.create_group(zarr.storage.MemoryStore()))


def test_xarray_values_are_as_xarray_gives_them(tmp_path: Path) -> None:
    grid = np.random.default_rng(0).normal(size=(3, ROWS))
    data = xr.Dataset(
        {"t": (("time",), np.arange(ROWS) / 10), "y": (("time",), np.arange(ROWS) % 2)},
        {
            "time": pd.date_range("2026-01-01", periods=ROWS, freq="h"),
            "level": [1, 2, 3],
            "grid": (("level", "time"), grid),
        },
    )
    encoding: Any = {"t": {"dtype": "i2", "scale_factor": 0.1, "add_offset": 5.0, "_FillValue": -1, "chunks": (128,)}}
    data.to_zarr(tmp_path / "x.zarr", encoding=encoding, zarr_format=2)
    for opened in (xr.open_zarr(tmp_path / "x.zarr", chunks=None), xr.open_zarr(tmp_path / "x.zarr", chunks={})):
        shown = opened.isel(time=slice(10, None)).assign(t=opened["t"] * 2)
        reader: Any = open_reader(shown)
        assert set(reader.schema.names) == {"t", "y", "time", "grid"}  # the other coordinate has other rows
        assert np.array_equal(values_of(reader, "t"), shown["t"].values, equal_nan=True)
        assert np.array_equal(values_of(reader, "grid"), shown["grid"].transpose("time", "level").values)
        assert np.array_equal(values_of(reader, "time"), shown["time"].values)
        assert np.array_equal(values_of(open_reader((shown["t"], shown["y"])), "X"), shown["t"].values, equal_nan=True)
    uneven = xr.Dataset({"a": ("row", np.arange(9)), "b": ("row", np.arange(9))})
    uneven = uneven.assign(a=uneven["a"].chunk({"row": 2}), b=uneven["b"].chunk({"row": 5}))
    assert np.array_equal(values_of(open_reader(uneven), "b"), np.arange(9))
    with pytest.raises(UsageError, match="begin with the dimensions 'time', 'level'"):
        open_reader(data.assign(z=("level", [1, 2, 3])))


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "lil"])
def test_sparse_matrices(form: str) -> None:
    matrix = sp.random(ROWS, 20, 0.1, format=form, random_state=0)
    reader: Any = open_reader((matrix, np.arange(ROWS) % 2))
    dense = np.zeros(matrix.shape, "f4")
    rows = [row for chunk in reader.chunks() for row in reader.read(chunk, ["X"]).column(0).storage.to_pylist()]
    for row, entries in enumerate(rows):
        for entry in entries:
            dense[row, entry["index"]] += entry["value"]
    assert np.array_equal(dense, matrix.toarray().astype("f4"))
    assert streamtrain.fit((matrix, np.arange(ROWS) % 2), target="y").report.rows == ROWS


def test_entries_of_a_sparse_matrix_that_are_there_twice_are_added() -> None:
    twice = sp.csr_array((np.array([1.0, 2.0]), np.array([1, 1]), np.array([0, 2])), shape=(1, 3))
    reader: Any = open_reader({"X": twice})
    assert reader.read(reader.chunks()[0], ["X"]).column(0).storage.to_pylist() == [[{"index": 1, "value": 3.0}]]
    assert twice.nnz == 2
    with pytest.raises(ColumnError, match="complex"):
        open_reader({"X": sp.csr_array(np.eye(2, dtype=complex))})


def test_datasets_of_pyarrow(tmp_path: Path) -> None:
    table = pa.table({"x": np.arange(ROWS) / 2, "y": np.arange(ROWS) % 2, "k": np.arange(ROWS) // 500})
    pq.write_to_dataset(table, tmp_path / "parts", partition_cols=["k"])
    data = ds.dataset(tmp_path / "parts", partitioning="hive")
    reader: Any = open_reader(data)
    assert sorted(zip(values_of(reader, "x"), values_of(reader, "k"), strict=True)) == [
        (n / 2, n // 500) for n in range(ROWS)
    ]
    for other, message in (
        (data.filter(ds.field("x") > 3), "has a filter"),
        (ds.dataset(tmp_path / "parts"), r"other columns.*\(k\)"),
        (ds.dataset(table), "a dataset in memory"),
        (ds.dataset([data, data]), "a union of datasets"),
        (data.scanner(), "a scanner"),
    ):
        with pytest.raises(UsageError, match=message):
            open_reader(other)


def made_by(module: str, name: str) -> Any:
    """An object of a class of another library that must not be asked for anything."""

    def refuse(self: Any, *_: Any) -> Any:
        raise AssertionError("it was read")

    return type(
        name, (), {"__module__": module, "__array__": refuse, "__len__": refuse, "__arrow_c_stream__": refuse}
    )()


@pytest.mark.parametrize(
    ("module", "name", "remedy"),
    [
        ("polars.lazyframe.frame", "LazyFrame", "sink_parquet"),
        ("dask.array.core", "Array", "to_zarr"),
        ("dask.dataframe.dask_expr._collection", "DataFrame", "to_parquet"),
        ("duckdb", "DuckDBPyRelation", "write_parquet"),
        ("torch.utils.data.dataloader", "DataLoader", "arrays or files"),
        ("datasets.arrow_dataset", "Dataset", "to_parquet"),
        ("pyspark.sql.classic.dataframe", "DataFrame", "write.parquet"),
    ],
)
def test_what_cannot_be_streamed_is_refused(module: str, name: str, remedy: str) -> None:
    lazy = made_by(module, name)
    for data in (lazy, (lazy, np.arange(3)), {"X": np.zeros(3), "y": lazy}, [lazy]):
        with pytest.raises(UsageError, match=f"no public way.*{remedy}"):
            open_reader(data)


def test_what_can_be_read_once_is_refused() -> None:
    with pytest.raises(UsageError, match="a generator can be read only once"):
        open_reader(row for row in [1])


def test_views_of_a_map_know_their_pages(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(100_000.0))
    mapped: Any = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert Mapped("x", mapped[50_000:]).slice(3, 5).to_pylist() == [50_003.0, 50_004.0]

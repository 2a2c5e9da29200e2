"""What the writers take is what they declare; how they cut and encode what they are given."""

from __future__ import annotations

import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make import in_forks

from streamtrain.errors import BadValueError, SchemaError, UsageError
from streamtrain.storage.formats import COMPRESSIONS
from streamtrain.storage.parquet.types import leaves
from streamtrain.storage.parquet.writer import ParquetTableWriter, footer_entry_bytes
from streamtrain.storage.zarr.writer import ZarrWriter
from streamtrain.tools.rechunk.to_zarr import ZarrOutput
from streamtrain.tools.rechunk.zarr_arrays import as_numpy

# -- Parquet ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 1000, pytest.param(140_000, marks=pytest.mark.slow)])
def test_a_chunk_is_a_row_group(tmp_path: Path, rows: int) -> None:
    text = pa.array([f"{i:09d}" for i in range(rows)])
    codes = pa.DictionaryArray.from_arrays(pa.array(np.arange(rows, dtype=np.int32)), text)
    nulls = pa.array([None, *range(1, rows)], pa.int64())
    pairs = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(2.0 * rows)), 2)
    lists = pa.array([list(range(i % 3)) for i in range(rows)])
    first_null = pa.DictionaryArray.from_arrays(pa.array([None, *range(1, rows)], pa.int32()), text)
    batch = pa.record_batch([text, codes, nulls, pairs, lists, first_null], names=list("abcdef"))
    with ParquetTableWriter(tmp_path / "a.parquet", batch.schema, chunk_rows=rows) as writer:
        writer.write_chunk(batch)
        writer.write_chunk(batch.slice(0, 1))
    file = pq.ParquetFile(tmp_path / "a.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(2)] == [rows, 1]
    assert file.read_row_group(0).to_pydict() == batch.to_pydict()


def test_a_chunk_of_another_size_is_refused(tmp_path: Path) -> None:
    batch = pa.record_batch({"x": [1, 2, 3]})
    with ParquetTableWriter(tmp_path / "a.parquet", batch.schema, chunk_rows=2) as writer:
        for wrong in (batch, batch.slice(0, 0)):
            with pytest.raises(UsageError, match="rows cannot be a row group: it must have 1 to 2"):
                writer.write_chunk(wrong)
        with pytest.raises(SchemaError):
            writer.write_chunk(pa.record_batch({"y": [1, 2]}))
        writer.write(batch.slice(0, 1))
        with pytest.raises(UsageError):  # it would come before the row that waits
            writer.write_chunk(batch.slice(0, 2))


def test_floats_have_no_dictionary_and_others_have_one(tmp_path: Path) -> None:
    structs = pa.array([{"f": 0.5, "s": "x"}] * 9)
    batch = pa.record_batch({"a.b": [1.0] * 9, "x": [1] * 9, "l": [[1.0]] * 9, "i": [[1]] * 9, "t": structs})
    with ParquetTableWriter(tmp_path / "a.parquet", batch.schema, chunk_rows=9) as writer:
        writer.write(batch)
    group = pq.read_metadata(tmp_path / "a.parquet").row_group(0)
    found = {group.column(i).path_in_schema: group.column(i).has_dictionary_page for i in range(group.num_columns)}
    paths = [path for field in batch.schema for path, _ in leaves(field)]
    assert list(found) == paths == ["a.b", "x", "l.list.element", "i.list.element", "t.f", "t.s"]
    assert list(found.values()) == [False, True, False, True, False, True]


def test_footers_are_as_declared(tmp_path: Path) -> None:
    columns = {f"x{i}": [1.5] for i in range(20)} | {"s": ["é" * 100], "t": ["x" * 5000]}
    batch = pa.record_batch(columns)
    with ParquetTableWriter(tmp_path / "a.parquet", batch.schema, chunk_rows=1) as writer:
        for _ in range(10):
            writer.write_chunk(batch)
        assert writer.footer_bytes == 10 * (20 * 2000 + 3000 + 6 * 200 + 3000 + 6 * 4096)
    assert footer_entry_bytes(batch.schema.field("s")) == 3000


@pytest.mark.parametrize("format", COMPRESSIONS)
def test_every_compression_that_is_offered_is_there(tmp_path: Path, format: str) -> None:
    for compression in COMPRESSIONS[format]:
        path = tmp_path / compression
        if format == "zarr":
            with ZarrWriter(path, {"x": ((), "i8")}, 3, 2, compression) as zarr_writer:
                zarr_writer.write({"x": [1, 2, 3]})
        else:
            with ParquetTableWriter(
                path, pa.schema([("x", pa.int64())]), chunk_rows=2, compression=compression
            ) as writer:
                writer.write({"x": [1, 2, 3]})
            assert pq.read_table(path)["x"].to_pylist() == [1, 2, 3]


# -- Zarr ------------------------------------------------------------------------------------------------------------------

TEXT = np.dtypes.StringDType()


def test_of_a_dictionary_only_what_occurs_is_made_text() -> None:
    known = pa.array([f"{i:020d}" for i in range(200_000)])
    values = pa.DictionaryArray.from_arrays(pa.array([7, 199_999, 7], pa.int32()), known)
    as_numpy("s", values, (), TEXT)
    tracemalloc.start()
    found = as_numpy("s", values, (), TEXT)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.tolist() == [f"{i:020d}" for i in (7, 199_999, 7)]
    assert peak < 3_000_000  # as Python's strings the whole dictionary takes 15 MB


def test_nulls_of_a_dictionary_are_refused_too() -> None:
    values = pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int32()), pa.array(["a", None]))
    with pytest.raises(BadValueError, match="'s' contains a null"):
        as_numpy("s", values, (), TEXT)


def test_long_text_is_converted_a_part_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, sizes = pa.array(["x" * 100_000, "y"]), []
    batch = pa.record_batch({"s": pa.DictionaryArray.from_arrays(pa.array([0, 1] * 500, pa.int32()), texts)})

    def watched(name: str, values: Any, *more: Any, **how: Any) -> Any:
        sizes.append(sum(len(text) for text in values.to_pylist()))
        return as_numpy(name, values, *more, **how)

    monkeypatch.setattr("streamtrain.tools.rechunk.to_zarr.as_numpy", watched)
    output = ZarrOutput.of(batch.schema, batch.schema, "zstd")
    held: list[int] = []
    sink = output.open(tmp_path / "out", 1000, 400, lambda held_bytes, share: held.append(held_bytes))
    sink.write(batch)
    assert sink.close() == 3
    assert sum(sizes) == 50_000_500 and max(sizes) <= 4_000_000
    assert max(held) == sink.most_held_bytes == 400 * 16 + 20_000_200  # told before the text is there
    assert held[-1] == 400 * 16 + 10_000_100


# -- memory, each in a fresh process ---------------------------------------------------------------------------------------

_MEASURE = """
import json, sys
import numpy as np, pyarrow as pa
from streamtrain.memory.process import peak_bytes, release_freed_memory, reset_peak, resident_bytes, steady_allocators
rng = np.random.default_rng(0)
folder, format, compression, kind = sys.argv[1:]
codes = lambda distinct, rows: pa.DictionaryArray.from_arrays(
    pa.array(rng.integers(0, distinct, rows, np.int32)), pa.array([f"{i:020d}" for i in range(distinct)]))
def lists(values, size):
    kind = pa.fixed_shape_tensor(values.type, [size])
    return pa.ExtensionArray.from_storage(kind, pa.FixedSizeListArray.from_arrays(values, size))
make = {
    "floats": lambda: pa.array(rng.random(1_000_000, np.float32)),
    "integers": lambda: pa.array(rng.integers(0, 2**60, 500_000)),
    "codes": lambda: codes(20_000, 2_000_000),
    "many codes": lambda: codes(100_000, 1_000_000),
    "tensors": lambda: lists(pa.array(rng.random(8_000_000, np.float32)), 40),
    "images": lambda: lists(pa.array(rng.integers(0, 255, 20_000_000, np.uint8)), 800),
    "lists": lambda: pa.ListArray.from_arrays(
        pa.array(np.arange(0, 8_000_001, 80, np.int32)), pa.array(rng.integers(0, 100, 8_000_000, np.int8))),
    "text": lambda: pa.array([f"{i}-some text that is longer" for i in range(100_000)]),
}[kind]
with steady_allocators():
    batch = pa.record_batch({"a": make(), "b": make()})
    rows = batch.num_rows
    if format == "parquet":
        from streamtrain.storage.parquet.writer import ParquetTableWriter, write_peak_bytes
        declared = write_peak_bytes(batch.schema, rows, compression, batch.nbytes)
        def write(name, batch, times):
            with ParquetTableWriter(f"{folder}/{name}", batch.schema, chunk_rows=rows, compression=compression) as writer:
                for _ in range(times): writer.write_chunk(batch)
    else:
        from streamtrain.tools.rechunk.zarr_arrays import array_of, as_numpy
        from streamtrain.storage.zarr.writer import ZarrWriter, write_peak_bytes
        columns = {field.name: array_of(field) for field in batch.schema}
        arrays = {name: as_numpy(name, batch.column(name), *columns[name]) for name in columns}
        text = sum(batch.column(name).nbytes for name in columns) if kind == "text" else 0
        declared = write_peak_bytes(columns, rows, text)
        def write(name, batch, times):
            part = {name: values[: batch.num_rows] for name, values in arrays.items()}
            with ZarrWriter(f"{folder}/{name}", columns, batch.num_rows * times, batch.num_rows, compression) as writer:
                for _ in range(times): writer.write(part)
    write("warm", batch.slice(0, 10), 1)
    release_freed_memory()
    before = resident_bytes()
    reset_peak()
    write("measured", batch, 2)
    print(json.dumps([declared, peak_bytes() - before]))
"""
QUICK = [("parquet", "zstd", "floats"), ("parquet", "zstd", "codes"), ("zarr", "zstd", "floats")]
LONG = [
    *(("parquet", "zstd", kind) for kind in ("integers", "many codes", "tensors", "images", "lists", "text")),
    ("parquet", "brotli", "integers"),
    *(("zarr", "zstd", kind) for kind in ("tensors", "text")),
    ("zarr", "none", "floats"),
]


@pytest.mark.skipif(sys.platform != "linux", reason="measured through /proc")
@pytest.mark.parametrize("cases", [QUICK, pytest.param(LONG, marks=pytest.mark.slow)], ids=["quick", "long"])
def test_peaks_are_as_declared(tmp_path: Path, cases: list[tuple[str, str, str]]) -> None:
    folders = [tmp_path / "-".join(case) for case in cases]
    for folder in folders:
        folder.mkdir()
    found = in_forks(_MEASURE, [(folder, *case) for folder, case in zip(folders, cases, strict=True)])
    for case, (declared, measured) in zip(cases, found, strict=True):
        assert measured <= declared, f"{case}: declared {declared:,}, measured {measured:,}"
        assert declared <= 2.5 * measured + 12_000_000, f"{case}: declared {declared:,}, measured {measured:,}"

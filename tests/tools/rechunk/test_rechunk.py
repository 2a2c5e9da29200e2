"""A copy holds the same rows, of the same types, in chunks of exactly the asked size."""

from __future__ import annotations

import datetime
import decimal
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from make import Unreadable, examples, rows_of, write_parquet, zarr_group

import streamtrain
from streamtrain import rechunk
from streamtrain.errors import (
    BadValueError,
    ColumnError,
    CorruptError,
    NotFoundError,
    RunError,
    SchemaError,
    UsageError,
)
from streamtrain.tools.rechunk import to_parquet

CORPORA = Path(__file__).parents[3] / ".." / "shared" / "corpora"
FILES = sorted(p for p in CORPORA.rglob("*.parquet") if p.is_file() and "large" not in p.name)


def parts(folder: str | Path) -> list[Path]:
    return sorted(Path(folder).iterdir())


def table_of(folder: str | Path) -> pa.Table:
    """Every value, as pyarrow reads it, in the order of the files' names."""
    return pa.concat_tables([pq.ParquetFile(part).read() for part in parts(folder)])


def sizes_of(folder: str | Path) -> list[int]:
    """Rows of each row group."""
    footers = [pq.read_metadata(part) for part in parts(folder)]
    return [f.row_group(g).num_rows for f in footers for g in range(f.num_row_groups)]


def exact(rows: int, chunk_rows: int) -> list[int]:
    return [min(chunk_rows, rows - start) for start in range(0, rows, chunk_rows)]


# -- the same rows, in exact chunks --------------------------------------------------------------------------------------


def columns(rows: int) -> dict[str, Any]:
    rng = np.random.default_rng(rows)
    times = np.datetime64("2024-01-01T00:00:00.000001", "us") + rng.integers(0, 10**12, rows)
    return {
        "X": rng.random((rows, 2, 3), np.float32),
        "flag": rng.random(rows) < 0.5,
        "text": np.array([f"é{i % 5}" * (i % 9) for i in range(rows)], object),
        "time": times,
        "y": rng.integers(-(2**60), 2**60, rows),
        "z": rng.random(rows, np.float32),
    }


@examples(12)
@given(
    rows=st.integers(1, 60), files=st.integers(1, 3), chunk=st.integers(1, 70), chunk_rows=st.integers(1, 70),
    source=st.sampled_from(["parquet", "zarr", "memory"]), target=st.sampled_from(["parquet", "zarr"]),
)  # fmt: skip
def test_any_sizes_and_formats(rows: int, files: int, chunk: int, chunk_rows: int, source: str, target: str) -> None:
    data = columns(rows)
    with tempfile.TemporaryDirectory() as folder:
        path: Any = Path(folder) / "in"
        if source == "zarr":
            arrays = {k: v.astype("T") if v.dtype == object else v for k, v in data.items()}
            zarr_group(path, **{k: {"data": v, "chunks": (chunk, *v.shape[1:])} for k, v in arrays.items()})
        elif source == "parquet":
            reader = streamtrain.open_reader(data)
            table = pa.Table.from_batches([reader.read(c, reader.schema.names) for c in reader.chunks()])
            for i in range(files):
                part = table.slice(rows * i // files, rows * (i + 1) // files - rows * i // files)
                write_parquet(path / f"{i}.parquet", part, row_group_size=chunk)
        else:
            path = data
        out = Path(folder) / "out"
        found = rechunk(path, out=out, chunk_rows=chunk_rows, format=target)
        wanted = {k: (v.reshape(rows, -1) if v.ndim > 1 else v).tolist() for k, v in data.items()}
        assert (found["rows"], found["columns"], found["format"]) == (rows, 6, target)
        assert found["chunks"] == len(exact(rows, chunk_rows)) and found["chunk_rows"] == chunk_rows
        assert rows_of(out) == wanted
        if target == "parquet":
            assert sizes_of(out) == exact(rows, chunk_rows)
            assert table_of(out).schema.types == [
                pa.fixed_shape_tensor(pa.float32(), [2, 3]), pa.bool_(), pa.string(), pa.timestamp("us"), pa.int64(),
                pa.float32(),
            ]  # fmt: skip
        else:
            store = zarr.open_group(out, mode="r")
            assert {k: a.chunks[0] for k, a in store.arrays()} == dict.fromkeys(data, min(rows, chunk_rows))
            assert {k: str(a.dtype) for k, a in store.arrays()} == {
                "X": "float32", "flag": "bool", "text": "StringDType()", "time": "datetime64[us]", "y": "int64",
                "z": "float32",
            }  # fmt: skip
            assert all(a.shape == data[k].shape for k, a in store.arrays())


def types() -> pa.Table:
    """Every type that Parquet holds, each with a null where it may."""

    def some(values: list[Any], kind: pa.DataType) -> Any:
        return pa.array([*values, None, *reversed(values)], kind)

    date = datetime.datetime(2024, 2, 29, 1, 2, 3)
    words = ["b", "a", "é" * 50]
    numbers = {str(k): some([1, 2, 3], k) for k in (pa.int8(), pa.int16(), pa.uint32(), pa.uint64(), pa.float64())}
    tensor = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(42, dtype=np.float32)), 6)
    return pa.table(
        {
            **numbers,
            "half": some([np.float16(x) for x in (1, 2, 3)], pa.float16()),
            "bool": some([True, False, True], pa.bool_()),
            "decimal": some([decimal.Decimal("1.25")] * 3, pa.decimal128(30, 2)),
            "decimal256": some([decimal.Decimal("1.25")] * 3, pa.decimal256(60, 2)),
            "date": some([date.date()] * 3, pa.date32()),
            "time": some([date.time()] * 3, pa.time64("us")),
            **{
                f"timestamp {u} {z}": some([date] * 3, pa.timestamp(u, z))
                for u in ("ms", "us", "ns")
                for z in (None, "UTC")
            },
            "duration": some([datetime.timedelta(1)] * 3, pa.duration("ms")),
            "string": some(words, pa.string()),
            "large string": some(words, pa.large_string()),
            "binary": some([w.encode() for w in words], pa.binary()),
            "five": some([b"12345"] * 3, pa.binary(5)),
            "category": some(words, pa.dictionary(pa.int8(), pa.string())),
            "ordered": some(words, pa.dictionary(pa.int32(), pa.string(), ordered=True)),
            "list": some([[1, None], [], [2]], pa.list_(pa.int16())),
            "list of words": some([["a", None], [], ["b" * 40]], pa.list_(pa.string())),
            "struct": some([{"a": 1, "b": "x"}] * 3, pa.struct([("a", pa.int8()), ("b", pa.string())])),
            "map": some([[("a", 1)], [], [("b", None)]], pa.map_(pa.string(), pa.int32())),
            "tensor": pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float32(), [2, 3]), tensor),
            "pair": some([[1, 2], [3, None], [5, 6]], pa.list_(pa.int8(), 2)),
            "uuid": pa.ExtensionArray.from_storage(pa.uuid(), some([bytes(range(16))] * 3, pa.binary(16))),
            "nothing": pa.nulls(7),
        }
    )


@pytest.mark.parametrize("chunk_rows", [1, 3, 7, 100])
def test_every_type_of_parquet_stays(tmp_path: Path, chunk_rows: int) -> None:
    table = pa.concat_tables([types()] * 3)
    source = write_parquet(tmp_path / "in.parquet", table, row_group_size=5)
    rechunk(source, out=tmp_path / "out", chunk_rows=chunk_rows)
    wanted, found = pq.ParquetFile(source).read(), table_of(tmp_path / "out")
    assert found.schema.equals(wanted.schema, check_metadata=True)
    assert found.to_pylist() == wanted.to_pylist() == table.to_pylist()
    assert sizes_of(tmp_path / "out") == exact(21, chunk_rows)
    assert found.schema.field("category").type == pa.dictionary(pa.int8(), pa.string())


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_files_of_other_writers(tmp_path: Path, path: Path) -> None:
    try:
        wanted = pq.ParquetFile(path, coerce_int96_timestamp_unit="us").read(use_threads=False)
        chunk_rows = max(1, wanted.num_rows // 7)
        rechunk(path, out=tmp_path / "out", chunk_rows=chunk_rows)
    except (streamtrain.StreamtrainError, OSError, pa.ArrowException, NotImplementedError):
        assert not list(tmp_path.iterdir())
        return
    found = table_of(tmp_path / "out")
    assert found.schema.equals(wanted.schema) and [f.nullable for f in found.schema] == [
        f.nullable for f in wanted.schema
    ]
    assert found.equals(wanted) or str(found.to_pylist()) == str(wanted.to_pylist())  # str: nan is nan
    assert sizes_of(tmp_path / "out") == exact(wanted.num_rows, chunk_rows)


def test_what_is_noted_stays(tmp_path: Path) -> None:
    fields = [
        pa.field("x", pa.int64(), nullable=False, metadata={"unit": "m", "PARQUET:field_id": "7"}),
        pa.field("s", pa.string(), metadata={"language": "en"}),
    ]
    schema = pa.schema(fields, metadata={"pandas": "{}", "owner": "é"})
    table = pa.table({"x": [1, 2, 3], "s": ["a", None, "b"]}, schema=schema)
    rechunk(write_parquet(tmp_path / "in.parquet", table), out=tmp_path / "out", chunk_rows=2)
    part, wanted = parts(tmp_path / "out")[0], pq.read_schema(tmp_path / "in.parquet")
    assert pq.read_schema(part).equals(wanted, check_metadata=True)
    assert pq.read_table(part).schema.equals(wanted, check_metadata=True)  # which looks for it elsewhere
    footer = pq.read_metadata(parts(tmp_path / "out")[0])
    assert footer.metadata[b"owner"] == "é".encode() and "field_id=7" in str(footer.schema)


def test_of_several_files_what_they_agree_on_stays(tmp_path: Path) -> None:
    def one(name: str, nullable: bool, unit: str, **noted: str) -> None:
        x = pa.field("x", pa.int64(), nullable=nullable, metadata={"unit": unit, "kind": "length"})
        schema = pa.schema([x, pa.field("y", pa.int8(), nullable=False)], metadata={"owner": "me", **noted})
        write_parquet(
            tmp_path / "in" / name, pa.table({"x": [1, None] if nullable else [1, 2], "y": [1, 2]}, schema=schema)
        )

    one("a.parquet", False, "m", bbox="1,2")
    one("b.parquet", True, "km", bbox="3,4")
    rechunk(tmp_path / "in", out=tmp_path / "out", chunk_rows=3)
    found = table_of(tmp_path / "out")
    assert found.schema.metadata == {b"owner": b"me"}
    assert found.schema.field("x").metadata == {b"kind": b"length"}
    assert [f.nullable for f in found.schema] == [True, False]
    assert found["x"].to_pylist() == [1, 2, 1, None]


def test_partitions_become_columns(tmp_path: Path) -> None:
    for year in (2024, 2025):
        for kind in ("a%20b", "__HIVE_DEFAULT_PARTITION__"):
            write_parquet(
                tmp_path / "in" / f"year={year}" / f"kind={kind}" / "f.parquet", pa.table({"x": [float(year), 0.5]})
            )
    rechunk(tmp_path / "in", out=tmp_path / "out", chunk_rows=3)
    found = table_of(tmp_path / "out")
    assert found.schema == pa.schema([("x", pa.float64()), ("year", pa.int64()), ("kind", pa.string())])
    assert found["kind"].to_pylist() == [None, None, "a b", "a b"] * 2
    assert found["year"].to_pylist() == [2024] * 4 + [2025] * 4
    assert [part.name for part in parts(tmp_path / "out")] == ["part-00000.parquet"]


def test_empty_row_groups_and_files(tmp_path: Path) -> None:
    table = pa.table({"x": [1, 2, 3]})
    with pq.ParquetWriter(tmp_path / "b.parquet", table.schema) as writer:
        for piece in (table.slice(0, 0), table.slice(0, 1), table.slice(0, 0), table.slice(1)):
            writer.write_table(piece)
    write_parquet(tmp_path / "a.parquet", table.slice(0, 0))
    rechunk(str(tmp_path / "*.parquet"), out=tmp_path / "out", chunk_rows=2)
    assert table_of(tmp_path / "out")["x"].to_pylist() == [1, 2, 3]


def test_a_new_file_is_begun_when_the_footer_is_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({f"x{i}": np.arange(120) + i for i in range(10)})
    monkeypatch.setattr(to_parquet, "FOOTER_BYTES", 50_000)  # 2 kB for each column of each row group: 3 row groups
    rechunk(write_parquet(tmp_path / "in.parquet", table), out=tmp_path / "out", chunk_rows=1)
    names = [part.name for part in parts(tmp_path / "out")]
    assert names == [f"part-{i:05d}.parquet" for i in range(40)]
    assert {pq.read_metadata(part).num_row_groups for part in parts(tmp_path / "out")} == {3}
    assert table_of(tmp_path / "out").equals(table)


def test_long_text_counts_in_the_footer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(to_parquet, "FOOTER_BYTES", 50_000)
    for size, groups in ((10, 17), (4000, 2)):  # least and greatest are noted in the footer
        table = pa.table({"s": [f"{i:02d}" + "x" * size for i in range(40)]})
        out = tmp_path / f"out{size}"
        rechunk(write_parquet(tmp_path / "in.parquet", table), out=out, chunk_rows=1)
        assert pq.read_metadata(parts(out)[0]).num_row_groups == groups


# -- Zarr ----------------------------------------------------------------------------------------------------------------

ARRAYS = {
    "bools": np.arange(20).reshape(10, 2) % 3 == 0,
    "bytes": np.array([b"ab", b"c"] * 5),
    "days": np.datetime64("2024-02-28") + np.arange(10),
    "deep": np.arange(120, dtype=np.uint8).reshape(10, 3, 4),
    "fixed": np.array(["é", "abc"] * 5),
    "half": np.arange(10, dtype=np.float16),
    "nan": np.array([1, np.nan] * 5, np.float32),
    "nat": np.array(["2024-01-01T00", "NaT"] * 5, "M8[s]"),
    "span": np.arange(10).astype("m8[ms]"),
    "sub/z": np.arange(10, dtype=np.uint64) + 2**63,
    "text": np.array(["", "long" * 20] * 5, np.dtypes.StringDType()),
}


@pytest.mark.parametrize("version", [2, 3])
def test_arrays_of_every_type_stay(tmp_path: Path, version: int) -> None:
    source = zarr_group(tmp_path / "in.zarr", version, **ARRAYS)
    rechunk(source, out=tmp_path / "out", chunk_rows=3)
    store = zarr.open_group(tmp_path / "out", mode="r")
    for name, wanted in ARRAYS.items():
        array: Any = store[name]
        assert (array.dtype, array.shape, array.chunks) == (wanted.dtype, wanted.shape, (3, *wanted.shape[1:])), name
        np.testing.assert_array_equal(array[:], wanted)
    assert zarr.open_group(tmp_path / "out", mode="r").metadata.zarr_format == 3


def test_layouts_of_zarr(tmp_path: Path) -> None:
    X = np.random.default_rng(0).random((100, 6))
    ways: list[dict[str, Any]] = [
        {"chunks": (7, 2)}, {"chunks": (5, 6), "shards": (25, 6)}, {"chunks": (100, 6)}, {"dtype": ">f8", "chunks": (10, 6)},
    ]  # fmt: skip
    for i, way in enumerate(ways):
        source = zarr_group(tmp_path / f"{i}.zarr", X={"shape": X.shape, "dtype": "f8", **way}, y=np.arange(100))
        zarr.open_group(source)["X"][:] = X  # type: ignore[index]
        found = rechunk(source, out=tmp_path / f"out{i}", chunk_rows=30)
        array: Any = zarr.open_group(tmp_path / f"out{i}", mode="r")["X"]
        np.testing.assert_array_equal(array[:], X)
        assert array.chunks == (30, 6) and found["chunks"] == 4
        files = [
            p.relative_to(tmp_path / f"out{i}").as_posix() for p in (tmp_path / f"out{i}").rglob("c/*") if p.is_file()
        ]
        assert sorted(f for f in files if f.startswith("y")) == [f"y/c/{k}" for k in range(4)]


@pytest.mark.parametrize("version", [2, 3])
def test_attributes_and_dimension_names_stay(tmp_path: Path, version: int) -> None:
    source = zarr_group(tmp_path / "in.zarr", version, {"title": "t"}, **{"sub/X": np.ones((8, 2), np.float32)})
    store = zarr.open_group(source)
    store["sub"].attrs["level"] = [1, 2]
    store["sub/X"].attrs.update({"unit": "m", "_ARRAY_DIMENSIONS": ["row", "column"]})
    rechunk(source, out=tmp_path / "out", chunk_rows=3)
    found = zarr.open_group(tmp_path / "out", mode="r")
    X: Any = found["sub/X"]
    assert dict(found.attrs) == {"title": "t"} and dict(found["sub"].attrs) == {"level": [1, 2]}
    assert X.attrs["unit"] == "m" and X.metadata.dimension_names == ("row", "column")


def test_a_single_array_and_a_fill_value(tmp_path: Path) -> None:
    array = zarr.create_array(tmp_path / "in.zarr", shape=(10,), chunks=(3,), dtype="i4", fill_value=-9)
    array[:5] = np.arange(5)
    with pytest.raises(CorruptError, match="no chunk file"):
        rechunk(tmp_path / "in.zarr", out=tmp_path / "out", chunk_rows=4)
    assert not (tmp_path / "out").exists()
    rechunk(tmp_path / "in.zarr", out=tmp_path / "out", chunk_rows=4, missing_chunks="fill")
    copy: Any = zarr.open_group(tmp_path / "out", mode="r")["X"]
    assert copy[:].tolist() == [0, 1, 2, 3, 4, *[-9] * 5] and copy.fill_value == -9


def test_there_and_back(tmp_path: Path) -> None:
    wanted = {k: v for k, v in ARRAYS.items() if v.dtype.kind not in "SUMm" and k != "bools"}
    zarr_group(tmp_path / "a.zarr", **wanted)
    rechunk(tmp_path / "a.zarr", out=tmp_path / "b", chunk_rows=4, format="parquet")
    rechunk(tmp_path / "b", out=tmp_path / "c", chunk_rows=3, format="zarr")
    store = zarr.open_group(tmp_path / "c", mode="r")
    for name, array in wanted.items():
        found: Any = store[name]
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found[:], array)


def test_arrays_as_columns_of_parquet(tmp_path: Path) -> None:
    zarr_group(tmp_path / "in.zarr", **ARRAYS)
    rechunk(tmp_path / "in.zarr", out=tmp_path / "out", chunk_rows=4, format="parquet")
    assert str(rows_of(tmp_path / "out")) == str(rows_of(tmp_path / "in.zarr"))  # str: nan is nan
    found = table_of(tmp_path / "out")
    assert found.schema.names == sorted(ARRAYS)
    assert found.schema.field("bools").type == pa.fixed_shape_tensor(pa.uint8(), [2])
    assert found.schema.field("days").type == pa.timestamp("ms")
    assert found["nat"].null_count == 5 and found["nan"].null_count == 0


def test_a_zip_is_read(tmp_path: Path) -> None:
    source = zarr_group(tmp_path / "in", attributes={"title": "t"}, y=np.arange(5))
    with zipfile.ZipFile(tmp_path / "in.zarr.zip", "w") as archive:
        for file in source.rglob("*"):
            archive.write(file, file.relative_to(source))
    rechunk(tmp_path / "in.zarr.zip", out=tmp_path / "out", chunk_rows=2)
    store = zarr.open_group(tmp_path / "out", mode="r")
    y: Any = store["y"]
    assert y[:].tolist() == [0, 1, 2, 3, 4] and y.chunks == (2,) and dict(store.attrs) == {"title": "t"}


def test_columns_of_parquet_as_arrays(tmp_path: Path) -> None:
    days = [datetime.date(2024, 1, 1), None]
    pairs = pa.FixedSizeListArray.from_arrays(pa.array([1, 2, 3, 4], pa.int8()), 2)
    table = pa.table(
        {"b": pa.array(["x", "y"]).dictionary_encode(), "day": pa.array(days), "pair": pairs, "a": [True, False]}
    )
    rechunk(write_parquet(tmp_path / "in.parquet", table), out=tmp_path / "out", chunk_rows=1, format="zarr")
    store: Any = zarr.open_group(tmp_path / "out", mode="r")
    assert store["b"][:].tolist() == ["x", "y"] and store["a"][:].tolist() == [True, False]
    assert store["day"].dtype == "M8[D]" and str(store["day"][:]) == "['2024-01-01'        'NaT']"
    assert store["pair"][:].tolist() == [[1, 2], [3, 4]]


# -- refused ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "zarr_too"),
    [
        (pa.timestamp("us", "UTC"), False), (pa.decimal128(5, 2), False), (pa.binary(), False), (pa.list_(pa.int8()), False),
        (pa.struct([("a", pa.int8())]), False), (pa.time32("ms"), False), (pa.null(), False),
        (pa.dictionary(pa.int8(), pa.int64()), False), (pa.list_(pa.string(), 2), False),
        (pa.fixed_shape_tensor(pa.int8(), [2, 3], permutation=[1, 0]), False),
    ],
    ids=str,
)  # fmt: skip
def test_what_zarr_cannot_hold_is_refused_by_name_before_anything_is_read(
    tmp_path: Path, kind: Any, zarr_too: bool
) -> None:
    reader = Unreadable(pa.schema([("fine", pa.int8()), ("odd one", kind)]))
    with pytest.raises(ColumnError, match=r"column 'odd one' is .*, which Zarr cannot hold.*--format parquet"):
        rechunk(reader, out=tmp_path / "out", chunk_rows=5, format="zarr")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "kind",
    [
        pa.month_day_nano_interval(), pa.run_end_encoded(pa.int32(), pa.int8()), pa.struct([]), pa.date64(),
        pa.dense_union([pa.field("a", pa.int8())]), pa.dictionary(pa.int8(), pa.int64()),
        pa.decimal128(9, -2),
    ],
    ids=str,
)  # fmt: skip
def test_what_parquet_cannot_hold_is_refused_by_name_before_anything_is_read(tmp_path: Path, kind: Any) -> None:
    reader = Unreadable(pa.schema([("fine", pa.timestamp("s")), ("odd one", kind)]))
    with pytest.raises(ColumnError, match=r"column 'odd one' is .*, which Parquet cannot store .*: convert it"):
        rechunk(reader, out=tmp_path / "out", chunk_rows=5)
    assert not list(tmp_path.iterdir())


def test_an_array_that_cannot_be_read_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = zarr_group(tmp_path / "in.zarr", y=np.arange(4), odd=np.zeros(4, np.complex64))
    monkeypatch.setattr(tempfile, "mkdtemp", lambda **_: pytest.fail("something was written"))
    for format in ("zarr", "parquet"):
        with pytest.raises(ColumnError, match=r"'odd'.*complex64.*cannot be read"):
            rechunk(source, out=tmp_path / "out", chunk_rows=2, format=format)
    assert [p.name for p in tmp_path.iterdir()] == ["in.zarr"]


@pytest.mark.parametrize(
    "values",
    [pa.array([1.5, None]), pa.array(["a", None]), pa.array(["a", None]).dictionary_encode(), pa.array([True, None]),
     pa.array([[1, 2], None], pa.list_(pa.int8(), 2)), pa.array([[1, 2], [3, None]], pa.list_(pa.int8(), 2))],
    ids=lambda v: str(v.type),
)  # fmt: skip
def test_nulls_are_refused_by_zarr_with_their_place(tmp_path: Path, values: Any) -> None:
    table = pa.table({"fine": range(4), "odd": pa.chunked_array([values.slice(0, 1), values.slice(0, 1), values])})
    source = write_parquet(tmp_path / "in.parquet", table, row_group_size=2)
    with pytest.raises(BadValueError, match=r"^in\.parquet:1: column 'odd' contains a null, which Zarr cannot"):
        rechunk(source, out=tmp_path / "out", chunk_rows=1, format="zarr")
    assert [p.name for p in tmp_path.iterdir()] == ["in.parquet"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"chunk_rows": 0}, "--chunk-rows 0: must be from 1 to 67,108,864"),
        ({"chunk_rows": 1 << 27}, "--chunk-rows 134217728: must be"),
        ({"format": "csv"}, "--format csv: must be one of parquet, zarr"),
        ({"compression": "rar"}, "--compression rar: must be one of zstd, snappy"),
        (
            {"compression": "brotli", "format": "zarr"},
            "--compression brotli: must be one of zstd, gzip, lz4, none for zarr",
        ),
        ({"memory": "lots"}, "'lots' is not a size"),
        ({"missing_chunks": "perhaps"}, "--missing-chunks perhaps"),
        ({"out": ""}, "out='': must be a path"),
        ({"out": "full"}, "--out full: exists and is not an empty folder: remove it, or name another"),
        ({"out": "file"}, "--out file: exists and is not an empty folder"),
        ({"out": "no/such/out"}, "the folder .*no/such does not exist: create it"),
        ({"out": "o\0o"}, "must be a path"),
        ({"out": "o" * 300}, "cannot be created|cannot be written"),
        ({"out": "in/new"}, "--out in/new: is inside the data"),
        ({"data": "in/*", "out": "in/new"}, "is inside the data"),
        ({"data": "**/*.parquet", "out": "in/new"}, "is inside the data"),
        ({"data": "nowhere"}, "nowhere: no such file or directory"),
        ({"data": "empty"}, "empty: has no rows"),
        ({"data": "in.zarr", "compression": "snappy"}, "--compression snappy: must be one of"),
    ],
)
def test_bad_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], says: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_parquet(Path("in/a.parquet"), pa.table({"x": [1, 2]}))
    write_parquet(Path("empty/a.parquet"), pa.table({"x": [1, 2]}).slice(0, 0))
    zarr_group(Path("in.zarr"), y=np.arange(4))
    Path("full").mkdir()
    Path("full/note").touch()
    Path("file").touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises((UsageError, NotFoundError, RunError), match=says):
        rechunk(**{"data": "in", "out": "out", "chunk_rows": 5, **options})
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_folder_is_taken_and_a_link_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to("real")
    rechunk({"x": np.arange(5)}, out=tmp_path / "out", chunk_rows=2)
    assert (tmp_path / "out").is_symlink() and rows_of(tmp_path / "real") == {"x": [0, 1, 2, 3, 4]}


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
HOSTILE = ["", "..", "a/../b", "/a", "a/", "__a", ".a", "a\\b", "zarr.json", "é" * 200]


@examples(15)
@given(st.lists(NAMES, min_size=1, max_size=3, unique=True))
def test_parquet_takes_any_names(names: list[str]) -> None:
    table = pa.table([pa.array(["a", None, "b"])] * len(names), names=names)
    with tempfile.TemporaryDirectory() as folder:
        rechunk(write_parquet(Path(folder) / "in.parquet", table), out=Path(folder) / "out", chunk_rows=2)
        assert table_of(Path(folder) / "out").equals(table)


@examples(20)
@given(st.lists(NAMES | st.sampled_from([*HOSTILE, "a", "a/b", "a/b/c", "c"]), min_size=1, max_size=3, unique=True))
def test_zarr_takes_names_or_refuses_them(names: list[str]) -> None:
    table = pa.table([pa.array([i, i]) for i in range(len(names))], names=names)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "deep" / "out"
        out.parent.mkdir()
        try:
            rechunk(write_parquet(Path(folder) / "in.parquet", table), out=out, chunk_rows=2, format="zarr")
        except ColumnError as error:
            named = [name for name in names if repr(name) in str(error)]
            assert named and not list(out.parent.iterdir())
        else:
            assert rows_of(out) == {name: [i, i] for i, name in enumerate(names)}
        assert {p.name for p in Path(folder).iterdir()} == {"in.parquet", "deep"}


@pytest.mark.parametrize("name", HOSTILE)
def test_names_that_are_no_arrays_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(tempfile, "mkdtemp", lambda **_: pytest.fail("something was written"))
    with pytest.raises(ColumnError, match="cannot be the name of a Zarr array"):
        rechunk({name: np.arange(3)}, out=tmp_path / "out", chunk_rows=2, format="zarr")
    with pytest.raises(ColumnError, match="a Zarr array cannot be inside another"):
        rechunk({"a": np.arange(3), "a/b": np.arange(3)}, out=tmp_path / "out", chunk_rows=2, format="zarr")


# -- text ------------------------------------------------------------------------------------------------------------------


def test_text_that_repeats_stays_coded_and_other_text_is_plain(tmp_path: Path) -> None:
    rows, rng = 20_000, np.random.default_rng(0)
    repeats = pa.array([f"{i:03d}" * 50 for i in rng.integers(0, 300, rows)])
    unique = pa.array([f"{i:08d}" * 20 for i in rng.permutation(rows)])
    both = pa.concat_arrays([unique.slice(0, rows // 2), repeats.slice(rows // 2)])
    table = pa.table({"repeats": repeats, "unique": unique, "both": both})
    rechunk(write_parquet(tmp_path / "in.parquet", table), out=tmp_path / "out", chunk_rows=rows // 2)
    assert table_of(tmp_path / "out").equals(table)
    footer = pq.read_metadata(parts(tmp_path / "out")[0])
    columns = [[footer.row_group(g).column(i) for i in range(3)] for g in range(2)]
    dictionaries = [[c.data_page_offset - c.dictionary_page_offset for c in group] for group in columns]
    sizes = [[c.total_uncompressed_size for c in group] for group in columns]
    for g, i in ((0, 0), (1, 0), (1, 2)):  # a dictionary of what occurs
        assert sizes[g][i] < 0.1 * repeats.nbytes / 2 and dictionaries[g][i] > 1000
    for g, i in ((0, 1), (1, 1), (0, 2)):  # none that holds each value once
        assert 0.9 < sizes[g][i] / (unique.nbytes / 2) < 1.1 and dictionaries[g][i] < 1000


def test_a_chunk_has_the_dictionary_of_its_own_values(tmp_path: Path) -> None:
    rows = 50_000
    table = pa.table({"s": [f"{i:010d}" for i in range(rows)]})  # in one row group, with one dictionary
    source = write_parquet(tmp_path / "in.parquet", table, row_group_size=rows, dictionary_pagesize_limit=1 << 30)
    rechunk(source, out=tmp_path / "out", chunk_rows=100)
    assert table_of(tmp_path / "out").equals(table)
    stored = sum(p.stat().st_size for p in parts(tmp_path / "out"))
    assert stored < 5 * source.stat().st_size + 500 * 1000
    column = pq.read_metadata(parts(tmp_path / "out")[0]).row_group(7).column(0)
    assert (column.statistics.min, column.statistics.max) == ("0000000700", "0000000799")


def test_categories_that_differ_between_row_groups(tmp_path: Path) -> None:
    def some(first: int) -> pa.Table:
        names = pa.array([f"category {i}" for i in range(first, first + 100)])
        return pa.table({"c": pa.DictionaryArray.from_arrays(pa.array(range(100), pa.int8()), names)})

    with pq.ParquetWriter(tmp_path / "in.parquet", some(0).schema) as writer:
        for i in range(4):
            writer.write_table(some(60 * i))
    rechunk(tmp_path / "in.parquet", out=tmp_path / "out", chunk_rows=80)
    found = table_of(tmp_path / "out")
    assert found["c"].type == pa.dictionary(pa.int8(), pa.string())
    assert found["c"].to_pylist() == [v for i in range(4) for v in some(60 * i)["c"].to_pylist()]
    with pytest.raises(
        SchemaError, match=r"'c': a chunk has 280 categories, more than int8 codes can number: give a s"
    ):
        rechunk(tmp_path / "in.parquet", out=tmp_path / "larger", chunk_rows=400)
    assert not (tmp_path / "larger").exists()

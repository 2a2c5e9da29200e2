"""Files of one data set whose schemas differ: the common type, conflicts, missing columns, casts without loss."""

from __future__ import annotations

import pickle
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamtrain
from streamtrain.errors import CorruptError, SchemaError
from streamtrain.storage import open_reader
from streamtrain.storage.arrow import as_batches
from streamtrain.storage.casting import NotHeldError, cast_exactly
from streamtrain.storage.common_type import CODES, common_type
from streamtrain.storage.files.columns import CONFLICT, Declared, FileColumns
from streamtrain.tools.inspect import inspect

TEXT = pa.string()


def write(folder: Path, tables: dict[str, pa.Table]) -> Path:
    for name, table in tables.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, folder / name)
    return folder


def values(reader: Any, *columns: str) -> list[Any]:
    batches = [b for c in reader.chunks() for b in as_batches(reader.read(c, columns or reader.schema.names))]
    streamed = [b for c in reader.chunks() for b in reader.stream(c, columns or reader.schema.names, 1)]
    rows = [row for batch in batches for row in batch.to_pylist()]
    assert rows == [row for batch in streamed for row in batch.to_pylist()]
    return [row[columns[0]] for row in rows] if len(columns) == 1 else rows


@pytest.mark.parametrize(
    ("one", "other", "common"),
    [
        (pa.int32(), pa.int64(), pa.int64()),
        (pa.uint8(), pa.int8(), pa.int16()),
        (pa.uint64(), pa.int64(), pa.decimal128(20, 0)),
        (pa.int64(), pa.float32(), pa.float64()),
        (pa.float16(), pa.float32(), pa.float32()),
        (pa.bool_(), pa.int8(), pa.int8()),
        (pa.int32(), pa.decimal128(5, 2), pa.decimal128(12, 2)),
        (pa.decimal128(5, 2), pa.decimal128(38, 0), pa.decimal256(40, 2)),
        (pa.decimal128(5, 2), pa.float32(), pa.float64()),
        (pa.null(), TEXT, TEXT),
        (pa.timestamp("ms"), pa.timestamp("ns"), pa.timestamp("ns")),
        (pa.timestamp("us", "UTC"), pa.timestamp("us", "Etc/UTC"), pa.timestamp("us", "UTC")),
        (pa.timestamp("us", "UTC"), pa.timestamp("us"), None),
        (pa.date32(), pa.timestamp("us"), pa.timestamp("us")),
        (pa.date32(), pa.date64(), pa.date64()),
        (pa.time32("s"), pa.time64("us"), pa.time64("us")),
        (pa.duration("s"), pa.duration("ms"), pa.duration("ms")),
        (TEXT, pa.large_string(), CODES),
        (pa.dictionary(pa.int8(), TEXT, ordered=True), CODES, CODES),
        (pa.dictionary(pa.int8(), pa.int8()), pa.int64(), pa.dictionary(pa.int32(), pa.int64())),
        (pa.binary(4), pa.large_binary(), pa.large_binary()),
        (TEXT, pa.binary(), pa.binary()),
        (TEXT, pa.int64(), None),
        (pa.list_(pa.int8(), 2), pa.list_(pa.float64(), 2), pa.list_(pa.float64(), 2)),
        (pa.list_(pa.int8(), 2), pa.list_(pa.int16()), pa.list_(pa.int16())),
        (pa.list_(pa.int8()), pa.int8(), None),
        (pa.fixed_shape_tensor(pa.int8(), [2]), pa.fixed_shape_tensor(pa.int16(), [2]), pa.fixed_shape_tensor(pa.int16(), [2])),
        (pa.fixed_shape_tensor(pa.int8(), [2]), pa.fixed_shape_tensor(pa.int8(), [3]), None),
        (pa.struct({"a": pa.int8()}), pa.struct({"b": TEXT, "a": pa.int16()}), pa.struct({"a": pa.int16(), "b": TEXT})),
        (pa.struct([("a", pa.int8())]), pa.struct([("a", TEXT)]), None),
        (pa.map_(TEXT, pa.int8()), pa.map_(TEXT, pa.int32()), pa.map_(TEXT, pa.int32())),
    ],
)  # fmt: skip
def test_common_types(one: pa.DataType, other: pa.DataType, common: pa.DataType | None) -> None:
    assert common_type(one, other) == common
    if common is not None and one != pa.timestamp("us", "UTC"):
        assert common_type(other, one) in (common, pa.struct([("b", TEXT), ("a", pa.int16())]))


@pytest.mark.parametrize(
    ("stored", "kind", "cast"),
    [
        (pa.array([2**60, None]), pa.float64(), [2.0**60, None]),
        (pa.array([2**60 + 1]), pa.float64(), 2**60 + 1),
        (pa.array([1, 2**63], pa.uint64()), pa.decimal128(20, 0), [1, 2**63]),
        (pa.array([True, None]), pa.decimal128(5, 1), [1, None]),
        (pa.array([Decimal("7.10")]), pa.float64(), [7.1]),
        (pa.array([253402300799], pa.timestamp("s")), pa.timestamp("ns"), None),
        (pa.array([86400, 86401], pa.timestamp("s")), pa.date32(), None),
        (pa.array([7, None, 10**6]), CODES, ["7", None, "1000000"]),
        (pa.array(["a", "7"]).dictionary_encode()[1:], pa.int64(), [7]),
        (pa.array([1.5, 2.0]), pa.int64(), 1.5),
        (pa.array([{"a": 1}, None]), pa.struct([("a", pa.int64()), ("b", TEXT)]), [{"a": 1, "b": None}, None]),
        (pa.array([[1, 2], None], pa.list_(pa.int8(), 2)), pa.list_(pa.int32()), [[1, 2], None]),
    ],
)  # fmt: skip
def test_casts_without_loss(stored: pa.Array, kind: pa.DataType, cast: Any) -> None:
    if isinstance(cast, list):
        found = cast_exactly(stored, kind)
        assert found.type == kind and found.to_pylist() == cast
    else:
        with pytest.raises(NotHeldError) as caught:
            cast_exactly(stored, kind)
        assert cast is None or caught.value.value == cast


def test_columns_that_differ_in_type_and_that_are_missing(tmp_path: Path) -> None:
    one = pa.table({"x": pa.array([1, None], pa.int32()), "c": pa.nulls(2), "note": [7, 8], "gone": ["a", "b"]})
    two = pa.table({"note": ["late"], "c": ["u"], "x": [1.5], "new": [True]})
    reader = pickle.loads(pickle.dumps(open_reader(write(tmp_path, {"a.parquet": one, "b.parquet": two}))))
    assert reader.schema.names == ["x", "c", "note", "gone", "new"]
    assert values(reader, "x", "c", "gone", "new") == [
        {"x": 1.0, "c": None, "gone": "a", "new": None},
        {"x": None, "c": None, "gone": "b", "new": None},
        {"x": 1.5, "c": "u", "gone": None, "new": True},
    ]
    assert reader.schema.field("note").metadata == {CONFLICT: b"int64 in a.parquet, but string in b.parquet"}
    assert values(reader, "note") == ["7", "8", "late"]
    assert reader.warnings(["x", "gone"]) == [
        "column 'gone' is missing in 1 of 2 files, the first of them b.parquet: its values are null there"
    ]
    assert reader.warnings(["x", "note"]) == []


def test_a_value_that_the_common_type_does_not_hold_is_an_error_when_it_is_read(tmp_path: Path) -> None:
    tables = {"a.parquet": pa.table({"x": [1, 2**53 + 1], "y": [1, 2]}), "b.parquet": pa.table({"x": [1.5], "y": [3]})}
    reader = open_reader(write(tmp_path, tables))
    assert values(reader, "y") == [1, 2, 3]
    with pytest.raises(
        SchemaError, match=r"a.parquet: column 'x' is int64 here, but double .* hold 9007199254740993.*--excl"
    ):
        values(reader, "x")


def test_what_a_file_without_rows_says_of_types_does_not_matter(tmp_path: Path) -> None:
    empty = pa.table({"x": pa.array([], pa.string()), "other": pa.array([], pa.int8())})
    reader = open_reader(write(tmp_path, {"a.parquet": empty, "b.parquet": pa.table({"x": [1]})}))
    assert (
        reader.schema == pa.schema([("x", pa.int64())]) and values(reader, "x") == [1] and reader.warnings(["x"]) == []
    )
    assert open_reader(tmp_path / "a.parquet").schema.names == ["x", "other"]


def test_columns_that_a_table_declares() -> None:
    ids = [("k", "1"), ("old", "2")]
    declared = Declared(
        pa.schema([("x", pa.float64()), ("k", CODES), ("z", pa.int64()), ("d", CODES)]),
        lambda schema: [
            next((f.name for f in schema if f.metadata == {b"id": number}), None) for number in (b"2", b"1", b"3", b"4")
        ],
        {"z": pa.scalar(9), "d": pa.scalar("none")},
    )
    columns = FileColumns(["a", "b"], declared=declared)
    stored = pa.schema([pa.field(n, t, metadata={"id": i}) for (n, i), t in zip(ids, (CODES, pa.int32()), strict=True)])
    columns.add(stored)
    columns.add(pa.schema([field.with_metadata({"id": "9"}) for field in stored]))  # same names, other columns
    columns.finish()
    columns = pickle.loads(pickle.dumps(columns))
    assert columns.stored(0, ["x", "z", "k"]) == ["old", "k"] and columns.stored(1, ["x", "z", "k"]) == []
    batch = pa.record_batch([pa.array([3], pa.int32()), pa.array(["u"]).dictionary_encode()], names=["old", "k"])
    assert columns.assembled(batch, 1, ["d", "k", "x", "z"], 0).to_pylist() == [
        {"d": "none", "k": "u", "x": 3.0, "z": 9}
    ]
    assert columns.assembled(None, 1, ["k", "z"], 1).to_pylist() == [{"k": None, "z": 9}]


def texts(folder: Path, *contents: str, end: str) -> Any:
    for i, content in enumerate(contents):
        (folder / f"{i}.{end}").write_text(content)
    return open_reader(folder)


def test_csv_files_whose_types_differ(tmp_path: Path) -> None:
    reader = texts(
        tmp_path, "i,t,c,n,k\n1,a,5,,1\n", "t,i,c,n,new\n07,2.5,x,3,4\n", "i,t,c,n,k\n", "i,t,c,n,k\nbad\n", end="csv"
    )
    types = {"i": pa.float64(), "t": CODES, "c": CODES, "n": pa.int64(), "k": pa.int64(), "new": pa.int64()}
    assert {field.name: field.type for field in reader.schema} == types
    rows = [row for c in reader.chunks()[:2] for row in reader.read(c, list(types)).to_pylist()]
    assert rows == [
        {"i": 1.0, "t": "a", "c": "5", "n": None, "k": 1, "new": None},
        {"i": 2.5, "t": "07", "c": "x", "n": 3, "k": None, "new": 4},
    ]
    assert reader.schema.field("c").metadata == {CONFLICT: b"int64 in 0.csv, but string in 1.csv"}
    with pytest.raises(CorruptError, match=r"3.csv: line 2: has 1 field, but the header has 5 names"):
        reader.read(reader.chunks()[2], ["i"])


def test_csv_integers_that_a_float_does_not_hold(tmp_path: Path) -> None:
    reader = texts(tmp_path, "x\n9007199254740993\n", "x\n0.5\n9e300\n", end="csv")
    assert reader.read(reader.chunks()[1], ["x"])["x"].to_pylist() == [0.5, 9e300]
    with pytest.raises(SchemaError, match=r"0.csv: column 'x' .* which does not hold 9007199254740992"):
        reader.read(reader.chunks()[0], ["x"])


def test_json_lines_whose_types_differ(tmp_path: Path) -> None:
    first = '{"n": null, "c": 5, "t": "2026-01-01", "s": {"a": 1}}\n'
    second = '{"n": "late", "c": "x", "t": "soon", "s": {"b": "u"}, "new": 1.5}\n{"late": 1, "n": "x"}\n'
    reader = texts(tmp_path, first, second, end="jsonl")
    assert {f.name for f in reader.schema if f.metadata} == {"c", "t"}
    assert values(reader, "n", "c", "t", "s", "new") == [
        {"n": None, "c": "5", "t": "2026-01-01", "s": {"a": 1, "b": None}, "new": None},
        {"n": "late", "c": "x", "t": "soon", "s": {"a": None, "b": "u"}, "new": 1.5},
        {"n": "x", "c": None, "t": None, "s": None, "new": None},
    ]
    assert values(reader, "n") == [None, "late", "x"] and reader.warnings(["new"]) == []


def test_arrow_files_whose_types_differ(tmp_path: Path) -> None:
    for i, table in enumerate(
        (pa.table({"x": pa.array([1], pa.int8()), "c": [7]}), pa.table({"c": ["u"], "x": [0.5]}))
    ):
        with pa.ipc.new_file(tmp_path / f"{i}.arrow", table.schema) as file:
            file.write_table(table)
    reader = open_reader(tmp_path)
    assert values(reader, "x", "c") == [{"x": 1.0, "c": "7"}, {"x": 0.5, "c": "u"}]
    assert reader.schema.field("c").metadata == {CONFLICT: b"int64 in 0.arrow, but string in 1.arrow"}


def test_a_folder_above_all_files_is_a_column_and_that_is_said(tmp_path: Path) -> None:
    rows = pa.table({"x": np.arange(200.0), "y": np.arange(200) % 2})
    write(tmp_path, {"lr=0.1/a.parquet": rows, "lr=0.2/a.parquet": rows})
    said = "column 'lr' is the folder lr=0.1 above the data, so it has one value: give --exclude lr"
    for one in (tmp_path / "lr=0.1", tmp_path / "lr=0.1" / "a.parquet"):
        assert [said in text for text in inspect(one, target="y")["warnings"]] == [True]
        assert [said in text for text in streamtrain.fit(one, target="y").report.as_dict()["warnings"]] == [True]
        assert streamtrain.fit(one, target="y", exclude=["lr"]).report.as_dict()["warnings"] == []
    both = streamtrain.fit(tmp_path, target="y")
    assert both.report.as_dict()["warnings"] == []
    done = streamtrain.predict(both.model, tmp_path / "lr=0.1", out=tmp_path / "p.csv")
    assert done["warnings"] == [] and done["rows"] == 200

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import streamtrain
from streamtrain import reader_from
from streamtrain.errors import ColumnError, CorruptError, SchemaError, UsageError
from streamtrain.storage.reader import Reader, Streams
from streamtrain.testing import CountingReader, FlakyReader

SCHEMA = pa.schema([("x", pa.float64()), ("y", pa.int8()), ("s", pa.string())])
ROWS = {"a": 300, "b": 500, "c": 0}
ASKED: list[tuple[str, list[str]]] = []


def read(key: str, columns: list[str]) -> pa.RecordBatch:
    ASKED.append((key, columns))
    x = np.arange(ROWS[key]) + ord(key)
    data = {"x": x.astype(float), "y": (x % 2).astype(np.int8), "s": pa.array([str(v) for v in x], pa.string())}
    return pa.record_batch(data).select(columns)


@pytest.fixture(autouse=True)
def asked() -> list[tuple[str, list[str]]]:
    ASKED.clear()
    return ASKED


def test_rows_are_given_asked_for_or_counted(asked: list[tuple[str, list[str]]]) -> None:
    given = reader_from(list(ROWS), read, schema=SCHEMA, rows=list(ROWS.values()))
    function = reader_from(list(ROWS), read, schema=SCHEMA, rows=ROWS.__getitem__)
    assert isinstance(given, Reader) and not isinstance(given, Streams)
    assert [c.rows for c in given.chunks()] == [c.rows for c in function.chunks()] == [300, 500, 0]
    assert asked == []
    counted = reader_from(list(ROWS), read, schema=SCHEMA)
    assert asked == []  # not before somebody wants to know
    assert list(counted.chunks()) == list(given.chunks()) == list(pickle.loads(pickle.dumps(counted)).chunks())
    assert asked == [("a", ["y"]), ("b", ["y"]), ("c", ["y"])]  # the narrowest, once


def test_sizes_follow_from_the_schema() -> None:
    schema = pa.schema([("x", pa.float64()), ("y", pa.int8())])
    chunk = reader_from(["a"], read, schema=schema, rows=[10**6]).chunks()[0]
    assert 9.25e6 <= chunk.decoded_bytes <= 9.26e6  # a bit a value says whether it is null
    assert 3 * 9.25e6 <= chunk.read_peak_bytes <= 3 * 9.3e6


def test_keys_reach_the_function_as_they_were_given(tmp_path: Path) -> None:
    keys = [tmp_path / "1.npy", tmp_path / "2.npy"]
    for i, path in enumerate(keys):
        np.save(path, np.arange(3) + i)
    reader = reader_from(
        keys, lambda path, columns: pa.record_batch({"v": np.load(path)}), schema=pa.schema([("v", pa.int64())])
    )
    assert [c.key for c in reader.chunks()] == [str(path) for path in keys]
    assert reader.read(reader.chunks()[1], ["v"])["v"].to_pylist() == [1, 2, 3]


def test_training() -> None:
    reader = CountingReader(reader_from(list(ROWS), read, schema=SCHEMA))
    report = streamtrain.fit(reader, target="y", features=["x"]).report
    assert report.rows == 800 and report.metrics["progressive"]["accuracy"] > 0.3


def test_without_a_fingerprint_there_is_none(tmp_path: Path) -> None:
    reader = reader_from(["a"], read, schema=SCHEMA)
    assert reader.fingerprint() is None
    report = streamtrain.fit(reader, target="y", features=["x"], out=str(tmp_path / "run")).as_dict()
    assert report["run"] and reader.fingerprint() is None
    assert reader_from(["a"], read, schema=SCHEMA, fingerprint="v1").fingerprint() == "v1"
    assert reader_from(["a"], read, schema=SCHEMA, fingerprint=lambda: "v2").fingerprint() == "v2"


def wide(key: str, columns: list[str]) -> Any:
    return pa.table({name: pa.array(range(10), pa.int64()) for name in columns})


def broken(key: str, columns: list[str]) -> Any:
    raise ZeroDivisionError("by nothing")


def test_what_goes_wrong_is_named() -> None:
    reader = reader_from(["a", "b"], read, schema=SCHEMA)
    with pytest.raises(ColumnError, match="no column 'z'"):
        reader.read(reader.chunks()[0], ["x", "z"])
    with pytest.raises(UsageError, match="chunk 'c' does not belong to this reader"):
        reader.read(reader_from(["c"], read, schema=SCHEMA).chunks()[0], ["x"])
    other = reader_from(["a"], wide, schema=SCHEMA, rows=[10])
    with pytest.raises(SchemaError, match="a: column 'x' is int64, but the schema says double"):
        other.read(other.chunks()[0], ["x"])
    with pytest.raises(
        CorruptError,
        match=r"a: the rows cannot be counted, because read\(key, columns\) failed: ZeroDivisionError: by nothing",
    ):
        reader_from(["a"], broken, schema=SCHEMA).chunks()
    # a count that failed is taken up again
    flaky = FlakyReader(reader)
    again = reader_from(["a"], lambda key, columns: flaky.read(reader.chunks()[0], columns), schema=SCHEMA)
    with pytest.raises(CorruptError, match="failed on purpose"):
        again.chunks()
    assert again.chunks()[0].rows == 300


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"keys": ["a", "a"]}, "2 were given, but only 1 of them differ"),
        ({"keys": [1, "1"]}, "2 were given, but only 1 of them differ"),
        ({"rows": [1, 2]}, "2 were given for 1 keys"),
        ({"rows": [-1]}, "-1 for key 'a': must be an integer of at least 0"),
        ({"rows": lambda key: 1.5}, "1.5 for key 'a'"),
        ({"rows": [True]}, "True for key 'a'"),
        ({"schema": ["x"]}, "must be a pyarrow.Schema"),
        ({"schema": pa.schema([])}, "at least one column"),
        ({"schema": pa.schema([("x", pa.int8()), ("x", pa.int8())])}, "no name twice"),
    ],
)
def test_refusals(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        reader_from(**{"keys": ["a"], "read": read, "schema": SCHEMA} | options).chunks()

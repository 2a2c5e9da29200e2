"""``.npy`` files: values as numpy reads them, within the declared bytes; damaged and crafted headers."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from make import CommandLine
from numpy.typing import NDArray

import streamtrain
from streamtrain import open_reader
from streamtrain.errors import ColumnError, CorruptError, DataError, SchemaError, StreamtrainError
from streamtrain.storage import npy

ROWS = 1000
RECORD = np.dtype(
    [("a", "<f4"), ("b", ">i8"), ("name", "U6"), ("day", "M8[D]"), ("v", ">f8", (2, 3)), ("code", "S3"), ("yes", "?")],
    align=True,
)


def records(rows: int = ROWS) -> NDArray[Any]:
    made = np.zeros(rows, RECORD)
    rng = np.random.default_rng(0)
    made["a"], made["v"] = rng.normal(size=rows), rng.normal(size=(rows, 2, 3))
    made["b"], made["yes"] = np.arange(rows), np.arange(rows) % 2
    made["name"], made["code"] = [f"é{i}" for i in range(rows)], [b"x%d" % (i % 9) for i in range(rows)]
    made["day"] = np.datetime64("2026-01-01") + np.arange(rows)
    return made


def values_of(reader: Any, name: str, rows: int | None = None) -> Any:
    """All values of a column, read by chunks, or streamed in slices of so many rows."""
    parts = []
    for chunk in reader.chunks():
        batches = [reader.read(chunk, [name])] if rows is None else list(reader.stream(chunk, [name], rows))
        assert sum(batch.num_rows for batch in batches) == chunk.rows
        parts += [batch.column(0) for batch in batches]
    if isinstance(parts[0], pa.FixedShapeTensorArray):
        return np.concatenate([part.to_numpy_ndarray() for part in parts])
    return pa.chunked_array(parts).to_numpy()


def saved(path: Path, array: Any) -> Path:
    np.save(path, array)
    return path


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npy, "CHUNK_ROWS", 300)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("kind", ["<f4", ">f8", "<i2", ">u4", "?", "<f2"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 5)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_values_are_those_of_numpy(tmp_path: Path, kind: str, shape: tuple[int, ...], order: Any) -> None:
    array = np.random.default_rng(0).integers(0, 2 if kind == "?" else 100, (ROWS, *shape)).astype(kind)
    reader = open_reader(saved(tmp_path / "X.npy", np.asarray(array, order=order)))
    assert [chunk.rows for chunk in reader.chunks()] == [300, 300, 300, 100]
    for rows in (None, 7):
        assert np.array_equal(values_of(reader, "X", rows), array)


@pytest.mark.usefixtures("small_chunks")
def test_fields_of_a_structured_array_are_columns(tmp_path: Path) -> None:
    array = records()
    reader = open_reader(saved(tmp_path / "r.npy", array))
    assert reader.schema.names == list(RECORD.names or ())
    for name in RECORD.names or ():
        wanted = array[name].astype(str) if name == "code" else array[name]
        for rows in (None, 64):
            assert np.array_equal(values_of(reader, name, rows), wanted), name
    named = np.zeros(3, [("größe", "f4"), ("日", "f4"), ("z", "c8")])  # version 3 of the format
    with pytest.warns(UserWarning, match=r"format 3\.0"):
        saved(tmp_path / "u.npy", named)
    found = open_reader(tmp_path / "u.npy").schema
    assert found.names == ["größe", "日", "z"] and b"complex64" in found.field("z").metadata[b"problem"]


@pytest.mark.usefixtures("small_chunks")
def test_folders_lists_and_partitions(tmp_path: Path) -> None:
    array = records()
    for part in range(3):
        (tmp_path / f"k={part}").mkdir()
        saved(tmp_path / f"k={part}" / "p.npy", array[part * 300 : (part + 1) * 300])
    saved(tmp_path / "k=2" / "empty.npy", array[:0])
    for target in (tmp_path, str(tmp_path / "k=*" / "*.npy"), [str(tmp_path / f"k={i}" / "p.npy") for i in range(3)]):
        reader: Any = open_reader(target)
        assert np.array_equal(values_of(reader, "b"), array["b"][:900])
        assert np.array_equal(values_of(reader, "k"), np.repeat([0, 1, 2], 300))
    unnamed = tmp_path / "k=0" / "data"
    os.rename(tmp_path / "k=0" / "p.npy", unnamed)
    assert np.array_equal(values_of(open_reader(unnamed, input_format="npy"), "b"), array["b"][:300])
    assert np.array_equal(values_of(open_reader(unnamed), "b"), array["b"][:300])
    before = open_reader(unnamed).fingerprint()
    array["b"][7] += 1
    unnamed.unlink()
    os.rename(saved(tmp_path / "other.npy", array[:300]), unnamed)
    assert open_reader(unnamed).fingerprint() != before


def test_a_table_of_fields_is_learned_and_a_plain_array_predicted(tmp_path: Path, cli: CommandLine) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(ROWS, 4)).astype("f4")
    y = (X[:, 0] > 0).astype("i8")
    both = np.rec.fromarrays([X, y], dtype=[("X", "f4", (4,)), ("y", "i8")])
    table, plain = saved(tmp_path / "t.npy", both), saved(tmp_path / "X.npy", X)
    fitted = cli("fit", table, "--target", "y", "--out", tmp_path / "run", "--json").json
    assert fitted["rows"] == ROWS
    in_memory = streamtrain.fit((X, y), target="y")
    assert fitted["metrics"]["progressive"] == in_memory.report.metrics["progressive"]
    cli("predict", tmp_path / "run", plain, "--out", tmp_path / "p.csv")
    cli("check-reader", table)
    saved(tmp_path / "y.npy", y)
    with pytest.raises(ColumnError, match=r"no column 'y'.*as a pair \(X, y\), or save one structured array"):
        streamtrain.fit(plain, target="y")
    with pytest.raises(
        SchemaError, match=r"y\.npy: its rows have the shape \(\).*one after the other.*a pair \(X, y\)"
    ):
        streamtrain.fit([plain, tmp_path / "y.npy"], target="y")


def crafted(path: Path, header: str | bytes, data: bytes = b"", version: int = 1, length: int | None = None) -> Path:
    text = header.encode("utf-8" if version == 3 else "latin-1") if isinstance(header, str) else header
    size = struct.pack("<H" if version == 1 else "<I", len(text) if length is None else length)
    path.write_bytes(b"\x93NUMPY" + bytes([version, 0]) + size + text + data)
    return path


def described(kind: str = "'<f4'", shape: str = "(2,)", order: str = "False") -> str:
    return f"{{'descr': {kind}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


@pytest.mark.parametrize(
    ("header", "options", "says"),
    [
        (described(), {"data": b"\0" * 7}, "cut off: its header announces 8 bytes of values, but it has 7"),
        (described(), {"data": b"\0" * 9}, "goes on after its array: 1 bytes"),
        (described(shape="(1 << 61, 4)"), {}, "cannot be parsed"),
        (described(shape=f"({1 << 61}, 4)"), {}, "cut off"),
        (described(shape=f"({1 << 61}, 0)"), {}, "rows without bytes"),
        (described(shape=f"({1 << 70},)"), {}, "which no array has"),
        (described(shape="(-2,)"), {}, "which no array has"),
        (described(shape="(True,)"), {}, "which no array has"),
        (described(shape="[2]"), {}, "which no array has"),
        (described(shape="()"), {"data": b"\0" * 4}, "a single value without rows"),
        (described("'|S0'"), {}, "rows without bytes"),
        (described("'|V0'"), {}, "rows without bytes"),
        (described("[]"), {}, "rows without bytes"),
        (described("'|O'"), {"data": b"\x80\x04N."}, "pickles, which can run code"),
        (described("[('a', '|O'), ('b', '<f4')]"), {"data": b"\0" * 24}, "pickles, which can run code"),
        (described("'|T16'"), {"data": b"\0" * 32}, "pickles|does not know"),
        (described("'<U499999999'"), {"data": b"\0" * 32}, "cut off"),
        (described("'zzz'"), {}, "numpy does not know"),
        (described("('<f4', (1 << 40,))"), {}, "cannot be parsed"),
        (described("('<f4', (1099511627776,))"), {}, "numpy does not know"),
        (described("{'names': 3}"), {}, "numpy does not know"),
        (described("[('a',), 7]"), {}, "numpy does not know"),
        (described("[('a', '<f4'), ('a', '<f4')]"), {}, "numpy does not know"),
        (described(order="'no'"), {"data": b"\0" * 8}, "Fortran"),
        ("__import__('os').abort()", {}, "cannot be parsed"),
        ("{'descr': '<f4'}", {}, "header without"),
        ("7", {}, "header without"),
        ("(" * 60_000, {}, "cannot be parsed"),
        ("-" * 60_000 + "1", {}, "cannot be parsed"),
        (b"\xff\xfe", {"version": 3}, "cannot be parsed"),
        (b"\0" * 40, {}, "cannot be parsed"),
        (described(), {"length": 60_000}, "ends inside its header"),
        (described(), {"version": 2, "length": 0xFFFFFFFF}, "ends inside its header"),
        (b" " * 300_000, {"version": 2}, "are the most that are read"),
        (described(), {"version": 9}, "version 9"),
        (described("'<c8'", "(1,)"), {"data": b"\0" * 8}, "complex64, which cannot be read"),
        (described("'<U1'", "(1, 2)"), {"data": b"\0" * 8}, "which cannot be read"),
    ],
)
def test_nothing_in_a_header_is_believed(tmp_path: Path, header: Any, options: Any, says: str) -> None:
    path = crafted(tmp_path / "x.npy", header, **options)
    with pytest.raises(DataError, match=says) as error:
        open_reader(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("size", range(12))
def test_a_file_that_ends_early(tmp_path: Path, size: int) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00\x76\x00{'"[:size])
    with pytest.raises(StreamtrainError, match=r"x\.npy"):
        open_reader(path)


@pytest.mark.parametrize(
    ("kind", "data"), [("<U1", b"\xff\xff\xff\x7f"), ("<U1", b"\x00\xd8\x00\x00"), ("|S2", b"\xff\xfe")]
)
def test_bytes_that_are_no_text(tmp_path: Path, kind: str, data: bytes) -> None:
    reader = open_reader(crafted(tmp_path / "x.npy", described(f"'{kind}'", "(1,)"), data))
    with pytest.raises((CorruptError, ColumnError), match=r"x\.npy"):
        reader.read(reader.chunks()[0], ["X"])


def test_a_file_that_changes_while_it_is_read(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.npy", np.arange(100))
    reader = open_reader(path)
    os.truncate(path, 200)
    with pytest.raises(CorruptError, match="the file has changed"):
        reader.read(reader.chunks()[0], ["X"])

"""The conformance suite of streamtrain, and what is particular to SQLite."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest
from streamtrain_sqlite import SqliteReader, open_sqlite

import streamtrain
from streamtrain.testing import ReaderTests

TYPES = {"int64": "INTEGER", "double": "REAL", "string": "TEXT"}


def write(path: Path, table: pa.Table, first_rowid: int = 1) -> Path:
    columns = ", ".join(f'"{field.name}" {TYPES[str(field.type)]}' for field in table.schema)
    names, marks = ", ".join(f'"{name}"' for name in table.column_names), ", ".join("?" * (table.num_columns + 1))
    rows = zip(range(first_rowid, first_rowid + table.num_rows), *(c.to_pylist() for c in table.columns), strict=True)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(f"CREATE TABLE t ({columns})")
        database.executemany(f"INSERT INTO t (rowid, {names}) VALUES ({marks})", rows)
    return path


class TestSqlite(ReaderTests):
    large_rows = 66_000

    def make(self, folder: Path, table: pa.Table) -> str:
        return f"sqlite://{write(folder / 'data.db', table)}?table=t"

    def open(self, target: str) -> SqliteReader:
        return open_sqlite(target)

    def damage(self, folder: Path) -> None:
        data = bytearray((folder / "data.db").read_bytes())
        data[4096:] = bytes(len(data) - 4096)
        (folder / "data.db").write_bytes(data)


@pytest.fixture
def boxes(tmp_path: Path) -> Path:
    return write(tmp_path / "my boxes.db", pa.table({"x": range(1000), "name": [f"b{i}" for i in range(1000)]}), -100)


def test_rows_that_were_deleted_and_an_update(boxes: Path) -> None:
    before = SqliteReader(str(boxes)).fingerprint()
    with closing(sqlite3.connect(boxes)) as database, database:
        database.execute("UPDATE t SET x = 0 WHERE rowid = 500")
    assert SqliteReader(str(boxes)).fingerprint() != before
    with closing(sqlite3.connect(boxes)) as database, database:
        database.execute("DELETE FROM t WHERE rowid % 3 = 0")
    reader = streamtrain.open_reader(SqliteReader(str(boxes)))
    (chunk,) = reader.chunks()
    assert reader.read(chunk, ["x"])["x"].to_pylist()[:3] == [0, 2, 3]


def test_values_of_another_type_are_named(boxes: Path) -> None:
    with closing(sqlite3.connect(boxes)) as database, database:
        database.execute("UPDATE t SET x = 'many' WHERE rowid = 500")
    reader = SqliteReader(str(boxes))
    with pytest.raises(streamtrain.DataError, match=r"t\[-100:900\]: column 'x' is not int64 throughout"):
        reader.read(reader.chunks()[0], ["x"])


def test_urls(boxes: Path) -> None:
    url = f"sqlite://{str(boxes).replace(' ', '%20')}"
    assert open_sqlite(url).table == "t"
    for wrong, says in (("?table=u", "no table 'u': there are t"), ("?tabel=t", "tabel= is unknown")):
        with pytest.raises(streamtrain.UsageError, match=says):
            open_sqlite(url + wrong)
    with pytest.raises(streamtrain.DataError, match="no such file"):
        open_sqlite("sqlite://nowhere.db")
    with closing(sqlite3.connect(boxes)) as database, database:
        database.execute("CREATE TABLE u (k INTEGER PRIMARY KEY, rowid TEXT) WITHOUT ROWID")
    with pytest.raises(streamtrain.UsageError, match="has 2 tables"):
        open_sqlite(url)
    boxes.write_text("no database, but long enough to be looked at" * 100)
    with pytest.raises(streamtrain.DataError, match="not a database"):
        open_sqlite(url)

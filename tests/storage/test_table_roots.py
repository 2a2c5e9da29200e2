"""Files of a table are not read without its log; and a file that is reached twice is read once."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamtrain.errors import DataError
from streamtrain.storage import open_reader
from streamtrain.storage.files.table_roots import kind_of_table


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"x": [1, 2]}), path)
    return path


@pytest.fixture(
    params=["_delta_log/00000000000000000000.json", "metadata/v1.metadata.json", ".hoodie/hoodie.properties"]
)
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    mark = tmp_path / "all/t" / request.param
    mark.parent.mkdir(parents=True)
    mark.write_text("{}")
    put(tmp_path / "all/t/data/k=1/a.parquet")
    put(tmp_path / "all/other/a.parquet")
    return tmp_path / "all/t"


def test_what_is_inside_of_a_table_is_refused(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (table.parent / "link.parquet").symlink_to(table / "data/k=1/a.parquet")
    (table.parent / "linked").symlink_to(table / "data")
    inside = [
        "data",
        "data/k=1",
        "data/k=1/a.parquet",
        "data/*/*.parquet",
        "*/k=1",
        "**/*.parquet",
        "../link.parquet",
        "../linked",
    ]
    for target in (*(table / name for name in inside), table.parent / "*/data/*/*", table.parent / "**/*.parquet"):
        with pytest.raises(DataError, match=rf"is inside the \w+ table {table}, .* give the folder of the table"):
            open_reader(target)
    monkeypatch.chdir(table / "data/k=1")
    for target in ("a.parquet", "./a.parquet", ".", "*.parquet"):
        with pytest.raises(DataError, match="is inside the"):
            open_reader(target)


def test_a_folder_with_a_table_in_it_is_refused(table: Path) -> None:
    for target in (table.parent, table.parent.parent, f"{table.parent.parent}/*"):
        with pytest.raises(DataError, match=rf"contains the \w+ table {table}, .* by itself"):
            open_reader(target)
    assert len(open_reader(table.parent / "other").chunks()) == 1
    assert len(open_reader(f"{table.parent}/oth*/*").chunks()) == 1


def test_folders_that_are_no_tables(tmp_path: Path) -> None:
    put(tmp_path / "d/a.parquet")
    (tmp_path / "d/metadata").mkdir()
    (tmp_path / "d/metadata/notes.json").write_text("{}")
    (tmp_path / "d/_delta_log").write_text("a file")
    assert kind_of_table(str(tmp_path / "d")) is None
    assert len(open_reader(tmp_path / "d/a.parquet").chunks()) == 1


def test_a_file_that_is_reached_twice_is_read_once(tmp_path: Path) -> None:
    first = put(tmp_path / "d/a.parquet")
    os.link(first, tmp_path / "d/b.parquet")
    (tmp_path / "d/c.parquet").symlink_to(first)
    put(tmp_path / "d/e.parquet")
    for target in (tmp_path / "d", f"{tmp_path}/d/*.parquet"):
        reader = open_reader(target)
        assert [chunk.key for chunk in reader.chunks()] == ["a.parquet:0", "e.parquet:0"]
        expected = (
            "2 files were found twice, by a link or by several of the sources, and read once: 'b.parquet', 'c.parquet'"
        )
        assert reader.warnings(["x"]) == [expected]  # type: ignore[attr-defined]
    assert [chunk.key for chunk in open_reader(tmp_path / "d/c.parquet").chunks()] == ["c.parquet:0"]

"""Nothing is written into the data, by whatever path it is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from streamtrain.errors import UsageError
from streamtrain.storage.files.apart import require_apart
from streamtrain.storage.parquet.reader import ParquetReader

INSIDE = [
    ("data", "data/run", "inside"),
    ("data", "data", "inside"),
    ("data/", "./data/deep/../run", "inside"),
    ("data", "data/no/such/yet", "inside"),
    (".", "run", "inside"),
    ("..", "run", "inside"),
    ("data", "link/run", "inside"),
    ("link", "data/run", "inside"),
    ("linking", "data/run", "inside"),  # a folder of the data is a link to it
    ("linking", "loop", "inside"),
    ("{root}/data", "data/run", "inside"),
    ("data", "{root}/data/run", "inside"),
    ("data/*", "data/run", "inside"),
    ("link/*", "data/run", "inside"),
    ("data/*", "link/run/deep", "inside"),
    ("data/*", "data/a.jsonl", "inside"),
    ("data/*.jsonl", "data/new.jsonl", "inside"),
    ("data/**/*.jsonl", "data/run", "inside"),
    ("**", "data/run", "inside"),
    ("*/*.jsonl", "run", "inside"),  # it may find what the run writes
    ("d?ta/a.*", "data/a.csv", "inside"),
    ("data/a.jsonl", "data/a.jsonl", "one of"),
    ("data/a.jsonl", "linking/file.jsonl", "one of"),
    ("linking", "data/a.jsonl", "inside"),  # it is one of the data files, by a link
    ("store.zarr", "store.zarr/run", "inside"),
    ("store.zarr", "store.zarr", "inside"),
    ("data/a.jsonl", "data", "contains"),
    ("data", "{root}", "contains"),
    ("data/*.jsonl", ".", "inside|contains"),
]
APART = [
    ("data", "run"),
    ("data", "data2/run"),
    ("data", "dat"),
    ("data/a.jsonl", "data/run"),
    ("data/*.jsonl", "data/run"),
    ("*.jsonl", "run"),
    ("data/a.jsonl", "a.jsonl"),
    ("store.zarr", "store.zarr.run"),
    ("no/such", "no/run"),
    ("s3://bucket/data", "s3:/bucket/data"),
    ("", "run"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("apart").resolve()
    for folder in ("data/deep", "linking", "data2", "store.zarr"):
        (root / folder).mkdir(parents=True)
    (root / "data/a.jsonl").write_text('{"x": 1}\n')
    (root / "store.zarr/zarr.json").write_text("{}")
    (root / "link").symlink_to("data")
    (root / "linking/there").symlink_to(root / "data")
    (root / "linking/again").symlink_to(root / "linking")
    (root / "loop").symlink_to(root / "linking")
    (root / "linking/file.jsonl").symlink_to(root / "data/a.jsonl")
    return root


@pytest.mark.parametrize(("data", "out", "says"), INSIDE)
def test_inside(root: Path, monkeypatch: pytest.MonkeyPatch, data: str, out: str, says: str) -> None:
    monkeypatch.chdir(root / "data" if data == ".." else root)
    with pytest.raises(UsageError, match=f"^--out: .*({says}).*: name a place outside of the data$"):
        require_apart("--out", out.format(root=root), "elsewhere", data.format(root=root))
    assert not os.path.exists("run")


@pytest.mark.parametrize(("data", "out"), APART)
def test_apart(root: Path, monkeypatch: pytest.MonkeyPatch, data: str, out: str) -> None:
    monkeypatch.chdir(root)
    require_apart("--out", out, data, None, {"x": [1]})


def test_wildcards_in_the_name_of_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not part of the glob."""
    (tmp_path / "a[b]*/data").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a[b]*")
    for data, out in (("data/*", "data/run"), ("../a?b?*/*", "data"), ("./dat?/../data/*", "data/run")):
        with pytest.raises(UsageError, match="inside the data"):
            require_apart("--out", out, data)
    require_apart("--out", "run", "data/*")


def test_a_file_of_a_reader(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"x": [1]}), tmp_path / "a.parquet")
    reader = ParquetReader(tmp_path / "a.parquet")
    with pytest.raises(UsageError, match="one of the data files"):
        require_apart("--out", tmp_path / "a.parquet", reader)
    require_apart("--out", tmp_path / "b.parquet", reader)

from __future__ import annotations

import os
from datetime import date, datetime
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamtrain.errors import NotFoundError, SchemaError
from streamtrain.storage.files.listing import list_files
from streamtrain.storage.files.partitions import Partitions

SUFFIXES = (".parquet",)


def write(root: Path, *names: str, empty: bool = False) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if empty else b"data")
    return root


def listed(target: Path | str) -> list[str]:
    return list_files(str(target), SUFFIXES)[1]


def test_a_file_is_taken_whatever_its_name(tmp_path: Path) -> None:
    write(tmp_path, "_odd name #1:[x] é.txt")
    assert list_files(str(tmp_path / "_odd name #1:[x] é.txt"), SUFFIXES)[:2] == (tmp_path, ["_odd name #1:[x] é.txt"])


def test_what_is_no_data_in_a_directory(tmp_path: Path) -> None:
    write(tmp_path, "b.parquet", "a.PARQUET", "sub/deep/c.parquet", "year=2/_x=1/d.parquet")
    write(tmp_path, "_SUCCESS", "_metadata", "_common_metadata.parquet", ".a.parquet.crc", "a.parquet.crc", "README.md")
    write(tmp_path, ".hidden/e.parquet", "_temporary/0/f.parquet", "sub/.ipynb_checkpoints/g.parquet")
    write(tmp_path, "empty.parquet", "sub/empty.parquet", empty=True)
    expected = ["a.PARQUET", "b.parquet", "sub/deep/c.parquet", "year=2/_x=1/d.parquet"]
    assert listed(tmp_path) == expected
    assert listed(f"{tmp_path}/") == expected
    assert listed(f"{tmp_path}/**") == expected


def test_without_the_suffix_all_files_are_data(tmp_path: Path) -> None:
    assert listed(write(tmp_path, "part-0", "part-1", "part-0.crc", "_SUCCESS")) == ["part-0", "part-1"]


def test_globs(tmp_path: Path) -> None:
    write(tmp_path, "a1.parquet", "a2.parquet", "b.parquet", "d1/x.parquet", "d2/x.parquet", "[a].parquet")
    assert listed(f"{tmp_path}/a*.parquet") == ["a1.parquet", "a2.parquet"]
    assert listed(f"{tmp_path}/d?") == ["d1/x.parquet", "d2/x.parquet"]
    assert listed(f"{tmp_path}/d[2]/*.parquet") == ["d2/x.parquet"]
    assert listed(f"{tmp_path}/**/x.parquet") == ["d1/x.parquet", "d2/x.parquet"]
    assert listed(f"{tmp_path}/[a].parquet") == ["[a].parquet"]  # there is a file of that name


def test_a_relative_glob_starts_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "k=1/x.parquet", "k=2/x.parquet")
    monkeypatch.chdir(tmp_path)
    for pattern in ("k=*/x.parquet", "./k=*/*.parquet"):
        root, files, _ = list_files(pattern, SUFFIXES)
        assert files == ["k=1/x.parquet", "k=2/x.parquet"] and (root / files[0]).is_file()


def test_the_order_is_that_of_the_names_not_of_the_disk(tmp_path: Path) -> None:
    names = [f"p{i:03d}.parquet" for i in range(300)]
    assert listed(write(tmp_path, *reversed(names))) == names


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    write(tmp_path, "data/a.parquet", "elsewhere/b.parquet")
    (tmp_path / "data/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/loop").symlink_to(tmp_path / "data")
    assert listed(tmp_path / "data") == ["a.parquet", "link/b.parquet"]


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("nothing", "no such file or directory"),
        ("*.parquet", "nothing there"),
        ("empty", "nothing there"),
        ("marks", "2 files there, none of them data"),
    ],
)
def test_nothing_there(tmp_path: Path, target: str, says: str) -> None:
    (tmp_path / "empty").mkdir()
    write(tmp_path / "marks", "_SUCCESS", ".x.crc")
    with pytest.raises(NotFoundError, match=says) as caught:
        listed(tmp_path / target)
    assert str(tmp_path / target) in str(caught.value)


def test_what_cannot_be_looked_at_may_be_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a.parquet", "locked/b.parquet")
    (tmp_path / "gone.parquet").symlink_to(tmp_path / "nowhere")
    with pytest.raises(NotFoundError, match=r"gone\.parquet: cannot be read: No such file"):
        listed(tmp_path)
    (tmp_path / "gone.parquet").unlink()
    scandir = os.scandir

    def guarded(path: str) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(NotFoundError, match=r"locked: the folder cannot be listed: Permission denied"):
        listed(tmp_path)


def partition_columns(files: list[str]) -> dict[str, pa.Array]:
    """The value of each file by key."""
    parts = Partitions(files)
    each = {key: [parts.constant(key, 1, i) for i in range(len(files))] for key in parts.keys}
    return {key: pa.chunked_array(arrays) for key, arrays in each.items()}


def test_partitions_by_type() -> None:
    files = ["i=1/s=a%20b%2Fc/n=x/f", "i=-7/s=1_000/n=__HIVE_DEFAULT_PARTITION__/f", "i=3/s=%C3%A9/n=y/g"]
    columns = partition_columns(files)
    assert columns["i"].type == pa.int64() and columns["i"].to_pylist() == [1, -7, 3]
    assert columns["s"].to_pylist() == ["a b/c", "1_000", "é"] and columns["n"].to_pylist() == ["x", None, "y"]
    assert partition_columns(["i=__HIVE_DEFAULT_PARTITION__/f", "i=5/f"])["i"].to_pylist() == [None, 5]
    # what int() takes beside integers is text: two folders must not become one value
    for odd in ("1_000", "+1", " 1", "1.0", "٣", "99999999999999999999", "07", "-0", "00"):
        assert partition_columns([f"i={odd}/f", "i=1/f"])["i"].to_pylist() == [odd, "1"]
    assert partition_columns(["a%3Db=1/f"])["a=b"].to_pylist() == [1]
    assert partition_columns([]) == {} == partition_columns(["plain/f", "g"])


def test_partitions_of_days_and_times_are_times() -> None:
    days = partition_columns(["d=2026-02-28/f", "d=__HIVE_DEFAULT_PARTITION__/f"])["d"]
    assert days.type == pa.date32() and days.to_pylist() == [date(2026, 2, 28), None]
    times = partition_columns(["t=2026-01-01 03%3A04%3A05/f", "t=2026-01-02/f"])["t"]
    assert times.type == pa.timestamp("us") and times[0].as_py() == datetime(2026, 1, 1, 3, 4, 5)
    for odd in ("2026-02-30", "2026-1-1", "20260101"):
        assert partition_columns([f"d={odd}/f", "d=2026-01-01/f"])["d"].to_pylist() == [odd, "2026-01-01"]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5))
def test_any_value_comes_back(values: list[str]) -> None:
    found = partition_columns([f"k=text/v={quote(value, safe='')}/f" for value in values])["v"].to_pylist()
    assert [str(v) for v in found] == values or [str(v) for v in found] == [str(int(v)) for v in values]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (["a=1/f", "b=1/f"], r"b=1/f: has partition keys \['b'\], but a=1/f has \['a'\]"),
        (["a=1/f", "f"], r"f: has partition keys \[\]"),
        (["a=1/b=1/f", "b=1/a=1/f"], "all files must have the same"),
        (["a=1/a=2/f"], "two of the folders above this file have the same partition key"),
    ],
)
def test_partitions_that_do_not_fit_together(files: list[str], says: str) -> None:
    with pytest.raises(SchemaError, match=says):
        partition_columns(files)

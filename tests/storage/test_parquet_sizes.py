"""What is known of a file without naming its columns: its first page, and footers that are let go."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamtrain.storage.files.store import LocalFileStore
from streamtrain.storage.parquet.footer import first_page
from streamtrain.storage.parquet.reader import ParquetReader
from streamtrain.storage.parquet.sizes import Page


def write(path: Path, rows: int = 50_000, **options: object) -> Path:
    values = np.random.default_rng(0).standard_normal(rows, np.float32)
    pq.write_table(pa.table({"x": values}), path, row_group_size=rows, **options)
    return path


@pytest.mark.parametrize(
    "options",
    [
        {"use_dictionary": False},
        {"use_dictionary": False, "compression": "none"},
        {"use_dictionary": False, "data_page_version": "2.0"},
        {"use_dictionary": False, "write_statistics": False, "write_page_checksum": True},
    ],
)
def test_the_first_page(tmp_path: Path, options: dict[str, object]) -> None:
    page = first_page(LocalFileStore(tmp_path), write(tmp_path / "a.parquet", **options).name, "")
    assert 1000 < page.values <= 50_000 and 4 * page.values <= page.nbytes <= 4 * page.values + 100


def test_the_first_page_behind_a_dictionary(tmp_path: Path) -> None:
    page = first_page(LocalFileStore(tmp_path), write(tmp_path / "a.parquet").name, "")
    assert 1000 < page.values <= 50_000 and page.values < page.nbytes < 4 * page.values


def test_a_writer_that_cuts_no_pages(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", use_dictionary=False)
    assert first_page(LocalFileStore(path.parent), path.name, "DuckDB version v1.2").nbytes > 10**15


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"\xff" * 300, b"PAR1" + b"\x15" * 300, bytes(300)])
def test_no_page_to_be_found(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    assert (
        first_page(LocalFileStore(path.parent), path.name, "")
        == Page()
        == first_page(LocalFileStore(tmp_path), "none", "")
    )


FOOTERS = """
import sys
from streamtrain.memory.process import resident_bytes
from streamtrain.storage.parquet.reader import ParquetReader
ParquetReader(sys.argv[2])
before = resident_bytes()
reader = ParquetReader(sys.argv[1])
for chunk in list(reader.chunks())[::40]:
    reader.read(chunk, ["x0"])
print(resident_bytes() - before, reader.open_bytes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="measured through /proc")
def test_the_footers_of_many_files_take_what_those_of_one_do(tmp_path: Path) -> None:
    data = pa.table({f"x{i}": np.zeros(4000, np.float32) for i in range(40)})
    (tmp_path / "many").mkdir()
    first = tmp_path / "many" / "000.parquet"
    pq.write_table(data, first, row_group_size=40)
    for i in range(1, 40):
        shutil.copyfile(first, first.with_name(f"{i:03d}.parquet"))
    write(tmp_path / "small.parquet")
    command = [sys.executable, "-c", FOOTERS, tmp_path / "many", tmp_path / "small.parquet"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    taken, declared = map(int, done.stdout.split())
    assert declared > 3_000_000  # of one file; all of them would take 150 MB
    assert taken < 4 * declared, f"{taken:,}"


def test_one_file_s_footer_is_open_already(tmp_path: Path) -> None:
    assert ParquetReader(write(tmp_path / "a.parquet")).open_bytes == 0

"""Long text in Parquet files: what its pages tell, and that it is read in slices, in any encoding."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make import in_forks

from streamtrain import Source
from streamtrain.load import Loader
from streamtrain.storage.files.store import LocalFileStore
from streamtrain.storage.parquet.reader import ParquetReader
from streamtrain.storage.parquet.text_pages import NO_PAGES, look
from streamtrain.storage.parquet.thrift import Thrift, ThriftError

MB = 10**6
ROWS = 8_000


def texts(distinct: int, letters: int = 1_400) -> pa.Array:
    return pa.array([f"{i % distinct:08d}" + "abcdefghij" * (letters // 10) for i in range(ROWS)])


ENCODINGS: dict[str, dict[str, Any]] = {
    "plain": {"use_dictionary": False},
    "given up": {},
    "one dictionary": {"dictionary_pagesize_limit": 1 << 30},
    "delta": {"use_dictionary": False, "column_encoding": {"s": "DELTA_BYTE_ARRAY"}},
    "version 2": {"use_dictionary": False, "data_page_version": "2.0", "compression": "none"},
}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A file of one row group whose text is stored in this encoding."""
    folder, x = tmp_path_factory.mktemp("long"), np.arange(ROWS, dtype=np.float32)
    table = pa.table({"s": texts(ROWS), "x": x, "y": (x % 2).astype(np.int64)})

    def write(encoding: str) -> Path:
        path = folder / f"{encoding}.parquet"
        if not path.exists():
            pq.write_table(table, path, row_group_size=ROWS, **{"compression": "zstd", **ENCODINGS[encoding]})
        return path

    return write


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_pages_of_long_text_are_looked_at(file: Callable[[str], Path], encoding: str) -> None:
    path = file(encoding)
    text = look(LocalFileStore(path.parent), [(path.name, 0, ROWS * 1_400)], ["s", "x"])
    assert set(text.columns) == {"s"}
    page, dictionary, value = text.most()
    column = pq.read_metadata(path).row_group(0).column(0)
    if encoding == "one dictionary":
        assert 0.9 * ROWS * 2 * 1_400 < dictionary < 1.1 * ROWS * 2 * 1_412 and page < MB
    else:
        assert 1_300 * 1_000 <= page <= 2 * min(column.total_uncompressed_size, 4 * MB)
    assert 1_300 < value < 3_000


def test_a_damaged_footer_or_page_means_that_all_text_may_be_one_page(
    tmp_path: Path, file: Callable[[str], Path]
) -> None:
    data = bytearray(file("plain").read_bytes())
    data[4:40] = bytes(36)  # the first page header
    (tmp_path / "a.parquet").write_bytes(data)
    (tmp_path / "b.parquet").write_bytes(b"PAR1" + bytes(100) + (50).to_bytes(4, "little") + b"PAR1")
    for name in ("a.parquet", "b.parquet", "none.parquet"):
        page, _, value = look(LocalFileStore(tmp_path), [(name, 0, 10 * MB)], ["s"]).columns["s"]
        assert page == 20 * MB and value == 10 * MB
    assert look(LocalFileStore(tmp_path), [], ["s"]).most() == NO_PAGES


@pytest.mark.parametrize(
    "data", [b"", b"\x15", b"\x18\xff\xff\x7f", b"\x1c" * 99, b"\x19\xf5\xff\xff\xff\x0f", b"\x15" + b"\xff" * 20]
)
def test_what_is_no_thrift_is_an_error(data: bytes) -> None:
    with pytest.raises(ThriftError):
        Thrift(data).skip(12)


_MEASURE = """
import json, sys
import pyarrow.compute
from streamtrain.memory.process import peak_bytes, release_freed_memory, reset_peak, resident_bytes, steady_allocators
from streamtrain.storage.parquet.reader import ParquetReader
with steady_allocators():
    reader = ParquetReader(sys.argv[1])
    chunk = reader.chunks()[0]
    release_freed_memory()
    before = resident_bytes()
    reset_peak()
    rows = sum(len(part) for part in reader.stream(chunk, reader.schema.names, 256))
    print(json.dumps([rows, reader.stream_peak_bytes(chunk, 256), peak_bytes() - before]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="measured through /proc")
def test_a_stream_of_long_text_takes_a_slice_and_not_the_row_group(file: Callable[[str], Path]) -> None:
    """Read as a dictionary, the text of the whole row group would be in memory three times and more."""
    names = [name for name in ENCODINGS if name != "one dictionary"]
    for name, (rows, declared, taken) in zip(names, in_forks(_MEASURE, [(file(name),) for name in names]), strict=True):
        assert rows == ROWS
        assert taken <= max(declared, 4 * MB) < 35 * MB, f"{name}: declared {declared:,}, taken {taken:,}"


@pytest.mark.parametrize("encoding", ["given up", "one dictionary", "delta"])
def test_slices_hold_the_same_values(file: Callable[[str], Path], encoding: str) -> None:
    reader = ParquetReader(file(encoding))
    parts = reader.stream(reader.chunks()[0], ["s"], 1_000)
    assert [value for part in parts for value in part.column("s").to_pylist()] == texts(ROWS).to_pylist()
    assert {field.type for field in reader.schema if field.name == "s"} == {pa.dictionary(pa.int32(), pa.string())}


def test_a_chunk_of_one_window_is_read_in_slices_and_its_rows_are_the_same(file: Callable[[str], Path]) -> None:
    source = Source.open(file("plain"), target="y", roles={"s": "category"})
    plan = source.plan(memory="3GB", window_rows=ROWS, batch_size=500, threads=1)
    assert plan.sliced.tolist() == [True] and not plan.streamed_chunks
    found = []
    for each in (plan, replace(plan, sliced=np.array([False]), read_bytes=1 << 30), replace(plan, slice_rows=99)):
        with Loader(source, each, epochs=1) as loader:
            found.append([(b.features.tolist(), b.hashes.tolist(), b.targets.tolist()) for b in loader])
    assert found[0] == found[1] == found[2]
    assert sorted(row for features, *_ in found[0] for row in features) == [[float(i)] for i in range(ROWS)]

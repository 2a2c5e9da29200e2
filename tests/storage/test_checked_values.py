"""Bytes that Arrow takes over without a word though they are no values of their type."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamtrain.errors import CorruptError, DataError, UsageError
from streamtrain.storage import Chunk, ChunkTable, open_reader
from streamtrain.storage.checked import open_stream, read_columns

TEXT = pa.Array.from_buffers(
    pa.string(), 2, [None, pa.py_buffer(np.array([0, 2, 4], np.int32)), pa.py_buffer(b"ok\xff\xfe")]
)
CODES = pa.DictionaryArray.from_arrays(pa.array([0, 5], pa.int32()), pa.array(["a", "b"]), safe=False)
DECIMAL = pa.Array.from_buffers(pa.decimal128(3, 0), 2, [None, pa.py_buffer((10**6).to_bytes(16, "little") * 2)])
CASES = {
    "text": (TEXT, "column 'bad' contains a value that is not a valid string: .*UTF8"),
    "text in a dictionary": (
        pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int32()), TEXT),
        "column 'bad' contains a value that is not a valid dictionary.*UTF8",
    ),
    "codes": (CODES, "column 'bad' contains a value that is not a valid dictionary.*out of bounds"),
    "decimal": (DECIMAL, r"column 'bad' contains a value that is not a valid decimal128\(3, 0\).*precision"),
}


class Bad:
    def __init__(self, values: pa.Array) -> None:
        self.data = pa.record_batch({"good": pa.array([1, 2]), "bad": values})
        self.schema = self.data.schema

    def chunks(self) -> list[Chunk]:
        return [Chunk("part#0", 2, 100, 100)]

    def read(self, chunk: Chunk, columns: Sequence[str]) -> Any:
        return self.data.select(columns)

    def fingerprint(self) -> str:
        return "bad"


@pytest.mark.parametrize("kind", CASES)
def test_values_that_are_none(kind: str) -> None:
    values, message = CASES[kind]
    reader = Bad(values)
    (chunk,) = reader.chunks()
    for read in (lambda names: read_columns(reader, chunk, names), lambda names: open_stream(reader, chunk, names, 1)):
        with pytest.raises(CorruptError, match=f"part#0: {message}"):
            list(read(["good", "bad"]))
        assert next(iter(read(["good"]))).num_rows == 2  # found where it is used


def test_text_that_is_not_utf8_in_a_file(tmp_path: Path) -> None:
    pq.write_table(pa.table({"s": ["ok", "??"]}), tmp_path / "b.parquet", use_dictionary=False, compression="none")
    content = (tmp_path / "b.parquet").read_bytes().replace(b"??", b"\xff\xfe")
    (tmp_path / "b.parquet").write_bytes(content)
    reader = open_reader(tmp_path / "b.parquet")
    with pytest.raises(CorruptError, match=r"b\.parquet:0: column 's' .*UTF8"):
        list(read_columns(reader, reader.chunks()[0], ["s"]))


def test_a_reader_that_wants_to_leave_is_an_error() -> None:
    class Leaving(Bad):
        def read(self, chunk: Chunk, columns: Sequence[str]) -> Any:
            raise SystemExit(0)

    reader = Leaving(pa.array([1, 2]))
    with pytest.raises(CorruptError, match="part#0: cannot be read: SystemExit"):
        list(read_columns(reader, reader.chunks()[0], ["good"]))


def test_chunks_that_are_none() -> None:
    with pytest.raises(DataError, match=r"chunks\(\) returned 3: it must return Chunk objects"):
        ChunkTable.of([3])  # type: ignore[list-item]


@pytest.mark.parametrize(
    "url",
    ["s3://KEY:se/cret@b/x.csv", "http://joe:se/cret@host/x.csv", "http://joe:se#cret@host/x", "http://[::1/cret"],
)
def test_urls_that_cannot_be_say_no_secret(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_reader(url)
    assert "se/cret" not in str(caught.value) and "joe" not in str(caught.value)

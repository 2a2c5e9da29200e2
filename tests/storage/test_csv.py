from __future__ import annotations

import csv
import gzip
import io
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from make import examples, in_forks, write_file

from streamtrain import fit
from streamtrain.errors import ColumnError, CorruptError, DataError, NotFoundError, SchemaError
from streamtrain.storage import open_reader
from streamtrain.storage.csv import CsvReader
from streamtrain.storage.reader import Reader, Streams
from streamtrain.storage.text import reader as text_reader
from streamtrain.storage.text import records

TEXT = pa.dictionary(pa.int32(), pa.string())
MANY = "".join(f"{i},{i / 2},n{i % 3}\n" for i in range(200_000))


def rows(reader: Any, columns: list[str] | None = None) -> list[tuple[Any, ...]]:
    names = columns or reader.schema.names
    tables = [reader.read(c, names) for c in reader.chunks()]
    assert [t.num_rows for t in tables] == [c.rows for c in reader.chunks()]
    return [tuple(r.values()) for t in tables for r in t.to_pylist()]


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "CHUNK_ROWS", 7)
    monkeypatch.setattr(text_reader, "BLOCK_BYTES", 64)
    monkeypatch.setattr(text_reader, "_SCAN_BYTES", 50)


def test_chunks_types_and_projection(tmp_path: Path) -> None:
    reader = open_reader(write_file(tmp_path / "a.csv", "i,x,s\n" + MANY))
    assert isinstance(reader, CsvReader) and isinstance(reader, Reader) and isinstance(reader, Streams)
    assert reader.schema.types == [pa.int64(), pa.float64(), TEXT]
    assert [c.rows for c in reader.chunks()] == [65536, 65536, 65536, 200_000 - 3 * 65536]
    assert [c.key for c in reader.chunks()][:2] == ["a.csv:2", "a.csv:65538"]
    assert rows(reader, ["s", "i"]) == [(f"n{i % 3}", i) for i in range(200_000)]
    assert reader.read(reader.chunks()[2], ["x"]).column(0)[0].as_py() == 65536.0
    with pytest.raises(ColumnError, match="'y'"):
        reader.read(reader.chunks()[0], ["y"])


_CELLS = st.text(st.sampled_from(list('ab",\n\r é')), max_size=6)
_FINITE = st.floats(allow_nan=False, allow_infinity=False)
_ROWS = st.lists(st.tuples(_CELLS, st.integers(-(2**62), 2**62), _FINITE), min_size=1, max_size=30)


@examples(60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=_ROWS, end=st.sampled_from(["\n", "\r\n", "\r"]), quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    final=st.booleans(), packed=st.booleans(), chunk=st.integers(1, 40), block=st.integers(1, 90),
    delimiter=st.sampled_from(",\t;"),
)  # fmt: skip
def test_what_python_writes_is_read_back(
    tmp_path: Path, data: list[Any], end: str, quoting: Any, final: bool, packed: bool, chunk: int, block: int,
    delimiter: str,
) -> None:  # fmt: skip
    text = io.StringIO(newline="")
    plain = set("\r\n") - set(end)  # Python did not quote these before version 3.13
    if any(plain & set(cell) for cell, _, _ in data):
        quoting = csv.QUOTE_ALL
    writer = csv.writer(text, lineterminator=end, quoting=quoting, delimiter=delimiter)
    writer.writerows([("s", "i", "x"), *data])
    raw = (text.getvalue() if final else text.getvalue().removesuffix(end)).encode()
    path = write_file(tmp_path / ("a.csv.gz" if packed else "a.csv"), gzip.compress(raw) if packed else raw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "CHUNK_BYTES", chunk)
        patch.setattr(text_reader, "BLOCK_BYTES", block)
        patch.setattr(text_reader, "_SCAN_BYTES", 3 * block)
        schema = pa.schema([("s", pa.string()), ("i", pa.int64()), ("x", pa.float64())])
        reader = CsvReader(path, schema, delimiter=delimiter)
        assert rows(reader) == data
        slices = [b for c in reader.chunks() for b in reader.stream(c, ["i", "s"], 3)]
        assert max(b.num_rows for b in slices) <= 3
        assert [tuple(r.values()) for b in slices for r in b.to_pylist()] == [(i, s) for s, i, _ in data]


@examples(60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.text(st.sampled_from(list('aab"",\n\n\r')), max_size=40), block=st.integers(1, 30))
def test_records_end_where_pyarrow_says(tmp_path: Path, raw: str, block: int) -> None:
    options = pc.ParseOptions(newlines_in_values=True, invalid_row_handler=lambda row: "skip")
    text = "a,b\n" + raw
    types = pa.schema([("a", pa.string()), ("b", pa.string())])
    convert = pc.ConvertOptions(column_types=types)
    expected = pc.read_csv(io.BytesIO(text.encode()), parse_options=options, convert_options=convert)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_reader, "BLOCK_BYTES", block)
        patch.setattr(text_reader, "_SCAN_BYTES", block)
        try:
            found = rows(CsvReader(write_file(tmp_path / "a.csv", text), types))
        except DataError:
            return  # a row of another number of fields, an open quote, or none
    assert found == [tuple(r.values()) for r in expected.to_pylist()]


def test_quotes_that_are_text(tmp_path: Path, small_chunks: None) -> None:
    text = "a,b\n" + 'x"y,1\n"m ""n""\n",2\n"a"b"c,3\n' * 20
    assert rows(CsvReader(write_file(tmp_path / "a.csv", text))) == [('x"y', 1), ('m "n"\n', 2), ('ab"c', 3)] * 20


def test_blank_lines_empty_fields_and_a_byte_order_mark(tmp_path: Path) -> None:
    reader = CsvReader(write_file(tmp_path / "a.csv", b"\xef\xbb\xbf\n\r\nx,s\n\n1.5,\n\r\n,b\nNaN,NA\n\n"))
    assert rows(reader) == [(1.5, ""), (None, "b"), (None, "NA")]
    assert reader.chunks()[0].key == "a.csv:4"


@pytest.mark.parametrize("end", [".gz", ".zst"])
def test_compressed(tmp_path: Path, end: str) -> None:
    with pa.CompressedOutputStream(str(tmp_path / f"a.tsv{end}"), {".gz": "gzip", ".zst": "zstd"}[end]) as out:
        out.write(("i,x,s\n" + MANY).replace(",", "\t").encode())
    reader = open_reader(tmp_path / f"a.tsv{end}")
    [chunk] = reader.chunks()
    assert chunk.rows == 200_000
    streams = [reader.stream(chunk, ["i"], 1000) for _ in range(2)]
    both = [[v for b in s for v in b.column(0).to_pylist()] for s in streams]
    assert both == [list(range(200_000))] * 2
    raw = (tmp_path / f"a.tsv{end}").read_bytes()
    write_file(tmp_path / f"b.tsv{end}", raw[: len(raw) // 2])
    with pytest.raises(CorruptError, match=r"b\.tsv"):
        open_reader(tmp_path / f"b.tsv{end}")


def test_other_compressions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.csv\.bz2: compressed text must end in \.gz or \.zst"):
        open_reader(write_file(tmp_path / "a.csv.bz2", "x"))


@pytest.mark.parametrize(
    ("line", "kind", "says"),
    [
        (b"7,text,n", SchemaError, "line 5: column 'x' contains 'text', but is double in the first rows"),
        (b"7.5,1,n", SchemaError, r"line 5: column 'i' contains '7.5', but is int64 .*schema=pa.schema\(\[\('i', TYPE\)\]\)"),
        (b"7,1", CorruptError, "line 5: has 2 fields, but the header has 3 names"),
        (b"7,1,n,9", CorruptError, "line 5: has 4 fields, but the header has 3 names"),
        (b"7,1,\xff", CorruptError, "line 5: not UTF-8: byte 0xff at position 4 of the record"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("packed", [False, True])
def test_drift_names_file_and_line(
    tmp_path: Path, small_chunks: None, line: bytes, kind: Any, says: str, packed: bool
) -> None:
    good = b'1,2.5,"a\nb"\n'
    raw = b"i,x,s\n" + good + b"\n" + line + b"\n" + good * 20
    raw = raw.replace(b"i,x,s\n", b"i,x,s\n" + good * 40)
    says = says.replace("line 5", "line 85")
    path = write_file(tmp_path / ("a.csv.gz" if packed else "a.csv"), gzip.compress(raw) if packed else raw)
    reader = CsvReader(path)
    assert reader.chunks().total_rows == 62
    with pytest.raises(kind, match=rf"a\.csv(\.gz)?: {says}"):
        rows(reader)


def test_a_schema_that_is_given(tmp_path: Path, small_chunks: None) -> None:
    path = write_file(tmp_path / "a.csv", "i,x,s\n" + "1,1,1\n" * 50 + "2.5,2,t\n")
    reader = CsvReader(path, pa.schema([("i", pa.float32()), ("s", pa.string())]))
    assert reader.schema == pa.schema([("i", pa.float32()), ("x", pa.int64()), ("s", TEXT)])
    assert rows(reader)[-1] == (2.5, 2, "t")
    with pytest.raises(SchemaError, match="column 'q' of the given schema is missing"):
        CsvReader(path, pa.schema([("q", pa.int8())]))


def test_what_is_no_table(tmp_path: Path) -> None:
    for text, kind, says in [
        ("", NotFoundError, "have no rows"), ("a,b\n", NotFoundError, "have no rows"),
        ("a,a\n1,2\n", SchemaError, "more than one column is named 'a'"),
        ('a,b\n1,"2\n3,4\n', CorruptError, "line 2: the record that begins here does not end: check for a quote"),
        ("a,b\n1\n", CorruptError, "line 2: has 1 field, but the header has 2 names"),
        (b"a,b\n\xff,1\n", CorruptError, "line 2: not UTF-8"), (b"\xff\n1\n", CorruptError, "line 1: not UTF-8: byte 0xff"),
    ]:  # fmt: skip
        with pytest.raises(kind, match=says):  # type: ignore[arg-type]
            open_reader(write_file(tmp_path / "x.csv", text))


def test_several_files_and_partitions(tmp_path: Path) -> None:
    write_file(tmp_path / "d" / "k=1" / "a.csv", "x,s\n1,a\n")
    write_file(tmp_path / "d" / "k=2" / "b.csv.gz", gzip.compress(b"s,x\nb,2\nc,3"))
    write_file(tmp_path / "d" / "k=2" / "empty.csv", "s,x\n")
    reader = open_reader(tmp_path / "d")
    assert rows(reader) == [(1, "a", 1), (2, "b", 2), (3, "c", 2)] and rows(reader, ["k"]) == [(1,), (2,), (2,)]
    write_file(tmp_path / "d" / "k=2" / "c.csv", "s,z\nb,2\n")
    assert rows(open_reader(tmp_path / "d"), ["x", "s", "z", "k"])[2:] == [(3, "c", None, 2), (None, "b", 2, 2)]
    write_file(tmp_path / "d" / "k=2" / "c.jsonl", "{}")
    with pytest.raises(DataError, match="several formats"):
        open_reader(tmp_path / "d")


def test_pickling_threads_and_fingerprint(tmp_path: Path, small_chunks: None) -> None:
    path = write_file(tmp_path / "a.csv", "i,x,s\n" + MANY[:5000])
    reader = pickle.loads(pickle.dumps(CsvReader(path)))
    chunks = list(reader.chunks())
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda c: reader.read(c, ["i"]), chunks, timeout=60))
    assert [part.num_rows for part in parts] == [chunk.rows for chunk in chunks]
    copy = write_file(tmp_path / "b" / "a.csv", path.read_bytes())
    assert CsvReader(copy).fingerprint() == reader.fingerprint()
    write_file(copy, path.read_bytes().replace(b"n1", b"n3"))
    assert CsvReader(copy).fingerprint() != reader.fingerprint()
    write_file(path, path.read_bytes() + b"1,2,3\n")
    with pytest.raises(CorruptError, match="changed"):
        rows(reader)


def test_fit_with_text_labels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=3000)
    write_file(
        tmp_path / "a.csv.gz", gzip.compress(("x,y\n" + "".join(f"{v},{'p' if v > 0 else 'n'}\n" for v in x)).encode())
    )
    result = fit(tmp_path / "a.csv.gz", target="y")
    assert result.model.classes == ("n", "p") and result.report.metrics["progressive"]["accuracy"] > 0.9


def test_what_is_not_used_is_not_imported() -> None:
    code = "import sys, streamtrain.storage; print([m for m in sys.modules if m in ('pyarrow.csv', 'pyarrow.json')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60).stdout == "[]\n"


# -- declared against measured -------------------------------------------------------------------------------------------

MEASURE = """
import json, sys
from streamtrain.memory.process import peak_bytes, release_freed_memory, reset_peak, resident_bytes, steady_allocators
from streamtrain.storage import open_reader
path, rows = sys.argv[1], int(sys.argv[2])
with steady_allocators():
    reader = open_reader(path)
    chunk, names = reader.chunks()[0], reader.schema.names
    for _ in range(2):
        for _, _ in zip(range(2), reader.stream(chunk, names, 100)): pass
    _ = part = None
    declared = reader.stream_peak_bytes(chunk, rows) if rows else chunk.read_peak_bytes
    release_freed_memory()
    before = resident_bytes()
    reset_peak()
    if rows:
        for part in reader.stream(chunk, names, rows): pass
    else:
        part = reader.read(chunk, names)
    print(json.dumps([declared, peak_bytes() - before]))
"""
FLOOR_BYTES = 4_000_000


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shapes")
    rng = np.random.default_rng(0)
    numbers = {f"x{i}": rng.normal(size=60_000).round(4) for i in range(20)}
    digits = {f"d{i}": rng.integers(0, 9, 100_000) for i in range(40)}
    words = {"w": [f"{'word' * 10} {i}" for i in range(100_000)], "v": [f"v{i % 9}" for i in range(100_000)]}
    for name, columns in (("numbers", numbers), ("digits", digits), ("words", words)):
        pc.write_csv(pa.table(columns), root / f"{name}.csv")
        with pa.CompressedOutputStream(str(root / f"{name}.csv.zst"), "zstd") as out:
            out.write((root / f"{name}.csv").read_bytes())
    return root


@pytest.mark.skipif(sys.platform != "linux", reason="measured through /proc")
def test_peaks_are_as_declared(shapes: Path) -> None:
    names = ("numbers.csv", "digits.csv", "words.csv", "numbers.csv.zst", "words.csv.zst")
    cases = [(shapes / name, rows) for name in names for rows in (0, 1024)]
    for case, (declared, peak) in zip(cases, in_forks(MEASURE, cases), strict=True):
        assert peak <= max(declared, FLOOR_BYTES), f"{case}: declared {declared:,}, measured {peak:,}"
        assert declared <= 2 * peak + FLOOR_BYTES, f"{case}: declared {declared:,}, measured {peak:,}"

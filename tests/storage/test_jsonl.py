from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from make import examples, in_forks, write_file

from streamtrain import fit
from streamtrain.errors import CorruptError, NotFoundError, SchemaError
from streamtrain.storage import open_reader
from streamtrain.storage.jsonl import JsonLinesReader
from streamtrain.storage.text import reader as text_reader
from streamtrain.storage.text import records

TEXT = pa.dictionary(pa.int32(), pa.string())
MEASURE = (Path(__file__).parent / "test_csv.py").read_text().partition('MEASURE = """')[2].partition('"""')[0]


def rows(reader: Any) -> list[dict[str, Any]]:
    tables = [reader.read(c, reader.schema.names) for c in reader.chunks()]
    assert [t.num_rows for t in tables] == [c.rows for c in reader.chunks()]
    return [r for t in tables for r in t.to_pylist()]


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "CHUNK_ROWS", 7)
    monkeypatch.setattr(text_reader, "BLOCK_BYTES", 64)
    monkeypatch.setattr(text_reader, "_SCAN_BYTES", 50)


_INTEGER, _TEXT = st.integers(-(2**62), 2**62), st.text(max_size=6)
_ROW = st.fixed_dictionaries({"i": st.none() | _INTEGER, "s": st.none() | _TEXT, "b": st.booleans()})


@examples(80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.lists(_ROW, min_size=1, max_size=30), end=st.sampled_from(["\n", "\r\n", "\n \n"]), final=st.booleans(),
    packed=st.booleans(), chunk=st.integers(1, 80), block=st.integers(1, 90), ascii=st.booleans(),
)  # fmt: skip
def test_what_python_writes_is_read_back(
    tmp_path: Path, data: list[Any], end: str, final: bool, packed: bool, chunk: int, block: int, ascii: bool
) -> None:
    raw = (end.join(json.dumps(row, ensure_ascii=ascii) for row in data) + end * final).encode(errors="replace")
    path = write_file(tmp_path / ("a.jsonl.gz" if packed else "a.jsonl"), gzip.compress(raw) if packed else raw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "CHUNK_BYTES", chunk)
        patch.setattr(text_reader, "BLOCK_BYTES", block)
        patch.setattr(text_reader, "_SCAN_BYTES", 3 * block)
        reader = JsonLinesReader(path, pa.schema([("i", pa.int64()), ("s", pa.string()), ("b", pa.bool_())]))
        assert rows(reader) == data
        slices = [b for c in reader.chunks() for b in reader.stream(c, ["b", "i"], 3)]
        assert max(b.num_rows for b in slices) <= 3
        assert [r for b in slices for r in b.to_pylist()] == [{"b": r["b"], "i": r["i"]} for r in data]


def test_types_and_keys(tmp_path: Path) -> None:
    text = '\ufeff{"i": 1, "x": 1, "s": "a", "n": null}\n\n{"x": 2.5, "i": null}\r\n'
    reader = open_reader(write_file(tmp_path / "a.ndjson", text))
    assert reader.schema == pa.schema([("i", pa.int64()), ("x", pa.float64()), ("s", TEXT), ("n", pa.null())])
    assert [tuple(r.values()) for r in rows(reader)] == [(1, 1.0, "a", None), (None, 2.5, None, None)]
    assert [c.key for c in reader.chunks()] == ["a.ndjson:1"]
    copy = pickle.loads(pickle.dumps(reader))
    assert rows(copy) == rows(reader) and copy.fingerprint() == reader.fingerprint()


@pytest.mark.parametrize(
    ("line", "kind", "says"),
    [
        ('{"i": 1.5, "s": "t"}', SchemaError, "column 'i' contains 1.5, but is int64 in the first rows"),
        ('{"i": 1, "s": 7}', SchemaError, r"column 's' contains 7, but is string .*pa.schema\(\[\('s', TYPE\)\]\)"),
        ('{"i": 1, "q": 7}', CorruptError, "has a key 'q', which is missing in the first rows"),
        ('{"i": 1}{"i": 2}', CorruptError, "is not one JSON object: Extra data"),
        ('{"i": 1} null', CorruptError, "is not one JSON object: Extra data"),
        ('{"i": 1', CorruptError, "is not one JSON object"),
        (b'{"s": "\xff"}', CorruptError, "not UTF-8: byte 0xff"),
    ],
)
def test_drift_names_file_and_line(tmp_path: Path, small_chunks: None, line: Any, kind: Any, says: str) -> None:
    line = line if isinstance(line, bytes) else line.encode()
    good = b'{"i": 1, "s": "t"}\n'
    reader = JsonLinesReader(write_file(tmp_path / "a.jsonl", good * 30 + b"\n" + line + b"\n" + good * 20))
    assert reader.chunks().total_rows == 51
    with pytest.raises(kind, match=rf"a\.jsonl: line 32: {says}"):
        rows(reader)


@pytest.mark.parametrize("text", ["null", "[1]", '"x"', '{"a": 1}\nnull', "a,b\n1,2", '{"a":\n 1}'])
def test_what_is_no_object_never_reaches_pyarrow(tmp_path: Path, text: str) -> None:
    with pytest.raises(
        CorruptError, match=r"a\.jsonl: line [12]: (expected an object in braces|is not one JSON object|cannot)"
    ):
        open_reader(write_file(tmp_path / "a.jsonl", text + "\n"))


def test_a_schema_that_is_given(tmp_path: Path, small_chunks: None) -> None:
    text = '{"i": 1}\n' * 40 + '{"i": 2.5, "late": "x"}\n'
    schema = pa.schema([("i", pa.float32()), ("late", pa.string())])
    reader = JsonLinesReader(write_file(tmp_path / "a.jsonl", text), schema)
    assert reader.schema == pa.schema([("i", pa.float32()), ("late", TEXT)])
    assert rows(reader)[-2:] == [{"i": 1.0, "late": None}, {"i": 2.5, "late": "x"}]
    with pytest.raises(NotFoundError, match="have no rows"):
        JsonLinesReader(write_file(tmp_path / "b.jsonl", "\n"))


def test_fit(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=2000).tolist()
    write_file(tmp_path / "a.jsonl", "".join(json.dumps({"x": v, "y": "p" if v > 0 else "n"}) + "\n" for v in x))
    assert fit(tmp_path / "a.jsonl", target="y").report.metrics["progressive"]["accuracy"] > 0.9


def test_peaks_are_as_declared(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    numbers = [{f"x{k}": v for k, v in enumerate(row)} for row in rng.normal(size=(40_000, 12)).round(4).tolist()]
    raw = "\n".join(json.dumps(row | {"s": f"s{i}"}) for i, row in enumerate(numbers)).encode()
    cases = [
        (write_file(tmp_path / "a.jsonl", raw), 0),
        (write_file(tmp_path / "a.jsonl.gz", gzip.compress(raw, 1)), 1024),
    ]
    for case, (declared, peak) in zip(cases, in_forks(MEASURE, cases), strict=True):
        assert peak <= declared <= 2 * peak + 4_000_000, f"{case}: declared {declared:,}, measured {peak:,}"

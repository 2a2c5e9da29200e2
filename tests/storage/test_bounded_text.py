"""Text files that are made to take memory: a few kilobytes that unpack to gigabytes, records that never end, thousands of
columns. Each is an error within the budget: one of the file where the file is wrong, a refusal where it needs more memory."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamtrain.errors import CorruptError
from streamtrain.storage.jsonl import JsonLinesReader
from streamtrain.storage.text.records import blocks
from streamtrain.storage.text.scanners import CsvScanner

BUDGET_BYTES = 160_000_000
CSV = b"x,y\n" + b"".join(b"%d,%d\n" % (i, i % 2) for i in range(3000))
JSON = b"".join(b'{"x": %d, "y": %d}\n' % (i, i % 2) for i in range(3000))
WIDE = b",".join(b"c%d" % i for i in range(20_000)) + b",y\n" + (b"1," * 20_000 + b"0\n" + b"2," * 20_000 + b"1\n") * 5
MB = 10**6

CHILD = """
import json, sys
import streamtrain
from streamtrain.memory.pandas_import import leave_pandas_out
from streamtrain.memory.process import peak_bytes
leave_pandas_out()  # as on the command line
found = {}
for path in sys.argv[2:]:
    try:
        found[path] = [str(streamtrain.make_plan(path, target="y", memory=int(sys.argv[1])).rows), ""]
    except streamtrain.StreamtrainError as error:
        found[path] = [type(error).__name__, str(error)]
    found[path].append(peak_bytes())
print(json.dumps(found))
"""


def packed(parts: Iterable[bytes]) -> bytes:
    gzip = zlib.compressobj(1, zlib.DEFLATED, 31)
    return b"".join([*map(gzip.compress, parts), gzip.flush()])


FILES: dict[str, tuple[bytes, str, str]] = {  # contents, error, a part of the message
    "quote.csv.gz": (packed([CSV, b'"', *[b"a\n" * 500_000] * 30]), "CorruptError", "line 3002: the record that begins"),
    "quotes.csv.gz": (packed([CSV, b'"', *[b'""' * 500_000] * 30]), "CorruptError", "longer than 16 MiB"),
    "line.csv.gz": (packed([CSV, *[b"a" * MB] * 30]), "CorruptError", "longer than 16 MiB"),
    "header.csv.gz": (packed([b"x," * 500_000] * 40), "CorruptError", "line 1: the record"),
    "line.jsonl.gz": (packed([JSON, b'{"x": "', *[b"a" * MB] * 30]), "CorruptError", "longer than 16 MiB"),
    "blank.csv.gz": (packed([CSV, *[b"\n" * MB] * 10]), "3000", ""),
    "blank.jsonl.gz": (packed([JSON, *[b"\n" * MB] * 10]), "3000", ""),
    "lists.jsonl": (b'{"x": ' + b"[" * 10**5 + b"]" * 10**5 + b"}\n" + JSON, "CorruptError", "line 1: is nested more than 64"),
    "objects.jsonl": (JSON + b'{"x": ' + b'{"a": ' * 10**5 + b"1" + b"}" * 10**5 + b"}\n", "CorruptError", "line 3001: is n"),
    "wide.csv": (WIDE, "BudgetRefused", "wide.csv takes"),
    "keys.jsonl": (json.dumps({f"k{i}": i for i in range(50_000)}).encode() + b"\n", "BudgetRefused", "keys.jsonl takes"),
}  # fmt: skip


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("bounded")
    for name, (contents, *_) in FILES.items():
        (folder / name).write_bytes(contents)
    command = [sys.executable, "-c", CHILD, str(BUDGET_BYTES), *(str(folder / name) for name in FILES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return {Path(path).name: result for path, result in json.loads(done.stdout).items()}


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured and limited on Linux")
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_would_take_all_memory_is_an_error_within_the_budget(found: dict[str, Any], name: str) -> None:
    outcome, message, peak = found[name]
    assert (outcome, FILES[name][2] in message) == (FILES[name][1], True), message
    assert peak <= BUDGET_BYTES
    if outcome == "BudgetRefused":
        assert "--memory" in message and "Nothing was trained" in message


@given(
    st.lists(st.sampled_from([b"a", b'"', b'""', b",", b"\n", b"\r\n", b"\r", b"b"]), max_size=40), st.integers(1, 9)
)
@settings(deadline=None, max_examples=200)
def test_records_are_the_same_however_the_file_is_cut(parts: list[bytes], nbytes: int) -> None:
    data = b"".join(parts)

    def ends(at_once: int) -> list[int] | str:
        scanner, found = CsvScanner(","), []
        try:
            for block in blocks(pa.BufferReader(data), at_once, scanner):
                found += [
                    block.start + end for end, row in zip(block.lines.ends, block.lines.is_row, strict=True) if row
                ]
        except Exception as error:
            return str(error)
        return found

    assert ends(nbytes) == ends(1000)


def test_braces_in_text_are_no_depth(tmp_path: Path) -> None:
    record = json.dumps({"x": '[{"' * 500, "y": [[1], [2]] * 100})
    (tmp_path / "a.jsonl").write_text(f"{record}\n" * 3)
    assert JsonLinesReader(tmp_path / "a.jsonl").chunks().total_rows == 3
    (tmp_path / "b.jsonl").write_text(f"{record}\n" + '{"x": "", "y": ' + "[" * 70 + "]" * 70 + "}\n")
    with pytest.raises(CorruptError, match="line 2: is nested more than 64 levels deep"):
        JsonLinesReader(tmp_path / "b.jsonl")


def test_many_columns_are_decoded_some_at_a_time_with_the_same_result(tmp_path: Path) -> None:
    from streamtrain.storage.csv import CsvReader

    rows = [",".join(f"{i % 7}.5" if i % 3 else f"t{i % 5}" for i in range(2200)) for _ in range(3)]
    path = tmp_path / "a.csv"
    path.write_text("\n".join([",".join(f"c{i}" for i in range(2200)), *rows]))
    reader = CsvReader(path)
    table = reader.read(reader.chunks()[0], reader.schema.names)
    expected = pc.read_csv(path)
    assert table.schema.names == expected.schema.names
    assert [column.to_pylist() for column in table.columns] == [column.to_pylist() for column in expected.columns]

"""What the end of a Parquet file tells: footers that need more than the budget are refused before they are parsed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamtrain.errors import BudgetRefused, CorruptError
from streamtrain.memory.monitor import within
from streamtrain.memory.process import reset_peak, resident_bytes
from streamtrain.storage import open_reader
from streamtrain.storage.parquet.tail import demand_of, footer_length, parsed_bytes

MB = 10**6


def footer_of(path: Path) -> bytes:
    data = path.read_bytes()
    return data[-8 - footer_length(data[-8:], len(data), "") : -8]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Footers of several shapes, 1 to 8 MB long."""
    folder = tmp_path_factory.mktemp("footers")
    numbers = np.arange(6_000)
    tables: dict[str, tuple[pa.Table, dict[str, object]]] = {
        "groups": (pa.table({"x": numbers, "y": numbers % 2}), {"row_group_size": 1}),
        "short": (
            pa.table({f"x{i}": numbers[:1_000] % 7 for i in range(30)}),
            {"row_group_size": 1, "write_statistics": False, "use_dictionary": False, "store_schema": False},
        ),
        "wide": (pa.table({f"x{i}": [1.0] for i in range(8_000)}), {}),
        "strings": (pa.table({"s": ["x" * 3000 + str(i) for i in range(500)]}), {"row_group_size": 1}),
    }
    for name, (table, options) in tables.items():
        pq.write_table(table, folder / f"{name}.parquet", **options)
    return {name: folder / f"{name}.parquet" for name in tables}


PARSE = """
import sys
import pyarrow as pa
import pyarrow.parquet as pq
from streamtrain.memory.process import peak_bytes, release_freed_memory, reset_peak, resident_bytes
pq.ParquetFile(sys.argv[-1]).schema_arrow
for path in sys.argv[1:]:
    reset_peak()
    before = resident_bytes()
    with pa.OSFile(path) as source:
        file = pq.ParquetFile(source, pre_buffer=False)
        file.schema_arrow
        print(peak_bytes() - before)
    del file
    release_freed_memory()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="measured through /proc")
def test_the_memory_of_parsing_is_known_from_the_first_bytes_of_a_footer(files: dict[str, Path]) -> None:
    command = [sys.executable, "-c", PARSE, *map(str, files.values())]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    for name, taken in zip(files, map(int, done.stdout.split()), strict=True):
        footer = footer_of(files[name])
        found = demand_of(lambda stop, footer=footer: footer[:stop], len(footer)).parsing_bytes
        assert 0.75 * taken < found < 1.35 * taken + MB, f"{name}: {len(footer):,} bytes, {taken:,}, {found:,}"


@pytest.mark.parametrize("name", ["groups", "short", "wide"])
def test_a_footer_above_the_budget_is_refused_before_it_is_parsed(
    name: str, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def parsed(*arguments: object, **options: object) -> None:
        raise AssertionError("the footer was parsed")

    monkeypatch.setattr(pq, "ParquetFile", parsed)
    reset_peak()
    budget = (resident_bytes() or 0) + 10 * MB
    refused = rf"{name}\.parquet: its footer of .* takes .*more than the budget.*--memory [0-9]+MB or more"
    with pytest.raises(BudgetRefused, match=refused), within(budget):
        open_reader(str(files[name]))


def test_what_is_no_footer_is_not_looked_at_for_long(files: dict[str, Path]) -> None:
    footer = footer_of(files["wide"])

    def damaged() -> Iterator[bytes]:
        yield from (b"\x15\x00\x19\xfc" + b"\xff" * 9 + b"\x01" + bytes(10**6), b"\x15\x00\x19" * 10**6, footer[:5000])
        yield b"\x15\x00\x19\x1c" + b"\x1c" * 2 * 10**6  # structs within structs
        yield b"\x15\x00\x19\xfc\x80\x89\x7a" + b"\x15\x00\x00" * 10**6  # two million elements

    for data in damaged():
        found = demand_of(lambda stop, data=data: data[:stop], 2 << 20).parsing_bytes
        assert 4 << 20 <= found <= 41 * (2 << 20)


@given(st.binary(max_size=200))
def test_any_bytes_are_looked_at(data: bytes) -> None:
    assert demand_of(lambda stop: data, 2 << 20).parsing_bytes >= 4 << 20


def test_a_summary_of_other_files_is_named(tmp_path: Path) -> None:
    table, found = pa.table({"x": [1.0, 2.0]}), list[pq.FileMetaData]()
    pq.write_table(table, tmp_path / "a.parquet", metadata_collector=found)
    found[0].set_file_path("a.parquet")
    pq.write_metadata(table.schema, tmp_path / "_metadata", metadata_collector=found)
    with pytest.raises(CorruptError, match=r"_metadata: a summary of other files, without their rows: read those"):
        open_reader(str(tmp_path / "_metadata"))
    assert open_reader(str(tmp_path)).chunks()[0].rows == 2


def test_the_parsed_size_has_the_text_of_a_footer_too() -> None:
    assert parsed_bytes(1000, 10) == 10 * (1000 * 950 + 1800)
    assert parsed_bytes(1000, 10, 10**8) > parsed_bytes(1000, 10) + 9 * 10**7
    assert parsed_bytes(np.array([1, 1000]), 10, np.array([300, 10**6])).tolist() == [27_500, 9_518_000]

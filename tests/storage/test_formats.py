from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import streamtrain
from streamtrain.storage.formats import COMPRESSIONS, format_of, reader_for, suffixes_of
from streamtrain.storage.reader import ChunkTable
from streamtrain.tools.settings import FORMATS

KINDS = ("arrow", "csv", "jsonl", "parquet")


def test_a_suffix_belongs_to_one_format_whose_reader_can_be_imported() -> None:
    suffixes = [suffix for kind in KINDS for suffix in suffixes_of(kind)]
    assert max(Counter(suffixes).values()) == 1
    for kind in KINDS:
        assert {format_of([f"data{suffix}"]) for suffix in suffixes_of(kind)} == {kind}
        assert {"chunks", "read", "fingerprint"} <= set(dir(reader_for(kind)))


def test_the_commands_write_the_formats_that_have_compressions() -> None:
    assert tuple(COMPRESSIONS) == FORMATS  # settings import no pyarrow, and so not the table


def test_names_need_not_be_utf8(tmp_path: Path) -> None:
    folder = tmp_path / "\udcfe"
    folder.mkdir()
    table = pa.table({"x": np.arange(9.0), "y": np.arange(9) % 2})
    (folder / "a\udcff.csv").write_text("x,y\n" + "1,0\n" * 9)
    with (folder / "b\udcff.arrow").open("wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    with (folder / "c\udcff.parquet").open("wb") as file:
        pq.write_table(table, file)
    for name in ("a\udcff.csv", "b\udcff.arrow", "c\udcff.parquet"):
        reader = streamtrain.open_reader(folder / name)
        assert reader.fingerprint()
        copy = folder / f"copy of {name[0]}"
        streamtrain.rechunk(folder / name, out=copy, chunk_rows=4)
        assert ChunkTable.of(streamtrain.open_reader(copy).chunks()).total_rows == len(table)

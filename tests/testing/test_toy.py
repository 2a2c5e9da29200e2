"""A reader of at most 40 lines, written from the documentation, passes the suite."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import toy

from streamtrain.testing import ReaderTests


class TestToy(ReaderTests):
    def table(self, rows: int) -> pa.Table:
        x = np.arange(rows, dtype=np.float64)
        return pa.table({"x": x, "y": x**2, "z": -x, "w": x / 8})

    def make(self, folder: Path, table: pa.Table) -> str:
        rows = np.column_stack([column.to_numpy() for column in table.columns])  # nulls become NaN
        names = " ".join(table.column_names).encode()
        (folder / "data.toy").write_bytes(names + b"\n" + rows.astype("<f8").tobytes())
        return str(folder / "data.toy")

    def open(self, target: str) -> toy.ToyReader:
        return toy.ToyReader(target)

    def damage(self, folder: Path) -> None:
        path = folder / "data.toy"
        path.write_bytes(path.read_bytes()[:-40])


def test_the_reader_is_short() -> None:
    lines = Path(toy.__file__).read_text().split('"""', 2)[2].strip().splitlines()
    assert len([line for line in lines if line.strip()]) <= 40

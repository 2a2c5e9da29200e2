"""The conformance suite on every reader that is built in."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import zarr

import streamtrain
from streamtrain.testing import ReaderTests


class TestParquet(ReaderTests):
    def make(self, folder: Path, table: pa.Table) -> str:
        half = table.num_rows // 2 + 1
        for i in range(2):
            part, path = table.slice(i * half, half), folder / f"part-{i}.parquet"
            pq.write_table(part, path, row_group_size=max(300, table.num_rows // 3), write_page_checksum=True)
        return str(folder)

    def damage(self, folder: Path) -> None:
        path = folder / "part-0.parquet"
        data = bytearray(path.read_bytes())
        data[64:128] = bytes(64)
        path.write_bytes(data)


def numbers(rows: int) -> pa.Table:
    X = np.arange(rows * 6, dtype=np.float32).reshape(rows, 3, 2) + 1
    image = pa.FixedShapeTensorArray.from_numpy_ndarray(X)
    return pa.table({"image": image, "number": np.arange(rows) + 1, "size": np.arange(rows) / 8 + 1})


class TestZarr(ReaderTests):
    nulls = False
    options: dict[str, Any] = {}  # noqa: RUF012
    version = 3

    def table(self, rows: int) -> pa.Table:
        return numbers(rows)

    def make(self, folder: Path, table: pa.Table) -> str:
        group = zarr.create_group(folder / "data.zarr", zarr_format=self.version)
        for name in table.column_names:
            column = table.column(name).combine_chunks()
            tensor = isinstance(column.type, pa.FixedShapeTensorType)
            values = column.to_numpy_ndarray() if tensor else column.to_numpy()
            chunk = max(130, table.num_rows // 4)
            shards = {"shards": (3 * chunk, *values.shape[1:])} if self.options else {}
            group.create_array(name, data=values, chunks=(chunk, *values.shape[1:]), **self.options, **shards)
        return str(folder / "data.zarr")

    def damage(self, folder: Path) -> None:
        first = sorted(
            p for p in (folder / "data.zarr/number").rglob("*") if p.is_file() and not p.name.startswith((".z", "zarr"))
        )
        first[0].write_bytes(first[0].read_bytes()[:20])


class TestZarrOld(TestZarr):
    version = 2


class TestZarrSharded(TestZarr):
    options = {"compressors": "auto"}  # noqa: RUF012


def read_file(path: Path, columns: list[str]) -> pa.Table:
    return pq.read_table(path, columns=columns, use_threads=False, partitioning=None)


class TestFunctions(ReaderTests):
    def make(self, folder: Path, table: pa.Table) -> Any:
        rows = max(300, table.num_rows // 2)
        for i, start in enumerate(range(0, table.num_rows, rows)):
            pq.write_table(table.slice(start, rows), folder / f"{i}.parquet")
        names, digest = sorted(folder.iterdir()), hashlib.sha256()
        for name in names:
            digest.update(name.read_bytes())
        return streamtrain.reader_from(names, read_file, schema=table.schema, fingerprint=digest.hexdigest())

    def damage(self, folder: Path) -> None:
        (folder / "0.parquet").write_bytes(b"PAR1, but no more than that")


class TestIpc(ReaderTests):
    def make(self, folder: Path, table: pa.Table) -> str:
        with pa.ipc.new_file(folder / "data.arrow", table.schema) as writer:
            writer.write_table(table, max_chunksize=max(300, table.num_rows // 2))
        return str(folder / "data.arrow")

    def damage(self, folder: Path) -> None:
        (folder / "data.arrow").write_bytes((folder / "data.arrow").read_bytes()[:-600])


class TestCsv(ReaderTests):
    large_rows = 100_000
    nulls = False  # in text: what is empty is empty text

    def make(self, folder: Path, table: pa.Table) -> str:
        pa.csv.write_csv(table, folder / "data.csv")
        return str(folder / "data.csv")

    def damage(self, folder: Path) -> None:
        (folder / "data.csv").write_bytes((folder / "data.csv").read_bytes().replace(b"row 3", b'row",'))


class TestJsonLines(TestCsv):
    nulls = True

    def make(self, folder: Path, table: pa.Table) -> str:
        lines = (json.dumps(row) + "\n" for row in table.to_pylist())
        (folder / "data.jsonl").write_text("".join(lines))
        return str(folder / "data.jsonl")

    def damage(self, folder: Path) -> None:
        path = folder / "data.jsonl"
        path.write_bytes(path.read_bytes().replace(b'"row 3"', b'"row 3'))


class TestMemory(ReaderTests):
    def make(self, folder: Path, table: pa.Table) -> pa.Table:
        return table

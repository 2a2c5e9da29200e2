"""A reader of a toy format, written from docs/storage.md alone. A file: a line of column names, separated by blanks; then
its rows, each as that many 8-byte numbers, little endian. NaN is a null."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa

from streamtrain import Chunk, ChunkTable, DataError

ROWS = 250_000  # a chunk


class ToyReader:
    def __init__(self, path: str) -> None:
        self.path = Path(path)
        with self.path.open("rb") as file:
            self.header = file.readline()
        names = self.header.decode().split()
        self.schema = pa.schema([(name, pa.float64()) for name in names])
        self.rows, rest = divmod(self.path.stat().st_size - len(self.header), 8 * len(names))
        if rest:
            raise DataError(f"{path}: ends within a row")

    def chunks(self) -> ChunkTable:
        rows = np.array([min(ROWS, self.rows - start) for start in range(0, self.rows, ROWS)], np.int64)
        decoded = rows * 9 * len(self.schema)
        return ChunkTable(str, rows, decoded, 2 * decoded + 100_000)

    def read(self, chunk: Chunk, columns: list[str]) -> pa.RecordBatch:
        places = [self.schema.names.index(name) if name in self.schema.names else self._none(name) for name in columns]
        with self.path.open("rb") as file:
            file.seek(len(self.header) + int(chunk.key) * ROWS * 8 * len(self.schema))
            table = np.fromfile(file, "<f8", chunk.rows * len(self.schema)).reshape(chunk.rows, -1)
        return pa.record_batch([pa.array(table[:, i], from_pandas=True) for i in places], names=columns)

    def _none(self, name: str) -> int:
        raise KeyError(name)

    def fingerprint(self) -> str:
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

"""A reader that keeps the contract, and readers with one defect each.

The data are a folder: ``index.json`` says which files there are and the rows of each; a file is one chunk, as Arrow.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from streamtrain import Chunk, DataError
from streamtrain.testing.readers.compare import table_of


class Good:
    """Nothing is wrong with it."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.index = json.loads((self.folder / "index.json").read_text())
        self.schema = pa.ipc.read_schema(pa.py_buffer(bytes.fromhex(self.index["schema"])))

    def chunks(self) -> Sequence[Chunk]:
        sizes = [(name, rows, rows * (8 * len(self.schema) + 1)) for name, rows in self.index["files"].items()]
        return [Chunk(name, rows, decoded, 2 * decoded + 100_000) for name, rows, decoded in sizes]

    def read(self, chunk: Chunk, columns: Sequence[str]) -> Any:
        data = (self.folder / chunk.key).read_bytes()
        return pa.ipc.open_stream(data).read_all().select(list(columns))

    def stream(self, chunk: Chunk, columns: Sequence[str], rows: int) -> Iterator[Any]:
        table = Good.read(self, chunk, columns)
        for start in range(0, chunk.rows, rows):
            yield table.slice(start, rows)

    def stream_peak_bytes(self, chunk: Chunk, rows: int) -> int:
        return chunk.read_peak_bytes

    def read_together(self, chunks: Sequence[Chunk], columns: Sequence[str]) -> Any:
        return pa.concat_tables([self.read(chunk, columns) for chunk in chunks])

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for name in ("index.json", *self.index["files"]):
            digest.update((self.folder / name).read_bytes())
        return digest.hexdigest()


def changed(chunk: Chunk, **sizes: Any) -> Chunk:
    given = {name: getattr(chunk, name) for name in ("key", "rows", "decoded_bytes", "read_peak_bytes")}
    return Chunk(**given | sizes)


class OverlappingChunks(Good):
    """A chunk begins with the last row of the one before, and lacks its own last."""

    def read(self, chunk: Chunk, columns: Sequence[str]) -> Any:
        names = list(self.index["files"])
        place, table = names.index(chunk.key), super().read(chunk, columns)
        if not place:
            return table
        before = super().read(changed(chunk, key=names[place - 1]), columns)
        return pa.concat_tables([before.slice(before.num_rows - 1), table.slice(0, table.num_rows - 1)])

    stream = None  # type: ignore[assignment]
    stream_peak_bytes = None  # type: ignore[assignment]


class WrongRowCount(Good):
    def chunks(self) -> Sequence[Chunk]:
        return [changed(chunk, rows=chunk.rows + 1) for chunk in super().chunks()]


class SchemaOrder(Good):
    """Columns in the order of the schema, whatever was asked."""

    def read(self, chunk: Chunk, columns: Sequence[str]) -> Any:
        table = super().read(chunk, columns)
        return table.select([name for name in self.schema.names if name in columns])


class SharedPosition(Good):
    """One position for all threads."""

    def read(self, chunk: Chunk, columns: Sequence[str]) -> Any:
        self.position = chunk
        time.sleep(0.001)
        return super().read(self.position, columns)


class Undecided(Good):
    """Every second time that a chunk is read its rows come in another order."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.times: Counter[str] = Counter()

    def read(self, chunk: Chunk, columns: Sequence[str]) -> Any:
        table = super().read(chunk, columns)
        self.times[chunk.key] += 1
        return table if self.times[chunk.key] % 2 else table.take(list(range(table.num_rows))[::-1])


class Unpicklable(Good):
    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.handle = (self.folder / "index.json").open()

    def __del__(self) -> None:
        self.handle.close()


class DeclaresTooLittle(Good):
    def chunks(self) -> Sequence[Chunk]:
        return [changed(chunk, read_peak_bytes=1000) for chunk in super().chunks()]

    def stream_peak_bytes(self, chunk: Chunk, rows: int) -> int:
        return 40 * chunk.rows + 100_000


class StreamDeclaresTooLittle(Good):
    def stream_peak_bytes(self, chunk: Chunk, rows: int) -> int:
        return 1000


class DecodesToMore(Good):
    def chunks(self) -> Sequence[Chunk]:
        return [changed(chunk, decoded_bytes=chunk.rows) for chunk in super().chunks()]


class DropsTheLastSlice(Good):
    def stream(self, chunk: Chunk, columns: Sequence[str], rows: int) -> Iterator[Any]:
        slices = list(super().stream(chunk, columns, rows))
        yield from slices[:-1] or slices


class ReadsInAnotherOrder(Good):
    def read_together(self, chunks: Sequence[Chunk], columns: Sequence[str]) -> Any:
        return super().read_together(chunks[::-1], columns)


class SlicesTooLarge(Good):
    def stream(self, chunk: Chunk, columns: Sequence[str], rows: int) -> Iterator[Any]:
        return super().stream(chunk, columns, rows + 1)


class ConstantFingerprint(Good):
    def fingerprint(self) -> str:
        return "good"


class RandomFingerprint(Good):
    def fingerprint(self) -> str:
        return str(random.random())


class FingerprintOfPath(Good):
    def fingerprint(self) -> str:
        return f"{self.folder} {super().fingerprint()}"


class FingerprintOfTime(Good):
    def fingerprint(self) -> str:
        return f"{(self.folder / 'index.json').stat().st_mtime_ns} {super().fingerprint()}"


class DuplicateKeys(Good):
    def chunks(self) -> Sequence[Chunk]:
        found = super().chunks()
        return [*found, *(changed(chunk, rows=0) for chunk in found[:1])]


class OtherChunksEachTime(Good):
    calls = 0

    def chunks(self) -> Sequence[Chunk]:
        self.calls += 1
        return [changed(chunk, read_peak_bytes=chunk.read_peak_bytes + self.calls % 2) for chunk in super().chunks()]


class NullsBecomeZeros(Good):
    def read(self, chunk: Chunk, columns: Sequence[str]) -> Any:
        table = super().read(chunk, columns)
        return pa.table([column.fill_null(0) for column in table.columns], names=table.column_names)


class NamesNoChunk(Good):
    def read(self, chunk: Chunk, columns: Sequence[str]) -> Any:
        try:
            return super().read(chunk, columns)
        except OSError as error:
            raise DataError("something is wrong") from error


class FillsWhatIsDamaged(Good):
    def read(self, chunk: Chunk, columns: Sequence[str]) -> Any:
        try:
            return super().read(chunk, columns)
        except OSError:
            return pa.table([pa.nulls(chunk.rows, self.schema.field(c).type) for c in columns], names=list(columns))


class BrokenAfterAFailure(Good):
    broken = False

    def read(self, chunk: Chunk, columns: Sequence[str]) -> Any:
        if self.broken:
            raise DataError(f"{chunk.key}: the connection is closed")
        try:
            return super().read(chunk, columns)
        except KeyError:
            self.broken = True
            raise


class AbsentColumnsAreNull(Good):
    def read(self, chunk: Chunk, columns: Sequence[str]) -> Any:
        table = super().read(chunk, [name for name in columns if name in self.schema.names])
        for name in set(columns).difference(self.schema.names):
            table = table.append_column(name, pa.nulls(chunk.rows))
        return table


class OtherTypes(Good):
    def read(self, chunk: Chunk, columns: Sequence[str]) -> Any:
        table = table_of(super().read(chunk, columns))
        return table.cast(pa.schema([(name, pa.float64()) for name in columns]))

    def stream(self, chunk: Chunk, columns: Sequence[str], rows: int) -> Iterator[Any]:
        for part in super().stream(chunk, columns, rows):
            yield part.cast(pa.schema([(name, pa.float64()) for name in columns]))


class FailsOnNoRows(Good):
    def chunks(self) -> Sequence[Chunk]:
        found = super().chunks()
        assert found[0].rows
        return found


class FailsOnOneRow(Good):
    """numpy's squeeze, for one, does that."""

    def read(self, chunk: Chunk, columns: Sequence[str]) -> Any:
        table = super().read(chunk, columns)
        return table if table.num_rows != 1 else table.slice(1)


class FingerprintIsANumber(Good):
    def fingerprint(self) -> Any:
        return int(super().fingerprint(), 16)


class OnlyHere(Good):
    """Knows its data only in the process that wrote them."""

    here: dict[str, bool] = {}  # noqa: RUF012

    def read(self, chunk: Chunk, columns: Sequence[str]) -> Any:
        table = super().read(chunk, columns)
        return table if self.here else table.slice(0, 0)

"""The rows of a table: those of its live files that are not deleted."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.errors import DataError
from streamtrain.memory.monitor import require_room
from streamtrain.storage.files.columns import FileColumns
from streamtrain.storage.files.partitions import Partitions
from streamtrain.storage.files.store import LocalFileStore
from streamtrain.storage.lake.bitmaps import Bitmap, bitmap_bytes
from streamtrain.storage.lake.snapshot import Snapshot
from streamtrain.storage.parquet.keys import Keys
from streamtrain.storage.parquet.reader import ParquetReader
from streamtrain.storage.reader import Chunk, ChunkTable

__all__ = ["LakeReader"]


class LakeReader(ParquetReader):
    """Reads a snapshot of a table. A chunk is what is left of a row group. Raises DataError of every kind.

    title: the format and version of the table. package_bytes: nominal: of the package that has read its log. snapshots: the id
    of the table, and that of the snapshot that is read.
    """

    def __init__(self, snapshot: Snapshot, package_bytes: int = 0) -> None:
        snapshot.require_files()
        self.title, self._warnings = snapshot.title, list(snapshot.warnings)
        self.package_bytes = package_bytes
        self.snapshots = {snapshot.table_id: snapshot.id}
        self._root = str(snapshot.root)
        files = [name for name, _ in snapshot.files]
        columns = FileColumns(files, declared=snapshot.columns, partitions=Partitions.given(dict(snapshot.partitions)))
        self._open(LocalFileStore(snapshot.root), files, columns)
        self._require_in_files(snapshot.in_files)
        self._starts = self._group_starts()
        self._deleted: dict[str, Bitmap] = {}
        for deletes in snapshot.deletes:
            deletes.add(self._bitmap_of)
        self._kept = self._rows.copy()
        for name, bitmap in self._deleted.items():
            for group in range(*self._first[self._numbers[name] :][:2].tolist()):
                start = int(self._starts[group])
                self._kept[group] -= bitmap.count(start, start + int(self._rows[group]))
        self._deletes = [deletes.identity for deletes in snapshot.deletes]

    def _group_starts(self) -> NDArray[np.int64]:
        """The number of the first row of each row group in its file."""
        before = np.concatenate([[0], np.cumsum(self._rows)])
        starts: NDArray[np.int64] = before[:-1] - before[self._first[self._file_of]]
        return starts

    def _require_in_files(self, columns: Sequence[str]) -> None:
        for column in columns:
            for number, name in enumerate(self._files):
                if not self._columns.stored(number, [column]):
                    raise DataError(
                        f"{self._root}: {name} has no column {column!r}, by which only a part of the {self.title} is "
                        "partitioned: rewrite the table's files"
                    )

    def _bitmap_of(self, name: str) -> Bitmap | None:
        if name not in self._numbers:
            return None
        if name not in self._deleted:
            file = self._numbers[name]
            rows = int(self._rows[self._first[file] : self._first[file + 1]].sum())
            require_room(bitmap_bytes(rows), f"{self._store.shown(name)}: the list of its deleted rows")
            self._deleted[name] = Bitmap(rows, self._store.shown(name))
        return self._deleted[name]

    @property
    def footers_bytes(self) -> int:
        """As for Parquet files, and the lists of deleted rows."""
        return super().footers_bytes + sum(bitmap.bits.nbytes for bitmap in self._deleted.values())

    def warnings(self, columns: Sequence[str]) -> list[str]:
        return [*self._warnings, *super().warnings(columns)]

    def chunks(self) -> ChunkTable:
        table = super().chunks()
        if not self._deleted:
            return table
        share = self._kept / np.maximum(1, self._rows)
        decoded = np.ceil(table.decoded_bytes * share).astype(np.int64)
        copied = np.where(
            self._kept < self._rows, decoded + self._rows, 0
        )  # what is kept is copied, by a value for each row
        return ChunkTable(
            Keys(self._files, self._file_of, self._first), self._kept, decoded, table.read_peak_bytes + copied
        )

    def stream_peak_bytes(self, chunk: Chunk, rows: int) -> int:
        peak, group = super().stream_peak_bytes(chunk, rows), self._number(chunk)
        return peak if self._kept[group] == self._rows[group] else peak + int(rows * (self._sizes.row_bytes + 1))

    def _slices(
        self, name: str, groups: list[int], total: int, columns: Sequence[str], rows: int, *, buffer_size: int
    ) -> Iterator[pa.RecordBatch]:
        first, bitmap = int(self._first[self._numbers[name]]), self._deleted.get(name)
        if bitmap is None:
            yield from super()._slices(name, groups, total, columns, rows, buffer_size=buffer_size)
            return
        numbers = [first + group for group in groups]
        stored = int(self._rows[numbers].sum())
        pieces = _Pieces([(int(self._starts[n]), int(self._rows[n])) for n in numbers], bitmap)
        for batch in super()._slices(name, groups, stored, columns, rows, buffer_size=buffer_size):
            kept = pieces.next(batch.num_rows)
            left = batch if kept.all() else batch.filter(pa.array(kept))
            if left.num_rows:
                yield left

    def fingerprint(self) -> str:
        """SHA-256 of the snapshot, of its files as for Parquet, and of the deleted rows."""
        digest = hashlib.sha256(repr(sorted(self.snapshots.items())).encode())
        digest.update(super().fingerprint().encode())
        digest.update("\n".join(sorted(self._deletes)).encode(errors="surrogateescape"))
        for name in sorted(self._deleted):
            digest.update(name.encode(errors="surrogateescape") + self._deleted[name].bits.tobytes())
        return digest.hexdigest()


class _Pieces:
    """The rows of row groups, in the order in which they are read. groups: the first row of each in its file, and its rows."""

    def __init__(self, groups: list[tuple[int, int]], bitmap: Bitmap) -> None:
        self._groups, self._bitmap = groups, bitmap
        self._at = self._done = 0  # the group, and the rows of it that were read

    def next(self, rows: int) -> NDArray[np.bool_]:
        """Whether each of the next rows is kept."""
        kept: list[NDArray[np.bool_]] = []
        while rows:
            start, total = self._groups[self._at]
            taken = min(rows, total - self._done)
            kept.append(self._bitmap.kept(start + self._done, start + self._done + taken))
            rows, self._done = rows - taken, self._done + taken
            if self._done == total:
                self._at, self._done = self._at + 1, 0
        return np.concatenate(kept) if kept else np.zeros(0, np.bool_)

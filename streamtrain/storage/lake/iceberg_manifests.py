"""The live files of an Iceberg snapshot, and what deletes rows of them."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyiceberg.avro.file import AvroFile
from pyiceberg.manifest import DATA_FILE_TYPE, MANIFEST_ENTRY_SCHEMAS, ManifestContent
from pyiceberg.transforms import IdentityTransform

from streamtrain.errors import CorruptError, DataError
from streamtrain.storage.lake.iceberg_files import TableFiles
from streamtrain.storage.lake.snapshot import BitmapOf, LiveFile, StoredDeletes, name_below

__all__ = ["Live", "live_files"]

_V3 = 3  # its fields are those of the versions before, and more
_STATUS, _SEQUENCE, _FILE = 0, 3, 2  # fields of an entry of a manifest, by their numbers in the specification
_ADDED, _DELETED = 1, 2
_CONTENT, _PATH, _FORMAT, _PARTITION, _BYTES = 134, 100, 101, 102, 104
_COUNT, _REFERENCED, _OFFSET, _LENGTH = 103, 143, 144, 145
_OF_FILE = (_CONTENT, _PATH, _FORMAT, _PARTITION, _COUNT, _BYTES, _REFERENCED, _OFFSET, _LENGTH)
_POSITIONS, _EQUALITY = 1, 2  # contents of a file of deletes
_PUFFIN, _PARQUET = "PUFFIN", "PARQUET"
_BATCH_ROWS = 65_536


class Live(NamedTuple):
    """files: in the order of the manifests. partitions: the values of columns that are the same in all rows of a file, by the
    number of the column; of those that every file has. partial: the numbers of such columns of some files only."""

    files: list[LiveFile]
    partitions: dict[int, list[Any]]
    partial: set[int]
    deletes: list[StoredDeletes]


class _Entry(NamedTuple):
    """A file in a manifest. rows: those that it has, or deletes. spec: of its partition. sequence: orders changes."""

    content: int
    location: str
    format: str
    partition: Any
    rows: int
    nbytes: int
    referenced: str | None
    offset: int | None
    length: int | None
    spec: int
    sequence: int


def live_files(files: TableFiles, snapshot: Any, metadata: Any, root: Path) -> Live:
    """The live files of a snapshot. Raises DataError for what cannot be read: files that are not Parquet, rows that are deleted
    by their values."""
    data: list[_Entry] = []
    deletes: list[_Entry] = []
    for manifest in snapshot.manifests(files):
        is_deletes = manifest.content == ManifestContent.DELETES
        (deletes if is_deletes else data).extend(_entries(files, manifest))
    for entry in data:
        if entry.format.upper() != _PARQUET:
            raise DataError(
                f"{root}: the Iceberg table has a file in the format {entry.format}, {os.path.basename(entry.location)}: only "
                "Parquet files are read: rewrite the table's files"
            )
    names = {entry.location: name_below(root, files.path(entry.location)) for entry in data}
    live = [LiveFile(names[entry.location], entry.nbytes) for entry in data]
    partitions, partial = _partitions(data, metadata)
    of = _Deletes(root, files, {names[entry.location]: entry.sequence for entry in data})
    return Live(live, partitions, partial, of.stored(deletes))


def _entries(files: TableFiles, manifest: Any) -> Iterator[_Entry]:
    """The live entries of a manifest, without the statistics in it, which would take most of the memory."""
    with AvroFile[Any](files.new_input(manifest.manifest_path), MANIFEST_ENTRY_SCHEMAS[_V3]) as entries:
        for entry in entries:
            status, sequence, file = (entry[i] for i in _IN_ENTRY)
            if status == _DELETED:
                continue
            if sequence is None and (
                status == _ADDED or manifest.sequence_number == 0
            ):  # inherited, by the specification
                sequence = manifest.sequence_number
            if sequence is None:
                raise CorruptError(f"{manifest.manifest_path}: an entry has no sequence number: restore the manifest")
            yield _Entry._make([*(file[i] for i in _IN_FILE), manifest.partition_spec_id, int(sequence)])


def _positions_of(kind: Any, numbers: Sequence[int]) -> list[int]:
    """The positions of fields in a record. numbers: theirs in the specification."""
    position = {field.field_id: i for i, field in enumerate(kind.fields)}
    return [position[number] for number in numbers]


_IN_ENTRY = _positions_of(MANIFEST_ENTRY_SCHEMAS[_V3], (_STATUS, _SEQUENCE, _FILE))
_IN_FILE = _positions_of(DATA_FILE_TYPE[_V3], _OF_FILE)


def _partitions(data: list[_Entry], metadata: Any) -> tuple[dict[int, list[Any]], set[int]]:
    """The values of columns that are the same in all rows of a file: the table is partitioned by the column itself."""
    specs = {spec.spec_id: spec for spec in metadata.partition_specs}
    own = {
        number: {f.source_id: i for i, f in enumerate(spec.fields) if isinstance(f.transform, IdentityTransform)}
        for number, spec in specs.items()
    }
    used = {entry.spec for entry in data}
    every = set.intersection(*(set(own[number]) for number in used)) if used else set()
    some = {column for number in used for column in own[number]} - every
    columns = {column: [entry.partition[own[entry.spec][column]] for entry in data] for column in sorted(every)}
    return columns, some


class _Deletes:
    """Deleted rows by their positions: of vectors, and of Parquet files with a path and a number in each row.

    sequences: of the live files, by name. Deletes that are older than a file do not matter to it.
    """

    def __init__(self, root: Path, files: TableFiles, sequences: Mapping[str, int]) -> None:
        self._root, self._files, self._sequences = root, files, sequences
        self._with_vector: set[str] = set()

    def stored(self, entries: list[_Entry]) -> list[StoredDeletes]:
        """Raises DataError for deletes by equal values, and for other formats than Parquet and Puffin."""
        for entry in entries:
            if entry.content == _EQUALITY:
                raise DataError(
                    f"{self._root}: rows of the Iceberg table are deleted by equal values (an equality delete), which "
                    "streamtrain does not apply: compact the table (rewrite_data_files), and read it again"
                )
            if entry.content != _POSITIONS or entry.format.upper() not in (_PUFFIN, _PARQUET):
                raise DataError(
                    f"{self._root}: the Iceberg table has deletes in the format {entry.format}, which streamtrain cannot read: "
                    "compact the table (rewrite_data_files), and read it again"
                )
        entries = sorted(entries, key=lambda each: (each.location, each.offset or 0))
        vectors = [self._vector(entry) for entry in entries if entry.format.upper() == _PUFFIN]
        return [*filter(None, vectors), *(self._positions(each) for each in entries if each.format.upper() == _PARQUET)]

    def _name(self, location: str) -> str:
        return name_below(self._root, self._files.path(location))

    def _matters(self, entry: _Entry, name: str) -> bool:
        return self._sequences.get(name, entry.sequence + 1) <= entry.sequence

    def _identity(self, entry: _Entry) -> str:
        return f"{self._name(entry.location)} {entry.nbytes} {entry.offset} {entry.length}"

    def _vector(self, entry: _Entry) -> StoredDeletes | None:
        """A deletion vector. It holds what older position deletes said, so these do not matter to its file."""
        if entry.referenced is None or entry.offset is None or entry.length is None:
            raise CorruptError(
                f"{self._root}: a deletion vector of the Iceberg table names no file: restore the manifest"
            )
        name, path, offset, length = (
            self._name(entry.referenced),
            self._files.path(entry.location),
            entry.offset,
            entry.length,
        )
        if not self._matters(entry, name):
            return None
        self._with_vector.add(name)

        def add(bitmap_of: BitmapOf) -> None:
            if (bitmap := bitmap_of(name)) is not None:
                bitmap.add_stored(_vector_bytes(path, offset, length))
                bitmap.require_count(entry.rows)

        return StoredDeletes(self._identity(entry), add)

    def _positions(self, entry: _Entry) -> StoredDeletes:
        """A Parquet file of positions."""
        names: dict[str, str] = {}  # of the files of the table, by their locations

        def add(bitmap_of: BitmapOf) -> None:
            for location, positions in _positions_by_file(self._files, entry.location):
                name = names.setdefault(location, self._name(location))
                if (
                    name not in self._with_vector
                    and self._matters(entry, name)
                    and (bitmap := bitmap_of(name)) is not None
                ):
                    bitmap.add(positions)

        return StoredDeletes(self._identity(entry), add)


def _vector_bytes(path: str, offset: int, length: int) -> bytes:
    """The bytes of a deletion vector, which stand between their number and their checksum."""
    with open(path, "rb") as file:
        file.seek(offset)
        stored = file.read(length)
    data = stored[4:-4]
    sound = len(stored) == length and len(data) == int.from_bytes(stored[:4], "big")
    if not sound or zlib.crc32(data) != int.from_bytes(stored[-4:], "big"):
        raise CorruptError(f"{path}: the deletion vector at byte {offset:,} is damaged: restore the file")
    return data


def _positions_by_file(files: TableFiles, location: str) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """The locations of files, and rows that are deleted in each. They are sorted, so a file comes once or a few times."""
    path = files.path(location)
    with pq.ParquetFile(path, read_dictionary=["file_path"]) as stored:
        for batch in stored.iter_batches(_BATCH_ROWS, columns=["file_path", "pos"], use_threads=False):
            codes, positions = batch.column("file_path"), batch.column("pos").to_numpy(zero_copy_only=False)
            numbers = codes.indices.to_numpy(zero_copy_only=False)
            for code in np.unique(numbers).tolist():
                yield codes.dictionary[code].as_py(), positions[numbers == code]

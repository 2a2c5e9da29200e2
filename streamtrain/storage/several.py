"""Several sources as one: the rows of the first, then those of the second, and so on. They may have different formats."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.errors import UsageError, listed
from streamtrain.storage.arrow import as_batches, pick
from streamtrain.storage.checked import code_of, naming
from streamtrain.storage.files.columns import PROBLEM, FileColumns
from streamtrain.storage.files.partitions import Partitions
from streamtrain.storage.files.stamps import Stamped, Stamps
from streamtrain.storage.files.store import FileBacked, LocalFileStore, file_sizes, traffic
from streamtrain.storage.files.table_roots import split_version
from streamtrain.storage.reader import Chunk, ChunkTable, Reader, ReadsTogether, Streams, Warns, snapshots_of

__all__ = ["SeveralReader"]


@dataclass(frozen=True, slots=True)
class SourceChunk(Chunk):
    """A chunk of one of several sources. source: its number. inner: the chunk as that source has it."""

    source: int = field(kw_only=True)
    inner: Chunk = field(kw_only=True, repr=False)


class SeveralTable(ChunkTable):
    """The chunk tables of several sources, one after the other. numbers: the chunks of each that are read. cast_row_bytes: what
    a row takes for a moment where columns become another type."""

    def __init__(self, tables: Sequence[ChunkTable], numbers: Sequence[Any], cast_row_bytes: float) -> None:
        self._tables, self.numbers = tables, numbers
        self._ends = np.cumsum([len(some) for some in numbers])
        columns = [
            np.concatenate([getattr(t, name)[some] for t, some in zip(tables, numbers, strict=True)])
            for name in ("rows", "decoded_bytes", "read_peak_bytes")
        ]
        columns[2] = columns[2] + np.ceil(columns[0] * cast_row_bytes).astype(np.int64)
        super().__init__(self._key, *columns)

    @property
    def nbytes(self) -> int:
        return super().nbytes + sum(table.nbytes for table in self._tables)

    def _place(self, i: int) -> tuple[int, int]:
        """The source of a chunk, and the number of the chunk in it."""
        source = int(np.searchsorted(self._ends, i, "right"))
        return source, int(self.numbers[source][i - (int(self._ends[source - 1]) if source else 0)])

    def _key(self, i: int) -> str:
        source, number = self._place(i)
        return f"{self._tables[source].key(number)} of source {source + 1}"

    def _chunk(self, i: int) -> Chunk:
        source, number = self._place(i)
        own = super()._chunk(i)
        return SourceChunk(
            own.key, own.rows, own.decoded_bytes, own.read_peak_bytes, source=source, inner=self._tables[source][number]
        )


class SeveralReader:
    """Reads several sources, in the order given.

    The columns are those of all sources, with common types; a column that a source does not have is null there, and a warning
    says so. A local file of an earlier source is not read again. The key of a chunk is that in its source, and its number.

    sources: the reader of each. names: of each, for messages. twice: the names of further sources that are among them.
    Raises SchemaError if a column is there twice.
    """

    def __init__(self, sources: Sequence[Reader], names: Sequence[str], twice: Sequence[str] = ()) -> None:
        self.sources, self._names, self._twice = list(sources), list(names), list(twice)
        tables = [ChunkTable.of(source.chunks()) for source in sources]
        numbers = _each_file_once(self.sources, tables, self._twice)
        shown = [f"source {i} ({name})" for i, name in enumerate(names, 1)]
        self._columns = FileColumns(shown, partitions=Partitions([]))
        for source, table, some in zip(sources, tables, numbers, strict=True):
            self._columns.add(source.schema.remove_metadata(), has_rows=bool(table.rows[some].any()))
        self._columns.finish()
        self.schema = _with_problems(self._columns.schema, [source.schema for source in sources], shown)
        self._table = SeveralTable(tables, numbers, self._columns.cast_row_bytes)

    def chunks(self) -> ChunkTable:
        """The chunks of all sources, one source after the other."""
        return self._table

    def read(self, chunk: Chunk, columns: Sequence[str]) -> Any:
        """The columns of one chunk, in their common types."""
        return self._read([_own(chunk)], columns)

    def read_together(self, chunks: Sequence[Chunk], columns: Sequence[str]) -> Any:
        """The rows of several chunks; those of one source that follow each other in one call, if it can do that."""
        return self._read([_own(chunk) for chunk in chunks], columns)

    def _read(self, chunks: Sequence[SourceChunk], columns: Sequence[str]) -> pa.Table:
        batches: list[pa.RecordBatch] = []
        for number, some in groupby(chunks, key=lambda chunk: chunk.source):
            source, inner = self.sources[number], [chunk.inner for chunk in some]
            if not (stored := self._stored(number, columns)):
                batches.append(self._columns.assembled(None, sum(chunk.rows for chunk in inner), columns, number))
            elif len(inner) > 1 and isinstance(source, ReadsTogether):
                batches += self._assembled(source.read_together(inner, stored), columns, number)
            else:
                for chunk in inner:
                    with naming(chunk, code_of(source)):
                        found = list(as_batches(source.read(chunk, stored)))
                    batches += self._assembled(found, columns, number)
        return pa.Table.from_batches(batches, pa.schema([self._columns.schema.field(name) for name in columns]))

    def _stored(self, number: int, columns: Sequence[str]) -> list[str]:
        """The columns to read of a source. Raises ColumnError for one that no source has."""
        for name in columns:
            pick(self.schema, name, "read")
        return self._columns.stored(number, columns)

    def _assembled(self, data: Any, columns: Sequence[str], number: int) -> Iterator[pa.RecordBatch]:
        for batch in data if isinstance(data, list) else as_batches(data):
            yield self._columns.assembled(batch, batch.num_rows, columns, number)

    def stream(self, chunk: Chunk, columns: Sequence[str], rows: int) -> Iterator[Any]:
        """The chunk in slices of at most ``rows`` rows; in one piece if its source has no streams."""
        own = _own(chunk)
        source, stored = self.sources[own.source], self._stored(own.source, columns)
        if not stored:
            for start in range(0, own.rows, rows):
                yield self._columns.assembled(None, min(rows, own.rows - start), columns, own.source)
        elif not isinstance(source, Streams):
            yield from self._read([own], columns).to_batches()
        else:
            for data in source.stream(own.inner, stored, rows):
                yield from self._assembled(data, columns, own.source)

    def stream_peak_bytes(self, chunk: Chunk, rows: int) -> int:
        """As its source says, and what a cast takes."""
        own = _own(chunk)
        source = self.sources[own.source]
        if not isinstance(source, Streams):
            return own.read_peak_bytes
        return source.stream_peak_bytes(own.inner, rows) + int(rows * self._columns.cast_row_bytes)

    def fingerprint(self) -> str | None:
        """A hash of the fingerprints of the sources in their order, and of the chunks that are read; None if one has none."""
        digest = hashlib.sha256(b"several")
        for source in self.sources:
            if (own := source.fingerprint()) is None:
                return None
            digest.update(f"{own}\0".encode())
        digest.update(self._table.rows.tobytes())
        return digest.hexdigest()

    def warnings(self, columns: Sequence[str]) -> list[str]:
        """What to say of these columns in all sources, and the files that were found twice."""
        found = self._columns.warnings(columns)
        for number, source in enumerate(self.sources):
            if isinstance(source, Warns) and (stored := self._columns.stored(number, columns)):
                found += source.warnings(stored)
        if self._twice:
            count = "1 source or file was" if len(self._twice) == 1 else f"{len(self._twice):,} sources or files were"
            found.append(f"{count} given twice, and is read once: {listed(self._twice)}")
        return found

    def stamps(self) -> Stamps:
        """The stamps of the files of all sources. A source without stamps has one that is always the same."""
        values, file_of, names = list[np.uint64](), [], list[str]()
        for number, source in enumerate(self.sources):
            chosen, count = self._table.numbers[number], len(values)
            if isinstance(source, Stamped):
                own = source.stamps()
                file_of.append(own.file_of[chosen] + count)
                values += list(own.values)
                names += [own.name(i) for i in range(len(own.values))]
            else:
                file_of.append(np.full(len(chosen), count, np.int64))
                values.append(np.uint64(0))
                names.append(f"source {number + 1}")
        return Stamps(np.array(values, np.uint64), np.concatenate(file_of), names.__getitem__)

    def chunk_files(self) -> tuple[Sequence[str], NDArray[np.int64]]:
        """The paths of the files of all sources, and the number of the file of each chunk; shape (chunks,). A source without
        files is one."""
        paths, file_of = list[str](), []
        for source, name, chosen in zip(self.sources, self._names, self._table.numbers, strict=True):
            first = len(paths)
            if isinstance(source, FileBacked):
                store, names = source.stored_files
                paths += [store.shown(each) for each in names]
                file_of.append(source.chunk_files()[1][chosen] + first)
            else:
                paths.append(name)
                file_of.append(np.full(len(chosen), first, np.int64))
        return paths, np.concatenate(file_of)

    # -- sizes: see what `load.demand` asks of a reader -------------------------------------------------------------------

    @property
    def row_oriented(self) -> bool:
        """Whether reading some columns of a source costs as much as reading all."""
        return any(getattr(source, "row_oriented", False) for source in self.sources)

    @property
    def open_bytes(self) -> int:
        """The memory that a file being read takes while its footer is parsed."""
        return max(getattr(source, "open_bytes", 0) for source in self.sources)

    @property
    def package_bytes(self) -> int:
        """See `LakeReader`."""
        return max(getattr(source, "package_bytes", 0) for source in self.sources)

    @property
    def footers_bytes(self) -> int:
        """The memory of the footers that are kept."""
        return sum(getattr(source, "footers_bytes", 0) for source in self.sources)

    @property
    def stored_bytes(self) -> int | None:
        """The bytes of all sources as stored; None if one does not tell."""
        each: list[Any] = [getattr(source, "stored_bytes", None) for source in self.sources]
        return None if None in each else sum(each)

    @property
    def file_sizes(self) -> dict[str, int] | None:
        """The bytes of the data files of all sources, by name and number of the source; None if there are none."""
        each = [(number, file_sizes(source) or {}) for number, source in enumerate(self.sources, 1)]
        return {f"{name} of source {n}": size for n, sizes in each for name, size in sizes.items()} or None

    @property
    def snapshots(self) -> dict[str, str]:
        """Of the tables among the sources: see `snapshots_of`. A version that is named does not decide for another source."""
        order = sorted(range(len(self.sources)), key=lambda i: split_version(self._names[i])[1] is None)
        return {table: snapshot for i in order for table, snapshot in snapshots_of(self.sources[i]).items()}

    @property
    def traffic(self) -> Any:
        """The counts of requests to servers so far, of all sources; None if there is no server."""
        counts = [own for source in self.sources if (own := traffic(source)) is not None]
        return _Traffic(counts) if counts else None


class _Traffic:
    def __init__(self, counts: Sequence[dict[str, int]]) -> None:
        self._counts = counts

    def as_dict(self) -> dict[str, int]:
        return {name: sum(own[name] for own in self._counts) for name in self._counts[0]}


def _own(chunk: Chunk) -> SourceChunk:
    if not isinstance(chunk, SourceChunk):
        raise UsageError(f"chunk {chunk.key!r} does not belong to this reader: use chunks from its chunks()")
    return chunk


def _each_file_once(sources: Sequence[Reader], tables: Sequence[ChunkTable], twice: list[str]) -> list[Any]:
    """The numbers of the chunks of each source whose local files no earlier source has. twice: gets the names of the others."""
    seen, numbers = set[tuple[int, int]](), list[Any]()
    for source, table in zip(sources, tables, strict=True):
        kept = np.ones(len(table), np.bool_)
        if isinstance(source, FileBacked) and isinstance(source.stored_files[0], LocalFileStore):
            stamps = source.stamps()
            paths = [source.stored_files[0].shown(stamps.name(i)) for i in range(len(stamps.values))]
            own = [_identity(path) for path in paths]
            again = np.array([each in seen for each in own], np.bool_)
            kept = ~again[stamps.file_of] if len(table) else kept
            twice += [path for path, is_again in zip(paths, again.tolist(), strict=True) if is_again]
            seen |= {each for each in own if each is not None}
        numbers.append(np.flatnonzero(kept))
    return numbers


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _with_problems(schema: pa.Schema, own: Sequence[pa.Schema], shown: Sequence[str]) -> pa.Schema:
    """The schema, with the problems that columns have in a source: what cannot be read there cannot be read here."""
    for each, name in zip(own, shown, strict=True):
        for column in each:
            problem = (column.metadata or {}).get(PROBLEM)
            made = schema.field(column.name)
            if problem is not None and PROBLEM not in (made.metadata or {}):
                kind = column.type if pa.types.is_null(column.type) else made.type
                metadata = {**(made.metadata or {}), PROBLEM: f"{name}: ".encode() + problem}
                schema = schema.set(schema.get_field_index(column.name), pa.field(column.name, kind, metadata=metadata))
    return schema

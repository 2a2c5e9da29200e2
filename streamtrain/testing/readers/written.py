"""The checks that need data whose rows are known, and that are written without the reader; as in `checks`."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa

from streamtrain.errors import StreamtrainError
from streamtrain.storage.checked import read_columns
from streamtrain.storage.reader import Chunk, Reader
from streamtrain.testing.readers.checks import claimed_fingerprint, require
from streamtrain.testing.readers.compare import plain, read_raw
from streamtrain.testing.readers.subject import CheckFailed, Skipped, Subject, Writer

_ROWS = 300
_OLD_SECONDS = 86_400  # a modification time


def all_rows(subject: Subject) -> None:
    """The chunks, in order, hold every row that was written, once."""
    writer = subject.writes()
    _same_as_written(writer, writer.table(1000))


def one_row(subject: Subject) -> None:
    """Data of one row."""
    writer = subject.writes()
    _same_as_written(writer, writer.table(1))


def empty(subject: Subject) -> None:
    """Data of no rows: none are read, or they are refused with an error of streamtrain."""
    writer = subject.writes()
    target = writer.write(writer.table(1).slice(1))
    try:
        reader = writer.open(target)
        found = sum(read_raw(reader, chunk).num_rows + chunk.rows for chunk in reader.chunks())
    except StreamtrainError:
        return
    except Exception as error:
        raise CheckFailed(
            f"data of no rows: {type(error).__name__}: {error}: give no chunks, or a DataError"
        ) from error
    require(found == 0, "data of no rows: rows were declared, or read")


def nulls(subject: Subject) -> None:
    """Nulls stay nulls, in every column."""
    writer = subject.writes()
    if not writer.nulls:
        raise Skipped("the format has no nulls")
    table = writer.table(_ROWS)
    columns = [[None if (row + i) % 3 == 1 else value for row, value in enumerate(column.to_pylist())]
               for i, column in enumerate(table.columns)]  # fmt: skip
    arrays = [pa.array(values, field.type) for values, field in zip(columns, table.schema, strict=True)]
    _same_as_written(writer, pa.table(arrays, schema=table.schema))


def _same_as_written(writer: Writer, table: pa.Table) -> None:
    reader = writer.reader(table)
    tables = [plain(read_raw(reader, chunk)) for chunk in reader.chunks() if chunk.rows]
    wanted = plain(table)
    require(
        sorted(reader.schema.names) == list(wanted), f"columns {reader.schema.names}, but written were {list(wanted)}"
    )
    for name, values in wanted.items():
        found = [value for part in tables for value in part[name]]
        require(len(found) == len(values), f"{len(found):,} rows were read, but {len(values):,} were written")
        for row, (value, written) in enumerate(zip(found, values, strict=True)):
            require(value == written, f"column {name!r}, row {row:,}: read {value!r}, written was {written!r}")


def fingerprint_of_copy(subject: Subject) -> None:
    """A copy of the data elsewhere, made at another time, has the same fingerprint."""
    writer = subject.writes()
    folder, table = writer.folder(), writer.table(_ROWS)
    target = writer.make(folder, table)
    first = claimed_fingerprint(writer.open(target))
    elsewhere = writer.folder() / "copy"
    if isinstance(target, (str, Path)) and str(folder) in str(target):
        shutil.copytree(folder, elsewhere)
        moved: Any = type(target)(str(target).replace(str(folder), str(elsewhere)))
    else:  # not a path: written once more
        elsewhere.mkdir()
        moved = writer.make(elsewhere, table)
    for path in elsewhere.rglob("*"):
        os.utime(path, (_OLD_SECONDS, _OLD_SECONDS))
    require(claimed_fingerprint(writer.open(moved)) == first,
            "a copy in another folder, with other times, has another fingerprint")  # fmt: skip


def fingerprint_of_other(subject: Subject) -> str | None:
    """Other data have another fingerprint: more rows, a column of another name. Other values of the same size should."""
    writer = subject.writes()
    table = writer.table(_ROWS)
    first = claimed_fingerprint(writer.reader(table))

    def changed(other: pa.Table) -> bool:
        return claimed_fingerprint(writer.reader(other)) != first

    require(changed(writer.table(_ROWS + 1)), "one row more, and the fingerprint is the same")
    names = table.column_names
    renamed = table.rename_columns([*names[:-1], f"{names[-1]}_2"])
    require(changed(renamed), f"column {names[-1]!r} renamed, and the fingerprint is the same")
    if not changed(table.take(list(range(_ROWS))[::-1])):
        return "the same values in reverse order have the same fingerprint: a change that keeps sizes goes unnoticed"
    return None


def damaged(subject: Subject) -> None:
    """Damaged data are an error that names the chunk, or which of several files it was."""
    writer = subject.writes()
    if writer.damage is None:
        raise Skipped("nobody said how to damage the data: ReaderTests.damage")
    folder, table = writer.folder(), writer.table(_ROWS)
    target = writer.make(folder, table)
    before = writer.open(target)
    readers = [(before, list(before.chunks()))]
    writer.damage(folder)
    try:
        after = writer.open(target)
        readers.append((after, list(after.chunks())))
    except StreamtrainError:  # it may refuse to open them
        pass
    for reader, chunks in readers:
        failures = [found for chunk in chunks if (found := _failure(reader, chunk)) is not None]
        require(bool(failures), f"damaged data were read without an error, from {chunks[0].key} on")
        for chunk, error in failures:
            require(isinstance(error, StreamtrainError), f"{chunk.key}: raised {type(error).__name__}: {error}")
            require(_names(error, chunk, folder), f"{chunk.key}: the error does not name it: {error}")


def _failure(reader: Reader, chunk: Chunk) -> tuple[Chunk, Exception] | None:
    try:
        for _ in read_columns(reader, chunk, reader.schema.names):
            pass
    except Exception as error:
        return chunk, error
    return None


def _names(error: Exception, chunk: Chunk, folder: Path) -> bool:
    """By every word of its key, by the file in the key, or by one of several files."""
    said = str(error)
    files = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    if len(files) == 1:
        files = []
    files += [file.partition("/")[2] for file in files]  # of a store that is a folder
    files.append(chunk.key.rpartition(":")[0])
    words = set(re.findall(r"\w+", chunk.key))
    return words <= set(re.findall(r"\w+", said)) or any(file and file in said for file in files)

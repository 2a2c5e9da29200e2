"""Checks with data of known rows, which are written without the reader. See `checks`."""

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
from streamtrain.testing.readers.checks import claimed_fingerprint
from streamtrain.testing.readers.compare import plain, read_raw
from streamtrain.testing.readers.subject import CheckFailed, Skipped, Subject, Writer, require

_ROWS = 300
_OLD_SECONDS = 86_400  # a modification time


def all_rows(subject: Subject) -> None:
    """The chunks contain all written rows, once and in order."""
    writer = subject.writes()
    _same_as_written(writer, writer.table(1000))


def one_row(subject: Subject) -> None:
    """Data of one row are read."""
    writer = subject.writes()
    _same_as_written(writer, writer.table(1))


def empty(subject: Subject) -> None:
    """Data without rows have no rows, or opening them raises a StreamtrainError."""
    writer = subject.writes()
    target = writer.write(writer.table(1).slice(1))
    try:
        reader = writer.open(target)
        rows = sum(read_raw(reader, chunk).num_rows + chunk.rows for chunk in reader.chunks())
    except StreamtrainError:
        return
    except Exception as error:
        raise CheckFailed(
            f"data without rows: {type(error).__name__}: {error}: return no chunks, or raise a DataError"
        ) from error
    require(rows == 0, "data without rows: rows were declared or read")


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
    expected = plain(table)
    names = reader.schema.names
    require(sorted(names) == list(expected), f"the reader has columns {names}, but {list(expected)} were written")
    for name, values in expected.items():
        read = [value for part in tables for value in part[name]]
        require(len(read) == len(values), f"{len(read):,} rows were read, but {len(values):,} were written")
        for row, (value, written) in enumerate(zip(read, values, strict=True)):
            require(value == written, f"column {name!r}, row {row:,}: {value!r} was read, but {written!r} was written")


def fingerprint_of_copy(subject: Subject) -> None:
    """A copy of the data in another place and with other file times has the same fingerprint."""
    writer = subject.writes()
    folder, table = writer.folder(), writer.table(_ROWS)
    target = writer.make(folder, table)
    first = claimed_fingerprint(writer.open(target))
    elsewhere = writer.folder() / "copy"
    if isinstance(target, (str, Path)) and str(folder) in str(target):
        shutil.copytree(folder, elsewhere)
        moved: Any = type(target)(str(target).replace(str(folder), str(elsewhere)))
    else:  # not a path: write the data again
        elsewhere.mkdir()
        moved = writer.make(elsewhere, table)
    for path in elsewhere.rglob("*"):
        os.utime(path, (_OLD_SECONDS, _OLD_SECONDS))
    require(claimed_fingerprint(writer.open(moved)) == first,
            "a copy in another folder, with other times, has another fingerprint")  # fmt: skip


def fingerprint_of_other(subject: Subject) -> str | None:
    """Data with another row or another column name have another fingerprint. Other values of the same size should have one."""
    writer = subject.writes()
    table = writer.table(_ROWS)
    first = claimed_fingerprint(writer.reader(table))

    def changed(other: pa.Table) -> bool:
        return claimed_fingerprint(writer.reader(other)) != first

    require(changed(writer.table(_ROWS + 1)), "the fingerprint is the same with one more row")
    names = table.column_names
    renamed = table.rename_columns([*names[:-1], f"{names[-1]}_2"])
    require(changed(renamed), f"the fingerprint is the same with another name for column {names[-1]!r}")
    if not changed(table.take(list(range(_ROWS))[::-1])):
        return "the fingerprint is the same with the rows in reverse: a change that keeps all sizes goes unnoticed"
    return None


def damaged(subject: Subject) -> None:
    """Reading damaged data raises a StreamtrainError that names the chunk, or the damaged file if there are several."""
    writer = subject.writes()
    if writer.damage is None:
        raise Skipped("how to damage the data is not defined: override ReaderTests.damage")
    folder, table = writer.folder(), writer.table(_ROWS)
    target = writer.make(folder, table)
    before = writer.open(target)
    readers = [(before, list(before.chunks()))]
    writer.damage(folder)
    try:
        after = writer.open(target)
        readers.append((after, list(after.chunks())))
    except StreamtrainError:  # opening may fail already
        pass
    for reader, chunks in readers:
        failures = [failure for chunk in chunks if (failure := _failure(reader, chunk)) is not None]
        require(bool(failures), f"damaged data were read without an error, starting at {chunks[0].key}")
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
    """Whether an error names a chunk: by all words of its key, by the file in the key, or by one of several files."""
    message = str(error)
    files = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    if len(files) == 1:
        files = []
    files += [file.partition("/")[2] for file in files]  # of a store that is a folder itself
    files.append(chunk.key.rpartition(":")[0])
    words = set(re.findall(r"\w+", chunk.key))
    return words <= set(re.findall(r"\w+", message)) or any(file and file in message for file in files)

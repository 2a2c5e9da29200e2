"""Checks for any reader. A check is a function ``check(subject)`` that raises CheckFailed or Skipped, or returns a warning."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any

import pyarrow as pa

from streamtrain.storage.arrow import as_batches
from streamtrain.storage.reader import Chunk, Reader, ReadsTogether, Streams
from streamtrain.testing.readers.compare import difference, read_raw, table_of
from streamtrain.testing.readers.subject import CheckFailed, Skipped, Subject, require
from streamtrain.testing.readers.threads import in_threads

__all__ = ["claimed_fingerprint", "streaming"]

_READS = 4


def same(actual: pa.Table, expected: pa.Table, what: str) -> None:
    """Raise CheckFailed unless two tables are equal. what: the beginning of the message."""
    message = difference(actual, expected)
    require(message is None, f"{what}: {message}")


# -- schema and chunks --------------------------------------------------------------------------------------------------------


def members(subject: Subject) -> None:
    """The reader has the four members, and they have the right types."""
    reader: Any = subject.open()
    for name in ("schema", "chunks", "read", "fingerprint"):
        require(hasattr(reader, name), f"{type(reader).__name__} has no {name}")
    schema: Any = reader.schema
    fingerprint: Any = reader.fingerprint()
    require(isinstance(schema, pa.Schema), f"schema is a {type(schema).__name__}, but must be a pyarrow.Schema")
    require(len(schema) > 0, "schema has no columns")
    require(len(set(schema.names)) == len(schema), f"schema has two columns of the same name: {schema.names}")
    require(fingerprint is None or bool(isinstance(fingerprint, str) and fingerprint),
            f"fingerprint() returned {fingerprint!r}, but must return a string or None")  # fmt: skip


def chunks(subject: Subject) -> None:
    """Keys are unique strings, sizes are whole numbers, and every call and every instance returns the same chunks."""
    reader = subject.open()
    listed, keys = reader.chunks(), set()
    for number, chunk in enumerate(listed):
        key: Any = chunk.key
        require(
            isinstance(key, str) and bool(key), f"chunk {number}: the key {key!r} must be a string that is not empty"
        )
        require(chunk.key not in keys, f"chunk {number}: the key {chunk.key!r} is also the key of another chunk")
        keys.add(chunk.key)
        for name in ("rows", "decoded_bytes", "read_peak_bytes"):
            size: Any = getattr(chunk, name)
            require(
                isinstance(size, int) and size >= 0,
                f"{chunk.key}: {name} is {size!r}, but must be an integer of at least 0",
            )
    require(len(keys) == len(listed), f"len(chunks()) is {len(listed):,}, but iterating gives {len(keys):,} chunks")
    for other, what in ((reader.chunks(), "called again"), (subject.open().chunks(), "in another instance")):
        for first, second in zip_longest(listed, other):
            require(first == second, f"{what}, chunks() returned {second} instead of {first}")


def rows(subject: Subject) -> None:
    """Each chunk has the declared number of rows."""
    reader = subject.open()
    for chunk in subject.sample(reader):
        count = read_raw(reader, chunk).num_rows
        require(count == chunk.rows, f"{chunk.key}: {count:,} rows were read, but {chunk.rows:,} were declared")


def types(subject: Subject) -> None:
    """The columns of each chunk have the types of the schema."""
    reader = subject.open()
    for chunk in subject.sample(reader):
        for field in read_raw(reader, chunk).schema:
            expected = reader.schema.field(field.name).type
            require(
                field.type == expected,
                f"{chunk.key}: column {field.name!r} is {field.type}, but the schema says {expected}",
            )


# -- reading --------------------------------------------------------------------------------------------------------


def projection(subject: Subject) -> None:
    """A read returns the requested columns in the requested order: each column alone, and all in reverse."""
    reader = subject.open()
    names = reader.schema.names
    for chunk in _few(subject.sample(reader)):
        whole = read_raw(reader, chunk)
        for columns in ([name] for name in names):
            same(read_raw(reader, chunk, columns), whole.select(columns), f"{chunk.key}, column {columns[0]!r} alone")
        same(read_raw(reader, chunk, names[::-1]), whole.select(names[::-1]), f"{chunk.key}, all columns reversed")


def repeated(subject: Subject) -> None:
    """A chunk gives the same rows when it is read again, also in another instance."""
    reader, other = subject.open(), subject.open()
    for chunk in subject.sample(reader):
        first = read_raw(reader, chunk)
        same(read_raw(reader, chunk), first, f"{chunk.key}, read twice")
        same(read_raw(other, chunk), first, f"{chunk.key}, read by another instance")


def concurrent(subject: Subject) -> None:
    """Eight threads that share one instance read the same as one thread."""
    reader = subject.open()
    names = reader.schema.names
    expected = [
        (chunk, columns, read_raw(reader, chunk, columns))
        for chunk in sorted(subject.sample(reader), key=lambda c: c.decoded_bytes)[:4]
        for columns in (names, names[::-1], names[:1])
    ]

    def read_some(seed: int) -> None:
        for chunk, columns, table in random.Random(seed).sample(expected * _READS, _READS):
            same(read_raw(reader, chunk, columns), table, f"{chunk.key}, read while others read")

    in_threads(read_some)


def slices(subject: Subject) -> None:
    """A stream gives the same rows as a read, in slices of at most the given rows; also several streams at once, some of which
    are closed half-way."""
    reader = streaming(subject.open())
    for chunk in _few(subject.sample(reader)):
        whole, columns = read_raw(reader, chunk), reader.schema.names
        for size in sorted({1 + chunk.rows // 7, chunk.rows, chunk.rows + 1}):
            what = f"{chunk.key}, in slices of {size:,} rows"
            same(_joined(reader, chunk, columns, size, what), whole, what)
        backward = columns[::-1]
        abandoned = iter(reader.stream(chunk, columns, 1 + chunk.rows // 3))
        next(abandoned)
        beside = zip_longest(*(reader.stream(chunk, backward, 1 + chunk.rows // 3) for _ in range(2)))
        for parts in zip(*beside, strict=True):
            table = pa.concat_tables([table_of(part) for part in parts if part is not None])
            same(table, whole.select(backward), f"{chunk.key}, two streams at once")


def _joined(reader: Any, chunk: Chunk, columns: Sequence[str], size: int, what: str) -> pa.Table:
    parts = [table_of(part) for part in reader.stream(chunk, columns, size)]
    require(max(part.num_rows for part in parts) <= size, f"{what}: a slice has more rows than that")
    return pa.concat_tables(parts)


def streaming(reader: Reader) -> Any:
    """The reader, if it has streams. Raises Skipped otherwise."""
    if not isinstance(reader, Streams):
        raise Skipped("the reader has no streams: it does not define stream and stream_peak_bytes")
    return reader


def read_together(subject: Subject) -> None:
    """Several chunks read in one call have the rows of each, those of the first chunk first."""
    reader = subject.open()
    if not isinstance(reader, ReadsTogether):
        raise Skipped("the reader reads one chunk at a time: it does not define read_together")
    chunks = subject.sample(reader)
    for some, columns in ((chunks, reader.schema.names), (chunks[::2], reader.schema.names[::-1])):
        each = pa.concat_tables([read_raw(reader, chunk, columns) for chunk in some])
        same(table_of(reader.read_together(some, columns)), each, f"{len(some)} chunks in one call")


def _few(chosen: Sequence[Chunk]) -> list[Chunk]:
    """The first and the last of some chunks."""
    return [chosen[0], *chosen[1:][-1:]]


# -- other processes -------------------------------------------------------------------------------------------------------


def pickling(subject: Subject) -> None:
    """A pickled copy, made before or after a read, behaves like the reader."""
    reader = subject.open()
    early = pickle.loads(pickle.dumps(reader))
    chunk = subject.sample(reader)[0]
    expected = read_raw(reader, chunk)
    for copy, when in ((early, "before"), (pickle.loads(pickle.dumps(reader)), "after")):
        require(copy.schema == reader.schema, f"a copy that was pickled {when} a read has another schema")
        require(list(copy.chunks()) == list(reader.chunks()), f"a copy that was pickled {when} a read has other chunks")
        same(read_raw(copy, chunk), expected, f"{chunk.key}, read by a copy that was pickled {when} a read")


def other_process(subject: Subject) -> None:
    """A new process reads the same with a pickled reader."""
    findings = subject.findings
    if findings.problem is not None and "cannot be pickled" in findings.problem:
        raise Skipped(findings.problem)
    require(findings.problem is None, f"{findings.problem}")
    require(findings.digests == findings.expected, "a new process reads other values with the pickled reader")


# -- fingerprint and errors ------------------------------------------------------------------------------


def fingerprint(subject: Subject) -> None:
    """The fingerprint is the same for every call, instance and pickled copy."""
    reader = subject.open()
    first = claimed_fingerprint(reader)
    require(reader.fingerprint() == first, "called again, fingerprint() returned another value")
    require(subject.open().fingerprint() == first, "another instance has another fingerprint")
    with _unless_unpicklable():
        require(pickle.loads(pickle.dumps(reader)).fingerprint() == first, "a pickled copy has another fingerprint")


@contextmanager
def _unless_unpicklable() -> Iterator[None]:
    """Ignore that a reader cannot be pickled, which the check ``pickling`` reports."""
    try:
        yield
    except (pickle.PicklingError, TypeError, AttributeError):
        return


def claimed_fingerprint(reader: Reader) -> str:
    """The fingerprint of a reader. Raises Skipped if it has none."""
    fingerprint = reader.fingerprint()
    if fingerprint is None:
        raise Skipped("the reader has no fingerprint, so a run cannot tell whether its data are still the same")
    return fingerprint


_ABSENT = "no such column"


def unknown_column(subject: Subject) -> None:
    """Reading a column that does not exist raises a KeyError (such as ColumnError) that names it."""
    reader = subject.open()
    error = _refusal(reader, subject.sample(reader)[0])
    require(
        isinstance(error, KeyError),
        f"reading column {_ABSENT!r} raised {type(error).__name__}, but must raise a KeyError",
    )
    require(_ABSENT in str(error), f"reading column {_ABSENT!r} raised an error that does not name it: {error}")


def _refusal(reader: Reader, chunk: Chunk) -> Exception:
    try:
        for _ in as_batches(reader.read(chunk, [reader.schema.names[0], _ABSENT])):
            pass
    except Exception as error:
        return error
    raise CheckFailed(f"{chunk.key}: reading column {_ABSENT!r} raised no error")


def after_failure(subject: Subject) -> None:
    """The reader works as before after a read that failed."""
    reader = subject.open()
    chunk = subject.sample(reader)[0]
    expected = read_raw(subject.open(), chunk)
    for _ in range(3):
        _refusal(reader, chunk)
        try:
            table = read_raw(reader, chunk)
        except Exception as error:
            raise CheckFailed(f"{chunk.key}: after a read that failed: {type(error).__name__}: {error}") from error
        same(table, expected, f"{chunk.key}, after a read that failed")

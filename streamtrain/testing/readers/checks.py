"""The checks of any reader, as plain functions: ``check(subject)`` raises CheckFailed or Skipped, or returns a warning."""

from __future__ import annotations

import pickle
import random
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any

import pyarrow as pa

from streamtrain.storage.arrow import as_batches
from streamtrain.storage.reader import Chunk, Reader, Streams
from streamtrain.testing.readers.compare import difference, read_raw, table_of
from streamtrain.testing.readers.subject import CheckFailed, Skipped, Subject

__all__ = ["claimed_fingerprint", "require", "streaming"]

_THREADS, _READS, _THREADS_SECONDS = 8, 4, 120.0


def require(holds: bool, message: str) -> None:
    """Raise CheckFailed unless it holds."""
    if not holds:
        raise CheckFailed(message)


def same(found: pa.Table, wanted: pa.Table, what: str) -> None:
    differs = difference(found, wanted)
    require(differs is None, f"{what}: {differs}")


# -- what it says --------------------------------------------------------------------------------------------------------


def members(subject: Subject) -> None:
    """The four members are there, and give what they should."""
    reader: Any = subject.open()
    for name in ("schema", "chunks", "read", "fingerprint"):
        require(hasattr(reader, name), f"{type(reader).__name__} has no {name}")
    schema: Any = reader.schema
    fingerprint: Any = reader.fingerprint()
    require(isinstance(schema, pa.Schema), f"schema is a {type(schema).__name__}, not a pyarrow.Schema")
    require(len(schema) > 0, "schema has no columns")
    require(len(set(schema.names)) == len(schema), f"schema has a name twice: {schema.names}")
    require(fingerprint is None or bool(isinstance(fingerprint, str) and fingerprint),
            f"fingerprint() gave {fingerprint!r}, not a string (or None)")  # fmt: skip


def chunks(subject: Subject) -> None:
    """Keys are unique strings, sizes are whole numbers, and the list is the same every time and in every instance."""
    reader = subject.open()
    listed, keys = reader.chunks(), set()
    for place, chunk in enumerate(listed):
        key: Any = chunk.key
        require(isinstance(key, str) and bool(key), f"chunk {place}: key {key!r} is not a string")
        require(chunk.key not in keys, f"chunk {place}: key {chunk.key!r} is that of another chunk too")
        keys.add(chunk.key)
        for name in ("rows", "decoded_bytes", "read_peak_bytes"):
            size: Any = getattr(chunk, name)
            require(isinstance(size, int) and size >= 0, f"{chunk.key}: {name} is {size!r}, not a whole number")
    require(len(keys) == len(listed), f"len(chunks()) is {len(listed):,}, but it has {len(keys):,} chunks")
    for other, what in ((reader.chunks(), "asked again"), (subject.open().chunks(), "another instance")):
        for first, second in zip_longest(listed, other):
            require(first == second, f"{what}, chunks() gave {second} instead of {first}")


def rows(subject: Subject) -> None:
    """Each chunk has the rows that it declares."""
    reader = subject.open()
    for chunk in subject.sample(reader):
        found = read_raw(reader, chunk).num_rows
        require(found == chunk.rows, f"{chunk.key}: gave {found:,} rows, but declares {chunk.rows:,}")


def types(subject: Subject) -> None:
    """What is read has the types of the schema."""
    reader = subject.open()
    for chunk in subject.sample(reader):
        for field in read_raw(reader, chunk).schema:
            wanted = reader.schema.field(field.name).type
            require(
                field.type == wanted, f"{chunk.key}: column {field.name!r} is {field.type}, the schema says {wanted}"
            )


# -- what is read --------------------------------------------------------------------------------------------------------


def projection(subject: Subject) -> None:
    """The columns that were asked for, in the order asked: each alone, all reversed."""
    reader = subject.open()
    names = reader.schema.names
    for chunk in _few(subject.sample(reader)):
        whole = read_raw(reader, chunk)
        for columns in ([name] for name in names):
            same(read_raw(reader, chunk, columns), whole.select(columns), f"{chunk.key}, column {columns[0]!r} alone")
        same(read_raw(reader, chunk, names[::-1]), whole.select(names[::-1]), f"{chunk.key}, all columns reversed")


def repeated(subject: Subject) -> None:
    """The same chunk gives the same rows again, in another instance too."""
    reader, other = subject.open(), subject.open()
    for chunk in subject.sample(reader):
        first = read_raw(reader, chunk)
        same(read_raw(reader, chunk), first, f"{chunk.key}, read twice")
        same(read_raw(other, chunk), first, f"{chunk.key}, read by another instance")


def concurrent(subject: Subject) -> None:
    """Eight threads read from one instance what one thread reads."""
    reader = subject.open()
    names = reader.schema.names
    wanted = [
        (chunk, columns, read_raw(reader, chunk, columns))
        for chunk in sorted(subject.sample(reader), key=lambda c: c.decoded_bytes)[:4]
        for columns in (names, names[::-1], names[:1])
    ]

    def read_some(seed: int) -> None:
        for chunk, columns, table in random.Random(seed).sample(wanted * _READS, _READS):
            same(read_raw(reader, chunk, columns), table, f"{chunk.key}, read while others read")

    _in_threads(read_some)


def _in_threads(work: Callable[[int], None]) -> None:
    """Raise what one of the threads raised. They switch often, start together, and are given up after two minutes."""
    start, errors = threading.Barrier(_THREADS), []

    def one(number: int) -> None:
        try:
            start.wait(_THREADS_SECONDS)
            work(number)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(i,), daemon=True) for i in range(_THREADS)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(_THREADS_SECONDS)
    finally:
        sys.setswitchinterval(interval)
    for error in errors:
        raise error
    require(
        not any(thread.is_alive() for thread in threads), f"{_THREADS} threads: not done in {_THREADS_SECONDS:.0f} s"
    )


def slices(subject: Subject) -> None:
    """Streams give the rows of a read, in slices of at most so many rows, several side by side, some given up half-way."""
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
            same(table, whole.select(backward), f"{chunk.key}, two streams side by side")


def _joined(reader: Any, chunk: Chunk, columns: Sequence[str], size: int, what: str) -> pa.Table:
    parts = [table_of(part) for part in reader.stream(chunk, columns, size)]
    require(max(part.num_rows for part in parts) <= size, f"{what}: a slice has more rows")
    return pa.concat_tables(parts)


def streaming(reader: Reader) -> Any:
    if not isinstance(reader, Streams):
        raise Skipped("the reader does not claim it: it has no stream and stream_peak_bytes")
    return reader


def _few(chosen: Sequence[Chunk]) -> list[Chunk]:
    """The first and the last."""
    return [chosen[0], *chosen[1:][-1:]]


# -- where it goes -------------------------------------------------------------------------------------------------------


def pickling(subject: Subject) -> None:
    """A copy made by pickle, before and after a read, is the same reader."""
    reader = subject.open()
    early = pickle.loads(pickle.dumps(reader))
    chunk = subject.sample(reader)[0]
    wanted = read_raw(reader, chunk)
    for copy, when in ((early, "before"), (pickle.loads(pickle.dumps(reader)), "after")):
        require(copy.schema == reader.schema, f"pickled {when} a read, the copy has another schema")
        require(list(copy.chunks()) == list(reader.chunks()), f"pickled {when} a read, the copy has other chunks")
        same(read_raw(copy, chunk), wanted, f"{chunk.key}, read by a copy that was pickled {when} a read")


def other_process(subject: Subject) -> None:
    """A fresh process, to which the reader was sent, reads the same."""
    found = subject.findings
    if found.problem is not None and "cannot be pickled" in found.problem:
        raise Skipped(found.problem)
    require(found.problem is None, f"{found.problem}")
    require(found.digests == found.expected, "a fresh process, to which the reader was sent, reads other values")


# -- what it is called, and what goes wrong ------------------------------------------------------------------------------


def fingerprint(subject: Subject) -> None:
    """The same when asked again, in another instance, in a copy and in a fresh process."""
    reader = subject.open()
    first = claimed_fingerprint(reader)
    require(reader.fingerprint() == first, "asked again, fingerprint() gave another one")
    require(subject.open().fingerprint() == first, "another instance has another fingerprint")
    with _unless_unpicklable():
        require(pickle.loads(pickle.dumps(reader)).fingerprint() == first, "a pickled copy has another fingerprint")


@contextmanager
def _unless_unpicklable() -> Iterator[None]:
    """That a reader cannot be pickled is said by the check of that."""
    try:
        yield
    except (pickle.PicklingError, TypeError, AttributeError):
        return


def claimed_fingerprint(reader: Reader) -> str:
    """Raises Skipped where the reader has none."""
    found = reader.fingerprint()
    if found is None:
        raise Skipped("the reader has no fingerprint: what a run has read cannot be recognised again")
    return found


_ABSENT = "no such column"


def unknown_column(subject: Subject) -> None:
    """To read a column that is not there is a KeyError (ColumnError is one) that names it."""
    reader = subject.open()
    error = _refusal(reader, subject.sample(reader)[0])
    require(isinstance(error, KeyError), f"reading column {_ABSENT!r} raised {type(error).__name__}, not a KeyError")
    require(_ABSENT in str(error), f"reading column {_ABSENT!r} raised an error that does not name it: {error}")


def _refusal(reader: Reader, chunk: Chunk) -> Exception:
    try:
        for _ in as_batches(reader.read(chunk, [reader.schema.names[0], _ABSENT])):
            pass
    except Exception as error:
        return error
    raise CheckFailed(f"{chunk.key}: reading column {_ABSENT!r} raised nothing")


def after_failure(subject: Subject) -> None:
    """A read that failed leaves the reader as it was."""
    reader = subject.open()
    chunk = subject.sample(reader)[0]
    wanted = read_raw(subject.open(), chunk)
    for _ in range(3):
        _refusal(reader, chunk)
        try:
            found = read_raw(reader, chunk)
        except Exception as error:
            raise CheckFailed(f"{chunk.key}: after a read that failed: {type(error).__name__}: {error}") from error
        same(found, wanted, f"{chunk.key}, after a read that failed")

"""Wrappers of a reader that make it misbehave on purpose, or count its reads. They are thread-safe and picklable if the inner
reader is, and have all its other attributes, streams included.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import pyarrow as pa

from streamtrain.errors import UsageError
from streamtrain.storage.reader import Chunk, Reader, Streams
from streamtrain.testing.readers.compare import table_of

__all__ = ["CorruptReader", "CountingReader", "FlakyReader", "SlowReader"]


class _Wrapper:
    """Passes all calls on to a reader. `_before` is called before each read or stream, `_after` with the result of a read and
    with every slice, `_done` at the end of a read or stream."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self._lock = threading.Lock()
        self._offer_streams()

    def _offer_streams(self) -> None:
        if isinstance(
            self.reader, Streams
        ):  # set on the instance, because a class with these methods would always claim to have streams
            self.stream = self._stream
            self.stream_peak_bytes = self.reader.stream_peak_bytes

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "reader":  # not set yet, because a copy is being made
            raise AttributeError(name)
        return getattr(self.reader, name)

    def __getstate__(self) -> dict[str, Any]:
        bound = ("_lock", "stream", "stream_peak_bytes")
        return {name: value for name, value in self.__dict__.items() if name not in bound}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())
        self._offer_streams()

    @property
    def schema(self) -> pa.Schema:
        return self.reader.schema

    def chunks(self) -> Sequence[Chunk]:
        return self.reader.chunks()

    def fingerprint(self) -> str | None:
        return self.reader.fingerprint()

    def read(self, chunk: Chunk, columns: Sequence[str]) -> Any:
        self._before(chunk)
        try:
            return self._after(chunk, self.reader.read(chunk, columns))
        finally:
            self._done(chunk)

    def _stream(self, chunk: Chunk, columns: Sequence[str], rows: int) -> Iterator[Any]:
        self._before(chunk)
        try:
            for part in self.reader.stream(chunk, columns, rows):  # type: ignore[attr-defined]
                yield self._after(chunk, part)
        finally:
            self._done(chunk)

    def _before(self, chunk: Chunk) -> None: ...

    def _after(self, chunk: Chunk, data: Any) -> Any:
        return data

    def _done(self, chunk: Chunk) -> None: ...


class FlakyReader(_Wrapper):
    """A reader whose first reads of some chunks fail.

    failures: the number of reads of each of these chunks that fail. chunks: the keys of these chunks; by default a random
    ``share`` of all, which depends on ``seed`` and key alone. error: makes the exception from a message.

    >>> from streamtrain import open_reader
    >>> reader = FlakyReader(open_reader({"x": [1.0, 2.0]}), failures=1)
    >>> reader.read(reader.chunks()[0], ["x"])
    Traceback (most recent call last):
    ConnectionResetError: rows[0:]: failed on purpose (1 of 1)
    >>> reader.read(reader.chunks()[0], ["x"]).num_rows
    2
    """

    def __init__(
        self, reader: Reader, failures: int = 1, *, chunks: Collection[str] | None = None, share: float = 1.0,
        seed: int = 0, error: Callable[[str], Exception] = ConnectionResetError,
    ) -> None:  # fmt: skip
        super().__init__(reader)
        if failures < 0 or not 0 <= share <= 1:
            raise UsageError(f"failures={failures}, share={share}: failures must be at least 0, and share from 0 to 1")
        self.failures, self.share, self.seed, self.error = failures, share, seed, error
        self.keys = None if chunks is None else frozenset(chunks)
        self.failed: Counter[str] = Counter()

    def _before(self, chunk: Chunk) -> None:
        if self.keys is None:
            chosen = random.Random(f"{self.seed}/{chunk.key}").random() < self.share
        else:
            chosen = chunk.key in self.keys
        with self._lock:
            if not chosen or self.failed[chunk.key] >= self.failures:
                return
            self.failed[chunk.key] += 1
            number = self.failed[chunk.key]
        raise self.error(f"{chunk.key}: failed on purpose ({number} of {self.failures})")


class SlowReader(_Wrapper):
    """A reader that waits for ``seconds`` before it returns from a read, and before each slice of a stream."""

    def __init__(self, reader: Reader, seconds: float) -> None:
        super().__init__(reader)
        if seconds < 0:
            raise UsageError(f"seconds={seconds}: must be at least 0")
        self.seconds = seconds

    def _after(self, chunk: Chunk, data: Any) -> Any:
        time.sleep(self.seconds)
        return data


_LIES: dict[str, Callable[[pa.Table], pa.Table]] = {
    "fewer rows": lambda table: table.slice(1),
    "more rows": lambda table: pa.concat_tables([table, table.slice(0, 1)]),
    "other values": lambda table: table.take(list(range(table.num_rows))[::-1]),
    "other types": lambda table: table.cast(pa.schema([(name, pa.string()) for name in table.column_names])),
    "other columns": lambda table: table.rename_columns([f"{name}?" for name in table.column_names]),
    "no batch": lambda table: None,
}


class CorruptReader(_Wrapper):
    """A reader that returns wrong data, the same each time.

    lie: ``"fewer rows"``, ``"more rows"``, ``"other values"`` (the rows in reverse order), ``"other types"`` (text),
    ``"other columns"`` (other names) or ``"no batch"`` (None). chunks: the keys of these chunks; all by default.

    >>> from streamtrain import open_reader
    >>> reader = CorruptReader(open_reader({"x": [1.0, 2.0]}), "other values")
    >>> reader.read(reader.chunks()[0], ["x"]).column("x").to_pylist()
    [2.0, 1.0]
    """

    def __init__(self, reader: Reader, lie: str, *, chunks: Collection[str] | None = None) -> None:
        super().__init__(reader)
        if lie not in _LIES:
            raise UsageError(f"lie={lie!r}: must be one of {', '.join(_LIES)}")
        self.lie, self.keys = lie, None if chunks is None else frozenset(chunks)

    def _after(self, chunk: Chunk, data: Any) -> Any:
        return _LIES[self.lie](table_of(data)) if self.keys is None or chunk.key in self.keys else data


class CountingReader(_Wrapper):
    """A reader that counts: ``reads`` by chunk key, streams included; the ``rows`` and Arrow bytes (``nbytes``) that it
    returned; the reads that run ``now``, and the ``most`` that ran at once.

    >>> from streamtrain import open_reader
    >>> reader = CountingReader(open_reader({"x": [1.0, 2.0]}))
    >>> for _ in range(3):
    ...     batch = reader.read(reader.chunks()[0], ["x"])
    >>> reader.reads, reader.rows, reader.nbytes, reader.most
    (Counter({'rows[0:]': 3}), 6, 48, 1)
    """

    def __init__(self, reader: Reader) -> None:
        super().__init__(reader)
        self.reads: Counter[str] = Counter()
        self.rows = self.nbytes = self.now = self.most = 0

    def _before(self, chunk: Chunk) -> None:
        with self._lock:
            self.reads[chunk.key] += 1
            self.now += 1
            self.most = max(self.most, self.now)

    def _after(self, chunk: Chunk, data: Any) -> Any:
        table = table_of(data)
        with self._lock:
            self.rows += table.num_rows
            self.nbytes += table.nbytes
        return table

    def _done(self, chunk: Chunk) -> None:
        with self._lock:
            self.now -= 1

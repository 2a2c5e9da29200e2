"""Readers that misbehave on purpose do just that; and how training bears them."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from make import WAIT

import streamtrain
from streamtrain.errors import CorruptError, DataError, SchemaError, UsageError
from streamtrain.storage.checked import read_columns
from streamtrain.storage.reader import Reader, Streams
from streamtrain.testing import CorruptReader, CountingReader, FlakyReader, SlowReader

ROWS = 200_000
DIGITS = "data/digits.parquet"

WRAPPERS: dict[str, Callable[[Reader], Any]] = {
    "flaky": lambda reader: FlakyReader(reader, 0),
    "slow": lambda reader: SlowReader(reader, 0.0),
    "corrupt": lambda reader: CorruptReader(reader, "fewer rows", chunks=()),
    "counting": CountingReader,
}


@pytest.fixture
def memory() -> Reader:
    x = np.arange(ROWS)
    return streamtrain.open_reader({"x": x.astype(np.float32), "y": x % 2})


@pytest.fixture
def digits(request: pytest.FixtureRequest) -> Reader:
    return streamtrain.open_reader(str(request.config.rootpath / DIGITS))


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapper_streams_where_the_reader_does(memory: Reader, digits: Reader, name: str) -> None:
    for inner in (memory, digits):
        wrapped = WRAPPERS[name](inner)
        for reader in (wrapped, pickle.loads(pickle.dumps(wrapped)), WRAPPERS[name](wrapped)):
            assert isinstance(reader, Reader) and isinstance(reader, Streams) == isinstance(inner, Streams)
            assert reader.schema == inner.schema and list(reader.chunks()) == list(inner.chunks())
            assert reader.fingerprint() == inner.fingerprint()
            chunk, columns = inner.chunks()[0], inner.schema.names[:2]
            assert sum(b.num_rows for b in read_columns(reader, chunk, columns)) == chunk.rows
            if isinstance(inner, Streams):
                assert sum(part.num_rows for part in reader.stream(chunk, columns, 100)) == chunk.rows
                assert reader.stream_peak_bytes(chunk, 100) == inner.stream_peak_bytes(chunk, 100)
    assert WRAPPERS[name](digits).stored_bytes > 10_000  # what else it has
    assert not hasattr(WRAPPERS[name](digits), "no_such_thing")


def test_what_a_copy_streams_is_watched_too(digits: Reader) -> None:
    copy = pickle.loads(pickle.dumps(CountingReader(digits)))
    assert sum(part.num_rows for part in copy.stream(copy.chunks()[0], ["digit"], 100)) == copy.rows > 0


def failures(reader: Any, times: int) -> dict[str, int]:
    found = {}
    for chunk in reader.chunks():
        for _ in range(times):
            try:
                reader.read(chunk, ["x"])
            except ConnectionResetError:
                found[chunk.key] = found.get(chunk.key, 0) + 1
    return found


def test_flaky(memory: Reader, digits: Reader) -> None:
    keys = [chunk.key for chunk in memory.chunks()]
    assert len(keys) == 4
    assert failures(FlakyReader(memory, 2), 4) == dict.fromkeys(keys, 2)
    assert failures(FlakyReader(memory, 1, chunks=keys[1:2]), 4) == {keys[1]: 1}
    chosen = [failures(FlakyReader(memory, share=0.5, seed=seed), 2) for seed in (0, 0, 1, 2, 3)]
    assert chosen[0] == chosen[1] and any(c != chosen[0] for c in chosen[2:])
    flaky = FlakyReader(digits, error=TimeoutError)
    with pytest.raises(TimeoutError, match=r"digits\.parquet:0: failed on purpose \(1 of 1\)"):
        next(flaky.stream(flaky.chunks()[0], ["x0"], 10))
    with pytest.raises(CorruptError, match=r"rows\[65536:\]: cannot be read: ConnectionResetError"):
        streamtrain.fit(FlakyReader(memory, chunks=keys[1:2]), target="y", classes=["0", "1"])
    with pytest.raises(UsageError, match=r"share=1.5"):
        FlakyReader(memory, share=1.5)


def test_slow(memory: Reader) -> None:
    started = time.perf_counter()
    SlowReader(memory, 0.05).read(memory.chunks()[0], ["x"])
    assert time.perf_counter() - started >= 0.05
    with pytest.raises(UsageError, match="must be at least 0"):
        SlowReader(memory, -1)


@pytest.mark.parametrize(
    ("lie", "error", "says"),
    [
        ("fewer rows", CorruptError, r"rows\[65536:\]: 65,535 rows were read, but 65,536 were declared"),
        ("more rows", CorruptError, r"rows\[65536:\]: 65,537 rows were read"),
        ("other columns", SchemaError, r"rows\[65536:\]: the reader returned columns \['x\?'\]"),
        ("no batch", DataError, r"rows\[65536:\]: a reader returned NoneType"),
    ],
)
def test_lies_are_found(memory: Reader, lie: str, error: type[Exception], says: str) -> None:
    reader = CorruptReader(memory, lie, chunks=["rows[65536:]"])
    first, second = reader.chunks()[0:2]
    assert len(list(read_columns(reader, first, ["x"]))) == 1
    with pytest.raises(error, match=says):
        list(read_columns(reader, second, ["x"]))
    with pytest.raises(UsageError, match="must be one of fewer rows, more rows"):
        CorruptReader(memory, "no lie")


def test_lies_that_nobody_can_find(memory: Reader) -> None:
    chunk = memory.chunks()[1]
    values = CorruptReader(memory, "other values").read(chunk, ["x"])["x"].to_pylist()
    assert values == memory.read(chunk, ["x"])["x"].to_pylist()[::-1]
    texts = CorruptReader(memory, "other types").read(chunk, ["y"])["y"].to_pylist()
    assert texts[:2] == ["0", "1"]


def test_counting(memory: Reader) -> None:
    reader = CountingReader(SlowReader(memory, 0.02))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda chunk: reader.read(chunk, ["x"]), reader.chunks(), timeout=WAIT))
    assert reader.reads == dict.fromkeys((chunk.key for chunk in reader.chunks()), 1)
    assert (reader.rows, reader.nbytes, reader.now) == (ROWS, 4 * ROWS, 0) and 2 <= reader.most <= 4
    reader = CountingReader(memory)
    assert streamtrain.fit(reader, target="y", classes=["0", "1"], threads=2).report.rows == ROWS
    assert set(reader.reads) == {chunk.key for chunk in reader.chunks()} and reader.most <= 2 and reader.now == 0

"""The loader: exact batches, each row once an epoch, the same bytes whoever reads, and a state that can be taken anywhere."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import WAIT, examples, wait_for
from numpy.typing import NDArray

from streamtrain.batch import Batch
from streamtrain.errors import BadValueError, CorruptError, DataError, SchemaError, UsageError
from streamtrain.load import Loader, Source, threads_of
from streamtrain.load import connected as connected_to
from streamtrain.load.ledger import Ledger
from streamtrain.load.schedulers import ThreadScheduler
from streamtrain.plan import Plan
from streamtrain.plan.order import held_out, streamed, windows
from streamtrain.storage.parquet.writer import ParquetTableWriter
from streamtrain.storage.reader import Chunk
from streamtrain.storage.tables import MemoryReader

KEYS = {"epoch", "window", "row", "rows_seen", "held_window", "held_row", "order"}


def columns(start: int, rows: int) -> dict[str, Any]:
    """What row number ``i`` holds is a function of i; float32 holds these exactly."""
    i = np.arange(start, start + rows)
    return {"x": i.astype(np.float32), "z": -i.astype(np.int64), "y": i % 3, "w": i.astype(np.float32) / 2}


class Rows:
    """A reader in memory with chunks of the given sizes; ``change`` may spoil what it returns."""

    schema = pa.record_batch(columns(0, 0)).schema

    def __init__(self, sizes: Sequence[int], change: Callable[[Chunk, pa.RecordBatch], Any] | None = None) -> None:
        self._sizes, self._change, self._lock = list(sizes), change, threading.Lock()
        self.read_rows, self.reads, self.open, self.most_open = 0, 0, 0, 0

    def chunks(self) -> list[Chunk]:
        return [Chunk(f"part-{i}", n, 24 * n, 48 * n + 100) for i, n in enumerate(self._sizes)]

    def _rows(self, chunk: Chunk, names: Sequence[str], first: int, last: int) -> Any:
        start = sum(self._sizes[: int(chunk.key.removeprefix("part-"))])
        batch = pa.record_batch(columns(start + first, last - first)).select(list(names))
        with self._lock:
            self.read_rows, self.reads = self.read_rows + batch.num_rows, self.reads + 1
        return batch if self._change is None else self._change(chunk, batch)

    def read(self, chunk: Chunk, names: Sequence[str]) -> Any:
        return self._rows(chunk, names, 0, chunk.rows)

    def fingerprint(self) -> str:
        return str(self._sizes)


class StreamedRows(Rows):
    """The same, with streams, which it counts."""

    def stream(self, chunk: Chunk, names: Sequence[str], rows: int) -> Iterator[Any]:
        with self._lock:
            self.open += 1
            self.most_open = max(self.open, self.most_open)
        try:
            for first in range(0, chunk.rows, rows):
                yield self._rows(chunk, names, first, min(first + rows, chunk.rows))
                yield self._rows(chunk, names, first, first)  # an empty slice is no end
        finally:
            with self._lock:
                self.open -= 1

    def stream_peak_bytes(self, chunk: Chunk, rows: int) -> int:
        return 48 * min(rows, chunk.rows)


class TogetherRows(Rows):
    """The same, which reads several chunks in one call, and counts the calls. A batch ends anywhere."""

    calls: list[int]

    def read_together(self, chunks: Sequence[Chunk], names: Sequence[str]) -> Any:
        self.calls = [*getattr(self, "calls", []), len(chunks)]
        parts = [self._rows(chunk, names, 0, chunk.rows) for chunk in chunks]
        whole = pa.Table.from_batches(parts).combine_chunks()
        return pa.Table.from_batches(whole.to_batches(max_chunksize=37), whole.schema)


def opened(data: Any, **chosen: Any) -> Source:
    source = Source.open(data, **({"target": "y", "weight": "w"} | chosen))
    return source.surveyed(classes=["0", "1", "2"]) if source.layout.target else source


def planned(source: Source, **asked: Any) -> Plan:
    knobs = {name: asked.pop(name) for name in ("read_share", "slice_rows", "windows_in_flight") if name in asked}
    return replace(source.plan(memory=10**9, **asked), **knobs)


Taken = tuple[bool, bytes, bytes, bytes, list[int]]


def take(batch: Batch) -> Taken:
    """What a batch holds, copied."""
    weights = b"" if batch.weights is None else batch.weights.tobytes()
    return batch.held_out, batch.features.tobytes(), batch.targets.tobytes(), weights, batch.rows.tolist()


def taken(source: Source, plan: Plan, *, epochs: int = 1, **options: Any) -> list[list[Taken]]:
    """The batches of each epoch."""
    with Loader(source, plan, epochs=epochs, **options) as loader:
        return [[take(batch) for batch in loader] for _ in range(epochs)]


def require_true(batch: Batch) -> None:
    """The batch holds what its positions say."""
    expected = columns(0, int(batch.rows.max()) + 1)
    np.testing.assert_array_equal(batch.features[:, 0], expected["x"][batch.rows])
    np.testing.assert_array_equal(batch.features[:, 1], expected["z"][batch.rows].astype(np.float32))
    np.testing.assert_array_equal(batch.targets, expected["y"][batch.rows])
    assert (batch.features.dtype, batch.targets.dtype) == (np.float32, np.int32)
    assert batch.features.flags.c_contiguous
    if batch.weights is not None:
        np.testing.assert_array_equal(batch.weights, expected["w"][batch.rows])


def no_threads_left() -> bool:
    """Whether the threads of every loader are gone, within a bounded wait."""
    wait_for(lambda: not any(t.name.startswith("streamtrain") for t in threading.enumerate()), "threads to end")
    return True


MIXED = [50, 0, 7, 120, 1, 64, 300, 0, 33, 9]  # 584 rows
READERS = {"whole": Rows, "streams": StreamedRows, "together": TogetherRows}


@examples(30)  # a row too few at a border of windows is found within ten
@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=12).filter(any),
    st.integers(1, 90),
    st.integers(1, 200),
    st.integers(0, 2**31),
    st.booleans(),
    st.sampled_from(list(READERS)),
    st.sampled_from([0.0, 0.3]),
)
def test_batches_are_of_the_exact_size_and_hold_each_row_once(
    sizes: list[int], batch_size: int, window_rows: int, seed: int, shuffle: bool, kind: str, holdout: float
) -> None:
    source = opened(READERS[kind](sizes))
    plan = planned(source, batch_size=batch_size, window_rows=window_rows, shuffle=shuffle, slice_rows=7)
    out = held_out(np.arange(sum(sizes)), holdout)
    with Loader(source, plan, seed=seed, holdout=holdout, epochs=2) as loader:
        for epoch in range(2):
            assert loader.epoch == epoch
            expected = len(loader)
            learned: list[NDArray[np.int64]] = []
            scored: list[NDArray[np.int64]] = []
            for batch in loader:
                require_true(batch)
                assert 0 < len(batch) <= batch_size
                (scored if batch.held_out else learned).append(batch.rows)
                assert len(learned) + len(scored) <= sum(sizes)  # an end, whatever is broken
            assert len(learned) + len(scored) == expected
            assert all(len(rows) == batch_size for rows in learned[:-1])
            assert sorted(np.concatenate([*learned, *scored]).tolist()) == list(range(sum(sizes)))
            assert not any(out[rows].any() for rows in learned) and all(out[rows].all() for rows in scored)
            assert loader.rows_seen == (epoch + 1) * int((~out).sum())
        assert list(loader) == []  # as many epochs as were asked for, and no more


@pytest.mark.parametrize("shuffle", [True, False])
def test_rows_of_a_window_are_handed_out_together_and_file_order_is_file_order(shuffle: bool) -> None:
    source = opened(StreamedRows(MIXED))
    plan = planned(source, batch_size=13, window_rows=100, shuffle=shuffle)
    found = [row for batch in taken(source, plan, seed=5)[0] for row in batch[4]]
    starts = source.table.starts
    for window in windows(source.table.rows, 100, seed=5, epoch=0, shuffle=shuffle):
        rows = [starts[p.chunk] + i for p in window for i in range(p.start, p.stop)]
        assert sorted(found[: len(rows)]) == sorted(rows)
        assert (found[: len(rows)] == rows) is not shuffle
        found = found[len(rows) :]
    assert found == []


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    source = opened(Rows(MIXED))
    plan = planned(source, batch_size=64, window_rows=200)
    first, second = taken(source, plan, epochs=2)
    other = taken(source, plan, seed=1)[0]
    assert first != second and first != other and second != other
    assert taken(source, plan, epochs=2) == [first, second]


@pytest.fixture(scope="module")
def parquet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files of 400 rows, row groups of 90."""
    folder = tmp_path_factory.mktemp("parquet")
    for i in range(2):
        with ParquetTableWriter(folder / f"{i}.parquet", Rows.schema, chunk_rows=90) as writer:
            writer.write(columns(400 * i, 400))
    return folder


@pytest.fixture(scope="module", params=["parquet", *READERS, "memory"])
def source(request: pytest.FixtureRequest, parquet: Path) -> Source:
    if request.param == "memory":
        return opened(MemoryReader(columns(0, 70_000)))
    return opened(str(parquet) if request.param == "parquet" else READERS[request.param](MIXED))


KNOBS: list[dict[str, Any]] = [
    {"threads": 1},
    {"threads": 4},
    {"read_share": 0.01},
    {"read_share": 0.4, "threads": 3},
    {"slice_rows": 1_000, "windows_in_flight": 1},
    {"slice_rows": 11, "threads": 4},
    {"windows_in_flight": 3},
]


@pytest.mark.parametrize("window", [0.15, 0.7, 1.0])
@pytest.mark.parametrize("shuffle", [True, False])
def test_batches_are_the_same_bytes_whatever_the_knobs(source: Source, shuffle: bool, window: float) -> None:
    rows = source.table.total_rows
    asked = {"batch_size": max(32, rows // 20), "window_rows": int(window * rows), "shuffle": shuffle}
    expected = taken(source, planned(source, threads=2, **asked), holdout=0.2, seed=3)
    assert sum(len(batch[4]) for batch in expected[0]) == rows
    for knobs in KNOBS:
        assert taken(source, planned(source, **asked, **knobs), holdout=0.2, seed=3) == expected, knobs


@contextmanager
def connected(*, processes: bool) -> Iterator[Any]:
    """A client of a cluster of two threads on this machine."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=processes, protocol="tcp", host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        Client(cluster, timeout=WAIT, set_as_default=False) as client,
    ):  # fmt: skip
        yield client


@pytest.fixture(scope="module", params=[False, True], ids=["threads", "processes"])
def client(request: pytest.FixtureRequest) -> Iterator[Any]:
    with connected(processes=request.param) as client:
        yield client


@pytest.mark.parametrize("window_rows", [150, 400, 800])
def test_a_cluster_gives_the_same_batches(client: Any, parquet: Path, window_rows: int) -> None:
    source = opened(str(parquet))
    plan = planned(source, batch_size=60, window_rows=window_rows, read_share=0.5)
    options = {"epochs": 2, "holdout": 0.1}
    assert taken(source, plan, cluster=client, **options) == taken(source, plan, **options)


def test_an_error_on_a_cluster_names_the_chunk(client: Any, parquet: Path, tmp_path: Path) -> None:
    with ParquetTableWriter(tmp_path / "a.parquet", Rows.schema, chunk_rows=90) as writer:
        writer.write(columns(0, 400))
    source = opened(str(tmp_path))
    broken = bytearray((tmp_path / "a.parquet").read_bytes())
    broken[200] ^= 1  # a bit of the first column
    (tmp_path / "a.parquet").write_bytes(broken)
    with pytest.raises(CorruptError, match=r"a\.parquet"):
        taken(source, planned(source, batch_size=60, window_rows=400), cluster=client)


class Unlucky(Rows):
    """Travels to the threads, and fails there."""

    def read(self, chunk: Chunk, names: Sequence[str]) -> Any:
        raise ZeroDivisionError("out of luck")

    def __getstate__(self) -> dict[str, Any]:
        return {"_sizes": self._sizes}


def test_a_foreign_error_on_a_cluster_names_the_chunk() -> None:
    source = replace(opened(Rows([20] * 4)), reader=Unlucky([20] * 4))
    plan = planned(source, batch_size=10)
    with connected(processes=False) as client, pytest.raises(CorruptError, match=r"part-\d: .*out of luck"):
        taken(source, plan, cluster=client)


@pytest.mark.parametrize(
    ("kind", "holdout", "shuffle", "batch_size", "window_rows"),
    [
        ("whole", 0.0, True, 64, 240),
        ("streams", 0.3, True, 70, 90),
        ("streams", 0.3, False, 64, 110),
        ("whole", 0.5, True, 40, 584),
        ("streams", 0.9, True, 28, 200),
        ("together", 0.3, True, 64, 200),
    ],
)
def test_the_state_can_be_taken_before_every_batch(
    kind: str, holdout: float, shuffle: bool, batch_size: int, window_rows: int
) -> None:
    source = opened(READERS[kind](MIXED))
    plan = planned(source, batch_size=batch_size, window_rows=window_rows, shuffle=shuffle, slice_rows=16)
    options: dict[str, Any] = {"holdout": holdout, "seed": 9, "epochs": 2}
    states, expected = [], []
    with Loader(source, plan, **options) as loader:
        for _ in range(2):
            states.append(loader.state_dict())
            for batch in loader:
                expected.append(take(batch))
                assert len(expected) <= 2 * sum(MIXED)  # an end, whatever is broken
                states.append(loader.state_dict())
    assert len(states) == len(expected) + 2 and len(expected) > 12
    ends = [i for i, state in enumerate(states) if state["epoch"] != states[max(0, i - 1)]["epoch"]]
    assert len(ends) == 1  # the state behind the last batch of an epoch is still in it
    places = [*range(ends[0]), *range(ends[0] - 1, len(expected) + 1)]
    for state, place in zip(states, places, strict=True):
        assert set(state) == KEYS and all(type(value) is int for value in state.values())
        with Loader(source, plan, **options) as loader:
            loader.load_state_dict(state)
            assert loader.state_dict() == state
            rest = itertools.islice(itertools.chain(loader, loader, loader), len(expected) + 1)
            found = [take(batch) for batch in rest]
        assert found == expected[place:], (state, place)


def test_a_state_can_be_loaded_into_a_loader_that_runs() -> None:
    source = opened(StreamedRows(MIXED))
    plan = planned(source, batch_size=50, window_rows=150)
    with Loader(source, plan, holdout=0.2) as loader:
        start = loader.state_dict()
        first = [take(batch) for batch in loader]
        next(iter(loader))
        loader.load_state_dict(start)
        assert [take(batch) for batch in loader] == first
        loader.load_state_dict(start)
        for _ in range(3):
            next(loader)
        loader.load_state_dict(start)
        assert [take(batch) for batch in loader] == first
        with pytest.raises(UsageError, match="the state of a loader has"):
            loader.load_state_dict({"epoch": 0})


@pytest.mark.parametrize("holdout", [0.0, 0.3])
def test_a_closed_loader_goes_on_from_its_state(holdout: float) -> None:
    source = opened(StreamedRows(MIXED))
    plan = planned(source, batch_size=50, window_rows=150)
    expected = [batch for epoch in taken(source, plan, epochs=2, holdout=holdout) for batch in epoch]
    loader, found = Loader(source, plan, epochs=2, holdout=holdout), []
    for _ in range(len(expected) + 1):  # closed behind every batch, the last of an epoch included
        batch = next(iter(loader), None)
        if batch is not None:
            found.append(take(batch))
            loader.close()
    assert found == expected
    assert list(loader) == []
    loader.close()
    loader.close()
    assert no_threads_left()


def test_closing_leaves_no_threads() -> None:
    source = opened(Rows([100] * 50))
    pool = pa.default_memory_pool().backend_name
    with Loader(source, planned(source, batch_size=10, window_rows=500, threads=4)) as loader:
        for batch in itertools.islice(loader, 7):
            require_true(batch)
        assert any(t.name.startswith("streamtrain") for t in threading.enumerate())
    assert no_threads_left()
    assert pa.default_memory_pool().backend_name == pool


@pytest.mark.parametrize("kind", ["whole", "streams"])
def test_a_slow_read_does_not_hold_up_closing(kind: str) -> None:
    began, go_on = threading.Event(), threading.Event()

    def change(chunk: Chunk, batch: pa.RecordBatch) -> pa.RecordBatch:
        if reader.read_rows > 200:  # beyond the first window
            began.set()
            assert go_on.wait(WAIT)
        return batch

    reader = READERS[kind]([100] * 40, change)
    source = replace(opened(Rows([100] * 40)), reader=reader)
    loader = Loader(source, planned(source, batch_size=10, window_rows=200, threads=1))
    require_true(next(loader))
    assert began.wait(WAIT)
    closer = threading.Thread(target=loader.close, daemon=True)
    closer.start()
    closer.join(WAIT / 3)  # the read goes on for longer
    closed = not closer.is_alive()
    go_on.set()
    closer.join(WAIT)
    assert closed
    assert no_threads_left()


def test_no_more_windows_are_read_than_are_planned() -> None:
    reader = Rows([100] * 40)
    source = opened(reader)
    for in_flight in (1, 2, 3):
        with Loader(
            source, planned(source, batch_size=100, window_rows=400, threads=4, windows_in_flight=in_flight)
        ) as loader:
            reader.read_rows = 0
            for windows_used in range(4):
                for _ in range(4):
                    next(loader)
                allowed = 400 * (windows_used + in_flight)
                wait_for(lambda enough=allowed: reader.read_rows >= enough, "the reads")
                time.sleep(0.05)  # whoever reads too much would have begun
                assert reader.read_rows == allowed
            assert loader.measured_bytes()["windows"] == in_flight * (loader.plan.window_rows * (8 + 4 + 4))


def test_streams_are_read_as_slices_and_few_are_open_at_a_time() -> None:
    sizes = [150_000] * 6 + [1_000] * 30
    reader = StreamedRows(sizes)
    source = opened(reader)
    plan = planned(source, batch_size=50_000, window_rows=140_000, threads=4, slice_rows=10_000)
    assert plan.streamed_chunks == 6
    biggest = [0]

    def change(chunk: Chunk, batch: pa.RecordBatch) -> pa.RecordBatch:
        biggest[0] = max(biggest[0], batch.num_rows)
        return batch

    reader._change, reader.read_rows = change, 0
    found = [row for batch in taken(source, plan)[0] for row in batch[4]]
    assert sorted(found) == list(range(sum(sizes)))
    assert reader.most_open == 2 and reader.open == 0  # most_streams(140_000)
    assert biggest[0] == 10_000
    assert reader.read_rows == sum(sizes)  # nothing was read twice


def test_a_chunk_that_is_streamed_is_never_read_whole() -> None:
    """A window may hold all rows of a chunk that the plan has no memory to read at once."""
    sizes = [100] * 20
    reader = StreamedRows(sizes)
    source = opened(reader)
    plan = planned(source, batch_size=50, window_rows=300, slice_rows=20)
    assert streamed(source.table.rows, 300).all()
    pieces = [p for window in windows(source.table.rows, 300, seed=0, epoch=0) for p in window]
    assert any(p.rows == 100 for p in pieces)
    reader.read = None  # type: ignore[assignment, method-assign]
    assert sorted(row for batch in taken(source, plan)[0] for row in batch[4]) == list(range(2_000))


def spoilt(kind: str, key: str, change: Callable[[pa.RecordBatch], Any], sizes: Sequence[int] = (40,) * 30) -> Source:
    """A source whose chunk ``key`` is spoilt, after the target was surveyed."""
    reader = READERS[kind](sizes, lambda chunk, batch: change(batch) if chunk.key == key else batch)
    return replace(opened(Rows(sizes)), reader=reader)


def failing(batch: pa.RecordBatch) -> Any:
    raise OSError("the disk is on fire")


@pytest.mark.parametrize(("kind", "window_rows"), [("whole", 200), ("streams", 100), ("whole", 100), ("together", 200)])
def test_an_error_arrives_in_its_place(kind: str, window_rows: int) -> None:
    good = opened(Rows([40] * 30))
    order = list(windows(good.table.rows, window_rows, seed=0, epoch=0))
    first = {chunk: i for i in reversed(range(len(order))) for chunk in {p.chunk for p in order[i]}}
    victim, at = next((chunk, i) for chunk, i in sorted(first.items()) if i >= 2)  # not in the windows read at once
    source = spoilt(kind, f"part-{victim}", failing)
    plan = planned(source, batch_size=20, window_rows=window_rows)
    before = sum(p.rows for window in order[:at] for p in window)
    expected = taken(good, plan)[0]
    with Loader(source, plan) as loader:
        assert [take(next(loader)) for _ in range(before // 20)] == expected[: before // 20]
        with pytest.raises(CorruptError, match=rf"part-{victim}: .*the disk is on fire") as caught:
            next(loader)
        assert at > 0 and isinstance(caught.value.__cause__, OSError)
        with pytest.raises(CorruptError, match=f"part-{victim}"):  # however often one asks
            next(loader)
        # the state stands where the error was: once the disk is well, it goes on
        loader.close()
        loader.source = good
        assert [take(batch) for batch in loader] == expected[before // 20 :]
    assert no_threads_left()


def column(batch: pa.RecordBatch, name: str, values: Any) -> pa.RecordBatch:
    if name not in batch.schema.names:
        return batch
    return batch.set_column(batch.schema.names.index(name), name, values)


SPOILT: list[tuple[Callable[[pa.RecordBatch], Any], type[Exception], str]] = [
    (lambda b: b.slice(1), CorruptError, r"part-3.*but 40 were declared"),
    (lambda b: pa.concat_batches([b, b]), CorruptError, r"part-3.*40 .*declared"),
    (
        lambda b: b.rename_columns([n.upper() for n in b.schema.names]),
        SchemaError,
        r"part-3: the reader returned columns",
    ),
    (lambda b: b.select(b.schema.names[::-1]), SchemaError, r"part-3: the reader returned columns .* were requested"),
    (lambda b: b.select(b.schema.names[:-1]), SchemaError, r"part-3: the reader returned columns"),
    (lambda b: column(b, "x", pa.array([0.5] * b.num_rows)), SchemaError, r"part-3: column 'x' is double, but float"),
    (lambda b: b.to_pydict(), DataError, r"part-3: a reader returned dict"),
    (lambda b: None, DataError, r"part-3: a reader returned NoneType"),
    (lambda b: column(b, "y", pa.array([7] * b.num_rows, pa.int64())), BadValueError, r"'y' is 7 in part-3.*--classes"),
    (lambda b: column(b, "w", pa.array([-1.0] * b.num_rows, pa.float32())), BadValueError, r"weight 'w'.* in part-3"),
]


@pytest.mark.parametrize(("change", "error", "message"), SPOILT, ids=range(len(SPOILT)))
@pytest.mark.parametrize("kind", READERS)
def test_wrong_rows_columns_and_types_are_named(
    kind: str, change: Callable[[pa.RecordBatch], Any], error: type[Exception], message: str
) -> None:
    source = spoilt(kind, "part-3", change)
    with pytest.raises(error, match=message):
        taken(source, planned(source, batch_size=20, window_rows=100 if kind == "streams" else 200, slice_rows=64))


@pytest.mark.parametrize("holdout", [0.0, 0.3])
def test_thousands_of_tiny_chunks_are_a_few_tasks_and_calls(holdout: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task of dask for each chunk took 3 kB."""
    graphs: list[int] = []
    run = ThreadScheduler.run
    monkeypatch.setattr(ThreadScheduler, "run", lambda own, tasks: (graphs.append(len(tasks)), run(own, tasks))[1])
    sizes, reader = [3] * 5_000, TogetherRows([3] * 5_000)
    with Loader(opened(reader), planned(opened(reader), batch_size=1_000), epochs=1, holdout=holdout) as loader:
        rows = [row for batch in loader for row in (require_true(batch), batch.rows.tolist())[1]]
    assert sorted(rows) == list(range(15_000))
    assert len(graphs) == 1 and graphs[0] < 30
    assert sum(reader.calls) == len(sizes) and len(reader.calls) < 60


def test_a_damaged_chunk_among_tiny_ones_is_named_and_skipped_alone() -> None:
    source = spoilt("together", "part-777", lambda batch: batch.slice(1), [2] * 1_000)
    plan = planned(source, batch_size=50)
    with pytest.raises(CorruptError, match=r"^part-777: 1 rows were read, but 2 were declared"):
        taken(source, plan)
    ledger = Ledger("data", source.table, most=0.01)
    rows = [row for batch in taken(source, plan, ledger=ledger)[0] for row in batch[4]]
    assert sorted(rows) == list(range(2_000)) and ledger.rows == 2
    assert [entry["chunk"] for entry in ledger.entries()] == ["part-777"]


def test_weights_and_targets_may_be_absent() -> None:
    plain = opened(Rows(MIXED), weight=None, exclude=["w"])
    for batch in Loader(plain, planned(plain, batch_size=100), epochs=1):
        require_true(batch)
        assert batch.weights is None
    source = opened(Rows(MIXED), target=None, features=["x"])
    with Loader(source, planned(source, batch_size=100), epochs=1) as loader:
        for batch in loader:
            assert batch.targets.shape == (0,) and batch.features.shape == (len(batch), 1)
            assert batch.weights is not None
            np.testing.assert_array_equal(batch.weights * 2, batch.features[:, 0])


@pytest.mark.parametrize("shuffle", [True, False])
def test_tensors_of_uint8_stay_small_in_a_window_and_arrive_as_float32(shuffle: bool) -> None:
    images = np.arange(700 * 6, dtype=np.int64).reshape(700, 2, 3) % 251
    source = opened({"X": images.astype(np.uint8), "y": np.arange(700) % 3}, weight=None)
    plan = planned(source, batch_size=64, window_rows=150, shuffle=shuffle)
    seen = []
    with Loader(source, plan, epochs=1, holdout=0.1) as loader:
        for batch in loader:
            assert batch.features.dtype == np.float32 and batch.features.flags.c_contiguous
            np.testing.assert_array_equal(batch.features, images.reshape(700, 6)[batch.rows])
            np.testing.assert_array_equal(batch.targets, batch.rows % 3)
            seen += batch.rows.tolist()
        assert loader.measured_bytes()["windows"] == 2 * 150 * (6 + 4)
    assert sorted(seen) == list(range(700))


def test_copies_outlive_the_next_batch() -> None:
    texts = [None if i % 5 == 0 else f"row {i}" for i in range(300)]
    data = columns(0, 300) | {"city": [f"c{i % 7}" for i in range(300)], "note": texts}
    source = opened(data, roles={"note": "text"}).with_roles()
    plan = planned(source, batch_size=40, window_rows=90)

    def everything(batch: Batch) -> Any:
        assert batch.hashes is not None and batch.texts is not None
        own = batch.texts.copy()
        return take(batch), batch.hashes.tobytes(), own.data.tobytes(), own.sizes.tobytes(), own.starts.tobytes()

    with Loader(source, plan, epochs=1, holdout=0.2) as loader:
        expected = [everything(batch) for batch in loader]
    with Loader(source, plan, epochs=1, holdout=0.2, copy=True) as loader:
        kept = list(loader)
    assert [everything(batch) for batch in kept] == expected
    assert not any(np.shares_memory(a.features, b.features) for a, b in itertools.pairwise(kept))
    assert all(len(batch.texts.data) <= 40 * len("row 299") for batch in kept if batch.texts is not None)


def test_a_source_surveys_itself_where_a_loader_needs_its_target() -> None:
    reader = Rows(MIXED)
    bare = Source.open(reader, target="y", weight="w")
    plan = planned(bare, batch_size=64, window_rows=200)
    assert taken(bare, plan) == taken(opened(Rows(MIXED)), plan)
    reader.read_rows = 0
    assert Loader(Source.open(reader, features=["x"]), plan).source.layout.target is None
    assert Loader(opened(reader), plan).source.layout.target is not None
    assert reader.read_rows == 0, "nothing is read where the target is known, or where there is none"


def test_the_rows_of_a_batch_are_no_search_of_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    source = opened(Rows([1000] * 5))
    with Loader(source, planned(source, batch_size=100, window_rows=5000), epochs=1, holdout=0.2) as loader:
        batches = iter(loader)
        first = next(batches)
        monkeypatch.setattr("streamtrain.load.window.row_positions", None)  # which all rows of the window would need
        require_true(first)
        for batch in batches:
            require_true(batch)


def test_names_and_shapes_of_features() -> None:
    images = np.arange(90 * 6, dtype=np.float64).reshape(90, 2, 3)
    days = pa.array(np.arange(90, dtype=np.int32), pa.date32())
    data = pa.table(
        {
            "x": np.arange(90.0),
            "X": pa.FixedShapeTensorArray.from_numpy_ndarray(images),
            "t": days,
            "y": np.arange(90) % 3,
        }
    )
    source = opened(data, weight=None)
    with Loader(source, planned(source, batch_size=32), epochs=1) as loader:
        assert loader.feature_names[:4] == ("x", "X[0,0]", "X[0,1]", "X[0,2]") and loader.feature_names[7] == "t.age"
        for batch in loader:
            np.testing.assert_array_equal(batch.tensor("X"), images[batch.rows])
            np.testing.assert_array_equal(batch.tensor("x"), batch.rows)
            assert batch.tensor("t").shape == (len(batch), 5) and np.shares_memory(batch.tensor("X"), batch.features)
            np.testing.assert_array_equal(batch.take(np.array([1, 0])).tensor("X"), images[batch.rows[[1, 0]]])
            np.testing.assert_array_equal(batch.part(1, 3).tensor("X"), images[batch.rows[1:3]])
            with pytest.raises(KeyError, match="'y' becomes numbers: must be one of 'x', 'X', 't'"):
                batch.tensor("y")


def test_features_beside_tensors() -> None:
    tensor = np.arange(300 * 4, dtype=np.float64).reshape(300, 4)
    source = opened({"a": np.arange(300, dtype=np.uint8), "X": tensor, "y": np.arange(300) % 3}, weight=None)
    with Loader(source, planned(source, batch_size=70, window_rows=200, read_share=0.1), epochs=1) as loader:
        for batch in loader:
            np.testing.assert_array_equal(batch.features[:, 0], (batch.rows % 256).astype(np.float32))
            np.testing.assert_array_equal(batch.features[:, 1:], tensor[batch.rows])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cluster": "processes"}, "--cluster processes: must be the address of a dask scheduler"),
        ({"cluster": 3}, "--cluster 3: must be the address"),
        ({"holdout": 1.0}, "--holdout 1.0"),
        ({"holdout": -0.1}, "--holdout -0.1"),
        ({"seed": -1}, "--seed -1"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    source = opened(Rows([10]))
    with pytest.raises(UsageError, match=message):
        Loader(source, planned(source), **options)
    assert no_threads_left()


@pytest.mark.parametrize(
    ("cluster", "says"),
    [
        ("processes", "--cluster processes: must be the address of a dask scheduler, as in tcp://host:8786"),
        (3, "--cluster 3: must be the address"),
        ("magic://nowhere:1", "--cluster magic://nowhere:1: cannot connect"),
    ],
)
def test_a_cluster_that_is_none(cluster: Any, says: str) -> None:
    pytest.importorskip("distributed")
    with pytest.raises(UsageError, match=says), connected_to(cluster):
        pass


def test_an_address_is_connected_to_and_let_go_of(client: Any) -> None:
    address = client.scheduler.address
    with connected_to(address) as own:
        assert own is not client and threads_of(own) == threads_of(client) >= 1
        assert own.submit(max, 1, 2).result(timeout=60) == 2
    assert own.status == "closed" and client.status == "running"
    source = opened({"x": np.arange(300.0), "y": np.arange(300) % 3}, weight=None)
    plan = planned(source, batch_size=60)
    assert taken(source, plan, cluster=address) == taken(source, plan)
    with connected_to(client) as same:
        assert same is client
    assert client.status == "running"
    with connected_to(None) as none:
        assert none is None and threads_of(none) is None

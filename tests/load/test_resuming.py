"""A loader goes on exactly from its state before every batch: whatever it reads, and whoever reads then."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamtrain.batch import Batch
from streamtrain.errors import UsageError
from streamtrain.load import Loader, Source
from streamtrain.load.cursor import START, order_of
from streamtrain.load.ledger import Ledger
from streamtrain.storage import open_reader
from streamtrain.storage.zarr.writer import ZarrWriter
from streamtrain.testing import assert_resumes_exactly

ROWS = 420
WORDS = np.array(["red", "blue", "green", "ümlaut", "a", "of", "the sea"])


def table(rows: int = ROWS) -> pa.Table:
    """Numbers, categories, texts and weights, some missing; ``at`` is the row's place."""
    rng, at = np.random.default_rng(0), np.arange(rows)
    texts = [None if i % 7 == 3 else " ".join(rng.choice(WORDS, rng.integers(4, 12))) for i in at]
    cities = [None if i % 11 == 0 else f"city {i % 13}" for i in at]
    return pa.table({
        "at": pa.array(at, pa.float32()), "z": pa.array(rng.normal(size=rows), mask=at % 5 == 0), "city": cities,
        "text": texts, "w": rng.uniform(0.5, 2, rows).astype(np.float32), "y": at % 3,
    })  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Row groups of 30 rows, and one of 150, which is streamed."""
    path = tmp_path_factory.mktemp("rows")
    pq.write_table(table().slice(0, 270), path / "a.parquet", row_group_size=30)
    pq.write_table(table().slice(270), path / "b.parquet")
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("zarr") / "rows.zarr"
    columns = {"X": ((3,), "f4"), "w": ((), "f4"), "y": ((), "i8")}
    with ZarrWriter(path, columns, rows=ROWS, chunk_rows=50) as writer:
        at = np.arange(ROWS)
        writer.write({"X": np.stack([at, -at, at % 7], axis=1), "w": at % 4 + 0.5, "y": at % 3})
    return path


def opened(data: Path, **options: Any) -> Source:
    source = Source.open(str(data), target="y", weight="w", **options)
    return source.surveyed().with_roles().with_offsets()


def loaders(
    source: Source, *, threads: int = 2, holdout: float = 0.0, epochs: int = 2, in_flight: int = 2, slice_rows: int = 16,
    **asked: Any,
) -> Callable[[], Loader]:  # fmt: skip
    plan = source.plan(memory=10**9, threads=threads, **asked)
    plan = replace(plan, windows_in_flight=in_flight, slice_rows=slice_rows)
    return lambda: Loader(source, plan, seed=3, holdout=holdout, epochs=epochs)


@pytest.mark.parametrize(
    ("threads", "asked"),
    [
        (1, {"batch_size": 40, "window_rows": 120, "holdout": 0.2}),
        (4, {"batch_size": 40, "window_rows": 120, "holdout": 0.6, "shuffle": False}),
        pytest.param(  # a batch is of three windows
            4, {"batch_size": 47, "window_rows": 40, "holdout": 0.1}, marks=pytest.mark.slow
        ),
        pytest.param(1, {"batch_size": 60, "window_rows": 60, "shuffle": False}, marks=pytest.mark.slow),  # or is one
        (4, {"batch_size": 40, "window_rows": ROWS}),
    ],
)
def test_over_parquet(folder: Path, asked: dict[str, Any], threads: int) -> None:
    """Numbers, categories and texts; by as many threads, and by others, who read other slices."""
    source = opened(folder)
    assert len(source.layout.hashes) == len(source.layout.texts) == 1
    make = loaders(source, threads=threads, **asked)
    with make() as loader:
        assert loader.plan.streamed_chunks >= (asked["window_rows"] < 150)
    assert_resumes_exactly(make, epochs=2, most=5)
    other = loaders(source, threads=5 - threads, in_flight=1 if threads == 4 else 3, slice_rows=7, **asked)
    assert_resumes_exactly(make, epochs=2, into=other)


@pytest.mark.parametrize("shuffle", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_over_zarr(store: Path, shuffle: bool) -> None:
    asked = {"batch_size": 40, "window_rows": 130, "holdout": 0.2, "shuffle": shuffle}
    make = loaders(opened(store), threads=1, **asked)
    assert_resumes_exactly(make, epochs=2, into=loaders(opened(store), threads=4, in_flight=1, **asked))


class Runs:
    """A loader as the trainer uses it: several batches at once."""

    def __init__(self, loader: Loader, most: int) -> None:
        self.loader, self.most = loader, most
        self.state_dict, self.load_state_dict, self.close = loader.state_dict, loader.load_state_dict, loader.close

    def __iter__(self) -> Iterator[Batch]:
        return self.loader.runs(self.most)


def test_several_batches_at_once(folder: Path) -> None:
    make = loaders(opened(folder), batch_size=20, window_rows=120, holdout=0.1)
    assert_resumes_exactly(lambda: Runs(make(), 4), epochs=2)
    with make() as loader:
        assert max(len(batch) for batch in loader.runs(4)) == 80


def test_one_that_had_gone_elsewhere(folder: Path) -> None:
    make = loaders(opened(folder), batch_size=40, window_rows=120, holdout=0.2, epochs=None)

    def used() -> Loader:
        loader = make()
        for _ in range(9):
            next(loader)
        return loader

    assert_resumes_exactly(make, epochs=2, into=used, most=8)


def test_a_stream_that_is_collected_while_another_is_opened(folder: Path) -> None:
    """A loader that is closed leaves streams behind, which the garbage collector may close at any moment."""
    reader: Any = open_reader(str(folder))
    chunk = reader.chunks()[-1]

    class Collects(list[str]):
        def append(self, name: str) -> None:
            super().append(name)
            gc.collect()

    left = [reader.stream(chunk, ["at"], 10)]
    next(left[0])
    left.append(left)  # type: ignore[arg-type]
    del left
    reader._handles._lent = Collects(reader._handles._lent)
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(reader.read(chunk, ["at"]).num_rows), daemon=True)
    thread.start()
    thread.join(20)
    assert found == [150]


@pytest.mark.slow
def test_where_rows_are_lost(tmp_path: Path) -> None:
    """Rows without a target, and a row group with a flipped bit; the first of the two large ones is streamed."""
    whole = table().drop_columns(["text", "city"])
    y = pa.array(whole["y"].to_pylist(), mask=np.isin(np.arange(ROWS), [5, 6, 77, 300]))
    whole = whole.set_column(whole.schema.get_field_index("y"), "y", y)
    written: dict[str, Any] = {"write_page_checksum": True, "use_dictionary": False, "compression": "none"}
    pq.write_table(whole.slice(0, 240), tmp_path / "a.parquet", row_group_size=30, **written)
    pq.write_table(whole.slice(240), tmp_path / "b.parquet", row_group_size=90, **written)
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    content[100] ^= 1
    (tmp_path / "a.parquet").write_bytes(content)
    ledgers: list[Ledger] = []

    def make() -> Loader:
        source = Source.open(str(tmp_path), target="y", weight="w", task="classify")
        ledgers.append(Ledger("rows", source.table, most=0.5))
        source = source.surveyed(ledger=ledgers[-1])
        source = source.with_offsets(ledgers[-1])
        plan = replace(source.plan(batch_size=32, window_rows=120), slice_rows=16)
        return Loader(source, plan, holdout=0.2, epochs=2, ledger=ledgers[-1])

    assert_resumes_exactly(make, epochs=2)
    assert ledgers[0].rows == 2 * (30 + 2)  # in two epochs; the other two without a target are in that row group


# -- what is refused -------------------------------------------------------------------------------------------------------


def numbers(**changed: Any) -> Callable[[], Loader]:
    """Loaders of 420 rows in memory."""
    asked: dict[str, Any] = {"batch_size": 32, "window_rows": 120, "seed": 3, "holdout": 0.2, "rows": ROWS} | changed
    at = np.arange(asked.pop("rows"))
    source = Source.open({"x": at.astype(np.float32), "y": at % 3}, target="y").surveyed()
    options = {name: asked.pop(name) for name in ("seed", "holdout")}
    plan = source.plan(memory=10**9, **asked)
    return lambda: Loader(source, plan, epochs=2, **options)


OTHER: list[dict[str, Any]] = [
    {"batch_size": 33}, {"window_rows": 121}, {"seed": 4}, {"holdout": 0.21}, {"holdout": 0.0}, {"shuffle": False},
    {"rows": ROWS + 1},
]  # fmt: skip


def after(loader: Loader, batches: int) -> dict[str, int]:
    for _ in range(batches):
        next(loader)
    return loader.state_dict()


@pytest.mark.parametrize("changed", OTHER, ids=lambda changed: str(next(iter(changed.items()))))
def test_a_state_of_another_order_is_refused(changed: dict[str, Any]) -> None:
    with numbers(**changed)() as other, numbers()() as loader:
        before = after(loader, 2)
        with pytest.raises(UsageError, match="the state is of another order of rows: the chunks, seed"):
            loader.load_state_dict(after(other, 3))
        assert loader.state_dict() == before and next(loader).held_out


def test_what_changes_no_order_may_change() -> None:
    with numbers()() as loader:
        state = loader.state_dict()
    with numbers(threads=4)() as loader:
        assert loader.state_dict() == state
    sizes = (ROWS, 10**6)  # windows that hold everything
    first, second = (numbers(window_rows=size)().state_dict() for size in sizes)
    assert first == second != state
    assert_resumes_exactly(numbers(window_rows=ROWS), epochs=2, into=numbers(window_rows=10**6), most=3)


WRONG: list[tuple[Any, str]] = [
    ({"row": -1}, "whole numbers, 0 or more, but its 'row' is -1"),
    ({"row": 1.0}, "its 'row' is 1.0"),
    ({"row": True}, "its 'row' is True"),
    ({"epoch": np.bool_(True)}, "its 'epoch' is"),
    ({"epoch": None}, "its 'epoch' is None"),
    ({"window": "2"}, "its 'window' is '2'"),
    ({"window": np.array([2])}, "its 'window' is array"),
    ({"order": 1}, "another order"),
    ({"more": 1}, "the state of a loader has .*'order', .*not .*'more'"),
    ({3: 1}, "the state of a loader has"),
    ({"window": 2, "held_window": 1}, "a position that does not exist"),
]


@pytest.mark.parametrize(("changed", "message"), WRONG, ids=[str(changed) for changed, _ in WRONG])
def test_what_is_no_state_is_refused(changed: dict[Any, Any], message: str) -> None:
    with numbers()() as loader:
        before = after(loader, 2)
        with pytest.raises(UsageError, match=message):
            loader.load_state_dict({**before, **changed})
        with pytest.raises(UsageError, match="the state of a loader has"):
            loader.load_state_dict({"epoch": 0})
        assert loader.state_dict() == before and next(loader).held_out


NOWHERE: list[dict[str, int]] = [
    {"window": 50, "held_window": 50},
    {"window": 5, "held_window": 5},  # there are four, so that 4 is behind the last
    {"window": 4, "held_window": 4, "row": 1},
    {"window": 1, "held_window": 1, "row": 200},
    {"window": 4, "held_window": 5},
    {"window": 3, "held_window": 3, "held_row": 90},
    {"window": 3, "row": 80, "held_window": 3, "held_row": 90},
    {"window": 1, "held_window": 3},
    {"window": 0, "held_window": 2**70},
    {"window": 2, "held_window": 3},
    {"window": 2**70, "held_window": 2**70},
]


@pytest.mark.parametrize("place", NOWHERE, ids=str)
def test_a_place_that_is_not_there_is_an_error(place: dict[str, int]) -> None:
    with numbers()() as loader:
        loader.load_state_dict({**START, **place, "order": loader.state_dict()["order"]})
        for _ in range(2):  # however often one asks
            with pytest.raises(UsageError, match="a position that does not exist"):
                list(islice(loader, 20))


def test_without_holdout_nothing_was_held_out() -> None:
    with numbers(holdout=0.0)() as loader, pytest.raises(UsageError, match="a position that does not exist"):
        loader.load_state_dict({**loader.state_dict(), "held_row": 1})


@pytest.mark.slow
def test_the_order_of_ten_million_chunks_takes_no_time() -> None:
    rows, plan = np.full(10**7, 1000), numbers()().plan
    began = time.perf_counter()
    order = order_of(rows, plan, 0, 0.1)
    assert time.perf_counter() - began < 2
    assert all(0 <= order_of(rows[:9], plan, seed, 0.1) < 2**63 for seed in range(20))
    assert order_of(rows.astype(">i8"), plan, np.int64(0), 0.1) == order  # type: ignore[arg-type]

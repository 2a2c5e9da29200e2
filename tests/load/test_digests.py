"""What a loader reads again is compared with what it read before, whoever read it and in whatever pieces."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamtrain import Loader, Source
from streamtrain.errors import ChangedError
from streamtrain.load.digests import Digests, RunDigest
from streamtrain.load.verify import reread
from streamtrain.memory.monitor import Monitor
from streamtrain.storage.reader import Chunk, ChunkTable

ROWS = 1000


def table() -> pa.Table:
    rng = np.random.default_rng(0)
    z = pa.array(rng.normal(size=ROWS), mask=rng.random(ROWS) < 0.2)
    return pa.table(
        {"x": rng.normal(size=ROWS), "z": z, "k": [f"k{i % 31}" for i in range(ROWS)], "y": np.arange(ROWS) % 2}
    )


class Changing:
    """The table in five chunks; the value of ``x`` in one row differs once ``changed`` is set."""

    def __init__(self, row: int) -> None:
        self.row, self.changed = row, False

    schema = table().schema

    def chunks(self) -> ChunkTable:
        return ChunkTable(str, [200] * 5, [8_000] * 5, [20_000] * 5)

    def read(self, chunk: Chunk, columns: Sequence[str]) -> Any:
        key = int(chunk.key)
        part = table().slice(200 * key, 200)
        if self.changed and self.row // 200 == key:
            x = part["x"].to_numpy().copy()
            x[self.row % 200] += 1e-9
            part = part.set_column(0, "x", pa.array(x))
        return part.select(columns).combine_chunks().to_batches()[0]

    def stream(self, chunk: Chunk, columns: Sequence[str], rows: int) -> Iterator[Any]:
        part = self.read(chunk, columns)
        yield from (part.slice(at, min(rows, 37)) for at in range(0, 200, min(rows, 37)))

    def stream_peak_bytes(self, chunk: Chunk, rows: int) -> int:
        return 40_000

    def fingerprint(self) -> str:
        return "changing"

    def source(self) -> Source:
        return Source.open(self, target="y").surveyed()


def all_of(digests: Digests | None) -> list[int]:
    assert digests is not None
    return digests.state_dict()["all"].tolist()


@pytest.mark.parametrize("window", [1000, 900, 450, 100])
def test_every_way_to_read_has_the_same_digests(tmp_path: Path, window: int) -> None:
    """In one piece, in slices, many small chunks at once, with any number of threads, and again to compare."""
    pq.write_table(table(), tmp_path / "a.parquet", row_group_size=200)
    found = []
    for source in (Changing(0).source(), Source.open(tmp_path / "a.parquet", target="y").surveyed()):
        for threads in (1, 3):
            fresh = source.with_digests()
            plan = fresh.plan(batch_size=50, window_rows=window, threads=threads)
            with Loader(fresh, plan, epochs=2) as loader:
                states = [loader.state_dict() for _ in loader]
                assert sum(len(batch) for batch in loader) == ROWS
                loader.load_state_dict(states[12])  # streams are read from their start, and rows are passed over
                assert sum(len(batch) for batch in loader) == ROWS - 650
            assert fresh.digests is not None
            with Monitor(plan.budget_bytes, plan.term_bytes) as monitor:
                assert reread(fresh, plan, monitor) == {}
            found.append(all_of(fresh.digests))
    assert found[0] == found[1] and found[2] == found[3] and all(found[0] + found[2])


@pytest.mark.parametrize("window", [1000, 450, 100])
def test_a_changed_value(window: int) -> None:
    """In the next epoch, and by reading again."""
    data = Changing(row=501)
    source = data.source()
    plan = source.plan(batch_size=50, window_rows=window)
    with Loader(source, plan) as loader:
        list(loader)
        loader.close()  # windows were read ahead
        data.changed = True
        with Monitor(plan.budget_bytes, plan.term_bytes) as monitor:
            assert list(reread(source, plan, monitor)) == [2]
        with pytest.raises(ChangedError, match=r"2: the values differ .* changed in place, or the reader does not"):
            list(loader)


def test_a_changed_value_in_rows_that_a_stopped_loader_has_read() -> None:
    """The chunk was read in part, and the loader that goes on reads it from its start."""
    data = Changing(row=1000 - 200 + 5)
    for shuffle in (True, False):
        data.changed = False
        first = data.source()
        plan = first.plan(batch_size=20, window_rows=100, shuffle=shuffle)
        with Loader(first, plan, epochs=1) as loader:
            while (state := loader.state_dict())["rows_seen"] < ROWS and not (
                first.digests and 4 in first.digests.begun
            ):
                next(loader)
            assert first.digests is not None
            noted = first.digests.state_dict()
        rows = dict(noted["begun"][:, :2].tolist()).get(4)
        assert rows is not None and 5 < rows < 200
        data.changed = True
        again = data.source()
        assert again.digests is not None
        again.digests.load_state_dict(noted)
        with Monitor(plan.budget_bytes, plan.term_bytes) as monitor:
            assert list(reread(again, plan, monitor)) == [4]
        with Loader(again, plan, epochs=1) as loader:
            loader.load_state_dict(state)
            with pytest.raises(ChangedError, match=rf"4: the values of the first {rows} rows differ"):
                list(loader)


def test_chunks_that_are_read_together() -> None:
    """Each has the digest that it has alone."""
    rows = [3, 0, 200, 1, 796]
    starts = np.cumsum([0, *rows])
    whole = table().combine_chunks().to_batches()[0]
    coded = whole.set_column(2, "k", whole["k"].dictionary_encode())
    for batch in (whole, coded):
        together = RunDigest(["y"], rows)
        for first, last in ((0, 1), (1, 100), (100, ROWS)):
            for name in batch.schema.names:
                together.add(name, batch.slice(first, last - first)[name])
        for i, digest in enumerate(together.values()):
            alone = RunDigest(["y"], [rows[i]])
            for name in batch.schema.names:
                alone.add(name, batch.slice(int(starts[i]), rows[i])[name])
            assert alone.values() == [digest]


def test_a_source_can_be_pickled(tmp_path: Path) -> None:
    pq.write_table(table(), tmp_path / "a.parquet", row_group_size=200)
    source = Source.open(tmp_path / "a.parquet", target="y").surveyed()
    copy = pickle.loads(pickle.dumps(source))
    assert source.digests is not None and copy.digests is not None
    states = [digests.state_dict() for digests in (source.digests, copy.digests)]
    assert all((states[0][name] == states[1][name]).all() for name in states[0]) and states[0]["targets"].all()


def test_another_state() -> None:
    digests = Digests(ChunkTable(str, [5, 5], [40, 40], [40, 40]))
    state = digests.state_dict()
    for other in (
        {"all": np.zeros(3, np.uint64)},
        {"targets": np.zeros(2)},
        {"begun": np.array([[9, 1, 1]], np.uint64)},
        {"begun": np.zeros(3, np.uint64)},
    ):
        with pytest.raises(ValueError, match="of other chunks"):
            digests.load_state_dict(state | other)
    with pytest.raises(KeyError):
        digests.load_state_dict({})


def test_other_columns_have_other_digests() -> None:
    source = Source.open(table(), target="y").surveyed()
    fewer = source.with_layout(replace(source.layout, columns=source.layout.columns[:1]))
    assert fewer.digests is not source.digests
    assert source.with_layout(source.layout).digests is source.digests

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
from streamtrain.load.digests import ChunkDigest, Digests, RunDigest
from streamtrain.load.ledger import Ledger
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
        plan = replace(
            first.plan(batch_size=20, window_rows=100, shuffle=shuffle), windows_in_flight=1
        )  # no reads ahead
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


@pytest.mark.parametrize("skips", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
def test_changed_rows_where_the_next_piece_reaches_further(shuffle: bool, skips: bool) -> None:
    """The loader that goes on takes the rows after those that were noted: it passes over these in the slice that it reads."""
    data = Changing(row=0)
    first = data.source()
    plan = replace(first.plan(batch_size=20, window_rows=60, shuffle=shuffle), windows_in_flight=1)
    with Loader(first, plan, epochs=1) as loader:
        for _ in range(3):
            next(loader)
        assert first.digests is not None
        noted = first.digests.state_dict()
        next(loader)  # of the next window
        state = loader.state_dict()
    number, rows = noted["begun"][0, :2].tolist()
    for changed, is_found in ((rows // 2, True), (rows, False)):
        data.row, data.changed = 200 * number + changed, False
        again = data.source()
        assert again.digests is not None
        again.digests.load_state_dict(noted)
        data.changed = True
        with Loader(again, plan, epochs=1, ledger=Ledger("data", again.table, most=1) if skips else None) as loader:
            loader.load_state_dict(state)
            if is_found:
                with pytest.raises(ChangedError, match=rf"{number}: the values of the first {rows} rows differ"):
                    list(loader)
            else:
                assert sum(len(batch) for batch in loader) == ROWS - 80
                assert again.digests.known.all() and not again.digests.begun


def test_whole_chunks_of_which_a_part_was_read() -> None:
    """Whatever the windows were then: alone, and together with others."""
    data = Changing(row=205)
    source = data.source()
    with Loader(source, source.plan(batch_size=20, window_rows=1000), epochs=1) as loader:
        list(loader)
    part = ChunkDigest(["y"])
    part.add_batch(data.read(data.chunks()[1], data.schema.names).slice(0, 50))
    for changed in (False, True):
        data.changed = False
        source = data.source()
        assert source.digests is not None
        source.digests.check_part(1, 50, part.value())
        data.changed = changed
        with Loader(source, source.plan(batch_size=20, window_rows=1000), epochs=1) as loader:
            if changed:
                with pytest.raises(ChangedError, match=r"1: the values of the first 50 rows differ"):
                    list(loader)
            else:
                assert sum(len(batch) for batch in loader) == ROWS and not source.digests.begun


def test_the_digest_of_first_rows_is_that_of_these_rows_alone() -> None:
    batch = table().combine_chunks().to_batches()[0]
    coded = batch.set_column(2, "k", batch["k"].dictionary_encode())
    for whole in (batch, coded):
        for rows, firsts in (([200, 800], [7, 0]), ([ROWS], [ROWS - 1])):
            alone, run = ChunkDigest(["y"]), RunDigest(["y"], rows, firsts)
            alone.add_batch(whole.slice(0, firsts[0]))
            for name in whole.schema.names:
                run.add(name, whole[name])
            assert run.chunks[0].part == (firsts[0], alone.value()[0])
            plain = RunDigest(["y"], rows)
            for name in whole.schema.names:
                plain.add(name, whole[name])
            assert run.values() == plain.values()


def test_a_part_stays_noted_until_it_was_compared() -> None:
    """So somebody who reads without it, as a worker of a cluster does, cannot make it forgotten."""
    digests = Digests(ChunkTable(str, [3000], [80], [80]))
    digests.check_part(0, 1000, (7, 0))
    digests.check_part(0, 2000, (99, 0))
    digests.check(0, (5, 0))
    assert digests.begun == {0: 1000} and digests.known.tolist() == [True]
    for check in (lambda part: digests.check_part(0, 2000, (99, 0), part), lambda part: digests.check(0, (5, 0), part)):
        with pytest.raises(ChangedError, match="the first 1,000 rows"):
            check((1000, 8))
    digests.check(0, (5, 0), (1000, 7))
    assert not digests.begun


def test_a_chunk_read_in_slices_is_compared_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan has no memory for the whole of it."""
    data = Changing(row=405)
    source = data.source()
    plan = replace(source.plan(batch_size=50, window_rows=1000), sliced=np.ones(5, np.bool_), slice_rows=16)
    with Loader(source, plan, epochs=1) as loader:
        list(loader)
    streamed = Changing.stream

    def read(self: Changing, chunk: Chunk, columns: Sequence[str], rows: int) -> Iterator[Any]:
        with monkeypatch.context() as patch:
            patch.setattr(Changing, "read", whole)
            parts = list(streamed(self, chunk, columns, rows))
        asked.append(rows)
        return iter(parts)

    whole, asked = Changing.read, list[int]()
    monkeypatch.setattr(Changing, "stream", read)
    monkeypatch.setattr(Changing, "read", None)
    for data.changed in (False, True):
        with Monitor(plan.budget_bytes, plan.term_bytes) as monitor:
            assert list(reread(source, replace(plan, threads=1), monitor)) == [2] * data.changed
    assert asked == [16] * 10


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

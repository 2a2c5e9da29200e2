"""Codes, texts and times on their way through windows: each row arrives whole, in whatever window and batch."""

from __future__ import annotations

import datetime as dt
import pickle
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamtrain.columns.categories import hash_values, seed_of
from streamtrain.errors import ColumnError
from streamtrain.load import Loader, Source
from streamtrain.load.chunks import load_chunks
from streamtrain.load.ledger import Ledger

ROWS = 500


def table(rows: int = ROWS) -> pa.Table:
    rng = np.random.default_rng(0)
    words = np.array(["red", "blue", "green", "ümlaut", "a", "of"])
    texts = [None if i % 7 == 3 else " ".join(rng.choice(words, rng.integers(4, 12))) for i in range(rows)]
    return pa.table(
        {
            "x": pa.array([None if i % 5 == 0 else float(i) for i in range(rows)]),
            "city": pa.array([None if i % 11 == 0 else f"city {i % 13}" for i in range(rows)]),
            "day": pa.array([i % 7 for i in range(rows)]),
            "note": pa.array(texts),
            "when": pa.array([dt.datetime(2024, 1, 1) + dt.timedelta(hours=i) for i in range(rows)]),
            "X": pa.FixedShapeTensorArray.from_numpy_ndarray(rng.normal(size=(rows, 2)).astype(np.float32)),
            "y": pa.array([i % 3 == 0 for i in range(rows)]),
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("columns")
    whole = table()
    for part in range(5):
        pq.write_table(whole.slice(part * 100, 100), path / f"p{part}.parquet", row_group_size=30)
    return path


def opened(data: Any, **options: Any) -> Source:
    return Source.open(data, target="y", crosses=["city:day"], **options).surveyed().with_roles().with_offsets()


def texts_of(batch: Any) -> list[str | None]:
    texts = batch.texts
    return [
        None if size < 0 else bytes(texts.data[start : start + size]).decode()
        for start, size in zip(texts.starts[:, 0].tolist(), texts.sizes[:, 0].tolist(), strict=True)
    ]


@pytest.mark.parametrize("window_rows", [500, 90, 37])
@pytest.mark.parametrize("holdout", [0.0, 0.3])
@pytest.mark.parametrize("threads", [1, 2])
def test_each_row_arrives_whole(folder: Any, window_rows: int, holdout: float, threads: int) -> None:
    source, whole = opened(folder), table()
    layout = source.layout
    assert [c.role for c in layout.columns] == ["number", "category", "number", "text", "time", "number"]
    assert layout.categories == 1 and list(layout.hashes) == ["city", "day"] and layout.width == 1 + 1 + 7 + 2
    city = hash_values(whole["city"].combine_chunks(), seed_of("city"))
    day = hash_values(whole["day"].combine_chunks(), seed_of("day"))
    plan, seen = source.plan(batch_size=16, window_rows=window_rows, threads=threads), []
    with Loader(source, plan, epochs=1, seed=3, holdout=holdout) as loader:
        for batch in loader:
            rows = batch.rows
            seen.append(rows)
            np.testing.assert_array_equal(batch.hashes[:, 0], city[rows])
            np.testing.assert_array_equal(batch.hashes[:, 1], day[rows])
            assert texts_of(batch) == [whole["note"][int(r)].as_py() for r in rows]
            expected = np.where(rows % 5 == 0, np.nan, rows)
            np.testing.assert_array_equal(batch.features[:, 0], expected.astype(np.float32))
            part = batch.part(1, 3)
            assert texts_of(part) == texts_of(batch)[1:3]
    assert sorted(np.concatenate(seen).tolist()) == list(range(ROWS))


def test_a_cluster_brings_the_same(folder: Any) -> None:
    distributed = pytest.importorskip("distributed")
    source = opened(folder)
    plan = source.plan(batch_size=64, window_rows=200)

    def rows(client: Any) -> list[Any]:
        with Loader(source, plan, epochs=1, cluster=client) as loader:
            return [(b.features.tobytes(), b.hashes.tobytes(), texts_of(b)) for b in loader]

    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        assert rows(client) == rows(None)


def test_another_process_sends_texts(folder: Any) -> None:
    source = opened(folder)
    sent, *_ = load_chunks(source.reader, source.layout, [source.table[0]], [source.layout.read])
    into = source.layout.buffers(30)
    into.scatter_from(pickle.loads(pickle.dumps(sent)), np.arange(29, -1, -1))
    notes = [texts_of(SimpleNamespace(texts=arrays.texts.rows(0, 30))) for arrays in (into, sent)]
    assert notes[0] == notes[1][::-1] == table()["note"].to_pylist()[29::-1]


def test_lost_rows_leave_the_others_whole(folder: Any, tmp_path: Any) -> None:
    whole = table()
    y = [None if i % 9 == 4 else v for i, v in enumerate(whole["y"].to_pylist())]
    pq.write_table(whole.set_column(6, "y", pa.array(y)), tmp_path / "p.parquet", row_group_size=100)
    source = Source.open(str(tmp_path), target="y")
    ledger = Ledger("data", source.table, 1.0)
    source = source.surveyed(ledger=ledger).with_roles(ledger).with_offsets(ledger)
    seen = []
    with Loader(source, source.plan(batch_size=32, window_rows=120), epochs=1, ledger=ledger) as loader:
        for batch in loader:
            assert batch.weights is not None and (batch.weights == (batch.rows % 9 != 4)).all()
            notes = [whole["note"][int(r)].as_py() if r % 9 != 4 else None for r in batch.rows]
            assert texts_of(batch) == notes
            seen += batch.rows.tolist()
    assert sorted(seen) == list(range(ROWS))


def test_roles_as_asked(folder: Any) -> None:
    source = opened(folder, roles={"day": "category", "note": "category", "when": "ignore", "x": "number"})
    assert {c.name: c.role for c in source.layout.columns} == {
        "x": "number", "city": "category", "day": "category", "note": "category", "X": "number",
    }  # fmt: skip
    with pytest.raises(ColumnError, match="--as y=number: 'y' is not a feature"):
        opened(folder, roles={"y": "number"})
    with pytest.raises(ColumnError, match="did you mean 'city'"):
        opened(folder, roles={"cyti": "number"})
    with pytest.raises(ColumnError, match="no feature is left"):
        opened(folder, features=["x"], roles={"x": "ignore"})

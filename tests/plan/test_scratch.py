"""What is planned for rows on their way, and for columns of which nobody knows how large they are."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make import budget_above

import streamtrain
from streamtrain.columns.buffers import TextStore
from streamtrain.columns.groups import groups
from streamtrain.errors import BudgetRefused
from streamtrain.load import Source
from streamtrain.load.demand import column_shares
from streamtrain.memory.process import resident_bytes
from streamtrain.storage.nested import read_units

MB = 10**6


def table(rows: int = 2_000) -> pa.Table:
    """20 numbers, a column of text of 32 bytes, one of one letter, and a target of three classes."""
    rng = np.random.default_rng(0)
    columns = {f"x{i}": rng.standard_normal(rows, np.float32) for i in range(20)}
    long, short = [f"{i:032d}" for i in range(rows)], ["ab"[i % 2] for i in range(rows)]
    return pa.table(columns | {"long": long, "short": short, "y": np.arange(rows) % 3})


def shares(source: Source) -> tuple[float, float, float]:
    return column_shares(source.reader, source.table, source.layout)


def test_columns_without_a_width_are_read_together(tmp_path: Path) -> None:
    pq.write_table(table(), tmp_path / "a.parquet", use_dictionary=False)
    source = Source.open(tmp_path, target="y")
    found = groups(source.layout, 0.2, read_units(source.reader.schema, source.layout.read))
    assert ["long", "short"] in found and len(found) > 3
    assert sorted(name for group in found for name in group) == sorted(source.layout.read)
    assert groups(source.layout, 1.0, {}) == [source.layout.read]
    # About 40 of 130 bytes of a row are text, which takes more than numbers do.
    assert 0.5 < shares(source)[2] < 0.7 and shares(source)[1] == pytest.approx(1)
    numbers = Source.open(tmp_path, target="y", exclude=["long", "short"])
    assert shares(numbers)[2] == pytest.approx(8 / 96)


@pytest.mark.parametrize("held", [False, True])
def test_texts_that_grow_keep_what_they_hold(held: bool) -> None:
    store = TextStore(3, 1, 4)
    pieces = [np.arange(n, dtype=np.uint8) for n in (3, 10, 500)]
    views, starts = [], []
    for piece in pieces:
        starts.append(store.add(piece))
        if held:
            views.append(store.rows(0, 1))
    data = store.rows(0, 3).data
    assert [data[s : s + len(p)].tolist() for s, p in zip(starts, pieces, strict=True)] == [p.tolist() for p in pieces]
    for view, end in zip(views, np.cumsum([len(p) for p in pieces]), strict=False):
        assert view.data.tolist() == data[:end].tolist()


def test_a_refusal_names_hash_bits_where_the_slots_are_what_does_not_fit() -> None:
    asked = {"target": "y", "optimizer": "adam", "hash_bits": 23}
    memory = (resident_bytes() or 0) + 800 * 10**6  # beside what other tests have left in this process
    with pytest.raises(BudgetRefused, match=r"--hash-bits (\d+)") as refused:
        streamtrain.fit(table(), memory=memory, **asked)
    bits = int(re.search(r"--hash-bits (\d+)", str(refused.value))[1])
    assert 10 <= bits < 23
    assert streamtrain.make_plan(table(), memory=memory, **asked | {"hash_bits": bits}).fits
    assert not streamtrain.make_plan(table(), memory=memory, **asked | {"hash_bits": bits + 1}).fits
    with pytest.raises(BudgetRefused) as refused:
        streamtrain.fit(table(), memory="20MB", **asked)
    assert "--hash-bits" not in str(refused.value)


def test_a_model_that_took_more_to_load_than_it_takes_is_planned_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = streamtrain.fit(table(), target="y").model
    assert streamtrain.evaluate(model, table(), memory=budget_above(400 * MB))["rows"] == 2_000
    peak_bytes = (resident_bytes() or 0) + 900 * MB
    monkeypatch.setattr("streamtrain.train.validation.peak_bytes", lambda: peak_bytes)
    with pytest.raises(BudgetRefused, match="loading"):
        streamtrain.predict(model, table(), out=tmp_path / "p.parquet", memory=budget_above(400 * MB))
    assert streamtrain.evaluate(model, table(), memory=budget_above(1000 * MB))["rows"] == 2_000

"""Bags: every entry of a row, and no other, reaches the learner, whatever type the rows had and however they are read."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from make import kept, state
from scipy import sparse

import streamtrain
from streamtrain.batch import Batch
from streamtrain.columns.bags import bag_entries
from streamtrain.columns.categories import hash_values
from streamtrain.columns.choose import choose_role
from streamtrain.columns.layout import Layout
from streamtrain.errors import BadValueError, ColumnError
from streamtrain.load import Loader, Source
from streamtrain.model import load_model
from streamtrain.model.model import shape_of_rows
from streamtrain.prepare import Preparation
from streamtrain.prepare.bags import bag_part
from streamtrain.storage.functions import reader_from
from streamtrain.storage.sparse import SparseRows, sparse_rows

LISTS: list[Any] = [["a", "b"], None, [], ["c", None, "a"], ["a", "a"], ["b"]]
ROWS, WIDTH = 3000, 50


def counts(values: pa.Array, seed: int) -> list[Counter[tuple[int, float]]]:
    """The entries of each row."""
    entries, offsets = bag_entries(values, seed)
    pairs = list(zip(entries[:, 0].tolist(), entries[:, 1].view(np.float32).tolist(), strict=True))
    return [Counter(pairs[a:b]) for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]


def hashed(value: Any) -> int:
    return int(hash_values(pa.array([value]), 3)[0])


@pytest.mark.parametrize("kind", [pa.list_, pa.large_list, pa.list_view, pa.large_list_view], ids=lambda x: x.__name__)
@pytest.mark.parametrize("words", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())], ids=str)
def test_the_entries_of_lists(kind: Any, words: Any) -> None:
    wanted = [Counter((hashed(word), 1.0) for word in row or () if word is not None) for row in LISTS]
    values = pa.array(LISTS, kind(words))
    assert counts(values, 3) == wanted
    assert counts(values.slice(3, 2), 3) == wanted[3:5]
    assert counts(pa.array([["a", "b"], None], pa.list_(words, 2)).slice(1), 3) == [Counter()]


def test_what_is_stored_at_a_null_is_no_entry() -> None:
    values = pa.ListArray.from_arrays([0, 2, 4, 5], pa.array([1, 2, 3, 4, 5]), mask=pa.array([False, True, False]))
    assert counts(values, 3) == [Counter((hashed(n), 1.0) for n in row) for row in ([1, 2], [], [5])]


def test_the_entries_of_maps_and_of_sparse_rows() -> None:
    maps = pa.array([{"a": 1, "b": 2}, None, {"a": 2}], pa.map_(pa.string(), pa.int64()))
    one, none, other = counts(maps, 3)
    assert (len(one), len(none), len(other)) == (2, 0, 1) and not set(one) & set(other), "a=1, a=2 and b=2 differ"
    assert counts(maps.slice(2), 3) == [other]
    shares = pa.array([{"a": 0.5}, {"a": None}], pa.map_(pa.string(), pa.float64()))
    assert counts(shares, 3)[0] == Counter([(hashed("a"), 0.5)]) and np.isnan(
        bag_entries(shares, 3)[0].view(np.float32)[1, 1]
    )
    rows = sparse_rows(np.array([0, 2, 2, 3]), np.array([0, 4, 1]), np.array([1.0, 2.0, 3.0]), 5)
    assert counts(rows, 3) == [Counter([(hashed(0), 1.0), (hashed(4), 2.0)]), Counter(), Counter([(hashed(1), 3.0)])]
    assert counts(rows.slice(2), 3) == [Counter([(hashed(1), 3.0)])]


@pytest.fixture(scope="module")
def matrix() -> Any:
    return sparse.random(ROWS, WIDTH, 0.1, format="csr", dtype=np.float32, rng=np.random.default_rng(0))


def table(matrix: Any, **more: Any) -> pa.Table:
    rows = sparse_rows(matrix.indptr, matrix.indices, matrix.data, matrix.shape[1])
    target = matrix @ np.linspace(-1, 1, matrix.shape[1]) > 0
    return pa.table({"X": rows, "y": target, **more})


@pytest.mark.parametrize("window_rows", [256, 4096])
def test_each_row_of_a_batch_has_its_own_entries(matrix: Any, window_rows: int) -> None:
    words = [["ab", "cde", "f"][: i % 4] for i in range(ROWS)]
    named = pa.array([f"the text of row {i} is this" for i in range(ROWS)])
    data = [
        batch.slice(a, 500)
        for batch in table(matrix, words=words, text=named).to_batches()
        for a in range(0, ROWS, 500)
    ]
    reader = reader_from(
        [str(i) for i in range(len(data))], lambda key, columns: data[int(key)].select(columns), schema=data[0].schema
    )
    source = Source.open(reader, target="y", roles={"text": "text"}).with_roles()
    seen: list[int] = []
    with Loader(source, source.plan(batch_size=37, window_rows=window_rows), epochs=1, holdout=0.1) as loader:
        layout = source.layout
        for batch in map(Batch.copy, loader) if window_rows < ROWS else loader:
            assert batch.texts is not None
            rows = batch.rows
            part = bag_part(batch.texts, layout.texts["X"])
            at, starts, sizes = layout.texts, batch.texts.starts, batch.texts.sizes
            for i, row in enumerate(rows.tolist()):
                texts = {n: batch.texts.data[starts[i, k] : starts[i, k] + sizes[i, k]] for n, k in at.items()}
                assert bytes(texts["text"]) == named[row].as_py().encode()
                own, a, b = matrix[row], int(part.indptr[i]), int(part.indptr[i + 1])
                assert part.values[a:b].tolist() == own.data.tolist()
                assert part.hashes[a:b].tolist() == hash_values(pa.array(own.indices), layout.columns[0].seed).tolist()
                assert len(texts["words"]) == 8 * len(words[row])
            seen += rows.tolist()
    assert sorted(seen) == list(range(ROWS))


def test_the_learner_gets_the_matrix_scaled(matrix: Any) -> None:
    """Each slot is one column: the sparse part is the matrix with its columns in another order, each value divided by the root
    of the mean square of those of its column so far."""
    source = Source.open(table(matrix), target="y").with_roles().surveyed()
    with Loader(source, source.plan(batch_size=ROWS, shuffle=False)) as loader:
        preparation = Preparation(shape_of_rows(source.layout))
        part = preparation.learn(next(loader)).sparse
    assert part is not None and part.values is not None
    own = sparse.csr_matrix((part.values, part.indices, part.indptr), (ROWS, part.width))[:, 1 : WIDTH + 1]
    order = np.argsort(
        preparation.vocabulary.transform(hash_values(pa.array(range(WIDTH)), source.layout.columns[0].seed))
    )
    dense = matrix.toarray().astype(np.float64)
    spread = np.sqrt(np.cumsum(dense**2, axis=0) / np.maximum(1, np.cumsum(dense != 0, axis=0)))
    np.testing.assert_allclose(own.toarray(), (dense / np.where(dense != 0, spread, 1))[:, order], rtol=1e-6)


def test_only_values_of_bags_are_scaled(matrix: Any) -> None:
    text = pa.array([f"some words {i} that are read like text {i % 7}" for i in range(ROWS)])
    data = table(matrix, text=text, words=[["a", "b"][: i % 3] for i in range(ROWS)], x=[None, 1.0, 2.0] * (ROWS // 3))
    parts = []
    for columns in (["y", "text", "words", "x"], data.column_names):
        source = Source.open(data.select(columns), target="y", roles={"text": "text"}).with_roles().surveyed()
        with Loader(source, source.plan(batch_size=ROWS, shuffle=False)) as loader:
            preparation = Preparation(shape_of_rows(source.layout))
            part = preparation.learn(next(loader)).sparse
            assert part is not None and part.values is not None
            parts.append(Counter(part.values.tolist()))
            assert (preparation.scales is not None) == ("X" in columns)
    more = parts[1] - parts[0]
    assert not parts[0] - parts[1] and sum(more.values()) == matrix.nnz


def test_sparse_rows_are_learned_as_well_as_dense_ones_and_a_run_resumes_and_predicts(
    matrix: Any, tmp_path: Path
) -> None:
    def fit(data: Any, **options: Any) -> Any:
        settings = {"epochs": 4, "batch_size": 32, "holdout": 0.2, "memory": "2GB", **options}
        return streamtrain.fit(data, target="y", **settings)

    data = table(matrix)
    matrix = (matrix @ sparse.diags_array(10 ** np.linspace(-3, 3, WIDTH))).astype(np.float32).tocsr()  # other units
    data = pa.table({"X": table(matrix)["X"], "y": data["y"]})
    whole = fit(data, out=tmp_path / "whole")
    dense = fit({"X": matrix.toarray(), "y": data["y"].to_numpy()})
    scores = [result.report.as_dict()["metrics"]["holdout"]["accuracy"] for result in (whole, dense)]
    assert scores[0] > scores[1] - 0.02 and scores[0] > 0.9
    fit(data, out=tmp_path / "half", epochs=1)
    resumed = fit(data, out=tmp_path / "half", resume=True)
    assert state(resumed.model) == state(whole.model)
    assert state(load_model(tmp_path / "half")) == state(whole.model)
    wide = pa.table({"X": sparse_rows(matrix.indptr, matrix.indices, matrix.data, WIDTH + 1)})
    with pytest.raises(ColumnError, match=r"'X' is .*the model knows it as"):
        streamtrain.predict(tmp_path / "whole", wide, out=tmp_path / "p.parquet")


def test_entries_that_are_missing_or_infinite(matrix: Any) -> None:
    matrix = matrix.copy()
    matrix.data[7] = np.nan
    one = streamtrain.fit(table(matrix), target="y", memory="2GB")
    assert np.isfinite(one.model.learner.state_dict()["sparse"]).all()
    matrix.data[7] = np.inf
    row = int(np.searchsorted(matrix.indptr, 7, "right")) - 1
    with pytest.raises(BadValueError, match=rf"row {row} of .*feature 'X' has an entry inf.*--infinities"):
        streamtrain.fit(table(matrix), target="y", memory="2GB")
    other = streamtrain.fit(table(matrix), target="y", memory="2GB", infinities="missing")
    assert state(one.model) == state(other.model)


def test_a_model_keeps_bags() -> None:
    kinds = [
        pa.list_(pa.string()), pa.large_list(pa.int8()), pa.map_(pa.string(), pa.date32()), SparseRows(7),
        pa.list_(pa.timestamp("us", "Europe/Berlin")),
    ]  # fmt: skip
    for kind in kinds:
        column = kept(choose_role(pa.field("x", kind)))
        assert (column.role, column.becomes.same(column, pa.field("x", kind)).type) == ("bag", kind)
    own = kept(choose_role(pa.field("x", pa.list_(pa.string()))))
    assert own.becomes.same(own, pa.field("x", pa.list_(pa.null()))).learned_type == own.type
    for other in (pa.list_(pa.int8()), pa.string(), SparseRows(7), pa.list_(pa.float32())):
        with pytest.raises(ColumnError, match=r"'x' is .*the model knows it as"):
            own.becomes.same(own, pa.field("x", other))


def test_the_plan_counts_the_entries(matrix: Any) -> None:
    data = table(matrix)
    layouts: list[Layout] = []
    for times in (1, 20):
        wide = sparse_rows(
            times * matrix.indptr, np.repeat(matrix.indices, times), np.repeat(matrix.data, times), WIDTH
        )
        layouts.append(Source.open(pa.table({"X": wide, "y": data["y"]}), target="y").with_roles().layout)
    more = layouts[1].row_bytes - layouts[0].row_bytes
    entries = matrix.indptr[1024] / 1024
    assert more == pytest.approx(19 * 8 * entries, rel=0.35)


@pytest.mark.parametrize("width", [5, 1 << 20])
@pytest.mark.parametrize("index", [-1, 1 << 20, None])
def test_sparse_rows_with_a_column_that_they_do_not_have(width: int, index: int | None) -> None:
    rows = pa.array([[{"index": 0, "value": 1.0}, {"index": index, "value": 1.0}]], SparseRows(width).storage_type)
    with pytest.raises(
        BadValueError, match=f"{width:,} columns have an entry whose column is {index if index else 'missing'}"
    ):
        bag_entries(pa.ExtensionArray.from_storage(SparseRows(width), rows), 3)

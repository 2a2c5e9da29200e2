"""Lists: of one length they are vectors, like those of fixed size; a list of another length is an error that names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from make import kept, state, write_parquet

import streamtrain
from streamtrain.columns.choose import choose_role
from streamtrain.errors import BadValueError, ColumnError, UsageError
from streamtrain.load import Loader, Source
from streamtrain.tools.inspect import inspect

ROWS, WIDTH = 1500, 4
VECTORS = np.random.default_rng(0).normal(size=(ROWS, WIDTH)).astype(np.float32)


def lists(kind: Any) -> pa.Array:
    """The vectors, with nulls, also at the end, and a missing number."""
    rows: list[Any] = VECTORS.tolist()
    rows[3], rows[5], rows[-1] = None, [1.0, None, 2.0, 3.0], None
    return pa.array(rows, kind)


def fitted(data: Any, **settings: Any) -> Any:
    return streamtrain.fit(data, target="y", memory="2GB", **settings).model


FIXED = pa.list_(pa.float32(), WIDTH)
KINDS = [pa.list_(pa.float32()), pa.large_list(pa.float32()), pa.list_view(pa.float32()), pa.list_(pa.float64())]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_lists_of_one_length_are_learned_as_vectors(kind: Any) -> None:
    target = pa.array(VECTORS.sum(axis=1))
    whole = pa.table({"emb": lists(kind), "y": target})
    assert state(fitted(whole)) == state(fitted(pa.table({"emb": lists(FIXED), "y": target})))


def test_lists_in_files_train_resume_and_predict(tmp_path: Path) -> None:
    y = VECTORS.sum(axis=1)
    data = write_parquet(tmp_path / "l.parquet", pa.table({"emb": lists(KINDS[0]), "y": y}), row_group_size=400)
    fitted(data, out=tmp_path / "run", epochs=1)
    again = fitted(data, out=tmp_path / "run", epochs=2, resume=True)
    assert state(again) == state(fitted(data, epochs=2))
    for name, kind in (("list", KINDS[0]), ("fixed", FIXED), ("double", KINDS[3])):
        streamtrain.predict(tmp_path / "run", pa.table({"emb": lists(kind)}), out=tmp_path / f"{name}.parquet")
    found = [pa.parquet.read_table(tmp_path / f"{name}.parquet") for name in ("list", "fixed", "double")]
    assert found[0] == found[1] == found[2]
    with pytest.raises(
        BadValueError, match=r"row 0 of rows\[0:\]: feature 'emb' has a list of length 3, but .* have length 4"
    ):
        streamtrain.predict(tmp_path / "run", pa.table({"emb": [[1.0, 2.0, 3.0]]}), out=tmp_path / "p.parquet")


@pytest.mark.parametrize("value", [[1.0], [0.0] * 9, []], ids=len)
def test_a_list_of_another_length_is_named(value: list[float], tmp_path: Path) -> None:
    rows = VECTORS.tolist()
    rows[1405] = value
    table = pa.table({"emb": rows, "y": VECTORS[:, 0]})
    data = write_parquet(tmp_path / "odd.parquet", table, row_group_size=400)
    with pytest.raises(
        BadValueError, match=rf"row 205 of .*odd.parquet:3: feature 'emb' has a list of length {len(value)}"
    ):
        fitted(data)
    slices = pa.Table.from_batches(table.to_batches(max_chunksize=300))
    reader = streamtrain.reader_from(["all"], lambda _, columns: slices.select(columns), schema=table.schema)
    with pytest.raises(BadValueError, match="row 1,405 of all: feature 'emb'"):
        fitted(reader)


def test_lists_of_several_lengths_are_refused_with_the_remedy() -> None:
    table = pa.table({"emb": [[1.0] * (1 + i % 3) for i in range(50)], "x": range(50), "y": [0, 1] * 25})
    with pytest.raises(ColumnError, match=r"'emb' .* 1 to 3 numbers .* pad the shorter lists, or give --exclude emb"):
        fitted(table)
    fitted(table, exclude=["emb"])
    for empty in ([[]] * 50, [None] * 50):
        with pytest.raises(ColumnError, match=r"'emb' .*--exclude emb"):
            fitted(table.set_column(0, "emb", pa.array(empty, pa.list_(pa.float32()))))
    described = {column["name"]: column for column in inspect(table)["columns"]}
    assert described["emb"]["becomes"] is None and "1 to 3 numbers" in described["emb"]["why"]
    assert described["x"]["becomes"] == "number"


def test_lists_of_whole_numbers_are_vectors_if_they_have_one_length_and_bags_otherwise() -> None:
    rows = [[i % 7, i % 3] for i in range(100)]
    y = pa.array([i % 2 for i in range(100)])
    source = Source.open(pa.table({"n": rows, "y": y}), target="y").with_roles()
    assert [(c.role, c.numbers) for c in source.layout.columns] == [("number", 2)]
    for odd in ([rows[0][:1], *rows[1:]], [[row[0]] for row in rows]):
        source = Source.open(pa.table({"n": odd, "y": y}), target="y").with_roles()
        assert [c.role for c in source.layout.columns] == ["bag"]
    for asked in ("bag", "category"):
        source = Source.open(pa.table({"n": rows, "y": y}), target="y", roles={"n": asked}).with_roles()
        assert [c.role for c in source.layout.columns] == ["bag"]
    with pytest.raises(ColumnError, match=r"'n' .* 1 to 2 numbers"):
        fitted(pa.table({"n": [rows[0][:1], *rows[1:]], "y": y}), roles={"n": "number"})


def test_what_is_not_known_yet_is_not_loaded() -> None:
    source = Source.open(pa.table({"emb": lists(KINDS[0]), "y": VECTORS[:, 0]}), target="y").surveyed()
    with pytest.raises(UsageError, match=r"'emb'.*with_roles"):
        Loader(source, source.plan())


def test_a_model_keeps_the_length() -> None:
    field = pa.field("emb", KINDS[0])
    column = choose_role(field)
    own = kept(column.becomes.first_rows(column, lists(KINDS[0])))
    assert (own.role, own.numbers) == ("number", WIDTH)
    assert own.becomes.same(own, field).cast_from == KINDS[0]
    assert own.becomes.same(own, pa.field("emb", FIXED)).cast_from is None
    assert own.becomes.same(own, pa.field("emb", pa.list_(pa.null()))).learned_type is not None
    for other in (pa.list_(pa.string()), pa.float32(), pa.list_(pa.float32(), 3), pa.list_(pa.list_(pa.float32()))):
        with pytest.raises(ColumnError):
            own.becomes.same(own, pa.field("emb", other))


def ones(values: list[Any], kind: Any) -> pa.Array:
    """Each value as a list of one."""
    return pa.array([[value] for value in values], kind)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        (pa.float64(), "list"),
        (pa.int64(), "tensor"),
        (pa.bool_(), "large"),
        (pa.string(), "list"),
        (pa.string(), "fixed"),
    ],
    ids=str,
)
def test_a_target_and_a_weight_of_one_value_a_row_each(kind: Any, shape: str) -> None:
    x = VECTORS[:300, 0]
    plain = pa.array(
        [{"bool": v > 0, "string": "np"[v > 0], "int64": int(v > 0)}.get(str(kind), v) for v in x.tolist()], kind
    )
    make = {"list": pa.list_, "large": pa.large_list}.get(shape, lambda value: pa.list_(value, 1))
    y = ones(plain.to_pylist(), make(kind))
    w = ones(np.abs(x).tolist(), make(pa.float32()))
    if shape == "tensor":
        y = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(kind, [1]), y)
    wanted = streamtrain.fit(
        pa.table({"x": x, "y": plain, "w": np.abs(x)}), target="y", weight="w", holdout=0.3, memory="2GB"
    )
    found = streamtrain.fit(pa.table({"x": x, "y": y, "w": w}), target="y", weight="w", holdout=0.3, memory="2GB")
    assert state(found.model) == state(wanted.model)
    assert found.report.as_dict()["metrics"] == wanted.report.as_dict()["metrics"]
    assert found.model.target == wanted.model.target


def test_targets_that_are_not_one_value() -> None:
    for y in (
        pa.array([[1.0, 2.0]] * 9),
        pa.array([[1.0, 2.0]] * 9, pa.list_(pa.float64(), 2)),
        pa.array([[1.0]] * 8 + [[1.0] * 2]),
    ):
        with pytest.raises((ColumnError, BadValueError), match=r"target 'y' .* a target is one: .*--target a,b,c"):
            fitted(pa.table({"x": range(9), "y": y}))
    for odd in ([], [None]):
        rows = [[float(i)] for i in range(99)]
        rows[7] = odd
        with pytest.raises(BadValueError, match="target 'y' has 1 null"):
            fitted(pa.table({"x": range(99), "y": rows}))
        kept_rows = streamtrain.fit(pa.table({"x": range(99), "y": rows}), target="y", on_error="skip", max_skipped=0.5)
        assert kept_rows.report.as_dict()["rows"] == 98
    with pytest.raises(BadValueError, match="weight 'w' has a list of 2 values"):
        fitted(pa.table({"x": range(9), "y": range(9), "w": [[1.0, 2.0]] * 9}), weight="w", task="regress")

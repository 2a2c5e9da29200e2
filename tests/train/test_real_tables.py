"""Tables with everything in them: learned from any storage, predicted from any other, in any encoding, with any hole."""

from __future__ import annotations

import decimal
import functools
import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from streamtrain import evaluate, fit, load_model, predict
from streamtrain.batch import Batch
from streamtrain.errors import BadValueError, ColumnError, NotFoundError, SchemaError, UsageError
from streamtrain.prepare import Preparation, Shape
from streamtrain.storage.arrow import pick
from streamtrain.tools.inspect import inspect
from streamtrain.train.fit import FitResult

ROWS = 1200
OTHERS = ("y", "z", "w")
ASKED: dict[str, Any] = {
    "target": "y", "exclude": ["z", "w"], "roles": {"code": "category"}, "crosses": ["city:code", "i:town", "day:flag"],
}  # fmt: skip


@functools.cache
def everything(rows: int = ROWS, seed: int = 0, holes: float = 0.1) -> pa.Table:
    """A column of every kind; two thirds of what there is to know of y is in i, city and note."""
    rng = np.random.default_rng(seed)

    def some(values: Any, kind: pa.DataType) -> pa.Array:
        return pa.array(values, kind, mask=rng.random(rows) < holes)

    i, f = rng.integers(-50, 50, rows), rng.normal(size=rows) * 1000
    city = rng.choice(["Rome", "Oslo", "Lima", "", "é,:="], rows)
    words = np.array(["red fox ran home", "blue cat sat down", "old dog lay there", "big cow ate grass"])
    first, second = rng.integers(0, 4, rows), rng.integers(0, 4, rows)
    notes = [f"{words[a]} {words[b]} {n}" for a, b, n in zip(first, second, range(rows), strict=True)]
    seconds = rng.integers(1_600_000_000, 1_700_000_000, rows)
    score = i / 50 + 2 * (city == "Rome") - 1.5 * (first == 1) + rng.normal(size=rows) * 0.3
    return pa.table(
        {
            "i": some(i, pa.int32()),
            "far": pa.array(i + 10**15),
            "f": np.where(rng.random(rows) < holes, np.nan, f),
            "f32": some(f.astype(np.float32), pa.float32()),
            "dec": pa.array([decimal.Decimal(7 * int(v)).scaleb(-2) for v in i], pa.decimal128(10, 2)),
            "flag": some(rng.random(rows) < 0.5, pa.bool_()),
            "wait": some(i * 1000, pa.duration("ms")),
            "t": some(seconds * 10**6, pa.timestamp("us")),
            "tz": some(seconds * 1000, pa.timestamp("ms", "Europe/Berlin")),
            "day": some((seconds // 86_400).astype(np.int32), pa.date32()),
            "clock": some((seconds % 86_400).astype(np.int32), pa.time32("s")),
            "city": some(city, pa.string()),
            "town": some(city[::-1], pa.string()).dictionary_encode(),
            "code": rng.integers(0, 9, rows),
            "note": some(notes, pa.string()),
            "list": pa.FixedSizeListArray.from_arrays(pa.array(rng.normal(size=3 * rows)), 3),
            "tensor": pa.FixedShapeTensorArray.from_numpy_ndarray(rng.normal(size=(rows, 2, 2)).astype(np.float32)),
            "nothing": pa.nulls(rows),
            "blob": pa.array([bytes([v % 7]) for v in i + 50], pa.binary()),
            "y": (score > 0.2).astype(int),
            "z": score,
            "w": rng.random(rows),
        }
    )


def put(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, values)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[FitResult, Path]:
    run = tmp_path_factory.mktemp("real") / "run"
    return fit(everything(), out=run, **ASKED), run


@pytest.fixture(scope="module")
def other() -> pa.Table:
    return everything(700, seed=1)


@pytest.fixture
def scored(trained: tuple[FitResult, Path], tmp_path: Path) -> Any:
    """The probabilities that the model gives the rows of some data."""
    number = itertools.count()

    def probabilities(data: Any, model: Any = trained[0].model, **settings: Any) -> NDArray[np.float32]:
        out = tmp_path / f"p{next(number)}.parquet"
        predict(model, data, out=out, **settings)
        found: NDArray[np.float32] = pq.read_table(out)["probability_1"].to_numpy()
        return found

    return probabilities


# -- any storage ---------------------------------------------------------------------------------------------------------


def test_every_column_becomes_what_inspect_says(trained: tuple[FitResult, Path]) -> None:
    table = everything()
    shown = {
        c["name"]: (c["becomes"], c["numbers"]) for c in inspect(table, target="y", roles=ASKED["roles"])["columns"]
    }
    assert shown == {
        "i": ("number", 1), "far": ("number", 1), "f": ("number", 1), "f32": ("number", 1), "dec": ("number", 1),
        "flag": ("number", 1), "wait": ("number", 1), "t": ("time", 7), "tz": ("time", 7), "day": ("time", 5),
        "clock": ("time", 2), "city": ("category", 0), "town": ("category", 0), "code": ("category", 0),
        "note": ("text", 0), "list": ("number", 3), "tensor": ("number", 4), "nothing": ("ignore", 0),
        "blob": ("category", 0), "y": ("target", 1), "z": ("number", 1), "w": ("number", 1),
    }  # fmt: skip
    learned = {c.name: (c.role, c.numbers) for c in trained[0].model.layout.columns}
    assert learned == {n: v for n, v in shown.items() if n not in (*OTHERS, "nothing")}
    report = trained[0].report.preparation
    assert (report["numbers"], report["categories"], report["crosses"], report["texts"]) == (35, 4, 3, 1)


def test_it_learns_from_the_numbers_the_categories_and_the_text(other: pa.Table) -> None:
    whole = evaluate(fit(everything(), epochs=5, **ASKED).model, other)["metrics"]["loss"]
    assert whole < 0.42
    for left_out in (["i", "far", "dec", "wait"], ["city"], ["note"]):
        asked = {**ASKED, "exclude": [*ASKED["exclude"], *left_out], "crosses": []}
        assert evaluate(fit(everything(), epochs=5, **asked).model, other)["metrics"]["loss"] > whole + 0.03, left_out


def test_storage_makes_no_difference(
    tmp_path: Path, trained: tuple[FitResult, Path], other: pa.Table, scored: Any
) -> None:
    expected, table = scored(other), everything()
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=ROWS)
    with pa.ipc.new_file(tmp_path / "t.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=ROWS)
    for name in ("t.parquet", "t.arrow"):
        assert np.array_equal(scored(other, fit(tmp_path / name, **ASKED).model), expected), name


def test_text_files_hold_the_same_table(tmp_path: Path, scored: Any) -> None:
    """A CSV knows no types but those that its text shows, and no text that is missing."""

    def plain(rows: int, seed: int) -> pa.Table:
        table = everything(rows, seed).select(["i", "f32", "flag", "t", "day", "city", "note", "code", "y"])
        table = put(table, "t", table["t"].cast(pa.timestamp("s")))
        for name in ("city", "note"):
            table = put(table, name, pa.array([text or "" for text in table[name].to_pylist()]))
        return table

    table, other = plain(ROWS, 0), plain(300, 2)
    pa.csv.write_csv(table, tmp_path / "t.csv")
    pa.csv.write_csv(other, tmp_path / "o.csv")
    asked: dict[str, Any] = {"target": "y", "roles": {"code": "category"}, "crosses": ["city:code"]}
    from_csv, from_memory = fit(tmp_path / "t.csv", **asked).model, fit(table, **asked).model
    expected = scored(other, from_memory)
    np.testing.assert_allclose(scored(other, from_csv), expected, atol=1e-5)
    np.testing.assert_allclose(scored(tmp_path / "o.csv", from_memory), expected, atol=1e-6)


def test_a_loaded_model_predicts_the_same_bits(
    tmp_path: Path, trained: tuple[FitResult, Path], other: pa.Table, scored: Any
) -> None:
    loaded = load_model(trained[1])
    assert np.array_equal(scored(other), scored(other, loaded))
    assert evaluate(trained[0].model, other) == evaluate(loaded, other)
    (tmp_path / "again").mkdir()
    loaded.save(tmp_path / "again")
    for name in ("model.safetensors", "model.json"):
        assert (tmp_path / "again" / name).read_bytes() == (trained[1] / name).read_bytes(), name


def test_predictions_are_of_a_row_alone(tmp_path: Path, other: pa.Table, scored: Any) -> None:
    expected = scored(other)
    (tmp_path / "d").mkdir()
    for i, start in enumerate(range(0, len(other), 150)):
        pq.write_table(other.slice(start, 150), tmp_path / f"d/{i}.parquet", row_group_size=47)
    for settings in ({"threads": 1}, {"threads": 5}, {"memory": "2GB"}):
        assert np.array_equal(scored(tmp_path / "d", **settings), expected), settings
    backwards = pa.concat_tables([other.slice(start, 150) for start in range(600, -1, -150)])
    found = scored(backwards)
    order = np.concatenate([np.arange(start, min(start + 150, 700)) for start in range(600, -1, -150)])
    assert np.array_equal(found, expected[order])


def test_batches_of_any_size_predict_the_same(monkeypatch: pytest.MonkeyPatch, other: pa.Table, scored: Any) -> None:
    expected = scored(other)
    for rows in (1, 7, 256):
        monkeypatch.setattr("streamtrain.train.validation._BATCH_ROWS", rows)
        np.testing.assert_allclose(scored(other.slice(0, 64)), expected[:64], atol=1e-6, err_msg=str(rows))


# -- other data ------------------------------------------------------------------------------------------------------------

SAME = {
    "i": [pa.int64(), pa.int8()], "far": [pa.float64(), pa.uint64()], "f": [pa.float32()], "f32": [pa.float64()],
    "dec": [pa.float64(), pa.decimal256(20, 4)], "flag": [pa.int8()], "wait": [pa.duration("us"), pa.duration("ns")],
    "t": [pa.timestamp("ns"), pa.timestamp("ms"), pa.timestamp("s")], "tz": [pa.timestamp("us", "Europe/Berlin")],
    "clock": [pa.time64("us")], "code": [pa.int8(), pa.uint16()], "blob": [pa.large_binary()],
    "city": [pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())],
    "note": [pa.large_string(), pa.dictionary(pa.int32(), pa.string())], "town": [pa.string()],
}  # fmt: skip


def test_the_same_values_in_another_encoding(other: pa.Table, scored: Any) -> None:
    expected = scored(other)
    guise = other
    for kinds in SAME.values():  # all of them on the first, then the others one by one
        name = next(n for n, k in SAME.items() if k is kinds)
        guise = put(guise, name, other[name].cast(kinds[0]))
    np.testing.assert_allclose(scored(guise), expected, atol=1e-6)
    for name, kinds in SAME.items():
        for kind in kinds[1:]:
            np.testing.assert_allclose(
                scored(put(other, name, other[name].cast(kind)).slice(0, 99)), expected[:99], atol=1e-6,
                err_msg=f"{name} as {kind}",
            )  # fmt: skip
    for name in ("i", "t", "code", "blob"):
        coded = put(other, name, other[name].combine_chunks().dictionary_encode())
        assert np.array_equal(scored(coded), expected), name
    shuffled = other.select(other.column_names[::-1])
    assert np.array_equal(scored(shuffled), expected)


def test_dates_of_another_width_are_the_same_days() -> None:
    table = pa.table({"day": everything()["day"], "y": everything()["y"]})
    model = fit(table, target="y").model
    assert evaluate(model, put(table, "day", table["day"].cast(pa.date64()))) == evaluate(model, table)


@pytest.mark.parametrize("holes", [0.0, pytest.param(0.3, marks=pytest.mark.slow)])
def test_values_that_are_missing_or_new(holes: float, tmp_path: Path, scored: Any) -> None:
    """Learned with holes and without; predicted from a table with others, from columns of which nothing is there, and from
    such of the null type, which a file without a single value has."""
    model = fit(everything(holes=holes), **ASKED).model
    other = everything(400, seed=3, holes=0.3 - holes)
    expected = scored(other, model)
    assert np.isfinite(expected).all() and evaluate(model, other)["metrics"]["accuracy"] > 0.6
    empty = other
    for name in other.column_names:
        if name not in OTHERS and holes:
            gone = put(other, name, pa.nulls(400, other[name].type))
            assert np.array_equal(scored(gone, model), scored(put(other, name, pa.nulls(400)), model)), name
            empty = put(empty, name, pa.nulls(400))
    assert not holes or len(set(scored(empty, model).tolist())) == 1
    before = model.state_dict()
    new = put(other, "city", pa.array([f"Atlantis {i}" for i in range(400)]))
    assert np.isfinite(scored(new, model)).all()
    # what is unknown adds nothing: whichever it is, the prediction is the same
    newer = put(other, "city", pa.array([f"Utopia {i}" for i in range(400)]))
    assert np.array_equal(scored(new, model), scored(newer, model))
    after = model.state_dict()  # and nothing of it is kept
    assert all(np.array_equal(value, after[name]) for name, value in before.items())
    assert evaluate(model, new)["metrics"]["loss"] > evaluate(model, other)["metrics"]["loss"]


def test_a_hole_where_training_had_none_is_the_mean() -> None:
    rng = np.random.default_rng(0)
    x, z = rng.normal(5, 2, 4000), rng.normal(size=4000)
    result = fit({"x": x, "z": z, "y": x + z}, target="y", epochs=3)
    data = pa.table({"x": pa.array([None, x.mean()]), "z": [1.0, 1.0], "y": [0.0, 0.0]})
    first, second = (evaluate(result.model, data.slice(i, 1))["metrics"]["mae"] for i in (0, 1))
    assert first == pytest.approx(second, abs=5e-3) and first == pytest.approx(x.mean() + 1, abs=0.1)


# -- refusals --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (
            "i",
            pa.array(["a"] * 700),
            "column 'i' is string here, but is used as int64, which does not hold 'a' without",
        ),
        ("i", pa.array([0.5] * 700), "column 'i' is double here, but is used as int64, which does not hold 0.5"),
        ("note", pa.array([[1]] * 700), "feature 'note' is list"),
        (
            "t",
            pa.array([[{"a": 1}]] * 700),
            "feature 't' is list<item: struct<a: int64>>; the model knows it as timestamp",
        ),
        ("tz", pa.nulls(700, pa.timestamp("ms", "UTC")), "feature 'tz' is timestamp.*UTC.*Europe/Berlin.*cast"),
        ("wait", pa.array([5] * 700), "feature 'wait' is int64; the model knows it as duration"),
        ("list", pa.array([[1.0]] * 700, pa.list_(pa.float64(), 1)), "'list' has 1 numbers a row; the model knows 3"),
    ],
)
def test_other_data_of_another_kind(
    trained: tuple[FitResult, Path], other: pa.Table, tmp_path: Path, name: str, values: pa.Array, message: str
) -> None:
    for model in (trained[0].model, load_model(trained[1])):
        with pytest.raises((ColumnError, SchemaError), match=message.replace("int64", "int(32|64)")):
            predict(model, put(other, name, values), out=tmp_path / "p.parquet")
    with pytest.raises(ColumnError, match=f"no column {name!r} for the features"):
        evaluate(trained[0].model, other.drop_columns([name]))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "kind"), [("city", pa.large_string()), ("code", pa.string()), ("day", pa.date64()), ("i", pa.float64())]
)
def test_other_types_that_lose_nothing(
    trained: tuple[FitResult, Path], other: pa.Table, name: str, kind: pa.DataType
) -> None:
    model = trained[0].model
    assert evaluate(model, put(other, name, other[name].cast(kind))) == evaluate(model, other)


def test_times_in_another_unit_are_the_same_times() -> None:
    """Where a model learned from the integers themselves, too."""
    times = everything()["t"]
    table = pa.table({"a": times, "b": times, "y": everything()["y"]})
    model = fit(table, target="y", roles={"a": "number", "b": "category"}).model
    whole = times.cast(pa.timestamp("s")).cast(times.type)
    known = put(put(table, "a", whole), "b", whole)
    for name in "ab":
        assert evaluate(model, put(known, name, whole.cast(pa.timestamp("ms")))) == evaluate(model, known)


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        (
            {},
            ColumnError,
            r"'nested' \(list<item: struct<a: int64>>\).*neither a number.*--exclude nested,lists, or split each",
        ),
        ({"roles": {"nested": "number"}}, ColumnError, "--as nested=number.*struct.*=ignore"),
        ({"roles": {"q": "number"}}, ColumnError, "no column 'q'.*must be one of"),
        ({"roles": {"y": "number"}}, ColumnError, "--as y=number: 'y' is not a feature"),
        ({"roles": {"f": "tmie"}}, UsageError, "--as f=tmie: .*did you mean time"),
        ({"roles": {"f": "time"}}, ColumnError, "--as f=time: the column is double"),
        ({"roles": {"f": "text"}}, ColumnError, "--as f=text: the column is double"),
        (
            {"roles": {"city": "number"}},
            SchemaError,
            "column 'city' is string here, but is used as double, which does not",
        ),
        ({"roles": "f=text"}, ColumnError, "--as f=text: the column is double"),
        ({"crosses": ["f:city"]}, ColumnError, "--cross f:city: 'f' is double.*--as f=category"),
        ({"crosses": ["list:city"]}, ColumnError, "'list' is fixed_size_list.*only categories"),
        ({"crosses": ["city:towm"]}, ColumnError, "'towm' is not a feature: did you mean 'town'"),
        ({"crosses": ["city:y"]}, ColumnError, "'y' is not a feature"),
        ({"crosses": ["city"]}, UsageError, "--cross city: give at least two"),
        ({"crosses": ["city:code", "code:city"]}, UsageError, "--cross code:city: these columns are crossed twice"),
        ({"crosses": "city"}, UsageError, "--cross city: give at least two"),
        ({"crosses": [3]}, UsageError, "give a list"),
        ({"weight": "w", "features": ["f", "w"]}, UsageError, "--weight w: is a feature too"),
        ({"weight": "city"}, ColumnError, "--weight city: the column is string"),
        ({"hash_bits": 3}, UsageError, "--hash-bits 3: must be from 4 to 28"),
        ({"learning_rate": "0.5"}, UsageError, "learning_rate='0.5': must be a number"),
        ({"holdout": "0.5"}, UsageError, "holdout='0.5': must be a number"),
        ({"features": ["nothing"]}, ColumnError, "no feature is left"),
    ],
)
def test_what_cannot_be_learned_from(asked: dict[str, Any], error: type[Exception], message: str) -> None:
    table = everything(50)
    if not asked or "nested" in asked.get("roles", {}):
        table = table.append_column("nested", pa.array([[{"a": 1}]] * 50)).append_column(
            "lists", pa.array([[[1]]] * 50)
        )
    with pytest.raises(error, match=message):
        fit(table, target="y", **asked)


def test_what_was_asked_for_is_what_a_column_becomes() -> None:
    roles = {"i": "category", "note": "category", "city": "text", "t": "number", "f": "ignore", "flag": "category"}
    model = fit(everything(400), target="y", exclude=["z"], roles=roles).model
    found = {column.name: column.role for column in model.layout.columns}
    assert {name: found.get(name, "ignore") for name in roles} == roles
    assert evaluate(model, everything(100, seed=1))["rows"] == 100


# -- hostile tables --------------------------------------------------------------------------------------------------------

HOSTILE = ["a,b", "a:b", "a=b", "a\nb", "", "t.age", "X[0]", "é", 'a"b', " a ", "\x00z", "💥", "null", "a:b:c"]


@pytest.mark.parametrize("kind", ["numbers", "strings"])
def test_names_may_hold_anything(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    values = [rng.normal(size=600) for _ in HOSTILE]
    y = (np.sum(values, axis=0) > 0).astype(int)
    columns = [v if kind == "numbers" else [f"{x:.1f}" for x in v] for v in values]
    table = pa.table([pa.array(c) for c in columns] + [pa.array(y)], names=[*HOSTILE, "y"])
    crosses = [] if kind == "numbers" else ["a:b:a,b", ("", "a=b"), "a\nb:"]
    result = fit(table, target="y", crosses=crosses, out=tmp_path / "run", epochs=3)
    assert result.report.metrics["progressive"]["accuracy"] > (0.85 if kind == "numbers" else 0.6)
    assert evaluate(load_model(tmp_path / "run"), table) == evaluate(result.model, table)


def test_a_column_named_like_a_part_of_another_is_itself() -> None:
    """The parts of t and X, and the columns t.age and X[0], are missing each by itself."""
    rng = np.random.default_rng(0)
    gone = rng.random(3000) < 0.5
    t = pa.array(rng.integers(0, 10**9, 3000), pa.timestamp("s"), mask=rng.random(3000) < 0.5)
    lists = pa.FixedShapeTensorArray.from_numpy_ndarray(np.where(rng.random((3000, 2)) < 0.5, np.nan, 1.0))
    ages = pa.array(rng.normal(size=3000), mask=gone)
    table = pa.table({"t": t, "X": lists, "t.age": ages, "X[0]": pa.array(rng.normal(size=3000), mask=gone), "y": gone})
    assert evaluate(fit(table, target="y", epochs=3).model, table)["metrics"]["accuracy"] > 0.98
    rows = np.array([[np.nan, 1], [1, np.nan]], np.float32)
    sparse = (
        Preparation(Shape(("t.age", "t.age"))).learn(Batch(rows, np.zeros(2, np.float32), None, np.arange(2))).sparse
    )
    assert sparse is not None and len(set(sparse.indices.tolist())) == 2


def test_chunks_without_rows_and_columns_without_values(tmp_path: Path) -> None:
    table = everything(300)
    none = table.slice(0, 0)
    parts = [none, table.slice(0, 100), none, table.slice(100), none]
    (tmp_path / "d").mkdir()
    for i, part in enumerate(parts):
        pq.write_table(part, tmp_path / f"d/{i}.parquet")
    model = fit(tmp_path / "d", **ASKED).model
    assert evaluate(model, tmp_path / "d")["rows"] == 300
    with pytest.raises(NotFoundError, match="no rows"):
        evaluate(model, tmp_path / "d/0.parquet")
    for name in ("i", "flag", "tz", "clock", "city", "town", "list", "tensor"):
        gone = put(table.select([name, "y"]), name, pa.nulls(300, table[name].type))
        assert fit(gone, target="y").report.metrics["progressive"]["loss"] == pytest.approx(0.69, abs=0.05), name
    with pytest.raises(ColumnError, match="no feature is left"):
        fit(table.select(["nothing", "y"]), target="y")


def test_empty_strings_and_long_texts() -> None:
    y = np.arange(400) % 2
    every: list[dict[str, Any]] = [{}, {"roles": {"x": "text"}}]
    for asked in every:
        assert fit({"x": np.array([""] * 400), "y": y}, target="y", **asked).report.rows == 400
        long = ["a short text here" if i != 399 else "word " * 200_000 for i in range(400)]
        assert fit(pa.table({"x": long, "y": y}), target="y", **asked).report.rows == 400


def test_many_columns_take_a_time_that_grows_with_them() -> None:
    """It was quadratic once: 100 s for 10,000 of strings."""
    names = [f"c{i}" for i in range(20_000)]
    schema, began = pa.schema([(name, pa.string()) for name in names]), time.perf_counter()
    assert [pick(schema, name, "test").name for name in names] == names
    assert time.perf_counter() - began < 60  # 400 s if it were quadratic still
    table = pa.table([pa.array(["u", "v"] * 16)] * 1000 + [pa.array([0, 1] * 16)], names=[*names[:1000], "y"])
    assert fit(table, target="y").report.preparation["categories"] == 1000


def test_a_type_that_differs_between_files_is_named(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    table = everything(100)
    pq.write_table(table, tmp_path / "d/0.parquet")
    pq.write_table(put(table, "city", pa.array(range(100))), tmp_path / "d/1.parquet")
    with pytest.raises((SchemaError, ColumnError, BadValueError), match="city"):
        fit(tmp_path / "d", **ASKED)

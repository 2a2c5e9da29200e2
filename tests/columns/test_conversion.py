"""The type that a model knows decides: values are converted where nothing is lost, and refused by name where it is."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamtrain import evaluate, fit, load_model, make_plan, open_reader, predict, rechunk
from streamtrain.columns.conversion import convert, converted_type
from streamtrain.errors import ColumnError, SchemaError
from streamtrain.storage.casting import NotHeldError
from streamtrain.tools.inspect import inspect

CODES = pa.dictionary(pa.int32(), pa.string())
DAY = date(2026, 1, 2)


@pytest.mark.parametrize(
    ("stored", "role", "known", "converted"),
    [
        (pa.array([7, None]), "category", pa.string(), ["7", None]),
        (pa.array([7.0, float("nan")]), "category", pa.string(), ["7", None]),
        (pa.array([7.5]), "category", pa.string(), 7.5),
        (pa.array([Decimal(7)], pa.decimal128(9, 0)), "category", pa.string(), ["7"]),
        (pa.array([DAY]), "category", pa.string(), ["2026-01-02"]),
        (pa.array([True]), "category", pa.string(), None),
        (pa.array(["7", "-1", None]), "category", pa.int64(), [7, -1, None]),
        (pa.array(["7", "07"]).dictionary_encode(), "category", pa.int64(), "07"),
        (pa.array(["07", "7"]).dictionary_encode()[1:], "category", pa.int64(), [7]),
        (pa.array([7.0, float("nan")]), "category", pa.int64(), [7, None]),
        (pa.array([7, None]), "category", pa.float64(), [7.0, None]),
        (pa.array(["7.5", "07", None]), "number", pa.int64(), [7.5, 7.0, None]),
        (pa.array(["x"]), "number", pa.float64(), "x"),
        (pa.array([str(2**53 + 1)]), "number", pa.float64(), str(2**53 + 1)),
        (pa.array(["2026-01-02"]), "time", pa.date32(), [DAY]),
        (pa.array(["2026-01-02", "soon"]), "time", pa.timestamp("us"), "soon"),
        (pa.array([DAY]), "time", pa.timestamp("us"), [datetime(2026, 1, 2)]),
        (pa.array([datetime(2026, 1, 2)]), "time", pa.date32(), [DAY]),
        (pa.array([datetime(2026, 1, 2, 3)]), "time", pa.date32(), datetime(2026, 1, 2, 3)),
        (pa.array([DAY]), "time", pa.timestamp("us", "UTC"), None),
        (pa.array([7]), "time", pa.timestamp("us"), None),
        (pa.array([[7]], pa.list_(pa.int8(), 1)), "category", pa.string(), None),
    ],
)
def test_conversions(stored: pa.Array, role: str, known: pa.DataType, converted: Any) -> None:
    kind = converted_type(stored.type, role, known)
    if converted is None:
        assert kind is None
    elif isinstance(converted, list):
        assert kind is not None and convert(stored, kind).to_pylist() == converted
    else:
        assert kind is not None
        with pytest.raises(NotHeldError) as caught:
            convert(stored, kind)
        assert caught.value.value == converted


def write_parts(root: Path, effects: dict[str, float], seed: int, *, key: str = "code", rows: int = 200) -> str:
    for i, (value, effect) in enumerate(effects.items()):
        rng = np.random.default_rng(seed + i)
        (root / f"{key}={value}").mkdir(parents=True)
        table = pa.table({"x": rng.normal(size=rows), "y": effect + 0.1 * rng.normal(size=rows)})
        pq.write_table(table, root / f"{key}={value}" / "f.parquet")
    return str(root)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("parts")
    numbers = {"7": 3.0, "8": -3.0, "11164": 1.0}
    return {
        "mixed": write_parts(root / "mixed", {**numbers, "2A001": -1.0}, 0),
        "numbers": write_parts(root / "numbers", numbers, 10),
        "zeros": write_parts(root / "zeros", {"7": 3.0, "07": -3.0}, 20),
        "days": write_parts(root / "days", {f"2026-01-{i + 1:02}": 0.1 * i for i in range(9)}, 30, key="date", rows=20),
    }


def rmse(model: Any, data: Any) -> float:
    return float(evaluate(model, data)["metrics"]["rmse"])


def test_a_model_of_text_codes_reads_whole_numbers_and_the_other_way_round(parts: dict[str, str]) -> None:
    text = fit(parts["mixed"], target="y", epochs=5).model
    assert open_reader(parts["numbers"]).schema.field("code").type == pa.int64()
    assert rmse(text, parts["numbers"]) < 0.3 and rmse(text, f"{parts['numbers']}/code=7") < 0.3
    whole = fit(parts["numbers"], target="y", epochs=5, roles={"code": "category"}).model
    with pytest.raises(
        SchemaError, match=r"code=2A001/f.parquet:0: column 'code' is string .* used as int64.*hold '2A001'"
    ):
        rmse(whole, parts["mixed"])
    with pytest.raises(SchemaError, match="does not hold '07' without loss"):
        rmse(whole, parts["zeros"])


def test_leading_zeros_and_roles_of_folders(parts: dict[str, str]) -> None:
    assert rmse(fit(parts["zeros"], target="y", epochs=5).model, parts["zeros"]) < 0.3  # 7 and 07 are two values
    number = fit(parts["zeros"], target="y", roles={"code": "number"}).model
    assert number.layout.columns[1].role == "number" and rmse(number, parts["numbers"]) > 1
    with pytest.raises(
        SchemaError, match=r"column 'code' is string here, but is used as double, .* hold '2A001'.*=category"
    ):
        fit(parts["mixed"], target="y", roles={"code": "number"})
    days = {c["name"]: c["becomes"] for c in inspect(parts["days"])["columns"]}
    assert days == {"x": "number", "y": "number", "date": "time"}
    day = fit(parts["days"], target="y", roles={"date": "category"}).model
    assert day.layout.columns[1].role == "category"


def test_a_path_to_one_partition_has_its_value(parts: dict[str, str], tmp_path: Path) -> None:
    whole = open_reader(parts["numbers"])
    one = [f"{parts['numbers']}/code=7", f"{parts['numbers']}/code=7/f.parquet", f"{parts['numbers']}/code=7/*.parquet"]
    for path in one:
        reader = open_reader(path)
        assert [chunk.key for chunk in reader.chunks()] == ["f.parquet:0"]
        batch = reader.read(reader.chunks()[0], ["x", "code"])
        assert batch.to_pylist() == whole.read(whole.chunks()[1], ["x", "code"]).to_pylist()
    (tmp_path / "code=8").symlink_to(f"{parts['numbers']}/code=7")
    assert open_reader(tmp_path / "code=8").fingerprint() != open_reader(one[0]).fingerprint()


@pytest.fixture(scope="module")
def drift(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder, rng = tmp_path_factory.mktemp("drift"), np.random.default_rng(0)
    codes = rng.integers(0, 3, 600)
    for i, note in enumerate((pa.array(codes), pa.array(codes).cast(pa.string()))):
        table = pa.table({"x": rng.normal(size=600), "note": note, "y": codes + 0.1 * rng.normal(size=600)})
        pq.write_table(table.append_column("new", pa.array(codes)) if i else table, folder / f"{i}.parquet")
    return str(folder)


def test_the_columns_asked_for_decide(drift: str) -> None:
    says = r"'note' is int64 in 0.parquet, but string in 1.parquet: give --as note=category.*, or --exclude note"
    with pytest.raises(ColumnError, match=says):
        make_plan(drift, target="y")
    with pytest.raises(ColumnError, match=r"target 'note' is int64 in 0.parquet.*: give --task classify"):
        make_plan(drift, target="note", features="x")
    assert make_plan(drift, target="note", features="x", task="classify").fits
    assert make_plan(drift, target="y", features="x").warnings == []
    warnings = make_plan(drift, target="y", exclude="note").warnings
    assert warnings == [
        "column 'new' is missing in 1 of 2 files, the first of them 0.parquet: its values are null there"
    ]
    note = inspect(drift)["columns"][1]
    assert (note["name"], note["becomes"]) == ("note", None) and "int64 in 0.parquet" in note["why"]


def test_a_conflict_is_read_as_text_on_request(drift: str, tmp_path: Path) -> None:
    run = fit(drift, target="y", features=["x", "note"], roles={"note": "category"}, epochs=5, out=tmp_path / "run")
    model = load_model(tmp_path / "run")
    for data in (drift, f"{drift}/0.parquet", f"{drift}/1.parquet"):  # 7 and "7" have the same slot
        assert rmse(model, data) == pytest.approx(rmse(run.model, data)) and rmse(model, data) < 0.3
    with pytest.raises(
        ColumnError, match=r"column 'note' is int64 in 0.parquet.*: copy the files of each type by themselves"
    ):
        rechunk(drift, out=tmp_path / "copy", chunk_rows=100)
    rechunk(f"{drift}/0*.parquet", out=tmp_path / "copy", chunk_rows=100)


def test_the_copy_of_files_that_differ_has_the_common_types(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    small, large, k = pa.array([1], pa.int8()), pa.array(["u"], pa.large_string()), pa.array(["c"]).dictionary_encode()
    one = pa.table({"a": small, "s": large, "k": k})
    two = pa.table({"k": k.cast(pa.dictionary(pa.int8(), pa.string())), "a": [0.5], "s": ["v"]})
    for i, table in enumerate((one, two.append_column("n", pa.array([True])))):
        pq.write_table(table, tmp_path / "in" / f"{i}.parquet")
    rechunk(str(tmp_path / "in"), out=tmp_path / "out", chunk_rows=2)
    copy = pq.read_table(tmp_path / "out")
    assert copy.schema.types == [pa.float64(), pa.string(), CODES, pa.bool_()]
    assert copy.to_pylist() == [{"a": 1.0, "s": "u", "k": "c", "n": None}, {"a": 0.5, "s": "v", "k": "c", "n": True}]


def test_the_index_of_a_frame_is_no_feature_unless_asked_for(tmp_path: Path) -> None:
    pandas = b'{"index_columns": ["id", {"kind": "range", "name": null, "start": 0, "stop": 9, "step": 1}]}'
    columns = {"x": np.arange(50.0), "id": np.arange(50), "__null_dask_index__": np.arange(50), "y": np.arange(50.0)}
    pq.write_table(pa.table(columns).replace_schema_metadata({"pandas": pandas}), tmp_path / "a.parquet")
    data = str(tmp_path / "a.parquet")
    assert fit(data, target="y").model.layout.features == ("x",)
    assert fit(data, target="y", features=["x", "id"]).model.layout.features == ("x", "id")
    assert fit(data, target="y", roles={"id": "category"}).model.layout.features == ("x", "id")
    assert fit(data, target="y", weight="id").model.layout.weight == "id"
    becomes = {c["name"]: (c["becomes"], c["why"]) for c in inspect(data, target="y")["columns"]}
    assert becomes["id"][0] is None and "index" in becomes["id"][1] and becomes["__null_dask_index__"][0] is None
    asked = {c["name"]: c["becomes"] for c in inspect(data, roles={"id": "category"})["columns"]}
    assert asked["id"] == "category"


def test_what_is_missing_is_said_of_other_data_too(drift: str, tmp_path: Path) -> None:
    run = fit(drift, target="y", exclude="note", out=tmp_path / "run")
    says = ["column 'new' is missing in 1 of 2 files, the first of them 0.parquet: its values are null there"]
    assert says[0] in run.report.as_dict()["warnings"]
    assert evaluate(tmp_path / "run", drift)["warnings"] == says
    assert predict(tmp_path / "run", drift, out=tmp_path / "p.parquet")["warnings"] == says
    assert evaluate(tmp_path / "run", f"{drift}/1.parquet")["warnings"] == []


def test_a_conflict_that_text_cannot_mend_is_an_error_too(tmp_path: Path) -> None:
    for i, zone in enumerate((None, "UTC")):
        columns = {"t": pa.array([0] * 9, pa.timestamp("us", zone)), "x": np.arange(9.0), "y": np.arange(9.0)}
        pq.write_table(pa.table(columns), tmp_path / f"{i}.parquet")
    with pytest.raises(
        ColumnError, match=r"'t' is timestamp\[us\] in 0.parquet, but .*UTC\] in 1.parquet: give --exclude t"
    ):
        fit(tmp_path, target="y")
    with pytest.raises(
        ColumnError, match=r"--as t=category: the column is timestamp\[us\] in 0.parquet, but .* =ignore"
    ):
        fit(tmp_path, target="y", roles={"t": "category"})
    assert fit(tmp_path, target="y", roles={"t": "ignore"}).model.layout.features == ("x",)

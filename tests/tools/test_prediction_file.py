"""Predictions beside columns of the data, in the formats that can be written."""

from __future__ import annotations

import datetime
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from make import CommandLine

from streamtrain import fit, open_reader, predict
from streamtrain.errors import ColumnError, UsageError
from streamtrain.tools import copied_columns, prediction_file

ROWS = 700
NAMES = ["d/a-b/x.parquet", "d/a/x.parquet", "d/a.parquet", "d/B.parquet", "d/a/10.parquet"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder ``d`` of files, whose names sort otherwise folder by folder; and a model ``run`` of x."""
    home = tmp_path_factory.mktemp("home")
    random = np.random.default_rng(0)
    table = pa.table(
        {
            "id": np.arange(ROWS),
            "x": random.normal(size=ROWS),
            "city": pa.array(
                [None if i % 11 == 0 else 'Oslo, "N"\n' * (i % 3) for i in range(ROWS)]
            ).dictionary_encode(),
            "when": pa.array([datetime.datetime(2024, 1, 1) + datetime.timedelta(hours=i) for i in range(ROWS)]),
            "price": pa.array([Decimal(i) / 4 for i in range(ROWS)], pa.decimal128(10, 2)),
            "tags": [[i, None] for i in range(ROWS)],
            "raw": [bytes([i % 256]) for i in range(ROWS)],
            "y": random.integers(0, 2, ROWS),
        }
    )
    for k, name in enumerate(NAMES):
        (home / name).parent.mkdir(exist_ok=True, parents=True)
        pq.write_table(table.slice(140 * k, 140), home / name, row_group_size=33)
    fit(home / "d", target="y", features=["x"], out=home / "run")
    return home


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copied_columns, "_SLICE_ROWS", 20)
    monkeypatch.setattr(copied_columns, "_PIECE_BYTES", 200)
    monkeypatch.setattr(prediction_file, "_GROUP_BYTES", 5000)


def test_the_order_is_that_of_pandas_polars_and_pyarrow(home: Path) -> None:
    reader = open_reader(home / "d")
    ours = [v for c in reader.chunks() for v in reader.read(c, ["id"])["id"].to_pylist()]
    assert ours == pd.read_parquet(home / "d", columns=["id"])["id"].tolist()
    assert ours == pl.read_parquet(home / "d/**/*.parquet", columns=["id"])["id"].to_list()
    assert ours == ds.dataset(home / "d").to_table(["id"])["id"].to_pylist()


READ: dict[str, Any] = {
    "p.parquet": pq.read_table,
    "p": pq.read_table,
    "p.arrow": lambda path: pa.ipc.open_file(path).read_all(),
    "p.feather": pyarrow.feather.read_table,
    "p.csv": lambda path: pa.table(
        pd.read_csv(path, keep_default_na=False, na_values={"prediction": [""]}).to_dict("list")
    ),
    "p.csv.gz": lambda path: pa.table(pd.read_csv(path, keep_default_na=False).to_dict("list")),
    "p.tsv": lambda path: pa.table(pd.read_csv(path, sep="\t", keep_default_na=False).to_dict("list")),
    "p.jsonl": lambda path: pa.table(pd.read_json(path, lines=True, convert_dates=False).to_dict("list")),
    "p.jsonl.zst": lambda path: pa.table(pl.read_ndjson(path).to_dict(as_series=False)),
}


@pytest.mark.parametrize("name", READ)
def test_columns_and_predictions_in_every_format(home: Path, tmp_path: Path, name: str) -> None:
    plain, columns = tmp_path / "plain.parquet", ["city", "id", "when", "price", "file", "row"]
    predict(home / "run", home / "d", out=plain)
    assert predict(home / "run", home / "d", out=tmp_path / name, columns_out=columns)["rows"] == ROWS
    found, expected = READ[name](tmp_path / name), pd.read_parquet(home / "d")
    probabilities = pq.read_table(plain)
    assert found.column_names == [*columns, *probabilities.column_names]
    assert found["id"].to_pylist() == expected["id"].tolist()
    missing = "" if ".csv" in name or ".tsv" in name else None
    cities = expected["city"].astype(object).where(expected["city"].notna(), missing).tolist()
    assert [missing if city is None else city for city in found["city"].to_pylist()] == cities
    assert [Decimal(str(v)) for v in found["price"].to_pylist()] == expected["price"].tolist()
    assert [pd.Timestamp(v) for v in found["when"].to_pylist()] == expected["when"].tolist()
    for column in probabilities.column_names:
        ours = np.asarray(found[column].to_pylist(), probabilities[column].type.to_pandas_dtype())
        np.testing.assert_array_equal(ours, probabilities[column].to_numpy())
    where = [(name[2:], row) for name in sorted(NAMES) for row in range(140)]
    assert list(zip(found["file"].to_pylist(), found["row"].to_pylist(), strict=True)) == where
    assert sorted(os.listdir(tmp_path)) == sorted({"plain.parquet", name})


def test_nested_columns_and_bytes(home: Path, tmp_path: Path) -> None:
    expected = pd.read_parquet(home / "d")
    for name in ("p.parquet", "p.arrow"):
        predict(home / "run", home / "d", out=tmp_path / name, columns_out="tags,raw")
        found = READ[name](tmp_path / name)
        assert found["raw"].to_pylist() == expected["raw"].tolist() and found["tags"][0].as_py()[1] is None
    predict(home / "run", home / "d", out=tmp_path / "p.jsonl", columns_out="tags")
    assert pl.read_ndjson(tmp_path / "p.jsonl")["tags"].to_list() == found["tags"].to_pylist()
    for name, column in (("p.csv", "tags"), ("p.csv", "raw"), ("p.jsonl", "raw")):
        with pytest.raises(ColumnError, match=rf"--columns-out {column}: .* cannot be written as .*\.parquet"):
            predict(home / "run", home / "d", out=tmp_path / name, columns_out=[column])


def test_chosen_rows_have_their_own_columns(home: Path, tmp_path: Path) -> None:
    predict(
        home / "run",
        home / "d",
        out=tmp_path / "p.csv",
        columns_out="id,file,row",
        where="x > 0.5",
    )
    found, expected = pd.read_csv(tmp_path / "p.csv"), pd.read_parquet(home / "d").query("x > 0.5")
    assert found["id"].tolist() == expected["id"].tolist() and found["row"].tolist() == (expected["id"] % 140).tolist()


def test_data_in_memory_and_own_columns_named_file(home: Path, tmp_path: Path) -> None:
    data = {"x": np.arange(5.0), "row": np.arange(5) * 10, "M": np.arange(20.0).reshape(5, 4)}
    predict(home / "run", data, out=tmp_path / "p.jsonl", columns_out=["row", "M"])
    found = pl.read_ndjson(tmp_path / "p.jsonl")
    assert found["row"].to_list() == [0, 10, 20, 30, 40] and found["M"].to_list() == data["M"].tolist()
    del data["row"]
    predict(home / "run", data, out=tmp_path / "p.jsonl", columns_out="row")
    assert pl.read_ndjson(tmp_path / "p.jsonl")["row"].to_list() == [0, 1, 2, 3, 4]
    with pytest.raises(UsageError, match="--columns-out file: the data have no column of this name"):
        predict(home / "run", data, out=tmp_path / "p.jsonl", columns_out="file")


@pytest.mark.parametrize(
    ("out", "columns", "says"),
    [
        ("p.xlsx", "id", "not written as an Excel sheet.*.parquet, .csv"),
        ("p.zarr", "id", "not written as Zarr"),
        ("p.csv.bz2", "id", "not written as text of this compression"),
        ("p.csv", "idd", "--columns-out idd: the data have no such column.*'id'"),
    ],
)
def test_what_cannot_be_is_refused(
    home: Path, tmp_path: Path, cli: CommandLine, out: str, columns: str, says: str
) -> None:
    done = cli("predict", home / "run", home / "d", "--out", tmp_path / out, "--columns-out", columns)
    assert done.code == 2 and not list(tmp_path.iterdir())
    with pytest.raises((UsageError, ColumnError), match=says):
        predict(home / "run", home / "d", out=tmp_path / out, columns_out=columns)


def test_a_column_of_the_name_of_a_prediction_is_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--columns-out prediction"):
        predict(home / "run", {"x": np.ones(3), "prediction": np.ones(3)}, out=tmp_path / "p", columns_out="prediction")


def test_fields_of_structs_are_copied(tmp_path: Path) -> None:
    users = [None if i % 7 == 0 else {"age": i, "at": {"city": "abc"[i % 3]}} for i in range(400)]
    pq.write_table(pa.table({"u": users, "y": np.arange(400) % 2}), tmp_path / "d.parquet", row_group_size=90)
    model = fit(tmp_path / "d.parquet", target="y").model
    predict(model, tmp_path / "d.parquet", out=tmp_path / "p.parquet", columns_out="u.at.city,u,u.age,row")
    found = pq.read_table(tmp_path / "p.parquet")
    assert found.column_names[:4] == ["u.at.city", "u", "u.age", "row"] and found["u"].to_pylist() == users
    assert found["u.age"].to_pylist() == [user and user["age"] for user in users]
    assert found["u.at.city"].to_pylist() == [user and user["at"]["city"] for user in users]

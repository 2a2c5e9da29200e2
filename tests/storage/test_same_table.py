"""One table as pandas, polars, duckdb, fastparquet and Spark write it: the same types, roles and trained bits."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamtrain import fit, open_reader
from streamtrain.storage.arrow import value_type
from streamtrain.tools.inspect import inspect

#: in Spark's layout: INT96 timestamps, everything optional, no schema of Arrow; the table that the others write too
SPARK = Path(__file__).parent / "files" / "spark.snappy.parquet"
GROUP_ROWS = 2048
Write = Callable[[pa.Table, Path, "int | None"], None]


def by_pandas(table: pa.Table, path: Path, group_rows: int | None) -> None:
    frame(table).to_parquet(path, engine="pyarrow", row_group_size=group_rows)


def by_fastparquet(table: pa.Table, path: Path, group_rows: int | None) -> None:
    """It has neither decimals nor dates."""
    fastparquet = pytest.importorskip("fastparquet")
    offsets = None if group_rows is None else list(range(0, table.num_rows, group_rows))
    table = table.set_column(table.column_names.index("d"), "d", table["d"].cast(pa.timestamp("us")))
    fastparquet.write(str(path), frame(table.drop_columns(["m"])), row_group_offsets=offsets, write_index=True)


def by_polars(table: pa.Table, path: Path, group_rows: int | None) -> None:
    pytest.importorskip("polars").from_arrow(table).write_parquet(path, row_group_size=group_rows)


def by_duckdb(table: pa.Table, path: Path, group_rows: int | None) -> None:
    connection = pytest.importorskip("duckdb").connect()
    connection.register("rows_of_it", table)
    groups = "" if group_rows is None else f", row_group_size {group_rows}"
    connection.execute(f"copy rows_of_it to '{path}' (format parquet{groups})")


def frame(table: pa.Table) -> Any:
    """The table as pandas, with an index that says nothing."""
    pandas = pytest.importorskip("pandas")
    nullable = {pa.int64(): pandas.Int64Dtype(), pa.bool_(): pandas.BooleanDtype()}
    made = table.to_pandas(types_mapper=nullable.get)
    return made.set_axis(list(range(7, 7 + len(made))), axis="index")


WRITERS: dict[str, Write] = {
    "pandas": by_pandas, "polars": by_polars, "duckdb": by_duckdb, "fastparquet": by_fastparquet,
}  # fmt: skip
EVERY = ("i", "x", "b", "s", "c", "t", "d", "m")
SHARED = ("i", "x", "b", "s", "c", "t")  # what fastparquet writes too


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("writers")
    table = pq.read_table(SPARK, coerce_int96_timestamp_unit="us")
    table = table.set_column(4, "c", table["c"].combine_chunks().dictionary_encode())
    for groups, rows in (("equal", GROUP_ROWS), ("own", None)):
        (root / groups).mkdir()
        for name, write in WRITERS.items():
            write(table, root / groups / f"{name}.parquet", rows)
    (root / "equal" / "spark.parquet").write_bytes(SPARK.read_bytes())
    return root


def described(path: Path, names: tuple[str, ...]) -> list[tuple[str, Any, Any]]:
    """Names, types and roles, where a decimal's digits and a time's unit do not matter."""
    types = {field.name: value_type(field.type) for field in open_reader(path).schema}
    kinds = {name: "decimal" if pa.types.is_decimal(kind) else kind for name, kind in types.items()}
    return [(c["name"], kinds[c["name"]], c["becomes"]) for c in inspect(str(path))["columns"] if c["name"] in names]


def bits(path: Path, names: tuple[str, ...], **how: Any) -> bytes:
    model = fit(str(path), target="y", features=names, batch_size=64, **how).model
    return b"".join(np.asarray(value).tobytes() for _, value in sorted(model.learner.state_dict().items()))


@pytest.mark.parametrize(("names", "writers"), [(EVERY, ("pandas", "polars", "duckdb")), (SHARED, ("fastparquet",))])
def test_the_same_types_roles_and_bits(folder: Path, names: tuple[str, ...], writers: tuple[str, ...]) -> None:
    spark = folder / "equal" / "spark.parquet"
    wanted, trained, in_order = described(spark, names), bits(spark, names), bits(spark, names, shuffle=False)
    assert {role for _, _, role in wanted} == {"number", "category", "time"} and len(wanted) == len(names)
    for writer in writers:
        equal, own = folder / "equal" / f"{writer}.parquet", folder / "own" / f"{writer}.parquet"
        assert [c.rows for c in open_reader(equal).chunks()] == [2048, 952], writer
        assert described(equal, names) == described(own, names) == wanted, writer
        assert bits(equal, names) == trained, writer
        assert bits(own, names, shuffle=False) == in_order, writer


def test_all_of_them_in_one_folder(folder: Path) -> None:
    run = fit(str(folder / "equal"), target="y")
    assert run.report.rows == 5 * 3000 and run.model.layout.features == EVERY
    assert "index" not in "".join(run.report.as_dict()["warnings"])
    assert [w for w in run.report.as_dict()["warnings"] if "missing" in w] == [
        "column 'm' is missing in 1 of 5 files, the first of them fastparquet.parquet: its values are null there"
    ]


def test_timestamps_of_96_bits_beyond_what_nanoseconds_hold(tmp_path: Path) -> None:
    times = pa.table({"t": pa.array([datetime(9999, 12, 31), datetime(2026, 1, 1)], pa.timestamp("us"))})
    pq.write_table(times, tmp_path / "a.parquet", use_deprecated_int96_timestamps=True, store_schema=False)
    reader = open_reader(tmp_path / "a.parquet")
    assert reader.read(reader.chunks()[0], ["t"]).to_pylist() == times.to_pylist()


def test_the_index_of_a_frame_in_memory_is_no_feature() -> None:
    pandas = pytest.importorskip("pandas")
    made = pandas.DataFrame({"x": np.arange(50.0), "y": np.arange(50.0)}, index=np.arange(50) * 2)
    assert fit(made, target="y").model.layout.features == ("x",)
    assert fit(made.rename_axis("id"), target="y").model.layout.features == ("x",)
    asked = fit(made.rename_axis("id"), target="y", features=["x", "id"])
    assert asked.model.layout.features == ("x", "id")

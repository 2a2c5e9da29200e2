"""A run on a table reads the snapshot that it was started with, whatever is committed to the table later."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from lake_tables import adds, delete_by_vectors, deletion_vector, iceberg_table
from pyiceberg.schema import Schema
from pyiceberg.types import DoubleType, LongType, NestedField

import streamtrain
from streamtrain.errors import NotFoundError, RunError, UsageError
from streamtrain.tools.inspect import inspect


def rows(start: int, count: int = 300) -> pa.Table:
    x = np.random.default_rng(start).normal(size=count)
    return pa.table({"x": x, "y": (x + 0.1 * start > 0).astype(np.int64)})


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


@pytest.fixture
def delta(tmp_path: Path) -> Path:
    """Version 2 of a table has deleted rows."""
    for start in (0, 1):
        write_deltalake(tmp_path / "t", rows(start), mode="append")
    (first,) = adds(tmp_path / "t", 0)
    delete_by_vectors(tmp_path / "t", 2, [(first, deletion_vector(tmp_path / "t", range(0, 300, 3)))])
    return tmp_path / "t"


def test_delta(delta: Path, tmp_path: Path) -> None:
    run, how = tmp_path / "r", {"target": "y", "seed": 1, "validate": delta}
    report = streamtrain.fit(delta, out=run, **how).report
    assert report.rows == 500
    whole = streamtrain.fit(delta, out=tmp_path / "whole", epochs=3, **how).report
    validation = json.loads((tmp_path / "whole/report.json").read_text())["metrics"]["validation"]

    write_deltalake(delta, rows(2), mode="append")
    assert streamtrain.fit(delta, out=run, resume=True, epochs=2).report.rows == 500
    table = DeltaTable(delta)
    table.optimize.compact()
    table.create_checkpoint()
    resumed = streamtrain.fit(delta, out=run, resume=True, epochs=3).report
    assert weights(run) == weights(tmp_path / "whole") and resumed.fingerprint == whole.fingerprint
    assert json.loads((run / "report.json").read_text())["metrics"]["validation"] == validation
    assert streamtrain.fit(delta, target="y").report.rows == 800
    assert streamtrain.evaluate(run, f"{delta}@2")["rows"] == 500

    with pytest.raises(RunError, match="not those that the run was started with"):
        streamtrain.fit(f"{delta}@3", out=run, resume=True, epochs=4)
    table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    with pytest.raises(NotFoundError, match="Delta table, version 2 needs the file"):
        streamtrain.fit(delta, out=run, resume=True, epochs=4)


def test_a_time_means_what_it_meant_first(delta: Path, tmp_path: Path) -> None:
    how = {"target": "y", "as_of": "2100-01-01"}
    streamtrain.fit(delta, out=tmp_path / "r", **how)
    write_deltalake(delta, rows(2), mode="append")
    report = streamtrain.fit(delta, out=tmp_path / "r", resume=True, epochs=2, **how).report
    assert report.rows == 500 and report.settings["as_of"] == "2100-01-01T00:00:00+00:00"
    with pytest.raises(RunError, match="--table-version is 3, the run has none"):
        streamtrain.fit(delta, out=tmp_path / "r", resume=True, epochs=3, table_version=3)


@pytest.mark.slow
def test_iceberg(tmp_path: Path) -> None:
    schema = Schema(NestedField(1, "x", DoubleType()), NestedField(2, "y", LongType()))
    table, run = iceberg_table(tmp_path / "t", schema), tmp_path / "r"
    table.append(rows(0))
    streamtrain.fit(tmp_path / "t", target="y", out=run)
    streamtrain.fit(tmp_path / "t", target="y", out=tmp_path / "whole", epochs=2)
    with table.update_schema() as change:
        change.rename_column("x", "z")
    table.append(rows(1).rename_columns(["z", "y"]))
    report = streamtrain.fit(tmp_path / "t", out=run, resume=True, epochs=2).report
    assert report.rows == 300 and weights(run) == weights(tmp_path / "whole")
    assert any("without version-hint.text" in warning for warning in report.as_dict()["warnings"])
    expired = table.current_snapshot().parent_snapshot_id
    table.maintenance.expire_snapshots().by_id(expired).commit()
    with pytest.raises(NotFoundError, match=f"no snapshot {expired}; it may have expired"):
        streamtrain.fit(tmp_path / "t", out=run, resume=True, epochs=3)


@pytest.mark.parametrize("memory", ["100MB", "120MB"])
def test_a_budget_below_what_the_package_takes(delta: Path, memory: str) -> None:
    """Its threads need room that the limit of the system does not give: it waited for them forever."""
    code = f"import streamtrain; streamtrain.fit({str(delta)!r}, target='y', memory={memory!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "BudgetRefused" in done.stderr


def test_the_place_of_a_run_is_not_in_the_table(delta: Path) -> None:
    with pytest.raises(UsageError, match="is inside the data"):
        streamtrain.fit(f"{delta}@1", target="y", out=delta / "run")


def test_a_copy_of_rows_and_predictions(delta: Path, tmp_path: Path) -> None:
    streamtrain.fit(delta, target="y", out=tmp_path / "r")
    assert streamtrain.predict(tmp_path / "r", delta, out=tmp_path / "p.parquet")["rows"] == 500
    copied = streamtrain.rechunk(delta, out=tmp_path / "copy", chunk_rows=100)
    assert copied["rows"] == 500
    described = inspect(delta)
    assert described["table"] == "Delta table, version 2" and described["rows"] == 500
    assert inspect(tmp_path / "copy")["table"] is None

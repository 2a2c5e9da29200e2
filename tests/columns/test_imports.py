"""What is imported: the names of roles cost nothing, and neither columns nor models need what reads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from streamtrain import fit

ABSENT = "assert not {absent} & set(sys.modules), {absent} & set(sys.modules)"


def run(code: str, absent: set[str]) -> None:
    code = f"import sys\n{code}\n{ABSENT.format(absent=absent)}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_the_names_of_roles_need_no_library() -> None:
    run(
        "from streamtrain.columns.roles import ROLES; assert 'number' in ROLES",
        {"numpy", "pyarrow", "dask", "zarr"},
    )


@pytest.mark.parametrize("module", ["columns.layout", "columns.choose", "prepare", "learn", "batch"])
def test_columns_need_neither_dask_nor_zarr(module: str) -> None:
    run(f"import streamtrain.{module}", {"dask", "zarr", "distributed", "streamtrain.load"})


def test_a_model_is_loaded_without_dask_or_zarr(tmp_path: Path) -> None:
    fit({"x": [0.0, 1.0] * 50, "city": ["a", "b"] * 50, "y": [0, 1] * 50}, target="y", out=tmp_path / "r")
    run(
        f"import streamtrain; streamtrain.load_model({str(tmp_path / 'r')!r})",
        {"dask", "zarr", "distributed", "streamtrain.load"},
    )

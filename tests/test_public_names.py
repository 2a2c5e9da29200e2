"""The public names: one short, sorted list, each with its documentation; and what importing them may cost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import streamtrain

# What each costs in memory is in nobody's budget until it is needed (pyarrow.dataset alone: 53 MB).
_LATE = {
    "distributed", "numba", "pandas", "pyarrow.compute", "pyarrow.dataset", "rich", "safetensors", "sklearn", "typer",
    "zarr",
}  # fmt: skip


def _modules_after(code: str) -> set[str]:
    command = [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_type_checkers_are_told_that_it_is_typed() -> None:
    assert (Path(streamtrain.__file__).parent / "py.typed").is_file()


def test_the_list_is_sorted_and_short() -> None:
    assert streamtrain.__all__ == sorted(set(streamtrain.__all__))
    assert len(streamtrain.__all__) <= 23


@pytest.mark.parametrize("name", streamtrain.__all__)
def test_every_name_is_there_and_documented(name: str) -> None:
    value = getattr(streamtrain, name)
    assert value.__module__.startswith("streamtrain.")
    # a dataclass without a docstring is given its signature as one
    assert value.__doc__ and not value.__doc__.startswith(f"{name}(")


def test_nothing_else_is_public() -> None:
    names = {n for n, v in vars(streamtrain).items() if not n.startswith("_") and not isinstance(v, ModuleType)}
    assert names <= set(streamtrain.__all__) <= set(dir(streamtrain))


def test_importing_it_imports_nothing_heavy() -> None:
    assert not _modules_after("import streamtrain") & _LATE


def test_training_on_parquet_imports_no_other_format() -> None:
    digits = Path(__file__).resolve().parent.parent / "data/digits.parquet"
    leave_out = (
        "from streamtrain.memory.pandas_import import leave_pandas_out\nleave_pandas_out()"  # as on the command line
    )
    code = f"import streamtrain\n{leave_out}\nstreamtrain.fit({str(digits)!r}, target='digit')"
    assert not _modules_after(code) & (_LATE - {"safetensors"})

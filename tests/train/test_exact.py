"""Other kernels of BLAS, other loops of numpy, other functions of the C library: the same bits, also of a run that goes on
elsewhere. bench/exact.py compares more."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import exact

from streamtrain.learn import OPTIMIZERS

CASES = [
    *(f"softmax, {optimizer}" for optimizer in OPTIMIZERS), "numbers, adam", "two of two, ftrl", "huber, weights",
    "everything, twice",
]  # fmt: skip
ROWS = 300
OTHERS = ("OpenBLAS for Zen", "OpenBLAS for Sandybridge", "all of an old processor")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exact")


@pytest.fixture(scope="module")
def haswell(folder: Path) -> dict[str, str]:
    """The hashes of the fits, and of a run of which a part is left in the folder."""
    environment, data = exact.ENVIRONMENTS["OpenBLAS for Haswell"], exact.write(folder / "data.arrow", ROWS)
    return exact.in_environment(environment, data, "--stop", folder / "run", *CASES)


@pytest.mark.parametrize("name", OTHERS)
def test_the_same_bits_elsewhere(haswell: dict[str, str], folder: Path, name: str) -> None:
    found = exact.in_environment(exact.ENVIRONMENTS[name], folder / "data.arrow", "--stopped", folder / "run", *CASES)
    assert [case for case in haswell if found[case] != haswell[case]] == []
    assert set(found) == {*CASES, "resumed"}

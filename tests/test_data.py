"""The samples in data/ are scikit-learn's digits, in both formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

DATA = Path(__file__).resolve().parent.parent / "data"


@pytest.fixture(scope="module")
def digits() -> Any:
    return pytest.importorskip("sklearn.datasets").load_digits()


def test_parquet_is_the_digits(digits: Any) -> None:
    file = pq.ParquetFile(DATA / "digits.parquet", page_checksum_verification=True)
    table = file.read()
    assert table.column_names == [f"p{i}_{j}" for i in range(8) for j in range(8)] + ["digit"]
    assert {str(t) for t in table.drop(["digit"]).schema.types} == {"uint8"}
    pixels = np.stack([c.to_numpy() for c in table.drop(["digit"]).columns], axis=1)
    np.testing.assert_array_equal(pixels, digits.data)
    np.testing.assert_array_equal(table["digit"].to_numpy(), digits.target)
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [300] * 5 + [297]


def test_zarr_is_the_digits(digits: Any) -> None:
    group = pytest.importorskip("zarr").open_group(DATA / "digits.zarr", mode="r")
    assert sorted(group.array_keys()) == ["X", "digit"]
    assert (group["X"].dtype, group["digit"].dtype) == (np.uint8, np.int8)
    np.testing.assert_array_equal(group["X"][:], digits.images)
    np.testing.assert_array_equal(group["digit"][:], digits.target)
    for array in group.arrays():
        assert array[1].nchunks_initialized == array[1].nchunks == 6
        assert [type(c).__name__ for c in array[1].metadata.codecs] == ["BytesCodec", "ZstdCodec", "Crc32cCodec"]


def test_samples_are_small() -> None:
    sizes = {p.name: p.stat().st_size for p in DATA.rglob("*") if p.is_file()}
    assert max(sizes.values()) < 1_000_000, sizes

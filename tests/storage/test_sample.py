"""What a fingerprint sees of what files hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

import streamtrain
from streamtrain.storage.files.sample import sampled

MB = 10**6


@given(st.lists(st.integers(0, 60), max_size=6))
def test_small_data_is_read_whole(sizes: list[int]) -> None:
    assert list(sampled(sizes)) == [(number, 0, size) for number, size in enumerate(sizes)]


@given(st.lists(st.integers(0, 40 * MB), min_size=1, max_size=5).filter(lambda sizes: sum(sizes) > 5 * MB))
def test_of_large_data_a_few_pieces_are_read_which_follow_from_the_sizes(sizes: list[int]) -> None:
    pieces = list(sampled(sizes))
    assert len(pieces) == 256 and sum(stop - start for _, start, stop in pieces) <= 256 * 16_384
    assert all(0 <= start < stop <= sizes[number] for number, start, stop in pieces)
    assert list(sampled(sizes)) == pieces == sorted(pieces, key=lambda piece: piece[0])
    large = {number for number, size in enumerate(sizes) if size > 0.2 * sum(sizes)}
    assert large <= {number for number, _, _ in pieces}


def write(path: Path, kind: str, y: Any) -> None:
    x = np.random.default_rng(0).normal(size=len(y))
    if kind == "zarr":
        group = zarr.open_group(path, mode="w")
        for name, values in (("x", x), ("y", y)):
            group.create_array(name, data=values, chunks=(10_000,), compressors=None)
    elif kind == "arrow":
        with (
            pa.OSFile(str(path), "wb") as file,
            pa.ipc.new_file(file, pa.schema({"x": pa.float64(), "y": pa.int32()})) as out,
        ):
            out.write_table(pa.table({"x": x, "y": y}), max_chunksize=10_000)
    else:
        pq.write_table(pa.table({"x": x, "y": y}), path, compression=kind, row_group_size=100_000)


@pytest.mark.parametrize("kind", ["none", "snappy", "arrow", "zarr"])
def test_labels_written_anew_in_place_are_other_data(kind: str, tmp_path: Path) -> None:
    """As many bytes, the same least and largest value."""
    y = (np.arange(500_000) % 2).astype(np.int8 if kind == "zarr" else np.int32)
    path = tmp_path / {"none": "d.parquet", "snappy": "d.parquet", "arrow": "d.arrow", "zarr": "d.zarr"}[kind]
    write(path, kind, y)
    before = streamtrain.open_reader(path).fingerprint()
    assert streamtrain.open_reader(path).fingerprint() == before
    write(path, kind, 1 - y)
    assert streamtrain.open_reader(path).fingerprint() != before

"""Deleted rows: Roaring bitmaps as pyroaring writes them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lake_tables import roaring

from streamtrain.errors import CorruptError
from streamtrain.storage.lake.bitmaps import Bitmap

ROWS = 200_001
some_rows = st.lists(st.integers(0, ROWS - 1), max_size=50)
runs = st.lists(st.tuples(st.integers(0, ROWS - 1), st.integers(1, 70_000)), max_size=4)


@given(some_rows, runs, st.booleans())
def test_any_bitmap(rows: list[int], runs: list[tuple[int, int]], compact: bool) -> None:
    gone = np.zeros(ROWS, np.bool_)
    gone[rows] = True
    for start, length in runs:
        gone[start : start + length : 1 if length % 2 else 3] = True
    bitmap, added = Bitmap(ROWS, "f"), Bitmap(ROWS, "f")
    bitmap.add_stored(roaring(np.flatnonzero(gone).tolist(), runs=compact))
    added.add(np.flatnonzero(gone))
    assert np.array_equal(bitmap.kept(0, ROWS), ~gone) and np.array_equal(bitmap.bits, added.bits)
    for start, stop in ((0, 0), (1, 9), (65_535, 65_537), (100_003, ROWS)):
        assert np.array_equal(bitmap.kept(start, stop), ~gone[start:stop])
        assert bitmap.count(start, stop) == np.count_nonzero(gone[start:stop])


def test_every_end_of_a_stored_bitmap_is_noticed() -> None:
    data = roaring([*range(5_000), *range(70_000, 80_000, 2), 140_000], runs=True)
    for stop in [*range(60), *range(60, len(data), 97)]:
        with pytest.raises(CorruptError):
            Bitmap(ROWS, "f").add_stored(data[:stop])


@given(st.binary(max_size=60), st.integers(0, 40))
def test_other_bytes_are_an_error_or_rows(noise: bytes, at: int) -> None:
    data = bytearray(roaring([1, 2, 70_000]))
    data[at : at + len(noise)] = noise
    bitmap = Bitmap(ROWS, "f")
    try:
        bitmap.add_stored(bytes(data))
    except CorruptError:
        return
    assert bitmap.count(0, ROWS) == np.count_nonzero(~bitmap.kept(0, ROWS))


def test_rows_that_a_file_does_not_have() -> None:
    for row in (-1, 5, 1 << 40):
        with pytest.raises(CorruptError, match=rf"row {row:,} is deleted, but the file has 5 rows"):
            Bitmap(5, "f").add(np.array([0, row]))

"""``.npy`` files on a server: the same rows, one request a slice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamtrain import open_reader
from streamtrain.errors import UsageError


def test_arrays_on_a_server(root: Path, web: int) -> None:
    record = np.dtype([("X", "<f4", (3,)), ("y", "<i4")])
    table = np.zeros(100_000, record)
    table["y"] = np.arange(len(table))
    folder = root / "npy"
    folder.mkdir()
    np.save(folder / "table.npy", table)
    np.save(folder / "F.npy", np.asfortranarray(np.zeros((5, 2))))
    url = f"http://127.0.0.1:{web}/npy"
    reader: Any = open_reader(f"{url}/table.npy")
    found = [reader.read(chunk, ["y"]).column(0).to_numpy() for chunk in reader.chunks()]
    assert np.array_equal(np.concatenate(found), table["y"]) and len(found) == 2
    assert reader.fingerprint() == open_reader(folder / "table.npy").fingerprint()
    with pytest.raises(UsageError, match=r"F\.npy: the array is in Fortran order.*ascontiguousarray"):
        open_reader(f"{url}/F.npy")

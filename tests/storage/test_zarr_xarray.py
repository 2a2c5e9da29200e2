"""Zarr stores as xarray writes them: dimensions by name, and values packed as CF says. Compared with what xarray reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import zarr
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from make import examples
from numpy.typing import NDArray

from streamtrain.errors import ColumnError
from streamtrain.storage.zarr import ZarrReader

xr = pytest.importorskip("xarray")
pytestmark = pytest.mark.filterwarnings("ignore")

ROWS = 40


def read(path: Path, **how: Any) -> dict[str, pa.Array]:
    reader = ZarrReader(path, missing_chunks="fill", **how)
    (chunk,) = reader.chunks()
    batch = reader.read(chunk, reader.schema.names)
    batch.validate(full=True)
    assert batch.schema == reader.schema
    return dict(zip(batch.schema.names, batch.columns, strict=True))


def as_xarray(column: Any) -> NDArray[Any]:
    if isinstance(column.type, pa.FixedShapeTensorType):
        return column.to_numpy_ndarray()
    return column.to_numpy(zero_copy_only=False)


def same(column: Any, wanted: NDArray[Any]) -> None:
    got = as_xarray(column)
    if wanted.dtype.kind in "Mm":
        wanted = wanted.astype(got.dtype)
        np.testing.assert_array_equal(np.isnat(got), np.isnat(wanted))
        np.testing.assert_array_equal(got, wanted)
    elif wanted.dtype.kind in "OUST":
        nulls = [None if v is None or v != v else v.decode() if isinstance(v, bytes) else v for v in wanted.tolist()]
        assert column.to_pylist() == nulls
    else:
        np.testing.assert_array_equal(got.astype(wanted.dtype), wanted)


encodings = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["i1", "u1", "i2", "u2", "i4", "u4", "i8", "f4", "f8"]),
        "scale_factor": st.sampled_from([None, None, 0.01, 2.5, 3]),
        "add_offset": st.sampled_from([None, None, 0.5, -40.0, 7]),
        "_FillValue": st.sampled_from([None, 0, 1, 99, "nan"]),
        "missing_value": st.sampled_from([None, None, 5, [5, 6]]),
        "_Unsigned": st.sampled_from([None, None, "true", "false"]),
        "units": st.sampled_from([None, None, "K", "days", "hours since 1990-02-03 04:05", "seconds since 2000-01-01"]),
        "width": st.sampled_from([0, 3]),
    }
)  # fmt: skip


@examples(20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(version=st.sampled_from([2, 3]), encoding=encodings, seed=st.integers(0, 9))
def test_values_are_decoded_as_xarray_does(
    tmp_path_factory: pytest.TempPathFactory, version: int, encoding: dict[str, Any], seed: int
) -> None:
    """Packed arrays, written with their attributes, as any program may have written them."""
    path = tmp_path_factory.mktemp("x") / "s.zarr"
    dtype, width = np.dtype(encoding["dtype"]), encoding["width"]
    values = np.random.default_rng(seed).integers(0, 100, (ROWS, width) if width else ROWS).astype(dtype)
    fill = encoding["_FillValue"]
    if fill == "nan":
        fill = np.nan if dtype.kind == "f" else None
    attributes = {
        k: encoding[k] for k in ("scale_factor", "add_offset", "missing_value", "units", "_Unsigned") if encoding[k] is not None
    }  # fmt: skip
    if version == 3 and fill is not None:
        from xarray.backends.zarr import FillValueCoder

        attributes["_FillValue"] = FillValueCoder.encode(fill, dtype)
    group = zarr.create_group(path, zarr_format=version)
    dims = ["t", "k"][: values.ndim]
    more = {"dimension_names": dims} if version == 3 else {}
    array = group.create_array(
        "a", shape=values.shape, dtype=dtype, chunks=(16, *values.shape[1:]),
        fill_value=fill if version == 2 else 0, **more,
    )  # fmt: skip
    array[...] = values
    array.attrs.update(attributes if version == 3 else attributes | {"_ARRAY_DIMENSIONS": dims})
    try:
        wanted = xr.open_zarr(path, consolidated=False, chunks=None)["a"].values
    except (ValueError, TypeError, OverflowError, np.exceptions.DTypePromotionError):
        return  # xarray cannot read it
    if encoding["units"] == "days" and wanted.dtype == np.int64:
        return  # xarray reads missing days as the number -2**63
    if wanted.dtype.kind in "Mm" and width:
        with pytest.raises(ColumnError, match="times in rows of shape"):
            ZarrReader(path)
        return
    same(read(path)["a"], wanted)

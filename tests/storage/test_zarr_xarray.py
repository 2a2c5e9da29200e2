"""Zarr stores as xarray writes them: dimensions by name, and values packed as CF says. Compared with what xarray reads."""

from __future__ import annotations

import json
import shutil
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

import streamtrain
from streamtrain.errors import ColumnError, CorruptError, DataError, NotFoundError, SchemaError
from streamtrain.storage import open_reader
from streamtrain.storage.settings import Asked
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


def weather(path: Path, version: int) -> Any:
    """A store as xarray writes it, with everything beside the data that usually stands there."""
    t = np.arange(ROWS)
    dataset = xr.Dataset(
        {
            "t2m": (("time", "lat", "lon"), 280 + np.random.default_rng(0).normal(size=(ROWS, 3, 4)).round(2)),
            "load": ("time", np.where(t % 9, 1.5 * t, np.nan)),
            "mask": (("lat", "lon"), np.ones((3, 4))),
            "kind": ("time", np.where(t % 2, "a", "b").astype(object)),
            "flag": ("time", t % 3 == 0),
            "word": ("time", np.array([b"ab", b"cde"])[t % 2]),
            "wait": ("time", t.astype("m8[h]").astype("m8[ns]")),
        },
        coords={
            "time": np.datetime64("2020-01-01", "ns") + t.astype("m8[h]"),
            "lat": np.arange(3.0), "lon": np.arange(4.0), "month": ("time", t % 12), "spatial_ref": 0,
        },
    )  # fmt: skip
    packed = {"dtype": "i2", "scale_factor": 0.01, "add_offset": 280.0, "_FillValue": -32768}
    dataset.to_zarr(path, zarr_format=version, encoding={"t2m": packed})
    return xr.open_zarr(path, chunks=None)


@pytest.mark.parametrize("version", [2, 3])
def test_columns_are_the_arrays_along_time(tmp_path: Path, version: int) -> None:
    wanted = weather(tmp_path / "s.zarr", version)
    got = read(tmp_path / "s.zarr", asked=Asked(("load",), "features"))
    assert set(got) == {"t2m", "load", "kind", "flag", "word", "wait", "time", "month"}
    for name, column in got.items():
        if name != "word":  # bytes are text
            same(column, wanted[name].values)
    assert got["t2m"].type == pa.fixed_shape_tensor(pa.float64(), [3, 4])
    assert got["flag"].type == pa.bool_()
    assert set(read(tmp_path / "s.zarr")) == set(got)  # most data are along time, whatever the target
    by_lat = ZarrReader(tmp_path / "s.zarr", sample_dim="lat", asked=Asked((), "shown"))
    assert by_lat.schema.names == ["lat", "mask"]
    result = streamtrain.fit(
        tmp_path / "s.zarr", target="flag", features=["t2m", "month"], missing_chunks="fill", sample_dim="time"
    )
    assert result.model.layout.features == ("t2m", "month")
    streamtrain.fit(tmp_path / "s.zarr", target="flag", exclude=["lat", "lon", "spatial_ref"], missing_chunks="fill")
    with pytest.raises(
        ColumnError, match="'lat' has 3 rows along 'lat', but the rows of the data are the 40 along 'time'"
    ):
        ZarrReader(tmp_path / "s.zarr", asked=Asked(("load", "lat"), "none"))


def test_a_dimension_that_is_not_the_first(tmp_path: Path) -> None:
    wanted = weather(tmp_path / "s.zarr", 3).drop_encoding()
    turned = wanted.transpose("lat", "lon", "time")
    turned.to_zarr(tmp_path / "turned.zarr")
    for how in ({"sample_dim": "time", "asked": Asked(("t2m",), "none")}, {"asked": Asked(("load",), "features")}):
        with pytest.raises((SchemaError, ColumnError), match=r"ds.transpose\('time', ...\)"):
            ZarrReader(tmp_path / "turned.zarr", **how)
    turned.transpose("time", ...).to_zarr(tmp_path / "again.zarr")  # the remedy
    assert "t2m" in ZarrReader(tmp_path / "again.zarr", asked=Asked(("load",), "features")).schema.names
    with pytest.raises(SchemaError, match=r"--sample-dim tme: .*'time'"):
        ZarrReader(tmp_path / "turned.zarr", sample_dim="tme")


def test_arrays_without_named_dimensions_are_narrowed_by_what_is_asked_for(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "s.zarr")
    for name, rows in (("x", 20), ("y", 20), ("z", 7)):
        group.create_array(name, data=np.arange(rows) + 1.0)
    with pytest.raises(SchemaError, match=r"'x' and 'z' have 20 and 7 rows.*--features.*--exclude"):
        streamtrain.fit(tmp_path / "s.zarr", target="y")
    for how in ({"features": ["x"]}, {"exclude": ["z"]}):
        assert streamtrain.fit(tmp_path / "s.zarr", target="y", **how).model.layout.features == ("x",)
    beside = ZarrReader(tmp_path / "s.zarr" / "x", asked=Asked(("y",), "features"))
    assert beside.schema.names == ["x", "y"]  # the target stands beside the array that was given


@pytest.mark.parametrize(
    ("units", "calendar", "values"),
    [
        ("days since 1850-01-01", "standard", [0.5, 60000.25, np.nan]),
        ("minutes since 2000-01-01 12:30:15.5 +02:00", None, [1, 2, 30]),
        ("nanoseconds since 1970-01-01", None, [1, 2, 3]),
        ("milliseconds since 2000-02-29T00:00:00Z", None, [1, 2, 3]),
    ],
)
def test_moments(tmp_path: Path, units: str, calendar: str | None, values: list[float]) -> None:
    group = zarr.create_group(tmp_path / "s.zarr")
    attributes = {"units": units} | ({} if calendar is None else {"calendar": calendar})
    array = group.create_array("a", data=np.array(values), dimension_names=["t"])
    array.attrs.update(attributes)
    same(read(tmp_path / "s.zarr")["a"], xr.open_zarr(tmp_path / "s.zarr", consolidated=False, chunks=None)["a"].values)


@pytest.mark.parametrize(("calendar", "first"), [("gregorian", "0000-12-30"), ("proleptic_gregorian", "0001-01-01")])
def test_moments_before_the_reform_of_the_calendar(tmp_path: Path, calendar: str, first: str) -> None:
    """The first day of the Julian calendar is two days before that of the Gregorian one."""
    array = zarr.create_group(tmp_path / "s.zarr").create_array("a", data=np.array([0, 577_737, 737_000]))
    array.attrs.update({"units": "days since 1-1-1", "calendar": calendar})
    same(read(tmp_path / "s.zarr")["a"], np.datetime64(first) + np.array([0, 577_737, 737_000]).astype("m8[D]"))


def test_days_of_models_and_values_that_are_no_times(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "s.zarr")
    for name, units, calendar, value in (
        ("noleap", "days since 2000-01-01", "noleap", 3),
        ("months", "months since 2000-01-01", "standard", 3),
        ("wild", "days since 2000-01-01", "standard", 10**15),
    ):
        group.create_array(name, data=np.full(4, value)).attrs.update({"units": units, "calendar": calendar})
    reader = ZarrReader(tmp_path / "s.zarr")
    (chunk,) = reader.chunks()
    assert reader.read(chunk, ["noleap", "months"]).to_pydict() == {"noleap": [3] * 4, "months": [3] * 4}
    said = reader.warnings(["noleap", "months", "wild"])
    assert len(said) == 2 and "'noleap' is read as numbers, because its calendar is 'noleap'" in said[0]
    with pytest.raises(CorruptError, match=r"'wild'.*1000000000000000.*is no time"):
        reader.read(chunk, ["wild"])
    group["noleap"].attrs["scale_factor"] = "0.1"
    assert b"is no number" in ZarrReader(tmp_path / "s.zarr").schema.field("noleap").metadata[b"problem"]


def test_a_copy_is_written_decoded(tmp_path: Path) -> None:
    wanted = weather(tmp_path / "s.zarr", 2)
    streamtrain.rechunk(tmp_path / "s.zarr", out=tmp_path / "c.zarr", chunk_rows=7, missing_chunks="fill")
    copied, again = read(tmp_path / "c.zarr"), xr.open_zarr(tmp_path / "c.zarr", consolidated=False, chunks=None)
    for name in ("t2m", "load", "time", "flag"):
        same(copied[name], wanted[name].values)
        np.testing.assert_array_equal(again[name].values, wanted[name].values)
    assert again["t2m"].dims == ("time", "lat", "lon")


@pytest.mark.parametrize(
    ("codec", "package"),
    [
        ("imagecodecs_jpegxl", "imagecodecs"),
        ("pcodec", r"numcodecs\[pcodec\]"),
        ("unheard-of", "the package that has it"),
    ],
)
def test_a_codec_that_is_not_installed(tmp_path: Path, codec: str, package: str) -> None:
    group = zarr.create_group(tmp_path / "s.zarr", zarr_format=2)
    for name in "xyz":
        group.create_array(name, data=np.arange(20) % 2 + 1)
    file = tmp_path / "s.zarr" / "z" / ".zarray"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"compressor": {"id": codec}}))
    with pytest.raises(DataError, match=rf"'z' needs a codec that is not installed here .*{codec}.*install.*{package}"):
        streamtrain.fit(tmp_path / "s.zarr", target="y")
    assert streamtrain.fit(tmp_path / "s.zarr", target="y", features=["x"]).model.layout.features == ("x",)


def test_paths_in_a_zip_file(tmp_path: Path) -> None:
    root = zarr.create_group(tmp_path / "s.zarr")
    root.create_array("inner/deep/X", data=np.arange(20.0) + 1)
    root.create_array("inner/deep/y", data=np.arange(20) % 2 + 1)
    archive = Path(shutil.make_archive(str(tmp_path / "s.zarr"), "zip", tmp_path / "s.zarr"))
    shutil.make_archive(str(tmp_path / "folder.zarr"), "zip", tmp_path, "s.zarr")
    inside = open_reader(f"{archive}/inner/deep")
    assert (
        inside.schema.names == ["X", "y"]
        and inside.fingerprint() == ZarrReader(tmp_path / "s.zarr/inner/deep").fingerprint()
    )
    assert open_reader(f"{archive}/inner/deep/X").schema.names == ["X"]
    assert streamtrain.fit(f"{archive}/inner/deep", target="y").model.layout.features == ("X",)
    with pytest.raises(NotFoundError, match=r"give .*folder.zarr.zip/s.zarr"):
        open_reader(str(tmp_path / "folder.zarr.zip"))
    assert open_reader(str(tmp_path / "folder.zarr.zip" / "s.zarr")).schema.names == ["inner/deep/X", "inner/deep/y"]
    with pytest.raises(NotFoundError):
        open_reader(f"{archive}/nowhere")

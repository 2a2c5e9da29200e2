"""Values as CF packs them (and netCDF, and xarray): with a scale, an offset, markers of missing values, and units of time. They
are decoded as xarray does, with numpy alone; https://cfconventions.org, sections 2.5, 4.4 and 8.1."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.errors import ColumnError
from streamtrain.storage.from_numpy import arrow_type, row_bits, to_arrow
from streamtrain.storage.zarr.cf_times import Durations, Times, durations_of, is_duration, is_time, times_of

__all__ = ["CF_ATTRIBUTES", "CfDecoder", "cf_decoder", "with_nulls"]

#: the attributes that decoding takes away
CF_ATTRIBUTES = frozenset(
    (
        "scale_factor",
        "add_offset",
        "_FillValue",
        "missing_value",
        "_Unsigned",
        "units",
        "calendar",
        "dtype",
        "_Encoding",
    )
)
_PACKING = ("scale_factor", "add_offset", "_FillValue", "missing_value", "_Unsigned")


@dataclass(frozen=True)
class CfDecoder:
    """How the values of an array are decoded.

    dtype: as they are stored. row_shape: of the column. joined: bytes of a text whose characters are stored one by one.
    unsigned: the integer type that they stand for. fills: markers of missing values. masked: the type in which they are
    compared and masked; None: a single value keeps its type, and is null. scaled: the type of ``values * scale + offset``.
    """

    name: str
    dtype: np.dtype[Any]
    row_shape: tuple[int, ...]
    joined: int = 0
    encoding: str = ""
    unsigned: np.dtype[Any] | None = None
    fills: tuple[Any, ...] = ()
    masked: np.dtype[Any] | None = None
    scaled: np.dtype[Any] | None = None
    scale: Any = None
    offset: Any = None
    times: Times | Durations | None = None
    is_bool: bool = False
    note: str = ""
    kept_bytes: int = 0

    @property
    def decoded_dtype(self) -> np.dtype[Any]:
        """The numpy type of the decoded values."""
        if self.times is not None:
            return np.dtype(f"{'M' if isinstance(self.times, Times) else 'm'}8[{self.times.type.unit}]")
        if self.is_bool:
            return np.dtype(np.bool_)
        if self.encoding:
            return np.dtypes.StringDType()
        if self.joined:
            return np.dtype(f"S{self.joined}")
        return self.scaled or self.masked or self.unsigned or self.dtype

    @property
    def written_dtype(self) -> np.dtype[Any]:
        """The numpy type that holds the decoded values and missing ones, as xarray has it."""
        dtype = self.decoded_dtype
        if not self.fills or dtype.kind not in "iu":
            return dtype
        return np.dtype(np.float32 if dtype.itemsize <= 2 else np.float64)

    @property
    def type(self) -> pa.DataType:
        return arrow_type(self.name, self.decoded_dtype, self.row_shape)

    @property
    def row_bits(self) -> int:
        return row_bits(self.decoded_dtype, self.row_shape) + (not self.row_shape)

    @property
    def scratch_row_bytes(self) -> int:
        item = self.joined if self.joined else 120 if self.decoded_dtype.kind == "T" else self.decoded_dtype.itemsize
        return (2 * item + 3) * math.prod(self.row_shape)  # a copy, the values compared, and masks

    def __call__(self, values: list[NDArray[Any]]) -> pa.Array:
        data, missing = self._masked(values[0])
        if self.scaled is not None:
            data = data.astype(self.scaled, copy=self.masked is None)
            if self.scale is not None:
                data *= self.scale
            if self.offset is not None:
                data += self.offset
        if self.times is not None:
            data, missing = self.times.decoded(data, missing)
        elif self.is_bool:
            data = data.astype(np.bool_)
        elif data.dtype.kind == "f" and not self.row_shape:
            missing = np.isnan(data)
        column = to_arrow(self.name, data)
        return column if missing is None or self.row_shape else with_nulls(column, missing)

    def _masked(self, values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """The values with NaN where they are missing; or which of them are missing, for a type without NaN."""
        if self.joined:
            values = np.ascontiguousarray(values).view(f"S{self.joined}").reshape(values.shape[:-1])
        if self.encoding:
            values = np.array([text.decode(self.encoding) for text in values.tolist()], np.dtypes.StringDType())
        if self.unsigned is not None:
            values = values.astype(self.unsigned)
        if not self.fills:
            return values, None
        data = values if self.masked is None else values.astype(self.masked)
        missing = np.zeros(data.shape, np.bool_)
        for fill in self.fills:
            missing |= data == fill
        if self.masked is None:
            return data, missing
        data[missing] = np.nan
        return data, None


def with_nulls(column: pa.Array, missing: NDArray[np.bool_]) -> pa.Array:
    """A column without nulls, with some. missing: which, shape (rows,)."""
    if not missing.any():
        return column
    bits = pa.py_buffer(np.packbits(~missing, bitorder="little"))
    return pa.Array.from_buffers(column.type, len(column), [bits, *column.buffers()[1:]], offset=column.offset)


def cf_decoder(
    name: str, dtype: np.dtype[Any], row_shape: tuple[int, ...], attributes: Mapping[str, Any], *, fill_value: Any = None,
    version: int = 3, has_dimensions: bool = False, joins: bool = False,
) -> CfDecoder | None:  # fmt: skip
    """How to decode an array; None if it is what it says. Raises ColumnError for attributes that have no meaning.

    fill_value: of the array, None if it has none; it marks missing values in Zarr 2 (see `_fills`). has_dimensions: whether the
    array names its dimensions, as xarray does. joins: whether the last dimension are the characters of texts.
    """
    joined = row_shape[-1] if joins and dtype == "S1" and row_shape else 0
    row_shape = row_shape[:-1] if joined else row_shape
    encoding = _encoding(attributes) if dtype.kind == "S" and not row_shape else ""
    unsigned = _unsigned(attributes, dtype)
    has_fills, fills = _fills(name, attributes, dtype, fill_value, version, has_dimensions)
    fills = tuple(_as_signed(fill, dtype, unsigned) for fill in fills) if unsigned is not None else fills
    number = dtype.kind in "iuf"
    scale, offset = (_number(name, attributes, key) if number else None for key in ("scale_factor", "add_offset"))
    packed, units = scale is not None or offset is not None, attributes.get("units")
    own, note = unsigned or dtype, ""
    times: Times | Durations | None = None
    if number and is_time(units):
        found = times_of(str(units), attributes.get("calendar"))
        if isinstance(found, str):
            note = f"{name!r} is read as numbers, because {found}"
        elif row_shape:
            raise ColumnError(
                f"array {name!r} has times in rows of shape {row_shape}, which cannot be read: leave it out"
            )
        else:
            times = found
    duration = str(attributes.get("dtype", ""))
    if number and not packed and is_duration(units) and duration.startswith(("timedelta64", "m8")) and not row_shape:
        times = durations_of(str(units), duration)
    masked = scaled = None
    if packed:
        wanted = _float_type(own, scale, offset)
        masked = (wanted if wanted.kind == "f" else np.dtype(np.float64)) if fills else None
        keeps = has_fills and not is_time(units) and not is_duration(units)
        scaled = (masked or own) if keeps else wanted
        scaled = scaled if scaled.kind == "f" or not keeps else wanted
    elif fills and own.kind in "iuf" and times is None and (own.kind == "f" or row_shape):
        masked = own if own.kind == "f" else np.dtype(np.float32 if own.itemsize <= 2 else np.float64)
    is_bool = attributes.get("dtype") == "bool" and dtype.kind in "iu"
    if is_bool and fills:
        masked = None
    made = CfDecoder(
        name, dtype, row_shape, joined, encoding, unsigned, fills, masked, scaled, scale, offset, times, is_bool, note
    )  # fmt: skip
    plain = not (joined or encoding or unsigned or fills or packed or times or is_bool or note)
    return None if plain else made


def _encoding(attributes: Mapping[str, Any]) -> str:
    """The encoding of bytes that are text; "" for UTF-8, which Arrow has."""
    encoding = str(attributes.get("_Encoding", "utf-8")).lower()
    return "" if encoding in ("utf-8", "utf8", "ascii", "us-ascii") else encoding


def _unsigned(attributes: Mapping[str, Any], dtype: np.dtype[Any]) -> np.dtype[Any] | None:
    wanted = {"true": "u", "false": "i"}.get(str(attributes.get("_Unsigned")).lower())
    return np.dtype(f"{wanted}{dtype.itemsize}") if dtype.kind in "iu" and wanted not in (None, dtype.kind) else None


def _as_signed(fill: Any, dtype: np.dtype[Any], unsigned: np.dtype[Any]) -> Any:
    """A marker as the integers of the other sign have it."""
    try:
        return np.array(int(fill), dtype).astype(unsigned)[()]
    except (OverflowError, ValueError):
        return fill


def _fills(
    name: str, attributes: Mapping[str, Any], dtype: np.dtype[Any], fill_value: Any, version: int, has_dimensions: bool
) -> tuple[bool, tuple[Any, ...]]:  # fmt: skip
    """Whether there are markers of missing values, and those that are not NaN.

    xarray takes the fill value of an array of Zarr 2 for one. Arrays without named dimensions, which xarray does not read,
    have a fill value of 0 where nobody chose one: there it counts if it is not 0, and the array is packed.
    """
    named: dict[str, Any] = {
        key: attributes[key] for key in ("missing_value", "_FillValue") if attributes.get(key) is not None
    }
    if version == 2 and fill_value is not None:
        is_packed = any(key in attributes for key in _PACKING)
        if has_dimensions or (is_packed and fill_value != 0):
            named["_FillValue"] = fill_value
    elif version == 3 and "_FillValue" in named:
        named["_FillValue"] = _decoded(name, named["_FillValue"], dtype)
    if dtype.kind not in "iufSUT":  # a boolean has no value to spare
        return False, ()
    found = False
    markers: list[Any] = []
    for value in named.values():
        each = np.ravel(np.asarray(value)).tolist() if dtype.kind in "SUT" else np.ravel(np.asarray(value))
        own = [_text(v, dtype) for v in each] if dtype.kind in "SUT" else [_checked(name, v) for v in each]
        own = [v for v in own if v is not None and not _is_nan(v)]
        if own or dtype.kind == "f":
            found, markers = True, [*markers, *own]
    return found, tuple(dict.fromkeys(markers))


def _checked(name: str, value: Any) -> Any:
    if isinstance(value, (str, bytes)):
        try:
            return np.float64(value)
        except ValueError:
            text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
            raise ColumnError(
                f"array {name!r} has the marker {text!r} of missing values, which is no number: correct its attributes, or "
                "leave it out"
            ) from None
    return value


def _text(value: Any, dtype: np.dtype[Any]) -> str | bytes | None:
    """A marker as the texts of an array have it; None for what is no text."""
    if dtype.kind == "S":
        return value.encode() if isinstance(value, str) else value if isinstance(value, bytes) else None
    return value.decode(errors="replace") if isinstance(value, bytes) else value if isinstance(value, str) else None


def _is_nan(value: Any) -> bool:
    return isinstance(value, (float, np.floating)) and math.isnan(value)


def _decoded(name: str, value: Any, dtype: np.dtype[Any]) -> Any:
    """The attribute ``_FillValue`` of Zarr 3, where xarray writes the eight bytes of a float, and other bytes, as base64."""
    if dtype.kind not in "fS" or not isinstance(value, str):
        return value
    try:
        raw = base64.b64decode(value, validate=True)
        return raw if dtype.kind == "S" else struct.unpack("<d", raw)[0]
    except (ValueError, struct.error):
        return value


def _number(name: str, attributes: Mapping[str, Any], key: str) -> Any:
    """A scale or offset; None if there is none."""
    value = attributes.get(key)
    if value is None:
        return None
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ColumnError(
            f"array {name!r} has {key} {value!r}, which is no number: correct its attributes, or leave it out"
        )
    return value


def _float_type(dtype: np.dtype[Any], scale: Any, offset: Any) -> np.dtype[Any]:
    """The type of decoded values, as xarray chooses it. Attributes are JSON, whose floats are float64."""
    if scale is not None and offset is None and isinstance(scale, int):
        return np.dtype(np.int64)
    return np.dtype(np.float64)

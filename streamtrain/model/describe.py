"""The columns and the target of a model as JSON, and back: all of a model that is text, but for its settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from streamtrain.columns.layout import Layout
from streamtrain.columns.match import family
from streamtrain.columns.roles import Column, parse_crosses, shape_of
from streamtrain.columns.target import Target
from streamtrain.columns.times import is_time

__all__ = ["describe_layout", "layout_of"]

_TIMESTAMP = re.compile(r"timestamp\[(s|ms|us|ns)(?:, tz=(.+))?\]")


def describe_layout(layout: Layout) -> dict[str, Any]:
    """Columns, target and weight, for JSON."""
    return {
        "targets": [_target(target) for target in layout.target.several] if layout.target is not None else [],
        "weight": layout.weight,
        "features": [_column(column) for column in layout.columns],
        "crosses": [list(cross) for cross in layout.crosses],
    }


def layout_of(description: Mapping[str, Any]) -> Layout:
    """The layout that was described. Raises errors of all kinds for what `describe_layout` did not make."""
    several = [
        Target(**{**t, "classes": tuple(t["classes"]), "counts": tuple(t.get("counts", ()))})
        for t in description["targets"]
    ]
    columns = tuple(
        Column(f["name"], _type(f["type"], f["shape"]), f["role"], f["why"], f["origin"], f["text_bytes"])
        for f in description["features"]
    )
    crosses = parse_crosses(description["crosses"], columns)
    return Layout(columns, Target.of(several), description["weight"], crosses)


def _target(target: Target) -> dict[str, Any]:
    names = ("name", "task", "classes", "counts", "rows", "clustering", "origin")
    return {name: plain for name in names if (plain := _plain(getattr(target, name))) is not None}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _column(column: Column) -> dict[str, Any]:
    shape = shape_of(column.type)
    return {
        "name": column.name,
        "role": column.role,
        "type": _type_name(column.type),
        "shape": None if shape is None else list(shape),
        "why": column.why,
        "origin": column.origin,
        "text_bytes": column.text_bytes,
    }


def _type_name(kind: pa.DataType) -> str:
    """A type, as far as a model needs it: any number is as good as another, the data say which it is."""
    if isinstance(kind, (pa.DictionaryType, pa.RunEndEncodedType)):
        return _type_name(kind.value_type)
    if is_time(kind) or pa.types.is_duration(kind):
        return str(kind)
    return family(kind) if shape_of(kind) is None else "number"


_TYPES: dict[str, Any] = {
    "integer": pa.int64, "number": pa.float64, "text": pa.string, "null": pa.null, "date32[day]": pa.date32,
    "date64[ms]": pa.date64,
}  # fmt: skip


def _type(name: str, shape: list[int] | None) -> pa.DataType:
    """The type of that name. Raises ValueError for one that no model has."""
    if shape is not None:
        return pa.fixed_shape_tensor(pa.float32(), shape)
    if name in _TYPES:
        return _TYPES[name]()
    if stamp := _TIMESTAMP.fullmatch(name):
        return pa.timestamp(stamp[1], stamp[2])
    for make, units in ((pa.time32, ("s", "ms")), (pa.time64, ("us", "ns")), (pa.duration, ("s", "ms", "us", "ns"))):
        for unit in units:
            if name == str(make(unit)):
                return make(unit)
    raise ValueError(f"{name!r} is no type of a feature")

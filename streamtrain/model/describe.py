"""The columns and the target of a model as JSON, and back. What comes back may come from anybody: each field is checked."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pyarrow as pa

from streamtrain.columns.crosses import parse_crosses
from streamtrain.columns.differences import Shift
from streamtrain.columns.layout import Layout
from streamtrain.columns.role import Column
from streamtrain.columns.roles import ROLES, role_named
from streamtrain.columns.target import Target
from streamtrain.columns.times import zone_named
from streamtrain.columns.types import type_named
from streamtrain.errors import ColumnError, StreamtrainError, WrongFile
from streamtrain.model.stored import StoredFields, is_kind, shown_error

__all__ = ["LAYOUT_FIELDS", "describe_layout", "layout_of"]

LAYOUT_FIELDS = ("targets", "weight", "features", "crosses")
_TARGET_FIELDS = ("name", "task", "classes", "counts", "rows", "clustering", "offset")
_FEATURE_FIELDS = ("name", "role", "type", "shape", "why")
_MAX_ENTRIES = 1 << 31  # of a tensor: Arrow's limit
_MAX_TEXT_BYTES, _MAX_TIME = 1 << 31, 1 << 63
_MAX_DIGITS = 160  # of an exact offset: a decimal has 76, and their mean a few more
_MAX_EXACT = 10**_MAX_DIGITS
_DECIMAL = re.compile(rf"-?[0-9]{{1,{_MAX_DIGITS}}}(?:\.[0-9]{{1,{_MAX_DIGITS}}})?(?:E([+-]?[0-9]{{1,4}}))?", re.ASCII)


def describe_layout(layout: Layout) -> dict[str, Any]:
    """Columns, target and weight, for JSON."""
    return {
        "targets": [_target(target) for target in layout.target.several] if layout.target is not None else [],
        "weight": layout.weight,
        "features": [column.becomes.describe(column) for column in layout.columns],
        "crosses": [list(cross) for cross in layout.crosses],
    }


def _target(target: Target) -> dict[str, Any]:
    return {name: plain for name in _TARGET_FIELDS if (plain := _plain(getattr(target, name))) is not None}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def layout_of(description: StoredFields) -> Layout:
    """The layout of a description. Raises WrongFile, which names the field, for one that `describe_layout` did not return."""
    targets = [_target_of(target) for target in description.objects("targets")]
    columns = tuple(_column_of(feature) for feature in description.objects("features"))
    weight = description.get("weight", str, optional=True)
    if not targets or not columns:
        raise WrongFile(f"{description.path}: it has no {'features' if targets else 'targets'}")
    _require_distinct(description, "targets", [target.name for target in targets])
    _require_distinct(description, "features", [column.name for column in columns])
    crosses = description.values("crosses", list)
    for i, cross in enumerate(crosses):
        if not all(is_kind(name, str) for name in cross):
            raise description.wrong(f"crosses[{i}]", cross, "it must be a list of names")
    try:
        return Layout(columns, Target.of(targets), weight, parse_crosses(crosses, columns))
    except StreamtrainError as error:
        raise WrongFile(f"{description.path}: its targets or crosses are wrong: {shown_error(error)}") from error


def _require_distinct(description: StoredFields, name: str, names: list[str]) -> None:
    seen: set[str] = set()
    for i, each in enumerate(names):
        if each in seen:
            raise description.wrong(f"{name}[{i}].name", each, "there is one of this name already")
        seen.add(each)


# -- a target ------------------------------------------------------------------------------------------------------------


def _target_of(fields: StoredFields) -> Target:
    fields.require_only(_TARGET_FIELDS)
    task, classes = (
        fields.get("task", str, choices=("classify", "regress")),
        fields.get("classes", list, optional=True) or [],
    )
    _require_classes(fields, task, classes)
    counts = fields.values("counts", int)
    if counts and len(counts) != len(classes):
        raise fields.wrong("counts", counts, f"it must have {len(classes):,}, one for each class")
    return Target(
        fields.get("name", str), task, tuple(classes), tuple(counts),
        rows=fields.get("rows", int, optional=True) or 0,
        clustering=fields.get("clustering", float, optional=True),
        offset=_shift(fields, "offset", fields.content.get("offset")),
    )  # fmt: skip


def _require_classes(fields: StoredFields, task: str, classes: list[Any]) -> None:
    """Raise WrongFile unless these can be the classes of a target: all of one kind, each once."""
    if (len(classes) < 2) if task == "classify" else bool(classes):
        raise fields.wrong("classes", classes, "there must be at least two to classify, and none to regress")
    for i, value in enumerate(classes):
        if _kind(value) is not _kind(classes[0]) or not _is_class(value):
            raise fields.wrong(f"classes[{i}]", value, "classes must be all text, all numbers, or true and false")
    seen: set[Any] = set()
    for i, value in enumerate(classes):
        if value in seen:
            raise fields.wrong(f"classes[{i}]", value, "it is there twice")
        seen.add(value)


def _kind(value: Any) -> type:
    return float if type(value) is int else type(value)  # both are numbers


def _is_class(value: Any) -> bool:
    if type(value) is int:
        return bool(abs(value) < _MAX_EXACT)
    return is_kind(value, str) or type(value) is bool or is_kind(value, float)


# -- a feature -----------------------------------------------------------------------------------------------------------


def _column_of(fields: StoredFields) -> Column:
    role = role_named(fields.get("role", str, choices=ROLES))
    fields.require_only((*_FEATURE_FIELDS, *role.remembers))
    shape = fields.values("shape", int) if fields.get("shape", list, optional=True) is not None else None
    if shape is not None and (len(shape) > 32 or math.prod(shape) >= _MAX_ENTRIES):
        raise fields.wrong("shape", shape, f"a value has less than {_MAX_ENTRIES:,} entries")
    name = fields.get("type", str)
    try:
        kind = type_named(name, shape)
    except ValueError:
        raise fields.wrong("type", name, "it must be the type of a feature") from None
    if not role.is_read or not role.accepts(kind):
        raise fields.wrong("role", role.name, f"a column of type {fields.get('type', str)[:60]} cannot have it")
    _require_zone(fields, kind)
    column = Column(fields.get("name", str), kind, role.name, fields.get("why", str))
    return replace(column, **{name: _REMEMBERED[name](fields, column) for name in role.remembers})


def _offset_of(fields: StoredFields, column: Column) -> Any:
    """The offset of a column: one number, or one for each of its entries."""
    value = fields.content.get("offset")
    if isinstance(value, list):
        if len(value) != column.numbers:
            raise fields.wrong("offset", value, f"it must be one number, or {column.numbers:,}")
        return tuple(_shift(fields, f"offset[{i}]", each) for i, each in enumerate(value))
    shift = _shift(fields, "offset", value)
    if column.role == "time" and not abs(Fraction(shift)) < _MAX_TIME:
        raise fields.wrong("offset", value, "it must be a time in 64 bits")
    return shift


def _shift(fields: StoredFields, name: str, value: Any) -> Shift:
    """An offset: a number, or the digits of a decimal. Exact ones must be short, as they are computed with exactly."""
    if isinstance(value, str) and (digits := _DECIMAL.fullmatch(value)) and abs(int(digits[1] or 0)) <= _MAX_DIGITS:
        return Decimal(value)
    if is_kind(value, float) and (type(value) is float or abs(value) < _MAX_EXACT):
        return value  # type: ignore[no-any-return]
    raise fields.wrong(name, value, f"it must be a finite number of at most {_MAX_DIGITS} digits")


def _text_bytes_of(fields: StoredFields, column: Column) -> float:
    return float(fields.get("text_bytes", float, least=0, most=_MAX_TEXT_BYTES))


def _entries_of(fields: StoredFields, column: Column) -> float:
    return float(fields.get("entries", float, least=0, most=_MAX_TEXT_BYTES))


_REMEMBERED: dict[str, Callable[[StoredFields, Column], Any]] = {
    "offset": _offset_of,
    "text_bytes": _text_bytes_of,
    "entries": _entries_of,
}


def _require_zone(fields: StoredFields, kind: pa.DataType) -> None:
    """Raise WrongFile for a time zone that nobody knows."""
    if isinstance(kind, pa.TimestampType) and kind.tz is not None:
        try:
            zone_named(kind.tz)
        except ColumnError as error:
            raise fields.wrong("type", str(kind), str(error)) from error

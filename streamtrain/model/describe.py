"""The columns and the target of a model as JSON, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamtrain.columns.crosses import parse_crosses
from streamtrain.columns.layout import Layout
from streamtrain.columns.role import Column
from streamtrain.columns.target import Target

__all__ = ["describe_layout", "layout_of"]


def describe_layout(layout: Layout) -> dict[str, Any]:
    """Columns, target and weight, for JSON."""
    return {
        "targets": [_target(target) for target in layout.target.several] if layout.target is not None else [],
        "weight": layout.weight,
        "features": [column.becomes.describe(column) for column in layout.columns],
        "crosses": [list(cross) for cross in layout.crosses],
    }


def layout_of(description: Mapping[str, Any]) -> Layout:
    """The layout of a description. Anything that `describe_layout` did not return can raise any error."""
    several = [
        Target(**{**t, "classes": tuple(t["classes"]), "counts": tuple(t.get("counts", ()))})
        for t in description["targets"]
    ]
    columns = tuple(Column.of(feature) for feature in description["features"])
    crosses = parse_crosses(description["crosses"], columns)
    return Layout(columns, Target.of(several), description["weight"], crosses)


def _target(target: Target) -> dict[str, Any]:
    names = ("name", "task", "classes", "counts", "rows", "clustering", "offset")
    return {name: plain for name in names if (plain := _plain(getattr(target, name))) is not None}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value

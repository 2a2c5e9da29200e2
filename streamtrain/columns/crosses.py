"""Crosses: which columns are learned from together, one weight for each combination of their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from streamtrain.columns.role import Column
from streamtrain.errors import ColumnError, UsageError, near_names

__all__ = ["parse_crosses"]


def parse_crosses(crosses: Sequence[str | Sequence[str]], columns: Sequence[Column]) -> tuple[tuple[str, ...], ...]:
    """The columns of each cross, which is given as ``"a:b"`` or as names.

    Raises UsageError for a cross of fewer than two columns and for one that is given twice; ColumnError for a column that is
    not a feature, or that cannot be crossed (see `Role.can_cross`).
    """
    by_name = {column.name: column for column in columns}
    parsed: list[tuple[str, ...]] = []
    seen: set[frozenset[str]] = set()
    for cross in crosses:
        names = tuple(cross.split(":")) if isinstance(cross, str) else tuple(cross)
        if isinstance(cross, str) and len(names) > 2 and not all(name in by_name for name in names):
            names = _split_with_colons(cross, by_name) or names
        if len(names) < 2 or len(set(names)) < len(names):
            raise UsageError(f"--cross {cross}: give at least two different columns, a:b")
        flag = f"--cross {':'.join(names)}"
        if frozenset(names) in seen:
            raise UsageError(f"{flag}: these columns are crossed twice")
        for name in names:
            if name not in by_name:
                raise ColumnError(f"{flag}: {name!r} is not a feature: {near_names(name, list(by_name))}")
            column = by_name[name]
            if column.role == "bag":
                raise ColumnError(
                    f"{flag}: {name!r} is {column.type}: a row of it has many values, and one is needed to cross"
                )
            if not column.becomes.can_cross(column.type):
                raise ColumnError(
                    f"{flag}: {name!r} is {column.type}: only categories and whole numbers can be crossed; round it first, or "
                    f"say --as {name}=category"
                )
        parsed.append(names)
        seen.add(frozenset(names))
    return tuple(parsed)


def _split_with_colons(cross: str, by_name: Mapping[str, Column]) -> tuple[str, ...] | None:
    """The first pair of columns whose names, joined by a colon, are the text; names may contain colons. None if there is
    none."""
    pieces = cross.split(":")
    for count in range(1, len(pieces)):
        left, right = ":".join(pieces[:count]), ":".join(pieces[count:])
        if left in by_name and right in by_name:
            return left, right
    return None

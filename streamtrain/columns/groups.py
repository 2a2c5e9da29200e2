"""Columns in groups that are read one after the other, where whole rows would take too much memory."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from streamtrain.columns.layout import Layout
from streamtrain.storage.arrow import bytes_per_row, value_type

__all__ = ["groups", "has_width"]


def groups(layout: Layout, share: float, units: Mapping[str, tuple[str, float]]) -> list[list[str]]:
    """The columns in groups that are read one after the other: each group has at most ``share`` of the bytes of a row, or
    is one column. Columns without a fixed width form one group, because their sizes are unknown. units: what is decoded to
    read each column, and its bytes of a row (see `read_units`): columns of one struct are in one group."""
    if share >= 1:
        return [list(layout.read)]
    kinds = {column.name: column.type for column in layout.columns}
    together: dict[str, list[str]] = {}  # the columns of each unit
    for name in layout.read:  # a target is looked at if the weight is not 0, so they are read together
        unit = layout.weight if layout.weight and name in layout.targets else name
        together.setdefault(units[unit][0], []).append(name)
    is_loose = {unit: any(n in kinds and not has_width(kinds[n]) for n in names) for unit, names in together.items()}
    loose = [name for unit, names in together.items() if is_loose[unit] for name in names]
    sizes = [(names, _unit_bytes(kinds, names, units)) for unit, names in together.items() if not is_loose[unit]]
    if not sizes:
        return [loose]
    most, groups, size = share * sum(size for _, size in sizes) * 1.001, [list(sizes[0][0])], sizes[0][1]
    for names, more in sizes[1:]:
        if size + more > most:
            groups, size = [*groups, []], 0.0
        groups[-1] += names
        size += more
    return [*groups, loose] if loose else groups


def _unit_bytes(kinds: Mapping[str, pa.DataType], names: list[str], units: Mapping[str, tuple[str, float]]) -> float:
    nbytes = {
        units[n][0]: units[n][1] if units[n][0] != n else bytes_per_row(kinds[n]) if n in kinds else 8.0 for n in names
    }
    return sum(nbytes.values())


def has_width(kind: pa.DataType) -> bool:
    """Whether all values of a type take the same bytes.

    >>> has_width(pa.float32()), has_width(pa.dictionary(pa.int32(), pa.string()))
    (True, False)
    """
    try:
        return bool(value_type(kind).bit_width >= 0)
    except ValueError:
        return False

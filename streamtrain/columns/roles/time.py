"""The role of times: an age, and where the time is in its day, week and year."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.columns.buffers import RowWriter
from streamtrain.columns.differences import Shift, simple
from streamtrain.columns.role import Column, Offset, Role, Unknown
from streamtrain.columns.times import is_time, time_offset_of, time_parts, to_time_numbers
from streamtrain.columns.types import TICKS_PER_SECOND, is_single, unit_of
from streamtrain.errors import ColumnError
from streamtrain.storage.arrow import value_type

__all__ = ["ROLE", "Time"]


class Time(Role):
    """Timestamps, dates and times of day (see `streamtrain.columns.times`)."""

    name = "time"
    remembers: ClassVar[tuple[str, ...]] = ("offset",)

    def accepts(self, kind: pa.DataType) -> bool:
        return is_time(kind) and is_single(kind)

    def why(self, kind: pa.DataType) -> str | None:
        if not self.accepts(kind) or isinstance(kind, pa.DictionaryType):
            return None
        return ", ".join(dict.fromkeys(part.split("_")[0] for part in time_parts(kind)))

    def entries(self, kind: pa.DataType) -> Sequence[str]:
        return [f".{part}" for part in time_parts(kind)]

    def write(self, column: Column, values: pa.Array, rows: RowWriter, at: Offset) -> None:
        rows.add_numbers(at.number, self.numbers_of(column, values))

    def numbers_of(self, column: Column, values: pa.Array) -> NDArray[np.float32]:
        """The numbers of a column of times, the age first; shape (rows, numbers)."""
        if column.learned_type is not None:  # every value is missing
            return np.full((len(values), column.numbers), np.nan, np.float32)
        try:
            return to_time_numbers(values, _offset(column))
        except ColumnError as error:  # an unknown time zone
            raise ColumnError(f"feature {column.name!r}: {error}") from None

    def unknown(self, column: Column) -> Unknown | None:
        return "offset"

    def first_rows(self, column: Column, values: pa.Array) -> Column:
        return replace(column, offset=time_offset_of(values))

    def same(self, own: Column, field: pa.Field, *, crossed: bool = False) -> Column:
        """As for every role, but the offset is converted to the unit of the other data."""
        column = super().same(own, field, crossed=crossed)
        if column.learned_type is not None:
            return column
        new, old = (TICKS_PER_SECOND[unit_of(value_type(kind))] for kind in (column.type, own.type))
        return column if new == old else replace(column, offset=simple(Fraction(_offset(own)) * new / old))


def _offset(column: Column) -> Shift:
    """The offset of a column of single values."""
    assert not isinstance(column.offset, tuple)
    return column.offset


ROLE = Time()

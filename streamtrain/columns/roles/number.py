"""The role of numbers: one float32 for each, NaN where it is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from streamtrain.columns.bags import is_bag
from streamtrain.columns.buffers import RowWriter
from streamtrain.columns.lists import lengths, one_length
from streamtrain.columns.numbers import offset_of, to_float32, unpacked
from streamtrain.columns.role import Column, Offset, Role, Unknown
from streamtrain.columns.times import is_time
from streamtrain.columns.types import is_list, is_list_of_numbers, is_single, shape_of, value_meaning
from streamtrain.errors import BadValueError, ColumnError
from streamtrain.storage.arrow import is_number, value_type, width

__all__ = ["ROLE", "Number"]


class Number(Role):
    """Numbers, booleans, decimals, durations, and tensors and fixed-size lists of them; times on request."""

    name = "number"
    remembers = ("offset",)

    def accepts(self, kind: pa.DataType) -> bool:
        return _is_numeric(kind) or is_list_of_numbers(kind) or (is_time(kind) and is_single(kind))

    def why(self, kind: pa.DataType) -> str | None:
        if is_list_of_numbers(kind) and not is_bag(kind):
            return "numbers, as many in each row"
        if not _is_numeric(kind) or (isinstance(kind, pa.DictionaryType) and is_single(kind)):
            return None
        if shape_of(kind) is not None:
            return f"{width(kind)} numbers a row"
        return "a duration, in seconds" if pa.types.is_duration(value_type(kind)) else "a number"

    def entries(self, kind: pa.DataType) -> Sequence[str]:
        shape = shape_of(kind)
        return [""] if shape is None else [f"[{','.join(map(str, index))}]" for index in np.ndindex(*shape)]

    def numbers(self, kind: pa.DataType) -> int:
        return width(kind)

    def fits_uint8(self, kind: pa.DataType) -> bool:
        return shape_of(kind) is not None and bool(value_type(kind) == pa.uint8())

    def write(self, column: Column, values: pa.Array, rows: RowWriter, at: Offset) -> None:
        if column.learned_type is not None:  # every value is missing
            rows.add_numbers(at.number, np.full((len(values), column.numbers), np.nan, np.float32))
        elif not rows.holds_uint8:
            rows.add_numbers(at.number, to_float32(values, column.offset))
        else:
            numbers, valid = unpacked(values)
            if valid is not None and not valid.all():
                raise BadValueError(
                    f"feature {column.name!r} has nulls in {rows.where}: leave it out with --exclude {column.name}"
                )
            rows.add_numbers(at.number, numbers.reshape(len(values), -1))

    def unknown(self, column: Column) -> Unknown | None:
        """The offset of numbers that float32 may not hold; how long lists are."""
        kind = column.type
        if is_list(kind):
            return "role"
        value = value_type(kind)
        return "offset" if value != pa.float32() and not pa.types.is_null(value) and value.bit_width > 16 else None

    def first_rows(self, column: Column, values: pa.Array) -> Column:
        if not is_list(column.type):
            return replace(column, offset=offset_of(values))
        if not (length := one_length(values)):
            raise ColumnError(
                f"{column.name!r} is {column.type} with {lengths(values)} numbers in the first rows: there must be as many in "
                f"each row: pad the shorter lists, or give --exclude {column.name}"
            )
        fixed = pa.list_(column.type.value_type, length)
        return replace(column, type=fixed, cast_from=column.type, why=f"lists of {length:,} numbers")

    def same(self, own: Column, field: pa.Field, *, crossed: bool = False) -> Column:
        """As for every role; where the model knows how many numbers a value has, lists may have them too."""
        kind: Any = field.type
        if shape_of(own.learned_type or own.type) is None or not is_list(kind):
            return super().same(own, field, crossed=crossed)
        if pa.types.is_null(kind.value_type):
            return super().same(own, field.with_type(pa.null()), crossed=crossed)
        fixed = super().same(own, field.with_type(pa.list_(kind.value_type, own.numbers)), crossed=crossed)
        return replace(fixed, cast_from=kind)

    def meaning(self, kind: pa.DataType) -> str:
        """Any type of number can be used for another; durations are in seconds, times in their own unit."""
        kind = value_type(kind)
        if is_time(kind):
            return value_meaning(kind)
        return "duration" if pa.types.is_duration(kind) else "number"


def _is_numeric(kind: pa.DataType) -> bool:
    return is_number(kind) or bool(pa.types.is_duration(value_type(kind)))


ROLE = Number()

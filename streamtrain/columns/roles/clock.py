"""The role of times of which only the place in the day, week and year counts: no age, so that later times are no news."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import pyarrow as pa

from streamtrain.columns.buffers import RowWriter
from streamtrain.columns.role import Column, Offset, Unknown
from streamtrain.columns.roles.time import Time
from streamtrain.columns.times import time_parts

__all__ = ["ROLE", "Clock"]


class Clock(Time):
    """Timestamps, dates and times of day, on request; as `Time`, without the age."""

    name = "clock"
    remembers: ClassVar[tuple[str, ...]] = ()

    def why(self, kind: pa.DataType) -> str | None:
        return None

    def entries(self, kind: pa.DataType) -> Sequence[str]:
        return [f".{part}" for part in time_parts(kind) if part != "age"]

    def write(self, column: Column, values: pa.Array, rows: RowWriter, at: Offset) -> None:
        numbers = self.numbers_of(column, values)
        rows.add_numbers(at.number, numbers[:, numbers.shape[1] - column.numbers :])

    def unknown(self, column: Column) -> Unknown | None:
        return None


ROLE = Clock()

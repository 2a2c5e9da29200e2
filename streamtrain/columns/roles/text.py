"""The role of text: the bytes of each value, from which n-grams are made when a batch is prepared."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from streamtrain.columns.buffers import RowWriter
from streamtrain.columns.role import Column, Offset, Role, Unknown
from streamtrain.columns.texts import NGRAMS_PER_BYTE, mean_bytes, text_bytes
from streamtrain.columns.types import is_text
from streamtrain.storage.arrow import value_type

__all__ = ["ROLE", "Text"]

_RESERVE = 1.25  # room for texts that are longer than those of the first rows


class Text(Role):
    """Strings of several words that rarely repeat: categories whose first rows read like sentences, or on request."""

    name = "text"
    has_text = True
    remembers = ("text_bytes",)

    def accepts(self, kind: pa.DataType) -> bool:
        return is_text(value_type(kind))

    def can_cross(self, kind: pa.DataType) -> bool:
        return False

    def text_bytes(self, column: Column) -> float:
        return _RESERVE * column.text_bytes

    def row_entries(self, column: Column) -> float:
        return NGRAMS_PER_BYTE * self.text_bytes(column)

    def write(self, column: Column, values: pa.Array, rows: RowWriter, at: Offset) -> None:
        rows.add_texts(at.text, *text_bytes(values))

    def unknown(self, column: Column) -> Unknown | None:
        """The length of its values. It is found together with the role, because the memory plan depends on it."""
        return "role"

    def first_rows(self, column: Column, values: pa.Array) -> Column:
        return replace(column, text_bytes=mean_bytes([value for value in values.to_pylist() if value is not None]))


ROLE = Text()

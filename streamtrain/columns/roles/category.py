"""The role of categories: a 32-bit hash of each value."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from streamtrain.columns.buffers import RowWriter
from streamtrain.columns.categories import hash_values
from streamtrain.columns.role import Column, Offset, Role, Unknown
from streamtrain.columns.roles import text
from streamtrain.columns.texts import looks_like_text
from streamtrain.columns.types import is_binary, is_single, is_text, value_meaning
from streamtrain.storage.arrow import value_type

__all__ = ["ROLE", "Category"]


class Category(Role):
    """Text, bytes and dictionaries; any single value on request. Text that reads like sentences becomes text instead."""

    name = "category"
    has_hash = True

    def accepts(self, kind: pa.DataType) -> bool:
        return is_single(kind)

    def why(self, kind: pa.DataType) -> str | None:
        value = value_type(kind)
        if not is_single(kind):
            return None
        if is_text(value):
            return "strings"
        if isinstance(kind, pa.DictionaryType):
            return "a dictionary"
        return "bytes" if is_binary(value) else None

    def can_cross(self, kind: pa.DataType) -> bool:
        return True

    def write(self, column: Column, values: pa.Array, rows: RowWriter, at: Offset) -> None:
        rows.add_hashes(at.hash, hash_values(values, column.seed))

    def unknown(self, column: Column) -> Unknown | None:
        """Unknown while nobody has decided whether the strings are names or sentences."""
        return "role" if not column.is_requested and is_text(value_type(column.type)) else None

    def first_rows(self, column: Column, values: pa.Array) -> Column:
        texts = [value for value in values.to_pylist() if value is not None]
        if not looks_like_text(texts):
            return column
        return text.ROLE.first_rows(replace(column, role="text", why="reads like sentences"), values)

    def meaning(self, kind: pa.DataType) -> str:
        return value_meaning(kind)


ROLE = Category()

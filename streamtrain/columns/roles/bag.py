"""The role of bags: any number of entries a row, each a hash and a value, which are never made dense."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from streamtrain.columns.bags import ENTRY_BYTES, bag_entries, is_bag
from streamtrain.columns.buffers import RowWriter
from streamtrain.columns.lists import one_length, unnested
from streamtrain.columns.role import Column, Offset, Role, Unknown
from streamtrain.columns.roles import number
from streamtrain.columns.types import is_list, is_list_of_numbers, value_meaning
from streamtrain.storage.arrow import is_number, value_type
from streamtrain.storage.sparse import SparseRows

__all__ = ["ROLE", "Bag"]

_RESERVE = 1.25  # room for rows with more entries than the first ones


class Bag(Role):
    """Sparse rows, lists of text, and maps; lists of whole numbers of several lengths; such lists of one length on request.

    The entries of a row are kept where the texts of a row are kept.
    """

    name = "bag"
    has_text = True
    remembers = ("entries", "text_bytes")

    def accepts(self, kind: pa.DataType) -> bool:
        return is_bag(kind)

    def why(self, kind: pa.DataType) -> str | None:
        if isinstance(kind, pa.FixedSizeListType) and is_number(kind):
            return None
        if not is_bag(kind):
            return None
        if isinstance(kind, SparseRows):
            return f"sparse rows of {kind.width:,} numbers"
        return "a map" if pa.types.is_map(kind) else "a list of categories"

    def can_cross(self, kind: pa.DataType) -> bool:
        return False

    def text_bytes(self, column: Column) -> float:
        return _RESERVE * ENTRY_BYTES * column.entries

    def row_entries(self, column: Column) -> float:
        return _RESERVE * column.entries

    def write(self, column: Column, values: pa.Array, rows: RowWriter, at: Offset) -> None:
        entries, offsets = bag_entries(values, column.seed)
        rows.find_infinite_entries(column.name, entries[:, 1].view(np.float32), offsets)
        rows.add_texts(
            at.text, entries.view(np.uint8).reshape(-1), ENTRY_BYTES * offsets, np.ones(len(values), np.bool_)
        )

    def unknown(self, column: Column) -> Unknown | None:
        """How many entries a row has, because the memory plan depends on it; and what lists of whole numbers are."""
        return "role"

    def first_rows(self, column: Column, values: pa.Array) -> Column:
        """Lists of numbers of one length are vectors, unless the user named the role."""
        if not column.is_requested and is_list_of_numbers(column.type) and (one_length(values) or 0) > 1:
            return number.ROLE.first_rows(replace(column, role="number"), values)
        entries, rows = int(unnested(values)[1][-1]), max(1, len(values))
        return replace(column, entries=entries / rows, text_bytes=values.nbytes / rows)

    def meaning(self, kind: pa.DataType) -> str:
        if isinstance(kind, SparseRows):
            return f"sparse rows of {kind.width} numbers"
        if pa.types.is_map(kind):
            return f"map of {value_meaning(kind.key_type)} to {value_meaning(kind.item_type)}"
        return f"list of {value_meaning(value_type(kind.value_type))}"

    def same(self, own: Column, field: pa.Field, *, crossed: bool = False) -> Column:
        """As for every role; where no list has any entry, the lists are of the null type."""
        kind: Any = field.type
        if is_list(kind) and pa.types.is_null(kind.value_type):
            return replace(own, type=kind, learned_type=own.type)
        return super().same(own, field, crossed=crossed)


ROLE = Bag()

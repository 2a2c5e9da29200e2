"""The role of columns that are left out: they are not read."""

from __future__ import annotations

import pyarrow as pa

from streamtrain.columns.role import Role
from streamtrain.columns.types import is_list

__all__ = ["ROLE", "Ignore"]


class Ignore(Role):
    """Any column on request; columns of the null type, or of lists of it."""

    name = "ignore"
    is_read = False

    def accepts(self, kind: pa.DataType) -> bool:
        return True

    def why(self, kind: pa.DataType) -> str | None:
        entry = kind.value_type if is_list(kind) else kind
        return "everything is missing" if pa.types.is_null(entry) else None


ROLE = Ignore()

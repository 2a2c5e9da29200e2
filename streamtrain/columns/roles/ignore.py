"""The role of columns that are left out: they are not read."""

from __future__ import annotations

import pyarrow as pa

from streamtrain.columns.role import Role

__all__ = ["ROLE", "Ignore"]


class Ignore(Role):
    """Any column on request; columns of the null type."""

    name = "ignore"
    is_read = False

    def accepts(self, kind: pa.DataType) -> bool:
        return True

    def why(self, kind: pa.DataType) -> str | None:
        return "everything is missing" if pa.types.is_null(kind) else None


ROLE = Ignore()

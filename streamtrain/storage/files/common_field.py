"""A column in several files: its common type, or why there is none."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from streamtrain.storage.common_type import CODES

__all__ = ["CONFLICT", "PROBLEM", "CommonField", "shown_type"]

#: metadata of a column: why it cannot be read; why it has no common type (where its type is not null, it can be read as text)
PROBLEM, CONFLICT = b"problem", b"conflict"


class CommonField:
    """The type of a column in the files so far, and the first file with each type."""

    def __init__(self, kind: pa.Field, file: str) -> None:
        self.type, self.nullable, self.metadata = kind.type, kind.nullable, kind.metadata
        self.problem: str | None = None
        self.kinds = {kind.type: file}

    def join(self, kind: pa.Field, file: str, join: Callable[[pa.DataType, pa.DataType], pa.DataType | None]) -> None:
        self.nullable = self.nullable or kind.nullable
        if kind.type in self.kinds:
            return
        self.kinds[kind.type] = file
        joined = None if self.problem else join(self.type, kind.type)
        if joined is not None:
            self.type = joined
        elif self.problem is None:
            (one, first), (other, then) = next(iter(self.kinds.items())), (kind.type, file)
            for known, where in self.kinds.items():
                if join(known, kind.type) is None:
                    one, first = known, where
                    break
            self.problem = f"{shown_type(one)} in {first}, but {shown_type(other)} in {then}"

    def field(self, name: str, as_text: Callable[[pa.DataType], bool], *, is_missing: bool) -> pa.Field:
        nullable = self.nullable or is_missing
        if self.problem is None:
            return pa.field(name, self.type, nullable, self.metadata)
        kind = CODES if all(map(as_text, self.kinds)) else pa.null()
        return pa.field(name, kind, metadata={**(self.metadata or {}), CONFLICT: self.problem.encode()})


def shown_type(kind: pa.DataType) -> str:
    """A type as users know it: how text is read does not matter to them."""
    if isinstance(kind, pa.DictionaryType):
        return shown_type(kind.value_type) if kind == CODES else f"a dictionary of {shown_type(kind.value_type)}"
    return str(kind)

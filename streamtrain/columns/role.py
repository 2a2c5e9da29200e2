"""What every role of a column has in common, and a column with its role.

A role turns the values of a column into what a window can hold. It works row by row, and all it knows about the data
comes from the first rows. Statistics of the whole stream are in `streamtrain.prepare`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple

import pyarrow as pa

from streamtrain.columns.buffers import TEXT_ENTRY_BYTES, RowWriter
from streamtrain.columns.categories import seed_of
from streamtrain.columns.conversion import convert, converted_type
from streamtrain.columns.differences import Shift
from streamtrain.columns.lists import of_length
from streamtrain.columns.roles import role_named
from streamtrain.columns.types import family, is_list, shape_of, type_name, value_meaning
from streamtrain.errors import ColumnError, SchemaError
from streamtrain.storage.arrow import value_type
from streamtrain.storage.casting import NotHeldError
from streamtrain.storage.files.common_field import CONFLICT, PROBLEM

__all__ = [
    "Column",
    "Offset",
    "Role",
    "Unknown",
    "has_conflict",
    "is_readable",
    "left_out",
    "problem_of",
    "type_or_problem",
]


#: what the first rows decide: the role of a column, or the offset of its numbers
Unknown = Literal["role", "offset"]


class Offset(NamedTuple):
    """Where a column begins in a row of a window: its first number, its hash and its text. -1 where it has none."""

    number: int
    hash: int
    text: int


class Role:
    """What a column becomes. The defaults describe a role that stores nothing; a subclass overrides what differs.

    name: its module's name. is_read: whether such a column is read at all. has_hash, has_text: whether a row of a window
    holds a hash, or bytes of any length, of each value. remembers: the fields of `Column` that the first rows set and a model
    file keeps.
    """

    name: ClassVar[str]
    is_read: ClassVar[bool] = True
    has_hash: ClassVar[bool] = False
    has_text: ClassVar[bool] = False
    remembers: ClassVar[tuple[str, ...]] = ()

    def accepts(self, kind: pa.DataType) -> bool:
        """Whether a column of this type can have the role on request."""
        raise NotImplementedError

    def why(self, kind: pa.DataType) -> str | None:
        """Why a column of this type has the role when nothing was requested; None if it does not."""
        return None

    def entries(self, kind: pa.DataType) -> Sequence[str]:
        """What to append to the column's name for each number that a value becomes: ``""``, ``"[2,5]"``, ``".age"``."""
        return ()

    def numbers(self, kind: pa.DataType) -> int:
        """How many numbers a value becomes."""
        return len(self.entries(kind))

    def fits_uint8(self, kind: pa.DataType) -> bool:
        """Whether a window can hold the numbers as uint8, in a quarter of the memory."""
        return False

    def can_cross(self, kind: pa.DataType) -> bool:
        """Whether the column can be part of a cross: its values are single, and not fractions, which rarely repeat."""
        return shape_of(kind) is None and family(value_type(kind)) != "number"

    def text_bytes(self, column: Column) -> float:
        """Bytes of text in a row of a window, on average."""
        return 0.0

    def row_entries(self, column: Column) -> float:
        """Entries of the sparse part that are made of the text of a row, on average."""
        return 0.0

    def row_bytes(self, column: Column) -> float:
        """Bytes in a row of a window, except the numbers, whose size depends on the other columns."""
        return 4 * self.has_hash + TEXT_ENTRY_BYTES * self.has_text + self.text_bytes(column)

    def write(self, column: Column, values: pa.Array, rows: RowWriter, at: Offset) -> None:
        """Write values to the rows of a window. Called from several threads."""

    def unknown(self, column: Column) -> Unknown | None:
        """What must be decided by the first rows of the column; None if they need not be read."""
        return None

    def first_rows(self, column: Column, values: pa.Array) -> Column:
        """The column, completed from its first values if something was `unknown`."""
        return column

    def meaning(self, kind: pa.DataType) -> str:
        """What values of this type mean to a model. Two types with the same meaning can be used for each other."""
        return family(value_type(kind))

    def same(self, own: Column, field: pa.Field, *, crossed: bool = False) -> Column:
        """The column ``own`` of a model, as other data store it. Raises ColumnError if its values mean something else there.

        crossed: whether the column is part of a cross; then the hashes of its values must be the same too. A column of
        the null type is accepted for any: all of its values are missing.
        """
        kind = field.type
        if pa.types.is_null(value_type(kind)):
            return replace(own, type=kind, learned_type=own.type, cast_from=None)
        readable = is_readable(field)
        usable = self.accepts(kind) and readable and self.meaning(kind) == self.meaning(own.type)
        if not usable or (crossed and value_meaning(kind) != value_meaning(own.type)):
            into = converted_type(kind, "category" if crossed else self.name, own.type) if readable else None
            if into is not None and (not crossed or value_meaning(into) == value_meaning(own.type)):
                return replace(own, type=into, learned_type=None, cast_from=kind)
            raise ColumnError(
                f"feature {own.name!r} is {type_or_problem(field)}; the model knows it as {own.type}: cast it first"
            )
        if self.numbers(kind) != own.numbers:
            raise ColumnError(
                f"feature {own.name!r} has {self.numbers(kind)} numbers a row; the model knows {own.numbers}"
            )
        return replace(own, type=kind, learned_type=None, cast_from=None)

    def describe(self, column: Column) -> dict[str, Any]:
        """The column for a model file, as JSON."""
        shape = shape_of(column.type)
        return {
            "name": column.name,
            "role": column.role,
            "type": type_name(column.type),
            "shape": None if shape is None else list(shape),
            "why": column.why,
            **{field: _plain(getattr(column, field)) for field in self.remembers},
        }


@dataclass(frozen=True)
class Column:
    """A column and its role.

    role: one of `ROLES`. why: for people. offset: what is subtracted from its numbers before they are rounded to float32
    (dates as numbers, large ids, numbers of many digits), in the column's own unit; one for each entry, or one for all.
    text_bytes: mean decoded bytes of a text, or of the entries of a bag, in the first rows. entries: of a bag, on average in
    the first rows. learned_type: the type that the model learned from, if every value of these data is missing.
    is_requested: whether the user chose the role. cast_from: the type in the data, if the values are converted, or if they are
    lists that turned out to have one length.
    """

    name: str
    type: pa.DataType
    role: str
    why: str
    offset: Shift | tuple[Shift, ...] = 0.0
    text_bytes: float = 0.0
    entries: float = 0.0
    learned_type: pa.DataType | None = None
    is_requested: bool = False
    cast_from: pa.DataType | None = None

    @cached_property
    def becomes(self) -> Role:
        """What the column becomes: the role as an object."""
        return role_named(self.role)

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """The name of each number that a value becomes: ``x``; ``X[3]`` and ``X[2,5]`` for entries; ``t.age``."""
        return tuple(self.name + entry for entry in self.becomes.entries(self.learned_type or self.type))

    @cached_property
    def numbers(self) -> int:
        """How many numbers a value becomes."""
        return self.becomes.numbers(self.learned_type or self.type)

    @cached_property
    def seed(self) -> int:
        """The seed of the hashes of its values."""
        return seed_of(self.name)

    def as_known(self, values: pa.Array, where: str) -> pa.Array:
        """The values as the type of the column. Raises SchemaError if they are of another type than the data have, and for a
        value that the type does not hold; OddListError for a list of another length. where: names the chunk."""
        if values.type == self.type and self.cast_from is None:
            return values
        if values.type != self.cast_from:
            expected = self.cast_from or self.type
            raise SchemaError(f"{where}: column {self.name!r} is {values.type}, but {expected} was expected")
        if is_list(values.type):
            return of_length(values, self.numbers)
        try:
            return convert(values, self.type)
        except NotHeldError as error:
            how = "on data in which it is text" if self.role == "category" else f"with --as {self.name}=category"
            raise SchemaError(
                f"{where}: column {self.name!r} is {value_type(values.type)} here, but is used as {self.type}, which does not "
                f"hold {error.value!r} without loss: correct the value, or train {how}"
            ) from None

    def as_dict(self) -> dict[str, Any]:
        """What ``streamtrain inspect`` shows."""
        return {"becomes": self.role, "why": self.why, "numbers": self.numbers}


def _plain(value: Any) -> Any:
    """Offsets and sizes as JSON: a Decimal becomes its digits."""
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Decimal) else value


def problem_of(field: pa.Field) -> str | None:
    """Why a reader cannot read a column; None if it can."""
    metadata = field.metadata or {}
    problem = metadata.get(PROBLEM, metadata.get(CONFLICT))
    return None if problem is None else problem.decode()


def is_readable(field: pa.Field) -> bool:
    """Whether a column can be read, if only as text because its values have no common type."""
    return problem_of(field) is None or (has_conflict(field) and not pa.types.is_null(field.type))


def has_conflict(field: pa.Field) -> bool:
    """Whether the values of a column have no common type."""
    return CONFLICT in (field.metadata or {})


def left_out(field: pa.Field) -> str | None:
    """Why a column is no feature unless it is named; None if it is one."""
    reason = (field.metadata or {}).get(b"left_out")
    return None if reason is None else reason.decode()


def type_or_problem(field: pa.Field) -> str:
    """The type of a column, or why it cannot be read."""
    return problem_of(field) or str(field.type)

"""What each column becomes, and why: numbers, times, categories, text, or nothing.

This is the half of the preparation that knows no data: it turns the values of a column into numbers that a window can
hold, in the threads that read. What is learned from the stream stands in `streamtrain.prepare`.

| role | of | in a window |
| --- | --- | --- |
| number | numbers, booleans, decimals, durations (seconds), tensors and fixed-size lists of them | float32, NaN where missing |
| time | timestamps, dates, times of day | float32: age in days, hour, weekday and month on circles |
| category | text, bytes, dictionaries; whatever is asked to be one | a 32-bit signature of the value |
| text | text of several words that hardly repeats | its bytes |
| ignore | columns in which everything is missing; whatever is asked to be left out | nothing: it is not read |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.columns.categories import seed_of
from streamtrain.columns.numbers import to_float32
from streamtrain.columns.settings import ROLES
from streamtrain.columns.times import is_time, time_parts, to_time_numbers
from streamtrain.errors import ColumnError, UsageError, near_names
from streamtrain.storage.arrow import is_number, value_type, width

__all__ = ["Column", "choose_role", "choose_roles", "looks_like_text", "mean_bytes", "parse_crosses"]

_SHORT = "strings"
_TEXT_WORDS, _TEXT_DISTINCT, _TEXT_VALUES = 4.0, 0.5, 8


@dataclass(frozen=True)
class Column:
    """One column, and what it becomes.

    role: a name of the table above. why: for people. origin: what is subtracted from its numbers before they are rounded to
    float32 (64-bit columns: dates as numbers, large ids), in the column's own unit. text_bytes: of a text, on average, as
    far as the first rows tell. known: the type that a model learned from, where that of these data says only that everything
    is missing.

    >>> column = choose_role(pa.field("city", pa.string()))
    >>> column.role, column.numbers, column.why
    ('category', 0, 'strings')
    """

    name: str
    type: pa.DataType
    role: str
    why: str
    origin: float = 0.0
    text_bytes: float = 0.0
    known: pa.DataType | None = None

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """The name of each number that it becomes: ``x``; ``X[3]`` and ``X[2,5]`` for entries; ``t.age``, ``t.hour_sin``."""
        kind = self.known or self.type
        if self.role == "time":
            return tuple(f"{self.name}.{part}" for part in time_parts(kind))
        if self.role != "number":
            return ()
        shape = shape_of(kind)
        entries = [""] if shape is None else [f"[{','.join(map(str, at))}]" for at in np.ndindex(*shape)]
        return tuple(self.name + entry for entry in entries)

    @cached_property
    def numbers(self) -> int:
        """How many numbers a row of it is."""
        kind = self.known or self.type
        if self.role == "time":
            return len(time_parts(kind))
        return width(kind) if self.role == "number" else 0

    @cached_property
    def seed(self) -> int:
        """Of the signatures of its values."""
        return seed_of(self.name)

    def to_numbers(self, values: pa.Array) -> NDArray[np.float32]:
        """The numbers of its values, shape (rows,) or (rows, numbers), NaN where they are missing."""
        if self.known is not None:
            return np.full((len(values), self.numbers), np.nan, np.float32)
        if self.role == "time":
            try:
                return to_time_numbers(values, int(self.origin))
            except ColumnError as error:  # a time zone that is not known
                raise ColumnError(f"feature {self.name!r}: {error}") from None
        return to_float32(values, self.origin)

    def with_origin(self, origin: float) -> Column:
        return replace(self, origin=origin)

    def as_dict(self) -> dict[str, Any]:
        """What ``streamtrain inspect`` shows."""
        return {"becomes": self.role, "why": self.why, "numbers": self.numbers}


def shape_of(kind: pa.DataType) -> tuple[int, ...] | None:
    """The shape of one value; None for a single number.

    >>> shape_of(pa.list_(pa.float32(), 3)), shape_of(pa.float32())
    ((3,), None)
    """
    if isinstance(kind, pa.FixedShapeTensorType):
        return tuple(kind.shape)
    if isinstance(kind, pa.FixedSizeListType):
        return (kind.list_size, *(shape_of(kind.value_type) or ()))
    return None


def _is_text(kind: pa.DataType) -> bool:
    t = pa.types
    return bool(t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind))


def _is_binary(kind: pa.DataType) -> bool:
    t = pa.types
    return bool(t.is_binary(kind) or t.is_large_binary(kind) or t.is_binary_view(kind) or t.is_fixed_size_binary(kind))


def choose_role(field: pa.Field, asked: str | None = None) -> Column:
    """What a column becomes: as asked, or by its type. Raises ColumnError where it cannot be that."""
    kind, value = field.type, value_type(field.type)
    problem = (field.metadata or {}).get(b"problem")
    if asked == "ignore" or (asked is None and pa.types.is_null(kind)):
        return Column(field.name, kind, "ignore", "as asked" if asked else "everything is missing")
    numeric = is_number(kind) or pa.types.is_duration(value)
    nested = shape_of(kind) is not None
    simple = not nested and (
        numeric or is_time(value) or _is_text(value) or _is_binary(value) or pa.types.is_null(kind)
    )
    fits = {
        "number": numeric or (is_time(kind) and simple),
        "category": simple,
        "text": _is_text(value),
    }
    if asked is not None:
        if asked not in ROLES:
            raise UsageError(f"--as {field.name}={asked}: {near_names(asked, ROLES)}")
        if problem is not None or not fits[asked]:
            raise ColumnError(f"--as {field.name}={asked}: the column is {kind_name(field)}: leave it out with =ignore")
        return Column(field.name, kind, asked, "as asked")
    if problem is None and isinstance(kind, pa.DictionaryType) and simple:
        return Column(field.name, kind, "category", _SHORT if _is_text(value) else "a dictionary")
    if problem is None and numeric:
        shape = shape_of(kind)
        named = "a duration, in seconds" if pa.types.is_duration(value) else "a number"
        return Column(field.name, kind, "number", named if shape is None else f"{width(kind)} numbers a row")
    if problem is None and is_time(kind):
        return Column(field.name, kind, "time", ", ".join(dict.fromkeys(p.split("_")[0] for p in time_parts(kind))))
    if problem is None and simple:
        return Column(field.name, kind, "category", _SHORT if _is_text(value) else "bytes")
    raise ColumnError(f"{field.name!r} ({kind_name(field)})")


def kind_name(field: pa.Field) -> str:
    """The type of a column, or why it has none."""
    problem = (field.metadata or {}).get(b"problem")
    return str(field.type) if problem is None else problem.decode()


def choose_roles(schema: pa.Schema, names: Sequence[str], asked: Mapping[str, str]) -> tuple[Column, ...]:
    """The role of each of the named columns. Raises ColumnError that lists all that can have none, with the remedy."""
    columns, refused = [], []
    for name in names:
        try:
            columns.append(choose_role(schema.field(name), asked.get(name)))
        except ColumnError as error:
            if name in asked:
                raise
            refused.append((name, str(error)))
    if refused:
        shown = ", ".join(text for _, text in refused[:5])
        more = f" and {len(refused) - 5} more" if len(refused) > 5 else ""
        raise ColumnError(
            f"neither numbers, times, categories nor text: {shown}{more}: take such columns apart first, or leave them out "
            f"with --exclude {listed([name for name, _ in refused])}"
        )
    return tuple(columns)


def listed(names: Sequence[str]) -> str:
    """Names as --exclude takes them: those with a comma in quotes."""
    return ",".join(f'"{name}"' if "," in name else name for name in names)


def parse_crosses(crosses: Sequence[str | Sequence[str]], columns: Sequence[Column]) -> tuple[tuple[str, ...], ...]:
    """The columns of each cross, ``"a:b"`` or names. Raises UsageError for fewer than two, ColumnError for what cannot be
    crossed: columns that are not features, numbers with fractions (their values hardly repeat), text, tensors."""
    known = {column.name: column for column in columns}
    found: list[tuple[str, ...]] = []
    for cross in crosses:
        names = tuple(cross.split(":")) if isinstance(cross, str) else tuple(cross)
        if isinstance(cross, str) and len(names) > 2 and not all(name in known for name in names):
            names = _split(cross, known) or names
        if len(names) < 2 or len(set(names)) < len(names):
            raise UsageError(f"--cross {cross}: give at least two different columns, a:b")
        if any(set(names) == set(other) for other in found):
            raise UsageError(f"--cross {':'.join(names)}: these columns are crossed twice")
        for name in names:
            if name not in known:
                raise ColumnError(f"--cross {':'.join(names)}: {name!r} is no feature: {near_names(name, list(known))}")
            column = known[name]
            whole = not pa.types.is_floating(value_type(column.type)) and not pa.types.is_decimal(
                value_type(column.type)
            )
            if column.role == "text" or shape_of(column.type) is not None or not (whole or column.role == "category"):
                raise ColumnError(
                    f"--cross {':'.join(names)}: {name!r} is {column.type}: only categories and whole numbers can be "
                    f"crossed; round it first, or say --as {name}=category"
                )
        found.append(names)
    return tuple(found)


def _split(cross: str, known: Mapping[str, Column]) -> tuple[str, ...] | None:
    """The one way in which the text is made of names that are known, where names hold colons."""
    pieces = cross.split(":")
    for at in range(1, len(pieces)):
        left, right = ":".join(pieces[:at]), ":".join(pieces[at:])
        if left in known and right in known:
            return left, right
    return None


def looks_like_text(values: Sequence[str]) -> bool:
    """Whether values read like sentences: four words or more on average, and most of them different.

    >>> looks_like_text([f"the cat {i} sat on the mat" for i in range(9)]), looks_like_text(["New York"] * 9)
    (True, False)
    """
    if len(values) < _TEXT_VALUES or len(set(values)) < _TEXT_DISTINCT * len(values):
        return False
    return sum(len(value.split()) for value in values) >= _TEXT_WORDS * len(values)


def mean_bytes(values: Sequence[str]) -> float:
    """Bytes of a value in UTF-8, on average; 0 for none."""
    return sum(len(value.encode()) for value in values) / max(1, len(values))

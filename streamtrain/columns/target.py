"""The target: its task, its classes, and how its values become what a learner takes.

Integers, booleans and strings are classes; floats are regression.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.columns.conversion import convert, converted_type
from streamtrain.columns.decimals import class_of, digits
from streamtrain.columns.differences import Shift
from streamtrain.columns.numbers import as_numbers, less
from streamtrain.columns.role import has_conflict, problem_of
from streamtrain.columns.target_values import (
    NOT_FINITE,
    NULL,
    Unusable,
    bad_message,
    is_named,
    named_values,
    only,
    plain_values,
    single_targets,
    target_type,
)  # fmt: skip
from streamtrain.columns.types import is_text
from streamtrain.errors import BadValueError, ColumnError, DataError, UsageError
from streamtrain.storage.arrow import is_number, value_type, width
from streamtrain.storage.casting import NotHeldError
from streamtrain.storage.where.grammar import without

__all__ = ["Target", "resolve_task"]

_TASKS = ("classify", "regress")
_MISSING_LABELS = ("", "?", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "null", "NULL", "\\N")


@dataclass(frozen=True)
class Target:
    """The target: one column, or several.

    classes: the distinct values, sorted; empty for regression. counts: the rows of each class; empty if they were not
    counted. rows: how many rows there are; 0 if the column was not read. clustering: the variance between blocks of 8,192
    rows over the variance of all rows: 0 if every block has the same mix of targets, 1 if each block has a single value;
    None if unknown. offset: what is subtracted from a regression target before it becomes float32, if its values are far
    larger than their spread. parts: the target of each column, if there are several: all have the same task, and each has
    two classes.
    """

    name: str
    task: str
    classes: tuple[Any, ...] = ()
    counts: tuple[int, ...] = ()
    rows: int = 0
    clustering: float | None = None
    offset: Shift = 0.0
    parts: tuple[Target, ...] = ()

    @classmethod
    def of(cls, parts: Sequence[Target]) -> Target:
        """One target of one or more columns. Raises DataError if they cannot be learned together."""
        if len(parts) == 1:
            return parts[0]
        tasks = {part.task for part in parts}
        if len(tasks) > 1:
            shown = ", ".join(f"{part.name!r} ({part.task})" for part in parts)
            raise DataError(f"several targets must have one task: {shown}: say --task, or learn them one by one")
        many = [part for part in parts if len(part.classes) not in (0, 2)]
        if many:
            raise DataError(
                f"target {many[0].name!r} has {len(many[0].classes)} classes: several targets must have two classes each"
            )
        names = ",".join(part.name for part in parts)
        return cls(names, parts[0].task, rows=parts[0].rows, parts=tuple(parts))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(part.name for part in self.parts) or (self.name,)

    @property
    def is_known(self) -> bool:
        """Whether the classes are known."""
        return all(bool(part.classes or part.rows) for part in self.several)

    @property
    def several(self) -> tuple[Target, ...]:
        """The target of each column."""
        return self.parts or (self,)

    @property
    def kinds(self) -> int:
        """How many classes a learner distinguishes: 0 for regression; with several targets, the classes of each."""
        return len(self.classes) if not self.parts else 2 * (self.task == "classify")

    @property
    def offsets(self) -> tuple[Shift, ...]:
        """The offset of each column."""
        return tuple(part.offset for part in self.several)

    def part(self, name: str) -> Target:
        """The target of one column."""
        return next(part for part in self.several if part.name == name)

    @property
    def warnings(self) -> list[str]:
        """What to say of classes whose names mean a missing label elsewhere: in a column of text they are text."""
        told = []
        for target in self.several:
            for label, count in zip(target.classes, target.counts, strict=False):
                if isinstance(label, str) and label.strip() in _MISSING_LABELS:
                    rows = f"{count:,} row{'s' * (count != 1)}"
                    told.append(
                        f"target {target.name!r}: {label!r} is learned as a class, in {rows}: if it means that the label is "
                        f"missing, leave these rows out: --where {shlex.quote(without(target.name, label))}"
                    )
        return told

    def as_dict(self) -> dict[str, Any]:
        if self.parts:
            return {"name": self.name, "task": self.task, "targets": [part.as_dict() for part in self.parts]}
        return {
            "name": self.name,
            "task": self.task,
            "classes": list(self.classes) or None,
            "counts": list(self.counts) or None,
            "clustering": self.clustering,
        }

    @property
    def dtype(self) -> type[np.int32] | type[np.float32]:
        return np.int32 if self.task == "classify" else np.float32

    def encode(self, values: pa.Array, where: str) -> NDArray[Any]:
        """Class positions, int32, or values, float32; shape (rows,). Raises BadValueError for a null, a NaN or a value
        that is not one of the known classes; ``where`` names the chunk in the message."""
        values = single_targets(values, self.name, where)
        if values.null_count:
            raise BadValueError(bad_message(self.name, values.null_count, [NULL], where))
        if self.task == "regress":
            numbers, _ = less(values, self.offset)
            if bad := numbers.size - int(np.isfinite(numbers).sum()):
                raise BadValueError(bad_message(self.name, bad, [NOT_FINITE], where))
            return numbers
        positions = self._codes(values)
        if len(positions) and int(positions.min()) < 0:
            row = int(np.argmin(positions))
            value = plain_values(values)[row].as_py()
            shown = digits(value) if isinstance(value, Decimal) else repr(value)
            raise BadValueError(
                f"target {self.name!r} is {shown} in {where}, which is {self._unknown}: train on data that has it, or name "
                "it in --classes",
                row=row,
            )
        return positions

    @property
    def _unknown(self) -> str:
        shown = ", ".join(map(repr, self.classes[:10]))
        return f"not one of the {len(self.classes)} known classes ({shown}{', ...' if len(self.classes) > 10 else ''})"

    def _codes(self, values: pa.Array) -> NDArray[np.int32]:
        """The position of each value among the classes, shape (rows,); -1 if it is not one of them. No value is null."""
        if (kind := self.converts(values.type)) is not None:
            try:
                values = convert(values, kind)
            except NotHeldError:
                if len(values) == 1:
                    return np.array([-1], np.int32)
                half = len(values) // 2
                return np.concatenate([self._codes(values.slice(0, half)), self._codes(values.slice(half))])
        plain = plain_values(values)
        if not is_named(plain):
            return self._class_positions(as_numbers(plain))
        named, codes = named_values(plain)
        positions: NDArray[np.int32] = np.array([self._position(v) for v in named] or [-1], np.int32)[codes]
        return positions

    def unusable(self, values: pa.Array) -> list[Unusable]:
        """The rows whose value is null, not finite, too large for float32, or not one of the known classes; and what it is. A
        row is in one item at most."""
        found, values = list[Unusable](), single_targets(values, self.name, "the data")
        good = np.ones(len(values), np.bool_)
        if values.null_count:
            good = ~np.asarray(values.is_null().to_numpy(zero_copy_only=False))
            found.append((~good, NULL))
        if self.task == "regress" or pa.types.is_floating(value_type(values.type)):
            numbers = less(values, self.offset)[0] if self.task == "regress" else as_numbers(values)
            infinite = good & ~np.isfinite(numbers)
            if infinite.any():
                found.append((infinite, NOT_FINITE))
                good &= ~infinite
        if self.classes:
            unknown = np.zeros(len(values), np.bool_)
            unknown[good] = self._codes(only(values, good)) < 0
            if unknown.any():
                found.append((unknown, self._unknown))
        return found

    def converts(self, kind: pa.DataType) -> pa.DataType | None:
        """The type to which labels of another type are converted: whole numbers to text, and the other way round."""
        first, is_written = (self.classes or (None,))[0], is_text(value_type(kind))
        if isinstance(first, str):
            return None if is_written else converted_type(kind, "category", pa.string())
        return pa.int64() if type(first) is int and is_written else None

    @cached_property
    def labels(self) -> pa.Array:
        """The classes as an Arrow array."""
        numbers = [c for c in self.classes if isinstance(c, int)]
        if len(numbers) < len(self.classes) or not numbers or (max(numbers) < 2**63 and min(numbers) >= -(2**63)):
            return pa.array(list(self.classes))
        if min(numbers) >= 0 and max(numbers) < 2**64:
            return pa.array(numbers, pa.uint64())
        return pa.array([Decimal(number) for number in numbers])

    @cached_property
    def _by_class(self) -> dict[Any, int]:
        return {value: position for position, value in enumerate(self.classes)}

    @cached_property
    def _sorted(self) -> tuple[NDArray[Any], NDArray[np.int32]] | None:
        """The classes in ascending order, and the position of each; None if numpy cannot hold them exactly."""
        whole = all(isinstance(c, int) for c in self.classes)
        if whole and not all(-(2**63) <= c < 2**63 for c in self.classes):
            return None
        values = np.asarray(self.classes)
        order = np.argsort(values)
        return values[order], order.astype(np.int32)

    def _position(self, value: Any) -> int:
        """The position of a value among the classes; -1 if it is not one of them."""
        return class_of(value, self._by_class) if isinstance(value, Decimal) else self._by_class.get(value, -1)

    def _class_positions(self, numbers: NDArray[Any]) -> NDArray[np.int32]:
        """The position of each number among the classes; -1 if it is not one of them."""
        if isinstance(self.classes[0], str):
            raise DataError(f"target {self.name!r} holds numbers, but the known classes are text")
        if self._sorted is None or not _compares_exactly(self._sorted[0].dtype, numbers.dtype):
            named, codes = np.unique(numbers, return_inverse=True)
            return np.array([self._position(v) for v in named.tolist()] or [-1], np.int32)[codes]
        values, order = self._sorted
        ascending = values.dtype.kind == "i" and bool((order[1:] > order[:-1]).all())
        consecutive = ascending and int(values[-1]) - int(values[0]) == len(values) - 1
        whole = consecutive and numbers.dtype.kind in "iu" and len(numbers) > 0
        if whole and values[0] <= numbers.min() and numbers.max() <= values[-1]:  # spares the search
            return numbers.astype(np.int32) - np.int32(values[0])
        at = np.minimum(np.searchsorted(values, numbers), len(values) - 1)
        return np.where(values[at] == numbers, order[at], np.int32(-1)).astype(np.int32)


def _compares_exactly(one: np.dtype[Any], other: np.dtype[Any]) -> bool:
    """Whether numpy compares numbers of two dtypes without rounding one of them."""
    return one.kind == other.kind or one.kind == "b" or other.kind == "b" or max(one.itemsize, other.itemsize) < 8


def resolve_task(field: pa.Field, task: str | None) -> str:
    """The given task, or the one that fits the type of the column. Raises ColumnError if the column cannot be a target,
    UsageError for an unknown task."""
    kind, several = target_type(field.type), width(field.type)
    if task is not None and task not in _TASKS:
        raise UsageError(f"--task {task}: must be 'classify' or 'regress'")
    if task != "classify" and has_conflict(field):
        raise ColumnError(
            f"target {field.name!r} is {problem_of(field)}: give --task classify, which takes all of its values as text, or "
            "convert the files"
        )
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    if several > 1 and (text or is_number(kind)):
        raise ColumnError(
            f"target {field.name!r} is {field.type}, {several:,} values a row: a target is one: store each as a column, and "
            "name them as in --target a,b,c"
        )
    if not text and not is_number(kind):
        raise ColumnError(f"target {field.name!r} is {field.type}: a target is one number, boolean or string a row")
    if task == "regress" and text:
        raise ColumnError(f"target {field.name!r} is text: --task regress needs numbers")
    continuous = pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    return task or ("regress" if continuous else "classify")

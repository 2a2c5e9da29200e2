"""The target: its task, its classes, and how its values become what a learner takes.

Integers, booleans and strings are classes; floats are regression.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.columns.decimals import class_of, digits, distinct
from streamtrain.columns.differences import Shift
from streamtrain.columns.numbers import as_numbers, less
from streamtrain.errors import BadValueError, ColumnError, DataError, UsageError
from streamtrain.storage.arrow import is_number, value_type, width

__all__ = [
    "Target", "Unusable", "bad_message", "is_named", "named_values", "only", "plain_values", "resolve_task", "runs",
]  # fmt: skip

_TASKS = ("classify", "regress")

#: rows that cannot be used, shape (rows,), and why
Unusable = tuple[NDArray[np.bool_], str]

_NULL, _NOT_FINITE = "null", "NaN, infinite or too large for float32"


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
        if values.null_count:
            raise BadValueError(bad_message(self.name, values.null_count, [_NULL], where))
        if self.task == "regress":
            numbers, _ = less(values, self.offset)
            if bad := numbers.size - int(np.isfinite(numbers).sum()):
                raise BadValueError(bad_message(self.name, bad, [_NOT_FINITE], where))
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
        plain = plain_values(values)
        if not is_named(plain):
            return self._class_positions(as_numbers(plain))
        named, codes = named_values(plain)
        positions: NDArray[np.int32] = np.array([self._position(v) for v in named] or [-1], np.int32)[codes]
        return positions

    def unusable(self, values: pa.Array) -> list[Unusable]:
        """The rows whose value is null, not finite, too large for float32, or not one of the known classes; and what it is. A
        row is in one item at most."""
        found: list[Unusable] = []
        good = np.ones(len(values), np.bool_)
        if values.null_count:
            good = ~np.asarray(values.is_null().to_numpy(zero_copy_only=False))
            found.append((~good, _NULL))
        if self.task == "regress" or pa.types.is_floating(value_type(values.type)):
            numbers = less(values, self.offset)[0] if self.task == "regress" else as_numbers(values)
            infinite = good & ~np.isfinite(numbers)
            if infinite.any():
                found.append((infinite, _NOT_FINITE))
                good &= ~infinite
        if self.classes:
            unknown = np.zeros(len(values), np.bool_)
            unknown[good] = self._codes(only(values, good)) < 0
            if unknown.any():
                found.append((unknown, self._unknown))
        return found

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


def only(values: pa.Array, rows: NDArray[np.bool_]) -> pa.Array:
    """The values of some rows. `pyarrow.compute`, which filters, takes 20 MB.

    >>> only(pa.array([1, None, 3]), np.array([True, False, True])).to_pylist()
    [1, 3]
    """
    if rows.all():
        return values
    parts = [values.slice(first, last - first) for first, last in runs(rows)]
    return pa.concat_arrays(parts) if parts else values.slice(0, 0)


def runs(good: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """The start and end of each run of true values.

    >>> list(runs(np.array([True, True, False, True])))
    [(0, 2), (3, 4)]
    """
    borders = np.flatnonzero(np.diff(good, prepend=False, append=False)).tolist()
    yield from zip(borders[::2], borders[1::2], strict=True)


def _compares_exactly(one: np.dtype[Any], other: np.dtype[Any]) -> bool:
    """Whether numpy compares numbers of two dtypes without rounding one of them."""
    return one.kind == other.kind or one.kind == "b" or other.kind == "b" or max(one.itemsize, other.itemsize) < 8


def plain_values(values: pa.Array) -> pa.Array:
    """Strings as a dictionary, other numbers than decimals without one."""
    if isinstance(values, pa.RunEndEncodedArray):
        from pyarrow import compute

        values = compute.run_end_decode(values)
    if pa.types.is_decimal(value_type(values.type)):
        return values
    if is_number(values.type):
        return values if not isinstance(values, pa.DictionaryArray) else pa.array(as_numbers(values))
    return values if isinstance(values, pa.DictionaryArray) else values.dictionary_encode()


def is_named(plain: pa.Array) -> bool:
    """Whether what `plain_values` returned is for `named_values`."""
    return isinstance(plain, pa.DictionaryArray) or bool(pa.types.is_decimal(plain.type))


def named_values(values: pa.Array) -> tuple[list[Any], NDArray[Any]]:
    """The values of a dictionary or the distinct decimals, and for each row which of them it has, shape (rows,). A dictionary
    with more values than rows is reduced to the values that occur: the dictionary of a row group may hold a million values."""
    if not isinstance(values, pa.DictionaryArray):
        return distinct(values)
    codes = values.indices.to_numpy(zero_copy_only=False)
    if len(values.dictionary) <= len(codes):
        return values.dictionary.to_pylist(), codes
    used, codes = np.unique(codes, return_inverse=True)
    return [values.dictionary[i].as_py() for i in used.tolist()], codes


def bad_message(name: str, count: int, kinds: Sequence[str], where: str) -> str:
    """The message for values that cannot be used. kinds: what they are, as `Target.unusable` says it."""
    what = "nulls" if list(kinds) == [_NULL] else f"values that are {' or '.join(kinds)}"
    return f"target {name!r} has {count:,} {what} in {where}: remove these rows, or skip them with --on-error skip"


def resolve_task(field: pa.Field, task: str | None) -> str:
    """The given task, or the one that fits the type of the column. Raises ColumnError if the column cannot be a target,
    UsageError for an unknown task."""
    kind = value_type(field.type)
    if task is not None and task not in _TASKS:
        raise UsageError(f"--task {task}: must be 'classify' or 'regress'")
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    if (not text and not is_number(kind)) or width(field.type) != 1:
        raise ColumnError(f"target {field.name!r} is {field.type}: a target is one number, boolean or string a row")
    if task == "regress" and text:
        raise ColumnError(f"target {field.name!r} is text: --task regress needs numbers")
    continuous = pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    return task or ("regress" if continuous else "classify")

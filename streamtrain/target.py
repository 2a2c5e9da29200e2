"""The target, known before training starts: its task, its classes, bad values, and how clustered it is.

Only the target's column is read, slice by slice. Integers, booleans and strings are classes, floats are regression.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.errors import BadValueError, ColumnError, DataError, UsageError
from streamtrain.storage.arrow import is_number, pick, value_type, width
from streamtrain.storage.checked import open_stream, read_columns
from streamtrain.storage.reader import ChunkTable, Reader

__all__ = ["Target", "as_numbers", "survey"]

_MOST_CLASSES = 1000  # of an integer that nobody called a class
_MOST_COUNTED = 10_000  # of anything: what is counted is held in memory
_BLOCK_ROWS = 8192
_TASKS = ("classify", "regress")


@dataclass(frozen=True)
class Target:
    """What is known of the target's column.

    classes: the distinct values, sorted; empty for regression. counts: rows of each, or empty where the pass was
    skipped. clustering: 0 where every block of 8,192 rows has the same mix of targets, 1 where each block holds only
    one value: the variance between blocks over the variance of all rows; None where the pass was skipped. origin: what is
    subtracted from a regression target before it becomes float32, where its values are far larger than their spread.
    """

    name: str
    task: str
    classes: tuple[Any, ...] = ()
    counts: tuple[int, ...] = ()
    rows: int = 0
    clustering: float | None = None
    origin: float = 0.0

    def as_dict(self) -> dict[str, Any]:
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
        """Class positions (int32) or float32 values; shape (rows,). Raises BadValueError for a null, a NaN or a value
        outside the known classes; ``where`` names the rows in the message."""
        if values.null_count:
            raise BadValueError(_bad_message(self.name, values.null_count, "nulls", where))
        if self.task == "regress":
            with np.errstate(over="ignore"):
                numbers = (as_numbers(values) - self.origin if self.origin else as_numbers(values)).astype(np.float32)
            bad = _not_finite(numbers)
            if bad:
                raise BadValueError(
                    _bad_message(self.name, bad, "values that are NaN, infinite or too large for float32", where)
                )
            return numbers
        plain = _plain(values)
        if isinstance(plain, pa.DictionaryArray):
            codes = np.array([self._places.get(v, -1) for v in plain.dictionary.to_pylist()] or [-1], np.int32)
            found: NDArray[np.int32] = codes[plain.indices.to_numpy(zero_copy_only=False)]
        else:
            found = self._position(as_numbers(plain))
        if len(found) and int(found.min()) < 0:
            row = int(np.argmin(found))
            raise BadValueError(
                f"target {self.name!r} is {plain[row].as_py()!r} in {where}, which is none of the {len(self.classes)} "
                f"known classes ({', '.join(map(repr, self.classes[:10]))}): train on data that has it, or name it "
                "in --classes",
                row=row,
            )
        return found

    @cached_property
    def labels(self) -> pa.Array:
        """The classes as Arrow holds them."""
        large = any(isinstance(c, int) and c >= 2**63 for c in self.classes)
        return pa.array(list(self.classes), pa.uint64() if large else None)

    @cached_property
    def _places(self) -> dict[Any, int]:
        return {value: place for place, value in enumerate(self.classes)}

    @cached_property
    def _sorted(self) -> tuple[NDArray[Any], NDArray[np.int32]]:
        # numpy makes floats, which round, of integers that only uint64 can hold
        huge = all(isinstance(c, int) for c in self.classes) and max(self.classes) > np.iinfo(np.int64).max
        values = np.asarray(self.classes, np.uint64 if huge else None)
        order = np.argsort(values)
        return values[order], order.astype(np.int32)

    def _position(self, numbers: NDArray[Any]) -> NDArray[np.int32]:
        values, order = self._sorted
        ascending = values.dtype.kind == "i" and bool((order[1:] > order[:-1]).all())
        consecutive = ascending and int(values[-1]) - int(values[0]) == len(values) - 1
        whole = consecutive and numbers.dtype.kind in "iu" and len(numbers) > 0
        if whole and values[0] <= numbers.min() and numbers.max() <= values[-1]:  # spares the search
            return numbers.astype(np.int32) - np.int32(values[0])
        if values.dtype.kind in "US":
            raise DataError(f"target {self.name!r} holds numbers, but the known classes are text")
        at = np.minimum(np.searchsorted(values, numbers), len(values) - 1)
        return np.where(values[at] == numbers, order[at], np.int32(-1)).astype(np.int32)


def as_numbers(values: pa.Array) -> NDArray[Any]:
    """The numbers of an Arrow array without nulls; shape (rows,), or (rows, entries) for tensors. No copy if it can be."""
    if isinstance(values, pa.FixedShapeTensorArray):
        return np.asarray(values.to_numpy_ndarray()).reshape(len(values), -1)
    if isinstance(values, pa.DictionaryArray):
        decoded: NDArray[Any] = as_numbers(values.dictionary)[values.indices.to_numpy(zero_copy_only=False)]
        return decoded
    if isinstance(values, pa.RunEndEncodedArray) or pa.types.is_decimal(values.type):
        from pyarrow import compute  # imported on demand: it costs 20 MB

        if isinstance(values, pa.RunEndEncodedArray):
            return as_numbers(compute.run_end_decode(values))
        values = compute.cast(values, pa.float64())
    numbers: NDArray[Any] = values.to_numpy(zero_copy_only=False)
    return numbers


def _not_finite(numbers: NDArray[Any]) -> int:
    return numbers.size - int(np.isfinite(numbers).sum())


def _plain(values: pa.Array) -> pa.Array:
    """Strings as a dictionary; numbers as they are, out of theirs."""
    if isinstance(values, pa.RunEndEncodedArray):
        from pyarrow import compute

        values = compute.run_end_decode(values)
    if is_number(values.type):
        return values if not isinstance(values, pa.DictionaryArray) else pa.array(as_numbers(values))
    return values if isinstance(values, pa.DictionaryArray) else values.dictionary_encode()


def _bad_message(name: str, count: int, what: str, where: str) -> str:
    return f"target {name!r} has {count:,} {what} in {where}: remove these rows first"


def resolve_task(field: pa.Field, task: str | None) -> str:
    """The task that fits the column's type, or the one asked for. Raises ColumnError or UsageError."""
    kind = value_type(field.type)
    if task is not None and task not in _TASKS:
        raise UsageError(f"--task {task}: there are {' and '.join(_TASKS)}")
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    if (not text and not is_number(kind)) or width(field.type) != 1:
        raise ColumnError(f"target {field.name!r} is {field.type}: a target is one number, boolean or string a row")
    if task == "regress" and text:
        raise ColumnError(f"target {field.name!r} is text: --task regress needs numbers")
    continuous = pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    return task or ("regress" if continuous else "classify")


def survey(
    reader: Reader, table: ChunkTable, name: str, *, task: str | None = None, classes: Sequence[str] | None = None
) -> Target:
    """Read the target's column alone and tell what is in it. With ``classes`` nothing is read.

    Raises ColumnError for a column that cannot be a target, BadValueError for nulls and NaN (how many, in which
    files), DataError for one class, or for more than 1,000 distinct integers while no ``task`` is given.
    """
    field = pick(reader.schema, name, "target")
    chosen = resolve_task(field, task)
    if classes is not None:
        return Target(name, chosen, _named_classes(field, chosen, classes), rows=table.total_rows)
    tally = _Tally(name, chosen, refuse_many=task is None)
    for where, values in _slices(reader, table, name):
        tally.add(values, where)
    return tally.target()


def _named_classes(field: pa.Field, task: str, classes: Sequence[str]) -> tuple[Any, ...]:
    if task != "classify":
        raise UsageError("--classes: a regression has none; leave it out, or give --task classify")
    kind = value_type(field.type)
    try:
        if pa.types.is_boolean(kind):
            values: set[Any] = {{"true": True, "false": False}[str(c).lower()] for c in classes}
        elif is_number(kind):
            values = {int(c) if pa.types.is_integer(kind) else float(c) for c in classes}
        else:
            values = {str(c) for c in classes}
    except (ValueError, KeyError):
        given = ", ".join(map(repr, classes))
        raise UsageError(f"--classes {given}: {field.name!r} is {field.type}; give values of that type") from None
    if len(values) < 2:
        raise UsageError(f"--classes: {len(values)} class given, at least two are needed")
    return tuple(sorted(values))


def _slices(reader: Reader, table: ChunkTable, name: str) -> Iterator[tuple[str, pa.Array]]:
    """The target's values in blocks of at most 8,192 rows, each with the key of its chunk."""
    for chunk in table:
        long = chunk.rows > 100 * _BLOCK_ROWS
        batches = open_stream(reader, chunk, [name], 16 * _BLOCK_ROWS) if long else read_columns(reader, chunk, [name])
        for batch in batches:
            for start in range(0, batch.num_rows, _BLOCK_ROWS):
                yield chunk.key, batch.column(0).slice(start, _BLOCK_ROWS)


class _Tally:
    """Counts of classes, or moments of a regression target, and their spread between blocks."""

    def __init__(self, name: str, task: str, *, refuse_many: bool) -> None:
        self._name, self._task, self._refuse_many = name, task, refuse_many
        self._counts: Counter[Any] = Counter()
        self._squares: defaultdict[Any, float] = defaultdict(
            float
        )  # for each class, the sum over blocks of (rows of it)^2 / rows
        self._bad: Counter[str] = Counter()
        self._rows = 0
        self._moments = np.zeros(3)  # sum, sum of squares, sum over blocks of (sum)^2 / rows; about the first value
        self._origin: float | None = None

    def add(self, values: pa.Array, where: str) -> None:
        if values.null_count:
            self._bad[where] += values.null_count
            return
        self._rows += len(values)
        if self._task == "regress":
            self._add_numbers(as_numbers(values).astype(np.float64), where)
        else:
            self._add_classes(values, where)

    def _add_numbers(self, numbers: NDArray[np.float64], where: str) -> None:
        with np.errstate(over="ignore"):
            bad = _not_finite(numbers.astype(np.float32))
        if bad:
            self._bad[where] += bad
        elif numbers.size:
            self._origin = float(numbers[0]) if self._origin is None else self._origin
            shifted = numbers - self._origin
            total = shifted.sum()
            self._moments += total, (shifted * shifted).sum(), total * total / len(shifted)

    def _add_classes(self, values: pa.Array, where: str) -> None:
        plain = _plain(values)
        if isinstance(plain, pa.DictionaryArray):
            found = np.bincount(plain.indices.to_numpy(zero_copy_only=False), minlength=len(plain.dictionary))
            pairs = [(v, int(n)) for v, n in zip(plain.dictionary.to_pylist(), found, strict=True) if n]
        else:
            distinct, counted = np.unique(as_numbers(plain), return_counts=True)
            if distinct.dtype.kind == "f" and not np.isfinite(distinct).all():
                self._bad[where] += int(counted[~np.isfinite(distinct)].sum())
                return
            pairs = list(zip(distinct.tolist(), counted.tolist(), strict=True))
        for value, n in pairs:
            self._counts[value] += n
            self._squares[value] += n * n / len(values)
        if len(self._counts) > _MOST_COUNTED:
            raise DataError(
                f"target {self._name!r} has more than {_MOST_COUNTED:,} distinct values: too many classes; numbers can be "
                "learned with --task regress"
            )
        if self._refuse_many and len(self._counts) > _MOST_CLASSES and not isinstance(pairs[0][0], str):
            raise DataError(
                f"target {self._name!r} is an integer with more than {_MOST_CLASSES:,} distinct values: "
                "say what it is with --task classify or --task regress"
            )

    def target(self) -> Target:
        if self._bad:
            bad, places = sum(self._bad.values()), [f"{key} ({n:,})" for key, n in self._bad.most_common(3)]
            more = f" and {len(self._bad) - 3} more" if len(self._bad) > 3 else ""
            raise BadValueError(
                _bad_message(
                    self._name,
                    bad,
                    "null, NaN or infinite values (or too large for float32)",
                    ", ".join(places) + more,
                )
            )
        if self._task == "regress":
            total, squares, between = self._moments.tolist()
            variance = squares - total * total / max(1, self._rows)
            clustering = (between - total * total / max(1, self._rows)) / variance if variance > 0 else 0.0
            deviation, origin = float(np.sqrt(max(variance, 0) / max(1, self._rows))), self._origin or 0.0
            far = abs(origin) > max(1e4 * deviation, 65_536)
            return Target(
                self._name, "regress", rows=self._rows, clustering=_unit(clustering), origin=origin if far else 0.0
            )
        if len(self._counts) < 2:
            only = f"only {next(iter(self._counts))!r}" if self._counts else "none"
            raise DataError(f"target {self._name!r} has one class ({only}): there is nothing to learn to tell apart")
        classes = tuple(sorted(self._counts))
        shares = np.array([self._counts[c] for c in classes]) / self._rows
        within = np.array([self._squares[c] for c in classes]) / self._rows
        clustering = float((within - shares**2).sum() / (shares * (1 - shares)).sum())
        counts = tuple(self._counts[c] for c in classes)
        return Target(self._name, "classify", classes, counts, self._rows, _unit(clustering))


def _unit(x: float) -> float:
    return round(float(min(1.0, max(0.0, x))), 6)

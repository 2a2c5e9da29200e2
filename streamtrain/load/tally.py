"""Counts of the classes of a target, or its moments, and how they differ between blocks of rows."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from streamtrain.columns.conversion import convert
from streamtrain.columns.decimals import as_classes
from streamtrain.columns.differences import Shift
from streamtrain.columns.numbers import as_numbers, first_number, less
from streamtrain.columns.target import Target
from streamtrain.columns.target_values import is_named, named_values, plain_values, single_targets, target_type
from streamtrain.errors import DataError, UsageError
from streamtrain.storage.casting import NotHeldError

__all__ = ["MOST_CLASSES", "Tally", "with_earlier"]

MOST_CLASSES = 1000  # distinct integers that count as classes without --task classify
_MOST_COUNTED = 10_000  # distinct values of any type: their counts are in memory


class Tally:
    """Counts of the classes, or moments of a regression target, and how they differ between blocks."""

    def __init__(self, field: pa.Field, task: str, *, refuse_many: bool, earlier: Target | None = None) -> None:
        kind = target_type(field.type)
        self._known = None if earlier is None else earlier.converts(kind)  # the type of the earlier classes, if another
        self._scale = kind.scale if pa.types.is_decimal(kind) and self._known is None else None
        self._name, self._task, self._refuse_many, self._earlier = field.name, task, refuse_many, earlier
        self._counts: Counter[Any] = Counter()
        # for each class, the sum over blocks of (rows of the class)^2 / rows
        self._squares: defaultdict[Any, float] = defaultdict(float)
        self._rows = 0
        self._moments = np.zeros(3)  # of values minus the first: sum, sum of squares, sum over blocks of (sum)^2 / rows
        self._offset: Shift | None = None

    def add(self, values: pa.Array) -> None:
        """Add values, all of which can be used."""
        values = single_targets(values, self._name, "the data")
        self._rows += len(values)
        if not len(values):
            return
        if self._task == "regress":
            self._add_numbers(values)
        else:
            self._add_classes(values)

    def _add_numbers(self, values: pa.Array) -> None:
        self._offset = first_number(values) if self._offset is None else self._offset
        shifted, _ = less(values, self._offset, np.float64)
        total = shifted.sum()
        self._moments += total, (shifted * shifted).sum(), total * total / len(shifted)

    def _add_classes(self, values: pa.Array) -> None:
        if self._known is not None:
            try:
                values = convert(values, self._known)
            except NotHeldError as error:
                assert self._earlier is not None
                raise UsageError(_other_kind(self._earlier, error.value)) from None
        plain = plain_values(values)
        if is_named(plain):
            named, codes = named_values(plain)
            pairs = [(v, n) for v, n in zip(named, np.bincount(codes, minlength=len(named)).tolist(), strict=True) if n]
        else:
            distinct, counted = np.unique(as_numbers(plain), return_counts=True)
            pairs = list(zip(distinct.tolist(), counted.tolist(), strict=True))
        for value, n in pairs:
            self._counts[value] += n
            self._squares[value] += n * n / len(values)
        if len(self._counts) > _MOST_COUNTED:
            raise DataError(
                f"target {self._name!r} has more than {_MOST_COUNTED:,} distinct values: too many classes; numbers can be "
                "learned with --task regress"
            )
        if self._refuse_many and len(self._counts) > MOST_CLASSES and not isinstance(pairs[0][0], str):
            raise DataError(
                f"target {self._name!r} is an integer with more than {MOST_CLASSES:,} distinct values: "
                "give --task classify or --task regress"
            )

    def target(self) -> Target:
        if self._task == "regress":
            total, squares, between = self._moments.tolist()
            variance = squares - total * total / max(1, self._rows)
            clustering = (between - total * total / max(1, self._rows)) / variance if variance > 0 else 0.0
            deviation, offset = float(np.sqrt(max(variance, 0) / max(1, self._rows))), self._offset or 0.0
            far = abs(float(offset)) > max(1e4 * deviation, 65_536)
            offset = self._earlier.offset if self._earlier is not None else offset if far else 0.0
            return Target(self._name, "regress", rows=self._rows, clustering=_unit(clustering), offset=offset)
        if self._scale is not None:
            forms = as_classes(self._counts, self._scale, () if self._earlier is None else self._earlier.classes)
            self._counts = Counter({forms[number]: n for number, n in self._counts.items()})
            self._squares = defaultdict(float, {forms[number]: n for number, n in self._squares.items()})
        if (
            self._earlier is not None
            and self._known is not None
            and self._counts.keys().isdisjoint(self._earlier.classes)
        ):
            raise UsageError(_other_kind(self._earlier, next(iter(self._counts))))
        classes = with_earlier(self._counts, self._earlier)
        if len(classes) < 2 or not self._counts:
            only = f"only {next(iter(self._counts))!r}" if self._counts else "none"
            raise DataError(f"target {self._name!r} has one class ({only}): a classifier needs at least two classes")
        shares = np.array([self._counts[c] for c in classes]) / self._rows
        within = np.array([self._squares[c] for c in classes]) / self._rows
        variance = float((shares * (1 - shares)).sum())  # 0 if all rows have the same class
        clustering = float((within - shares**2).sum()) / variance if variance else 0.0
        counts = tuple(self._counts[c] for c in classes)
        return Target(self._name, "classify", classes, counts, self._rows, _unit(clustering))


def _unit(x: float) -> float:
    """A share: at least 0, at most 1, rounded to 6 digits."""
    return round(float(min(1.0, max(0.0, x))), 6)


def _other_kind(earlier: Target, value: Any) -> str:
    kind = "text" if isinstance(earlier.classes[0], str) else "numbers"
    return (
        f"target {earlier.name!r} is {value!r}, but the classes of the old run are {kind} "
        f"({', '.join(map(repr, earlier.classes[:10]))}): convert the target, or train a new model"
    )


def with_earlier(values: Iterable[Any], earlier: Target | None) -> tuple[Any, ...]:
    """The classes of these data and those of the earlier target, sorted."""
    before = earlier.classes if earlier is not None else ()
    classes = {*before, *values}
    if earlier is not None and len({isinstance(c, str) for c in classes}) > 1:
        raise UsageError(
            _other_kind(earlier, next(c for c in classes if isinstance(c, str) != isinstance(before[0], str)))
        )
    if len({isinstance(c, bool) for c in classes}) > 1:  # false and true are 0 and 1 among numbers
        classes = {int(c) if isinstance(c, bool) else c for c in classes}
    return tuple(sorted(classes))

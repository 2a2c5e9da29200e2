"""Which columns are read, and where each of them is in the rows of a window."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.columns.bags import ENTRY_BYTES
from streamtrain.columns.buffers import RowWriter, TextStore, WindowArrays
from streamtrain.columns.categories import hash_values
from streamtrain.columns.crosses import parse_crosses
from streamtrain.columns.number_names import NumberNames
from streamtrain.columns.role import Column, Offset, type_or_problem
from streamtrain.columns.target import Target
from streamtrain.columns.target_values import Unusable, only, target_type
from streamtrain.columns.types import is_list, shape_of
from streamtrain.columns.weights import Skips, known_values, rows_in_use, single_weights, write_weights
from streamtrain.errors import ColumnError, UsageError
from streamtrain.storage.arrow import is_number, pick, width

__all__ = ["Layout", "is_unknown_list"]


@dataclass(frozen=True)
class Layout:
    """What a row of a window is: ``width`` numbers, then hashes, texts, targets and a weight.

    columns: the features, with their roles. crosses: the columns of each cross.
    """

    columns: tuple[Column, ...]
    target: Target | None = None
    weight: str | None = None
    crosses: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def of(
        cls, schema: pa.Schema, columns: Sequence[Column], target: Target | None, weight: str | None,
        crosses: Sequence[str | Sequence[str]] = (),
    ) -> Layout:  # fmt: skip
        """The layout of columns of a schema. Raises ColumnError for a weight that is not a number, and for wrong crosses."""
        if weight is not None and not (
            is_number(target_type(pick(schema, weight, "weights").type)) and width(schema.field(weight).type) == 1
        ):
            raise ColumnError(f"--weight {weight}: the column is {type_or_problem(schema.field(weight))}, not a number")
        return cls(tuple(columns), target, weight, parse_crosses(crosses, columns))

    @cached_property
    def features(self) -> tuple[str, ...]:
        """The names of the feature columns."""
        return tuple(column.name for column in self.columns)

    @cached_property
    def read(self) -> list[str]:
        """Every column that is read: features, then target and weight."""
        return [*self.features, *self.targets, *([self.weight] if self.weight else [])]

    @property
    def targets(self) -> tuple[str, ...]:
        """The names of the targets' columns."""
        return () if self.target is None else self.target.names

    # -- where columns are ---------------------------------------------------------------------------------------------

    @cached_property
    def _offsets(self) -> dict[str, tuple[Column, Offset]]:
        """Each feature column by name, and where it is in a row."""
        offsets, number = {}, 0
        for column in self.columns:
            name = column.name
            offsets[name] = column, Offset(number, self.hashes.get(name, -1), self.texts.get(name, -1))
            number += column.numbers
        return offsets

    @cached_property
    def hashes(self) -> dict[str, int]:
        """The columns that are hashed, and the position of each among the hashes of a row. Columns that are learned from come
        first, columns that are only part of crosses last."""
        names = [column.name for column in self.columns if column.becomes.has_hash]
        crossed = [name for cross in self.crosses for name in cross]
        return {name: i for i, name in enumerate(dict.fromkeys([*names, *crossed]))}

    @cached_property
    def categories(self) -> int:
        """How many hashes are learned from; they come first."""
        return sum(column.becomes.has_hash for column in self.columns)

    @cached_property
    def texts(self) -> dict[str, int]:
        """The columns of text and of bags, and the position of each among the texts of a row."""
        names = [column.name for column in self.columns if column.becomes.has_text]
        return {name: i for i, name in enumerate(names)}

    @cached_property
    def bags(self) -> tuple[str, ...]:
        """The names of the columns that are bags, whose entries are among the texts of a row."""
        return tuple(column.name for column in self.columns if column.role == "bag")

    @cached_property
    def unknown_lists(self) -> tuple[str, ...]:
        """The columns of lists of numbers of which the first rows have not told the length."""
        return tuple(column.name for column in self.columns if is_unknown_list(column))

    @cached_property
    def width(self) -> int:
        """Numbers in a row."""
        return sum(column.numbers for column in self.columns)

    @cached_property
    def number_names(self) -> NumberNames:
        return NumberNames(self.columns)

    @cached_property
    def tensors(self) -> dict[str, tuple[int, tuple[int, ...]]]:
        """For each column that becomes numbers: its first number in a row, and the shape of a value."""
        tensors: dict[str, tuple[int, tuple[int, ...]]] = {}
        for column, offset in self._offsets.values():
            shape = shape_of(column.learned_type or column.type) or ((column.numbers,) if column.numbers > 1 else ())
            tensors |= {column.name: (offset.number, shape)} if column.numbers else {}
        return tensors

    # -- sizes ---------------------------------------------------------------------------------------------------------

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the numbers of a window: uint8 if every column fits, otherwise float32."""
        small = all(column.becomes.fits_uint8(column.type) for column in self.columns)
        return np.dtype(np.uint8 if small else np.float32)

    @cached_property
    def text_bytes(self) -> float:
        """Bytes of the texts and bags of a row: the mean over the first rows, plus a reserve."""
        return sum(column.becomes.text_bytes(column) for column in self.columns)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row in a window."""
        features = math.ceil(sum(column.becomes.row_bytes(column) for column in self.columns))
        targets = 4 * len(self.target.names) if self.target else 0
        crossed = 4 * (len(self.hashes) - self.categories)
        return self.width * self.dtype.itemsize + features + crossed + targets + (4 if self.weight else 0)

    @property
    def ngrams(self) -> float:
        """N-grams of the texts of a row, and entries of its bags, on average."""
        return sum(column.becomes.row_entries(column) for column in self.columns)

    @property
    def outputs(self) -> int:
        """Numbers of a prediction: one for each target, or one for each of more than two classes."""
        if self.target is None:
            return 1
        return len(self.target.classes) if len(self.target.classes) > 2 else len(self.target.names)

    # -- rows ----------------------------------------------------------------------------------------------------------

    def buffers(self, rows: int, dtype: Any = None) -> WindowArrays:
        """Arrays for this many rows. dtype: of the numbers; by default that of a window. Raises UsageError while the length of
        lists is unknown."""
        if unknown := self.unknown_lists:
            raise UsageError(
                f"{unknown[0]!r}: how long its lists are is not known: call with_roles() of the source first"
            )
        align = ENTRY_BYTES if self.bags else 1
        texts = TextStore(rows, len(self.texts), int(rows * self.text_bytes), align) if self.texts else None
        features = np.empty((rows, self.width), dtype or self.dtype)
        weighted = self.weight is not None
        return WindowArrays(
            features, self._empty_targets(rows), weighted=weighted, hashes=len(self.hashes), texts=texts
        )

    def _empty_targets(self, rows: int) -> NDArray[Any]:
        if self.target is None:
            return np.empty(0, np.float32)
        targets = len(self.target.names)
        return np.empty(rows if targets == 1 else (rows, targets), self.target.dtype)

    def write(
        self,
        batch: pa.RecordBatch,
        into: WindowArrays,
        positions: NDArray[np.int64],
        where: str,
        *,
        skips: Skips | None = None,
        seen: Callable[[str, pa.Array], None] | None = None,
    ) -> list[Unusable]:
        """Write each row of a record batch to its position, shape (rows,). where: names the chunk in errors. seen: is called
        with each column right before it is written, which then finds it in the processor's cache.

        Raises BadValueError for a target that cannot be used, unless its weight is 0. With ``skips`` such rows are returned.
        """
        rows = RowWriter(into, positions, where, finds_infinite=skips is not None and skips.infinite)
        unusable: list[Unusable] = []
        weights = None
        if self.weight is not None and self.weight in batch.schema.names:
            weights = single_weights(self.weight, batch.column(self.weight), where)
        used = None if weights is None else rows_in_use(weights)
        for name, values in zip(batch.schema.names, batch.columns, strict=True):
            if seen is not None:
                seen(name, values)
            if name in self._offsets:
                column, offset = self._offsets[name]
                values, odd = known_values(column, values, where, skips)
                unusable += [(mask if used is None else mask & used, why) for mask, why in odd]
                column.becomes.write(column, values, rows, offset)
                if offset.hash >= self.categories:  # part of a cross only
                    rows.add_hashes(offset.hash, hash_values(values, column.seed))
            elif self.target is not None and name in self.target.names:
                unusable += self._write_target(name, values, rows, used, skips)
            elif weights is not None:
                unusable += write_weights(name, weights, rows, skips)
        rows.finish()
        for which, infinite in rows.infinite.items():
            feature = which if isinstance(which, str) else self.number_names[which]
            why = f"feature {feature!r} is infinite, or too large for float32"
            unusable.append((infinite if used is None else infinite & used, why))
        return [(mask, why) for mask, why in unusable if mask.any()]

    def _write_target(
        self, name: str, values: pa.Array, rows: RowWriter, used: NDArray[np.bool_] | None, skips: Skips | None
    ) -> list[Unusable]:
        """Write the targets of one column. used: the rows whose weight is not 0; None for all."""
        assert self.target is not None
        target, column = self.target.part(name), self.target.names.index(name)
        if skips is None and used is None:
            rows.add_targets(column, target.encode(values, rows.where))
            return []
        unusable = target.unusable(values)
        good = np.ones(len(values), np.bool_)
        for mask, _ in unusable:
            good &= ~mask
        if skips is None and used is not None and not good[used].all():
            target.encode(only(values, used), rows.where)  # raises
        rows.add_targets(column, target.encode(only(values, good), rows.where), None if good.all() else good)
        return [(mask if used is None else mask & used, f"target {name!r} is {kind}") for mask, kind in unusable]

    def with_columns(self, columns: Sequence[Column]) -> Layout:
        return replace(self, columns=tuple(columns))


def is_unknown_list(column: Column) -> bool:
    """Whether a column is of lists of numbers of which the first rows have not told the length."""
    return column.role == "number" and is_list(column.type)

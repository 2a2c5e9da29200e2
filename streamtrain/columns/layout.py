"""Which columns are read, and where each lands in the rows of a window: from Arrow columns to one float32 matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.columns.buffers import TextStore, WindowArrays
from streamtrain.columns.categories import signatures
from streamtrain.columns.numbers import as_numbers, unpacked
from streamtrain.columns.roles import Column, choose_roles, parse_crosses, shape_of
from streamtrain.columns.target import Target, runs
from streamtrain.columns.texts import NGRAMS_PER_BYTE, text_bytes
from streamtrain.errors import BadValueError, ColumnError, SchemaError
from streamtrain.kernels import scatter_columns, scatter_rows
from streamtrain.storage.arrow import bytes_per_row, is_number, pick, value_type, width

__all__ = ["Layout", "WindowArrays", "choose_features", "has_width"]

_TEXT_PLACE_BYTES = 12  # where a text stands, and its size


def choose_features(
    schema: pa.Schema,
    *,
    target: str | Sequence[str] | None = None,
    weight: str | None = None,
    features: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    roles: Mapping[str, str] | None = None,
) -> tuple[Column, ...]:
    """The feature columns, and what each becomes: those named, or all but the target, the weight and the excluded; without
    those to be ignored. Raises ColumnError."""
    asked = dict(roles or {})
    for name in (*(features or ()), *exclude, *asked):
        pick(schema, name, "features")
    targets = {target} if isinstance(target, str) else set(target or ())
    taken = {*targets, weight, *exclude}
    chosen = list(features) if features is not None else [n for n in schema.names if n not in taken]
    both = [name for name in chosen if name in targets]
    if both:
        raise ColumnError(f"{both[0]!r} is both the target and a feature: leave it out of --features")
    if len(set(chosen)) < len(chosen):
        raise ColumnError("--features names a column twice")
    unused = [name for name in asked if name not in chosen]
    if unused:
        raise ColumnError(f"--as {unused[0]}={asked[unused[0]]}: {unused[0]!r} is no feature")
    columns = tuple(column for column in choose_roles(schema, chosen, asked) if column.role != "ignore")
    if not columns:
        raise ColumnError("no feature is left: the data has no other column than those taken, excluded or ignored")
    return columns


@dataclass(frozen=True)
class Layout:
    """Where columns land. A row of a window is ``width`` numbers, codes, texts, a target and a weight.

    columns: the features, and what each becomes. crosses: the columns of each cross.
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
        if weight is not None and not (
            is_number(pick(schema, weight, "weights").type) and width(schema.field(weight).type) == 1
        ):
            raise ColumnError(f"--weight {weight}: the column is {schema.field(weight).type}, not a number")
        return cls(tuple(columns), target, weight, parse_crosses(crosses, columns))

    @cached_property
    def features(self) -> tuple[str, ...]:
        """The names of the features."""
        return tuple(column.name for column in self.columns)

    @cached_property
    def read(self) -> list[str]:
        """Every column that is read: features, then target and weight."""
        extra = list(self.target.names) if self.target else []
        return [*self.features, *extra, *([self.weight] if self.weight else [])]

    @cached_property
    def starts(self) -> dict[str, int]:
        """The first number of each feature in a row."""
        return dict(zip(self.features, [0, *accumulate(c.numbers for c in self.columns)], strict=False))

    @cached_property
    def width(self) -> int:
        """Numbers in a row."""
        return sum(column.numbers for column in self.columns)

    @cached_property
    def codes(self) -> dict[str, int]:
        """The columns of which a row holds a code, and where: categories, then what is crossed and not one of them."""
        names = [c.name for c in self.columns if c.role == "category"]
        crossed = [name for cross in self.crosses for name in cross]
        return {name: i for i, name in enumerate(dict.fromkeys([*names, *crossed]))}

    @cached_property
    def categories(self) -> int:
        """How many of the codes are of categories; they stand before the others."""
        return sum(column.role == "category" for column in self.columns)

    @cached_property
    def texts(self) -> dict[str, int]:
        """The columns of text, and which of the texts of a row each is."""
        return {name: i for i, name in enumerate(c.name for c in self.columns if c.role == "text")}

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """What the numbers of a window are: float32, or uint8 where every feature is a tensor of it (a quarter of the
        memory)."""
        small = all(shape_of(c.type) is not None and value_type(c.type) == pa.uint8() for c in self.columns)
        return np.dtype(np.uint8 if small else np.float32)

    @cached_property
    def text_bytes(self) -> float:
        """Bytes of the texts of a row, on average, as far as the first rows tell, and a quarter more."""
        return sum(1.25 * c.text_bytes for c in self.columns if c.role == "text")

    @property
    def row_bytes(self) -> int:
        """One row in a window."""
        texts = math.ceil(self.text_bytes) + _TEXT_PLACE_BYTES * len(self.texts)
        other = (
            4 * len(self.codes) + texts + (4 * len(self.target.names) if self.target else 0) + (4 if self.weight else 0)
        )
        return self.width * self.dtype.itemsize + other

    @property
    def ngrams(self) -> float:
        """N-grams of the texts of a row, on average."""
        return NGRAMS_PER_BYTE * self.text_bytes

    @property
    def outputs(self) -> int:
        """Numbers of a prediction: one for each target, or one for each of more than two classes."""
        if self.target is None:
            return 1
        return len(self.target.classes) if len(self.target.classes) > 2 else len(self.target.names)

    def buffers(self, rows: int, dtype: Any = None) -> WindowArrays:
        """Room for so many rows. dtype: of the numbers; that of a window unless said."""
        texts = TextStore(rows, len(self.texts), int(rows * self.text_bytes)) if self.texts else None
        features = np.empty((rows, self.width), dtype or self.dtype)
        weighted = self.weight is not None
        return WindowArrays(features, self._empty_targets(rows), weighted=weighted, codes=len(self.codes), texts=texts)

    def _empty_targets(self, rows: int) -> NDArray[Any]:
        """Room for the targets of so many rows."""
        if self.target is None:
            return np.empty(0, np.float32)
        several = len(self.target.names)
        return np.empty(rows if several == 1 else (rows, several), self.target.dtype)

    @cached_property
    def slots(self) -> list[str]:
        """The name of every number of a row: ``x``, ``X[3]`` and ``X[2,5]`` for entries, ``t.age`` for times."""
        return [name for column in self.columns for name in column.parts]

    def groups(self, share: float) -> list[list[str]]:
        """The columns in groups that make up at most ``share`` of their bytes each, at least one column a group. Those that
        have no width are a group of their own: who knows which of them makes up how much."""
        if share >= 1:
            return [list(self.read)]
        loose = [column.name for column in self.columns if not has_width(column.type)]
        kinds = {column.name: column.type for column in self.columns}
        wide = [name for name in self.read if name not in loose]
        sizes = [(name, bytes_per_row(kinds[name]) if name in kinds else 8.0) for name in wide]
        if not sizes:
            return [loose]
        most, groups, held = share * sum(size for _, size in sizes) * 1.001, [[sizes[0][0]]], sizes[0][1]
        for name, size in sizes[1:]:
            if held + size > most:
                groups, held = [*groups, []], 0.0
            groups[-1].append(name)
            held += size
        return [*groups, loose] if loose else groups

    def write(
        self, batch: pa.RecordBatch, into: WindowArrays, places: NDArray[np.int64], where: str, *, skips: bool = False
    ) -> NDArray[np.int64] | None:
        """Write each row of a record batch to its place, shape (rows,). ``where`` names the chunk in errors.

        Raises BadValueError for targets that cannot be learned; ``skips``: returns the places of the rows whose target is
        null or no finite number instead, None where there are none.
        """
        lost: list[NDArray[np.int64]] = []
        written: tuple[list[NDArray[np.float32]], list[int]] = [], []
        coded: tuple[list[NDArray[np.float32]], list[int]] = [], []
        for name, values in zip(batch.schema.names, batch.columns, strict=True):
            if name in self._by_name:
                column = self._by_name[name]
                if values.type != column.type:
                    raise SchemaError(f"{where}: column {name!r} is {values.type}, but {column.type} was expected")
                if column.numbers:
                    self._write_numbers(column, values, into, places, where, written)
                if name in self.codes:
                    coded[0].append(signatures(values, column.seed).view(np.float32))
                    coded[1].append(self.codes[name])
                if name in self.texts and into.texts is not None:
                    _write_text(values, into.texts, self.texts[name], places)
            elif self.target is not None and name in self.target.names:
                bad = self._write_target(name, values, into, places, where, skips)
                lost += [] if bad is None else [bad]
            elif into.weights is not None:
                scatter_rows(_weights(name, values, where)[:, None], into.weights[:, None], 0, places)
        scatter_columns(written[0], np.array(written[1], np.int64), into.features, places)
        if into.codes is not None:
            order = np.argsort(coded[1])
            columns = [coded[0][i] for i in order]
            scatter_columns(columns, np.sort(np.array(coded[1], np.int64)), into.codes.view(np.float32), places)
        return np.concatenate(lost) if lost else None

    def _write_numbers(
        self, column: Column, values: pa.Array, into: WindowArrays, places: NDArray[np.int64], where: str,
        written: tuple[list[NDArray[np.float32]], list[int]],
    ) -> None:  # fmt: skip
        start = self.starts[column.name]
        if self.dtype == np.uint8:
            numbers, valid = unpacked(values)
            if valid is not None and not valid.all():
                raise BadValueError(
                    f"feature {column.name!r} has nulls in {where}: leave it out with --exclude {column.name}"
                )
            rows = np.ascontiguousarray(numbers.reshape(len(values), -1))
            scatter_rows(rows, into.features, start, places)
            return
        numbers = column.to_numbers(values)
        if numbers.ndim == 2:
            scatter_rows(np.ascontiguousarray(numbers), into.features, start, places)
        else:
            written[0].append(np.ascontiguousarray(numbers))
            written[1].append(start)

    def _write_target(
        self, name: str, values: pa.Array, into: WindowArrays, places: NDArray[np.int64], where: str, skips: bool
    ) -> NDArray[np.int64] | None:
        assert self.target is not None
        target = self.target.part(name)
        good = target.usable(values) if skips else None
        targets = into.targets[:, None] if into.targets.ndim == 1 else into.targets
        for first, last in [(0, len(values))] if good is None else runs(good):
            encoded = target.encode(values.slice(first, last - first), where)
            scatter_rows(encoded[:, None], targets, self.target.names.index(name), places[first:last])
        return None if good is None else places[~good]

    @cached_property
    def _by_name(self) -> dict[str, Column]:
        return {column.name: column for column in self.columns}

    def with_columns(self, columns: Sequence[Column]) -> Layout:
        return replace(self, columns=tuple(columns))


def has_width(kind: pa.DataType) -> bool:
    """Whether all values of a type take the same bytes.

    >>> has_width(pa.float32()), has_width(pa.dictionary(pa.int32(), pa.string()))
    (True, False)
    """
    try:
        return bool(value_type(kind).bit_width >= 0)
    except ValueError:
        return False


def _write_text(values: pa.Array, into: TextStore, column: int, places: NDArray[np.int64]) -> None:
    """Write the texts of a column, null or not, to their places."""
    data, offsets, there = text_bytes(values)
    base = into.add(data[offsets[0] : offsets[-1]])
    into.starts[places, column] = offsets[:-1] + (base - offsets[0])
    into.sizes[places, column] = np.where(there, np.diff(offsets), -1)


def _weights(name: str, values: pa.Array, where: str) -> NDArray[np.float32]:
    numbers = as_numbers(values).astype(np.float32) if not values.null_count else np.array([np.nan], np.float32)
    if len(numbers) and not (np.isfinite(numbers).all() and float(numbers.min()) >= 0):
        raise BadValueError(f"weight {name!r} has a value that is null, NaN, infinite or negative in {where}")
    return numbers

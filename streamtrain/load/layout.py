"""Which columns are read, and where each lands in the rows of a window: from Arrow columns to one float32 matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.errors import BadValueError, ColumnError, SchemaError
from streamtrain.kernels import scatter_columns, scatter_rows
from streamtrain.storage.arrow import bytes_per_row, is_number, pick, value_type, width
from streamtrain.target import Target, as_numbers, runs

__all__ = ["Layout", "WindowArrays", "choose_features"]

_MOVED_ROWS = 8192  # at a time, where gaps are closed


def choose_features(
    schema: pa.Schema,
    *,
    target: str | None = None,
    weight: str | None = None,
    features: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
) -> list[str]:
    """The feature columns: those named, or all but the target, the weight and the excluded. Raises ColumnError."""
    for name in (*(features or ()), *exclude):
        pick(schema, name, "features")
    taken = {target, weight, *exclude}
    chosen = list(features) if features is not None else [n for n in schema.names if n not in taken]
    if target in chosen:
        raise ColumnError(f"{target!r} is both the target and a feature: leave it out of --features")
    if len(set(chosen)) < len(chosen):
        raise ColumnError("--features names a column twice")
    if not chosen:
        raise ColumnError("no feature is left: the data has no other column than those taken or excluded")
    refused = [n for n in chosen if not is_number(schema.field(n).type)]
    if refused:
        shown = ", ".join(f"{n!r} ({_kind(schema.field(n))})" for n in refused[:5])
        more = f" and {len(refused) - 5} more" if len(refused) > 5 else ""
        raise ColumnError(
            f"not numbers: {shown}{more}: only columns of numbers can be features for now; "
            f"leave them out with --exclude {_listed(refused)}"
        )
    return chosen


def _kind(field: pa.Field) -> str:
    """The type of a column, or why it has none."""
    problem = (field.metadata or {}).get(b"problem")
    return str(field.type) if problem is None else problem.decode()


def _listed(names: Sequence[str]) -> str:
    """Names as --exclude takes them: those with a comma in quotes."""
    return ",".join(f'"{name}"' if "," in name else name for name in names)


@dataclass(frozen=True)
class Layout:
    """Where columns land. A row of a window is ``width`` numbers, a target and a weight.

    types: the Arrow type of each feature. origins: what is subtracted from each column before it is rounded to float32
    (64-bit columns: dates as numbers, large ids), one for each feature; 0 for none.
    """

    features: tuple[str, ...]
    types: tuple[pa.DataType, ...]
    target: Target | None = None
    weight: str | None = None
    origins: tuple[float, ...] = ()

    @classmethod
    def of(cls, schema: pa.Schema, features: Sequence[str], target: Target | None, weight: str | None) -> Layout:
        if weight is not None and not is_number(pick(schema, weight, "weights").type):
            raise ColumnError(f"--weight {weight}: the column is {schema.field(weight).type}, not a number")
        return cls(tuple(features), tuple(schema.field(n).type for n in features), target, weight)

    @cached_property
    def columns(self) -> list[str]:
        """Every column that is read: features, then target and weight."""
        extra = [self.target.name] if self.target else []
        return [*self.features, *extra, *([self.weight] if self.weight else [])]

    @cached_property
    def starts(self) -> dict[str, int]:
        """The first slot of each feature in a row."""
        return dict(zip(self.features, [0, *accumulate(map(width, self.types))], strict=False))

    @cached_property
    def width(self) -> int:
        """Numbers in a row."""
        return sum(map(width, self.types))

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """What a window holds: float32, or uint8 where every feature is (a quarter of the memory)."""
        return np.dtype(np.uint8 if all(value_type(t) == pa.uint8() for t in self.types) else np.float32)

    @property
    def row_bytes(self) -> int:
        """One row in a window."""
        return self.width * self.dtype.itemsize + (4 if self.target else 0) + (4 if self.weight else 0)

    @property
    def outputs(self) -> int:
        """Numbers of a prediction: one, or one for each of more than two classes."""
        classes = len(self.target.classes) if self.target else 0
        return classes if classes > 2 else 1

    @cached_property
    def slots(self) -> list[str]:
        """The name of every number of a row: ``x``, or ``X[3]`` and ``X[2,5]`` for the entries of a tensor."""
        names: list[str] = []
        for name, kind in zip(self.features, self.types, strict=True):
            shape = tuple(kind.shape) if isinstance(kind, pa.FixedShapeTensorType) else None
            entries = [""] if shape is None else [f"[{','.join(map(str, at))}]" for at in np.ndindex(*shape)]
            names += [name + entry for entry in entries]
        return names

    def groups(self, share: float) -> list[list[str]]:
        """The columns in groups that make up at most ``share`` of their bytes each, at least one column a group."""
        kinds = dict(zip(self.features, self.types, strict=True))
        sizes = [(name, bytes_per_row(kinds[name]) if name in kinds else 8.0) for name in self.columns]
        most, groups, held = share * sum(size for _, size in sizes) * 1.001, [[sizes[0][0]]], sizes[0][1]
        for name, size in sizes[1:]:
            if held + size > most:
                groups, held = [*groups, []], 0.0
            groups[-1].append(name)
            held += size
        return groups

    def write(
        self, batch: pa.RecordBatch, into: WindowArrays, places: NDArray[np.int64], where: str, *, skips: bool = False
    ) -> NDArray[np.int64] | None:
        """Write each row of a record batch to its place, shape (rows,). ``where`` names the chunk in errors.

        Raises BadValueError for nulls, and for targets that cannot be learned; ``skips``: returns the places of the rows
        whose target is null or no finite number instead, None where there are none.
        """
        lost = None
        columns: list[NDArray[np.float32]] = []
        slots: list[int] = []
        for name, values in zip(batch.schema.names, batch.columns, strict=True):
            if name in self.starts:
                numbers = self._feature(name, values, where)
                if numbers.ndim == 2 or self.dtype != np.float32:
                    rows = np.ascontiguousarray(numbers.reshape(len(numbers), -1), self.dtype)
                    scatter_rows(rows, into.features, self.starts[name], places)
                else:
                    with np.errstate(over="ignore"):  # what is too large becomes infinite, which is found later
                        columns.append(np.ascontiguousarray(numbers, np.float32))
                    slots.append(self.starts[name])
            elif self.target is not None and name == self.target.name:
                good = self.target.usable(values) if skips else None
                for first, last in [(0, len(values))] if good is None else runs(good):
                    encoded = self.target.encode(values.slice(first, last - first), where)
                    scatter_rows(encoded[:, None], into.targets[:, None], 0, places[first:last])
                lost = None if good is None else places[~good]
            elif into.weights is not None:
                scatter_rows(_weights(name, values, where)[:, None], into.weights[:, None], 0, places)
        scatter_columns(columns, np.array(slots, np.int64), into.features, places)
        return lost

    def _feature(self, name: str, values: pa.Array, where: str) -> NDArray[Any]:
        kind, origin = self._expected[name]
        if values.type != kind:
            raise SchemaError(f"{where}: column {name!r} is {values.type}, but {kind} was expected")
        if values.null_count:
            raise BadValueError(
                f"feature {name!r} has {values.null_count:,} nulls in {where}: leave it out with --exclude {name}"
            )
        numbers = as_numbers(values)
        if not origin:
            return numbers
        if isinstance(origin, int) and numbers.dtype.kind in "iu":  # exact, and right around 2^63 too
            wide = numbers.astype(np.uint64) - np.uint64(origin % 2**64)
            return wide.view(np.int64)
        return numbers - origin

    @cached_property
    def _expected(self) -> dict[str, tuple[pa.DataType, float]]:
        origins = self.origins or (0.0,) * len(self.features)
        return dict(zip(self.features, zip(self.types, origins, strict=True), strict=True))

    def with_origins(self, origins: Sequence[float]) -> Layout:
        return replace(self, origins=tuple(origins))


@dataclass
class WindowArrays:
    """Where `Layout.write` writes. features: shape (rows, width); targets, weights: shape (rows,)."""

    features: NDArray[Any]
    targets: NDArray[Any]
    weights: NDArray[np.float32] | None

    @classmethod
    def empty(cls, layout: Layout, rows: int) -> WindowArrays:
        targets = np.empty(rows, layout.target.dtype) if layout.target else np.empty(0, np.float32)
        weights = np.empty(rows, np.float32) if layout.weight else None
        return cls(np.empty((rows, layout.width), layout.dtype), targets, weights)

    def scatter_from(self, other: WindowArrays, places: NDArray[np.int64]) -> None:
        """Write each row of ``other`` to its place."""
        scatter_rows(other.features, self.features, 0, places)
        if len(self.targets):
            scatter_rows(other.targets[:, None], self.targets[:, None], 0, places)
        if self.weights is not None and other.weights is not None:
            scatter_rows(other.weights[:, None], self.weights[:, None], 0, places)

    def close_gaps(self, lost: NDArray[np.int32], rows: int) -> None:
        """Move the rows that are not at the places ``lost``, sorted, to the front, in their order. rows: there are."""
        at = int(lost[0])
        for first in range(at, rows, _MOVED_ROWS):
            last = min(first + _MOVED_ROWS, rows)
            gaps = lost[np.searchsorted(lost, first) : np.searchsorted(lost, last)]
            kept = np.delete(np.arange(first, last), gaps - first)
            for array in (self.features, self.targets, self.weights):
                if array is not None and len(array):
                    array[at : at + len(kept)] = array[kept]
            at += len(kept)

    @property
    def nbytes(self) -> int:
        return self.features.nbytes + self.targets.nbytes + (0 if self.weights is None else self.weights.nbytes)


def _weights(name: str, values: pa.Array, where: str) -> NDArray[np.float32]:
    numbers = as_numbers(values).astype(np.float32) if not values.null_count else np.array([np.nan], np.float32)
    if len(numbers) and not (np.isfinite(numbers).all() and float(numbers.min()) >= 0):
        raise BadValueError(f"weight {name!r} has a value that is null, NaN, infinite or negative in {where}")
    return numbers

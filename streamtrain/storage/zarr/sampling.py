"""Which arrays of a store are columns: those that share the dimension of the samples, which is axis 0."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from streamtrain.errors import ColumnError, NotFoundError, SchemaError, near_names
from streamtrain.storage.settings import Asked

__all__ = ["Candidate", "choose_columns"]


@dataclass(frozen=True)
class Candidate:
    """What may be a column. shape: of the array. dimensions: the names of its dimensions, if it has any."""

    name: str
    shape: tuple[int, ...]
    dimensions: tuple[str | None, ...] | None = None

    @property
    def axis(self) -> Axis:
        """Its first dimension."""
        return Axis(self.dimensions[0] if self.dimensions else None, self.shape[0])

    @property
    def is_coordinate(self) -> bool:
        """Whether it says where along a dimension a sample is: an array of one dimension with its own name."""
        return self.dimensions == (self.name.rpartition("/")[2],)

    @property
    def axis_text(self) -> str:
        return f"{self.shape[0]} rows" + (f" along {self.axis.name!r}" if self.axis.name else "")


class Axis(NamedTuple):
    """A dimension: its name, if it has one, and its length."""

    name: str | None
    rows: int

    def has(self, candidate: Candidate) -> bool:
        """Whether it is the first dimension of an array: by name where both have one, otherwise by length."""
        other = candidate.axis
        named = self.name is not None and other.name is not None
        return self.rows == other.rows and (not named or self.name == other.name)


def choose_columns(where: str, candidates: Sequence[Candidate], sample_dim: str | None, asked: Asked) -> set[str]:
    """The names of the candidates that are columns. Raises SchemaError where the dimension of the samples is not clear, or is
    not the first of an array that was asked for; ColumnError for an array of another dimension that was asked for.

    where: the store, for messages.
    """
    arrays = [c for c in candidates if c.shape]
    if not arrays:
        raise NotFoundError(f"{where}: no array has rows: give a store with some")
    by_name = {c.name: c for c in arrays}
    named = [by_name[name] for name in asked.columns if name in by_name]
    axis = _axis(where, arrays, sample_dim, named)
    for candidate in named:
        if not axis.has(candidate):
            raise ColumnError(
                f"{where}: array {candidate.name!r} has {candidate.axis_text}, but the rows of the data are the {axis.rows} "
                f"{f'along {axis.name!r}' if axis.name else f'of {named[0].name!r}'}{_transposed(candidate, axis)}: leave it "
                "out, or give --sample-dim"
            )
    if asked.others in ("all", "features"):
        _require_all(where, [c for c in arrays if c.name not in asked.without], axis)
    return {c.name for c in arrays if axis.has(c)}


def _axis(where: str, arrays: Sequence[Candidate], sample_dim: str | None, named: Sequence[Candidate]) -> Axis:
    if sample_dim is not None:
        return _named_axis(where, arrays, sample_dim, named)
    if named:
        return named[0].axis
    data = [c for c in arrays if not c.is_coordinate] or list(arrays)
    counts = Counter(c.axis for c in data)
    sizes: Counter[Axis] = Counter()
    for c in data:
        sizes[c.axis] += sum(c.shape) if len(c.shape) == 1 else _size(c.shape)
    return max(counts, key=lambda axis: (counts[axis], sizes[axis]))


def _size(shape: Iterable[int]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


def _named_axis(where: str, arrays: Sequence[Candidate], name: str, named: Sequence[Candidate]) -> Axis:
    first = [c for c in arrays if c.axis.name == name]
    if not first:
        other = next((c for c in arrays if name in (c.dimensions or ())), None)
        if other is None:
            known = sorted({d for c in arrays for d in c.dimensions or () if d})
            hint = near_names(name, known) if known else "the arrays of this store do not name their dimensions"
            raise SchemaError(f"--sample-dim {name}: {where} has no dimension of this name: {hint}")
        raise SchemaError(
            f"--sample-dim {name}: {where}: array {other.name!r}{_position(other, name)}: {_remedy(name)}"
        )
    chosen = [c for c in named if c.axis.name == name] or first
    return chosen[0].axis


def _position(candidate: Candidate, name: str) -> str:
    return f" has the dimension {name!r} at position {(candidate.dimensions or ()).index(name)}, but rows are the first"


def _remedy(name: str) -> str:
    return f"write the store with it first (xarray: ds.transpose({name!r}, ...).to_zarr(...))"


def _transposed(candidate: Candidate, axis: Axis) -> str:
    if axis.name is None or axis.name not in (candidate.dimensions or ())[1:]:
        return ""
    return f" (it has {axis.name!r} at position {(candidate.dimensions or ()).index(axis.name)}: {_remedy(axis.name)})"


def _require_all(where: str, arrays: Sequence[Candidate], axis: Axis) -> None:
    """Raise SchemaError for an array that might have been meant as a column. Nobody asked for the arrays of other named
    dimensions, such as coordinates."""
    for c in arrays:
        if axis.has(c):
            continue
        if axis.name is not None and axis.name in (c.dimensions or ())[1:]:
            raise SchemaError(
                f"{where}: array {c.name!r}{_position(c, axis.name)}: {_remedy(axis.name)}, or leave it out "
                f"(--exclude {c.name})"
            )
        if axis.name is None or c.axis.name is None:
            first, second = sorted((c, next(o for o in arrays if axis.has(o))), key=lambda o: o.name)
            raise SchemaError(
                f"{where}: arrays {first.name!r} and {second.name!r} have {first.shape[0]} and {second.shape[0]} rows, but "
                "columns must share axis 0: name the columns (--features), leave the others out (--exclude), or give the "
                f"group or array with one of them, for example {where}/{first.name}"
            )

"""The names of the numbers of a row, made when they are looked at: a description may declare a hundred million."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from operator import eq
from typing import overload

from streamtrain.columns.role import Column

__all__ = ["NumberNames"]


class NumberNames(Sequence[str]):
    """The name of every number of a row: ``x``; ``X[3]`` and ``X[2,5]`` for entries; ``t.age`` for times.

    >>> import pyarrow as pa
    >>> names = NumberNames([Column("x", pa.float32(), "number", ""), Column("v", pa.list_(pa.float32(), 2), "number", "")])
    >>> len(names), names[2], list(names)
    (3, 'v[1]', ['x', 'v[0]', 'v[1]'])
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = [column for column in columns if column.numbers]
        self._ends = list(accumulate(column.numbers for column in self._columns))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __iter__(self) -> Iterator[str]:
        return (name for column in self._columns for name in column.parts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(eq, self, other))

    def __hash__(self) -> int:
        return hash(tuple(column.name for column in self._columns))

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[str]: ...
    def __getitem__(self, i: int | slice) -> str | Sequence[str]:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        column = bisect_right(self._ends, i % len(self))
        return self._columns[column].parts[i % len(self) - self._ends[column]]

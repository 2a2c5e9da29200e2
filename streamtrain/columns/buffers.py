"""The arrays of a window: numbers, targets, weights, hashes, texts and bags. Every row is written at its position."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.batch import Texts
from streamtrain.kernels import scatter_columns, scatter_rows

__all__ = ["TEXT_ENTRY_BYTES", "RowWriter", "TextStore", "WindowArrays"]

TEXT_ENTRY_BYTES = 12  # of a text beside its bytes: where it starts, and its size
_GROWTH = 8  # the store grows by one part in so many when texts are longer than expected


class TextStore:
    """The texts and bags of the rows of a window: their bytes in one array, and for each row and column where its text starts.

    Threads add the bytes of chunks in any order: what a row holds does not depend on the order. align: bytes, of which each
    start is a multiple: those of the entries of a bag, so that they can be read as numbers.
    """

    def __init__(self, rows: int, columns: int, nbytes: int, align: int = 1) -> None:
        self._align = align
        self.starts = np.empty((rows, columns), np.int64)
        self.sizes = np.empty((rows, columns), np.int32)
        self._data, self._used = np.empty(max(1, nbytes), np.uint8), 0
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """What a worker of a cluster sends: the bytes that are used, and no lock."""
        state = self.__dict__ | {"_data": self._data[: self._used]}
        del state["_lock"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def clear(self) -> None:
        """Remove all bytes, before the store is filled with other rows."""
        self._used = 0

    def add(self, data: NDArray[np.uint8]) -> int:
        """Copy bytes into the store. Returns where they start."""
        with self._lock:
            used, start = self._used, -(-self._used // self._align) * self._align
            self._used = start + len(data)
            if self._used > len(self._data):
                self._grow(max(self._used, len(self._data) + len(self._data) // _GROWTH), used)
            self._data[start : self._used] = data
            return start

    def _grow(self, size: int, used: int) -> None:
        """Enlarge the store to ``size`` bytes; the first ``used`` of them stay."""
        try:
            self._data.resize(size)  # the system moves pages of large memory without copying them
        except ValueError:  # somebody holds a view of the texts
            grown = np.empty(size, np.uint8)
            grown[:used] = self._data[:used]
            self._data = grown

    def rows(self, first: int, last: int) -> Texts:
        """The texts of rows ``first`` to ``last``, without a copy."""
        return Texts(self._data[: self._used], self.starts[first:last], self.sizes[first:last])

    def copy_from(self, texts: Texts, row: int) -> None:
        """Copy texts to the rows from ``row`` on."""
        own = texts.copy(self._align)
        self.sizes[row : row + len(own)] = own.sizes
        self.starts[row : row + len(own)] = own.starts + self.add(own.data)

    @property
    def nbytes(self) -> int:
        return self.starts.nbytes + self.sizes.nbytes + self._data.nbytes


class WindowArrays:
    """The arrays that rows are written to; `Layout.buffers` makes them.

    features: shape (rows, width). targets: shape (rows,) or (rows, targets). weights: shape (rows,), float32, or None. hashes:
    shape (rows, hashes), uint32, or None. texts: None if no column is text.
    """

    def __init__(
        self, features: NDArray[Any], targets: NDArray[Any], *, weighted: bool, hashes: int, texts: TextStore | None
    ) -> None:
        rows = len(features)
        self.features, self.targets, self.texts = features, targets, texts
        self.weights = np.empty(rows, np.float32) if weighted else None
        self.hashes = np.empty((rows, hashes), np.uint32) if hashes else None

    def clear(self) -> None:
        """Prepare for other rows."""
        if self.texts is not None:
            self.texts.clear()

    def fields(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """The arrays that hold something for each row, by name."""
        named = {"features": self.features, "targets": self.targets, "weights": self.weights, "hashes": self.hashes}
        named |= {"starts": self.texts.starts, "sizes": self.texts.sizes} if self.texts is not None else {}
        yield from ((name, array) for name, array in named.items() if array is not None and len(array))

    def scatter_from(self, other: WindowArrays, positions: NDArray[np.int64]) -> None:
        """Write each row of ``other`` to its position here; positions: shape (rows of other,)."""
        sources = dict(other.fields())
        if self.texts is not None and other.texts is not None:
            sources["starts"] = other.texts.starts + self.texts.add(other.texts.rows(0, 0).data)
        for name, array in self.fields():
            if name in sources and array[:1].nbytes:
                scatter_rows(np.ascontiguousarray(_matrix(sources[name])), _matrix(array), 0, positions)

    def blank(self, rows: NDArray[Any]) -> None:
        """Make rows that are not learned the same whatever was read of them: zeros, no text. rows: their positions."""
        for name, array in self.fields():
            array[rows] = -1 if name == "sizes" else 0

    def copy_rows(self, to: int, other: WindowArrays, first: int, last: int) -> None:
        """Copy rows ``first`` to ``last`` of ``other`` to the rows from ``to`` on; the dtype of numbers may differ."""
        sources = dict(other.fields())
        for name, array in self.fields():
            if name not in ("starts", "sizes") and name in sources:
                array[to : to + last - first] = sources[name][first:last]
        if self.texts is not None and other.texts is not None:
            self.texts.copy_from(other.texts.rows(first, last), to)

    @property
    def nbytes(self) -> int:
        texts = 0 if self.texts is None else self.texts.nbytes
        return texts + sum(array.nbytes for name, array in self.fields() if name not in ("starts", "sizes"))


class RowWriter:
    """Writes the rows of one record batch to their positions in the arrays of a window.

    Columns of single numbers and of hashes are collected and written together by `finish`: a row is then touched once.

    positions: of the rows in the window, shape (rows,). where: names the chunk in errors. finds_infinite: whether infinite
    numbers are searched.

    infinite: which rows have an infinite number, shape (rows,), by the first such number of a row of the window, or by the name
    of a column of bags.
    """

    def __init__(
        self, arrays: WindowArrays, positions: NDArray[np.int64], where: str, *, finds_infinite: bool = False
    ) -> None:
        self._arrays, self._positions, self.where = arrays, positions, where
        self._finds_infinite = finds_infinite
        self.infinite: dict[int | str, NDArray[np.bool_]] = {}
        self._numbers: list[tuple[int, NDArray[np.float32]]] = []
        self._hashes: list[tuple[int, NDArray[np.float32]]] = []

    @property
    def holds_uint8(self) -> bool:
        """Whether the window holds numbers as uint8."""
        return bool(self._arrays.features.dtype == np.uint8)

    def add_numbers(self, first: int, numbers: NDArray[Any]) -> None:
        """Write numbers, shape (rows,) or (rows, entries), to the columns of the features from ``first`` on."""
        numbers = np.ascontiguousarray(numbers)
        if self._finds_infinite and numbers.dtype.kind == "f":
            self._find_infinite(first, numbers)
        if numbers.ndim == 1:
            self._numbers.append((first, numbers))
        else:
            scatter_rows(numbers, self._arrays.features, first, self._positions)

    def _find_infinite(self, first: int, numbers: NDArray[Any]) -> None:
        found = np.isinf(_matrix(numbers))
        if found.any():
            entry = int(np.argmax(found.any(axis=0)))
            self.infinite[first + entry] = found.any(axis=1)

    def find_infinite_entries(self, name: str, values: NDArray[np.float32], offsets: NDArray[np.int64]) -> None:
        """Search the values of a column of bags, if infinite numbers are searched. offsets: as `bag_entries` returns them."""
        if self._finds_infinite and (found := np.flatnonzero(np.isinf(values))).size:
            self.infinite[name] = np.zeros(len(offsets) - 1, np.bool_)
            self.infinite[name][np.searchsorted(offsets, found, side="right") - 1] = True

    def add_hashes(self, column: int, hashes: NDArray[np.uint32]) -> None:
        """Write hashes, shape (rows,), to a column of the hashes."""
        self._hashes.append((column, hashes.view(np.float32)))

    def add_texts(
        self, column: int, data: NDArray[np.uint8], offsets: NDArray[np.int64], valid: NDArray[np.bool_]
    ) -> None:
        """Write texts, as `text_bytes` returns them, to a column of the texts."""
        texts = self._arrays.texts
        assert texts is not None
        base = texts.add(data[offsets[0] : offsets[-1]])
        texts.starts[self._positions, column] = offsets[:-1] + (base - offsets[0])
        texts.sizes[self._positions, column] = np.where(valid, np.diff(offsets), -1)

    def add_targets(self, column: int, targets: NDArray[Any], rows: NDArray[np.bool_] | None = None) -> None:
        """Write the targets of some rows, by default of all, to a column of the targets."""
        into = self._arrays.targets
        into = into[:, None] if into.ndim == 1 else into
        scatter_rows(targets[:, None], into, column, self._positions if rows is None else self._positions[rows])

    def add_weights(self, weights: NDArray[np.float32]) -> None:
        """Write weights, shape (rows,)."""
        assert self._arrays.weights is not None
        scatter_rows(weights[:, None], self._arrays.weights[:, None], 0, self._positions)

    def finish(self) -> None:
        """Write what was collected."""
        _scatter(self._numbers, self._arrays.features, self._positions)
        if self._arrays.hashes is not None:
            _scatter(self._hashes, self._arrays.hashes.view(np.float32), self._positions)


def _scatter(columns: list[tuple[int, NDArray[np.float32]]], into: NDArray[Any], positions: NDArray[np.int64]) -> None:
    ordered = sorted(columns, key=lambda column: column[0])
    scatter_columns([values for _, values in ordered], np.array([at for at, _ in ordered], np.int64), into, positions)


def _matrix(array: NDArray[Any]) -> NDArray[Any]:
    """A view of shape (rows, entries)."""
    return array if array.ndim == 2 else array[:, None]

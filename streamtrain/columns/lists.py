"""Lists in Arrow's arrays: their values and lengths, and lists that all have one length as one array of that many columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.columns.types import is_list
from streamtrain.errors import BadValueError
from streamtrain.storage.arrow import valid

__all__ = ["OddListError", "evened", "lengths", "of_length", "one_length", "single_values", "unnested"]


class OddListError(BadValueError):
    """A list has another length than those of the first rows. ``row``: its number in the array."""

    def of(self, name: str) -> OddListError:
        """The error with the name of the column."""
        return OddListError(
            f"feature {name!r} {self}: pad the lists to one length, skip such rows with --on-error skip, or give --exclude "
            f"{name}",
            row=self.row,
        )


def unnested(values: Any) -> tuple[Any, NDArray[np.int64]]:
    """The values of all lists that are not null, one after the other, and where those of each list begin, and last where they
    end; shape (rows + 1,). For a map the values are structs. No copy, unless there are nulls or the type is a view.

    >>> child, offsets = unnested(pa.array([["a", "b"], None, ["c"]]))
    >>> child.to_pylist(), offsets.tolist()
    (['a', 'b', 'c'], [0, 2, 2, 3])
    """
    kind = values.type
    if isinstance(values, pa.ExtensionArray):
        return unnested(values.storage)
    if isinstance(values, pa.DictionaryArray):
        return unnested(values.dictionary_decode())
    given = valid(values) if values.null_count else None
    if isinstance(kind, pa.FixedSizeListType):
        size = kind.list_size
        child = values.values.slice(values.offset * size, len(values) * size)
        sizes = np.full(len(values), size, np.int64)
    elif isinstance(kind, (pa.ListViewType, pa.LargeListViewType)):
        from pyarrow import compute  # imported on demand: it costs 20 MB

        child = compute.list_flatten(values)  # without those of null lists
        sizes = np.asarray(values.sizes).astype(np.int64)
        sizes, given = sizes if given is None else np.where(given, sizes, 0), None
    else:
        bounds = np.asarray(values.offsets).astype(np.int64)
        child = (
            pa.StructArray.from_arrays([values.keys, values.items], ["key", "value"])
            if _is_map(kind)
            else values.values
        )
        child, sizes = child.slice(int(bounds[0]), int(bounds[-1] - bounds[0])), np.diff(bounds)
    if given is not None and sizes[~given].any():  # what is stored at a null does not count
        child = child.filter(pa.array(np.repeat(given, sizes)))
    if given is not None:
        sizes = np.where(given, sizes, 0)
    return child, np.concatenate([[0], np.cumsum(sizes)])


def one_length(values: Any) -> int | None:
    """The length of all lists that are not null; None if they differ, or there are none.

    >>> one_length(pa.array([[1, 2], None, [3, 4]])), one_length(pa.array([[1], [2, 3]]))
    (2, None)
    """
    sizes = np.diff(unnested(values)[1])
    sizes = sizes[valid(values)] if values.null_count else sizes
    return int(sizes[0]) if len(sizes) and (sizes == sizes[0]).all() else None


def lengths(values: Any) -> str:
    """The lengths of all lists that are not null, for people.

    >>> lengths(pa.array([[1], [2, 3]])), lengths(pa.array([[], None]))
    ('1 to 2', '0')
    """
    sizes = np.diff(unnested(values)[1])[valid(values)]
    least, most = (int(sizes.min()), int(sizes.max())) if len(sizes) else (0, 0)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def of_length(values: Any, length: int) -> Any:
    """Lists as lists of fixed size. Raises OddListError for a list of another length.

    >>> of_length(pa.array([[1, 2], None]), 2).type
    FixedSizeListType(fixed_size_list<item: int64>[2])
    """
    if not is_list(values.type):
        return values
    child, offsets = unnested(values)
    sizes, given = np.diff(offsets), valid(values)
    odd = given & (sizes != length)
    if odd.any():
        row = int(np.argmax(odd))
        raise OddListError(
            f"has a list of length {sizes[row]:,}, but those of the first rows have length {length:,}", row=row
        )
    if given.all():
        return pa.FixedSizeListArray.from_arrays(child, length)
    places = (offsets[:-1, None] + np.arange(length)).ravel()
    child = child.take(pa.array(places, mask=np.repeat(~given, length)))
    return pa.FixedSizeListArray.from_arrays(child, length, mask=pa.array(~given))


def evened(values: Any, length: int) -> tuple[Any, NDArray[np.bool_]]:
    """Lists as `of_length` makes them, null where they have another length; and which have, shape (rows,).

    >>> lists, odd = evened(pa.array([[1, 2], [3]]), 2)
    >>> lists.to_pylist(), odd.tolist()
    ([[1, 2], None], [False, True])
    """
    odd = valid(values) & (np.diff(unnested(values)[1]) != length)
    places = np.arange(len(values))
    return of_length(values.take(pa.array(places, mask=odd)), length), odd


def single_values(values: Any) -> Any:
    """Lists and tensors of one value each as these values; anything else as it is. An empty list is null. Raises OddListError
    for a list of several values.

    >>> single_values(pa.array([[1], None, []])).to_pylist()
    [1, None, None]
    """
    kind = values.type
    while isinstance(kind, pa.FixedShapeTensorType):
        values = values.storage
        kind = values.type
    if not (is_list(kind) or isinstance(kind, pa.FixedSizeListType)):
        return values
    child, offsets = unnested(values)
    sizes = np.diff(offsets)
    if (sizes > 1).any():
        row = int(np.argmax(sizes > 1))
        raise OddListError(f"has a list of {sizes[row]:,} values", row=row)
    if not sizes.all():
        child = child.take(pa.array(offsets[:-1], mask=sizes == 0)) if len(child) else pa.nulls(len(values), child.type)
    return single_values(child)


def _is_map(kind: pa.DataType) -> bool:
    return bool(pa.types.is_map(kind))

"""The values of a target as Arrow gives them: single ones, distinct ones, and those that cannot be used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.columns.decimals import distinct
from streamtrain.columns.lists import OddListError, single_values
from streamtrain.columns.numbers import as_numbers
from streamtrain.columns.types import is_list
from streamtrain.errors import BadValueError
from streamtrain.notebook import count
from streamtrain.storage.arrow import is_number, value_type

__all__ = [
    "NOT_FINITE", "NULL", "Unusable", "bad_message", "is_named", "named_values", "only", "plain_values", "runs",
    "single_targets", "target_type",
]  # fmt: skip

#: rows that cannot be used, shape (rows,), and why
Unusable = tuple[NDArray[np.bool_], str]

NULL, NOT_FINITE = "null", "NaN, infinite or too large for float32"


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


def bad_message(name: str, rows: int, kinds: Sequence[str], where: str) -> str:
    """The message for values that cannot be used. kinds: what they are, as `Target.unusable` says it."""
    which = " or ".join(kinds)
    what = count(rows, "null" if which == NULL else "value")
    if which != NULL:
        what += f" that {'is' if rows == 1 else 'are'} {which}"
    return f"target {name!r} has {what} in {where}: remove these rows, or skip them with --on-error skip"


def target_type(kind: pa.DataType) -> pa.DataType:
    """The type of a single target: of what is in a list, where a row is a list of one."""
    return target_type(value_type(kind.value_type)) if is_list(kind) else value_type(kind)


def single_targets(values: pa.Array, name: str, where: str) -> pa.Array:
    """Targets that may be stored as lists of one, as single values. Raises BadValueError for a list of several."""
    try:
        return single_values(values)
    except OddListError as error:
        raise BadValueError(
            f"target {name!r} {error} in {where}: a target is one: store each as a column, and name them as in --target a,b,c",
            row=error.row,
        ) from None

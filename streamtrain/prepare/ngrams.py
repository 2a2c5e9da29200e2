"""Turns texts into entries of the sparse part: one for each n-gram, or a single one for a missing text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamtrain.batch import Texts
from streamtrain.kernels.ngrams import ngrams

__all__ = ["Part", "beside", "chosen", "text_part"]


class Part(NamedTuple):
    """Entries that have no slots yet, as compressed sparse rows.

    indptr: shape (rows + 1,). hashes: shape (entries,), uint32. values: shape (entries,), float32.
    """

    indptr: NDArray[np.int64]
    hashes: NDArray[np.uint32]
    values: NDArray[np.float32]


def text_part(texts: Texts, column: int, seed: int, missing: int) -> Part:
    """Return the n-grams of a column of texts. A missing text has one entry, with the hash ``missing``.

    >>> data = np.frombuffer(b"to be", np.uint8)
    >>> part = text_part(Texts(data, np.array([[0], [0]]), np.array([[5], [-1]], np.int32)), 0, seed=1, missing=9)
    >>> part.hashes[part.indptr[1] :].tolist(), part.values[part.indptr[1] :].tolist()
    ([9], [1.0])
    """
    present = Part(*ngrams(texts, column, seed))
    absent = texts.sizes[:, column] < 0
    if not absent.any():
        return present
    count = int(np.count_nonzero(absent))
    alone = Part(
        np.concatenate([[0], np.cumsum(absent)]), np.full(count, missing, np.uint32), np.ones(count, np.float32)
    )
    return beside([present, alone])


def beside(parts: Sequence[Part]) -> Part:
    """Join the entries of several parts of the same rows: in each row, first those of the first part, and so on.

    >>> one = Part(np.array([0, 1, 2]), np.array([5, 6], np.uint32), np.ones(2, np.float32))
    >>> beside([one, one]).hashes.tolist()
    [5, 5, 6, 6]
    """
    sizes = [np.diff(part.indptr) for part in parts]
    indptr = np.concatenate([[0], np.cumsum(sum(sizes))]).astype(np.int64)
    hashes, values = np.empty(indptr[-1], np.uint32), np.empty(indptr[-1], np.float32)
    at = indptr[:-1].copy()
    for part, size in zip(parts, sizes, strict=True):
        positions = np.repeat(at - part.indptr[:-1], size) + np.arange(len(part.hashes))
        hashes[positions], values[positions] = part.hashes, part.values
        at += size
    return Part(indptr, hashes, values)


def chosen(parts: Sequence[Part], which: Sequence[bool]) -> NDArray[np.bool_]:
    """Return which entries of the joined parts are of the chosen parts, shape (entries,).

    >>> one = Part(np.array([0, 1, 2]), np.array([5, 6], np.uint32), np.ones(2, np.float32))
    >>> chosen([one, one], [True, False]).tolist()
    [True, False, True, False]
    """
    pairs = zip(parts, which, strict=True)
    marked = [part._replace(values=np.full(len(part.values), is_chosen, np.float32)) for part, is_chosen in pairs]
    return np.asarray(beside(marked).values != 0)

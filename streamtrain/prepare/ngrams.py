"""Texts -> entries of the sparse part: the n-grams of each, and that a text was missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamtrain.batch import Texts
from streamtrain.kernels.ngrams import ngrams

__all__ = ["Part", "beside", "text_part"]


class Part(NamedTuple):
    """Entries that are not in slots yet. indptr: shape (rows + 1,); signatures, uint32, and values, float32, of all entries."""

    indptr: NDArray[np.int64]
    signatures: NDArray[np.uint32]
    values: NDArray[np.float32]


def text_part(texts: Texts, column: int, seed: int, missing: int) -> Part:
    """The n-grams of the texts of a column, or, where there is none, one entry of signature ``missing``.

    >>> data = np.frombuffer(b"to be", np.uint8)
    >>> part = text_part(Texts(data, np.array([[0], [0]]), np.array([[5], [-1]], np.int32)), 0, seed=1, missing=9)
    >>> part.signatures[part.indptr[1] :].tolist(), part.values[part.indptr[1] :].tolist()
    ([9], [1.0])
    """
    found = Part(*ngrams(texts, column, seed))
    absent = texts.sizes[:, column] < 0
    if not absent.any():
        return found
    count = int(np.count_nonzero(absent))
    alone = Part(
        np.concatenate([[0], np.cumsum(absent)]), np.full(count, missing, np.uint32), np.ones(count, np.float32)
    )
    return beside([found, alone])


def beside(parts: Sequence[Part]) -> Part:
    """The entries of several parts of the same rows, row by row, those of the first part first.

    >>> one = Part(np.array([0, 1, 2]), np.array([5, 6], np.uint32), np.ones(2, np.float32))
    >>> beside([one, one]).signatures.tolist()
    [5, 5, 6, 6]
    """
    sizes = [np.diff(part.indptr) for part in parts]
    indptr = np.concatenate([[0], np.cumsum(sum(sizes))]).astype(np.int64)
    signatures, values = np.empty(indptr[-1], np.uint32), np.empty(indptr[-1], np.float32)
    at = indptr[:-1].copy()
    for part, size in zip(parts, sizes, strict=True):
        places = np.repeat(at - part.indptr[:-1], size) + np.arange(len(part.signatures))
        signatures[places], values[places] = part.signatures, part.values
        at += size
    return Part(indptr, signatures, values)

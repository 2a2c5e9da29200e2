"""The entries of bags, from where the window keeps them."""

from __future__ import annotations

import numpy as np

from streamtrain.batch import Texts
from streamtrain.errors import BadValueError
from streamtrain.kernels.hashing import mixed
from streamtrain.prepare.ngrams import Part

__all__ = ["bag_part", "mark_missing", "require_finite"]

_ENTRY = 8  # bytes: a uint32, the hash, and a float32, the value


def bag_part(texts: Texts, column: int) -> Part:
    """The entries of a column of bags, row by row.

    >>> data = np.array([[7, np.float32(2).view(np.uint32)], [9, 0]], np.uint32).view(np.uint8).ravel()
    >>> part = bag_part(Texts(data, np.array([[8], [0]]), np.array([[8], [8]], np.int32)), 0)
    >>> part.indptr.tolist(), part.hashes.tolist(), part.values.tolist()
    ([0, 1, 2], [9, 7], [0.0, 2.0])
    """
    counts = np.maximum(texts.sizes[:, column], 0) // _ENTRY
    indptr = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    positions = np.repeat(texts.starts[:, column] // _ENTRY - indptr[:-1], counts)
    positions += np.arange(len(positions))
    entries = texts.data[: len(texts.data) // _ENTRY * _ENTRY].view(np.uint64)[positions].view(np.uint32).reshape(-1, 2)
    hashes, values = entries.T.copy()
    return Part(indptr, hashes, values.view(np.float32))


def require_finite(part: Part, name: str) -> None:
    """Raise BadValueError, with ``row``, for an entry that is infinite. name: of the column."""
    infinite = np.isinf(part.values)
    if infinite.any():
        entry = int(np.argmax(infinite))
        raise BadValueError(
            f"feature {name!r} has an entry {part.values[entry]}, or one too large for float32: give the fit --infinities clip "
            "or --infinities missing, or skip such rows with --on-error skip",
            row=int(np.searchsorted(part.indptr, entry, "right")) - 1,
        )


def mark_missing(part: Part, missing: int) -> None:
    """Turn each entry without a finite value into one that says so, **in place**: with a hash of its own, and the value 1.
    missing: a seed."""
    absent = ~np.isfinite(part.values)
    if absent.any():
        part.hashes[absent] = np.maximum(mixed(part.hashes[absent] ^ np.uint32(missing)), np.uint32(1))
        part.values[absent] = 1

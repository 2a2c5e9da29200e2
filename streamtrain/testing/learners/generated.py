"""Batches to learn from, by default."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from streamtrain.batch import Batch, Sparse

__all__ = ["generated_batch"]


def generated_batch(
    rows: int, seed: int, *, features: int, classes: int = 0, targets: int = 1, slots: int = 0, weights: bool = False
) -> Batch:
    """Rows with something to learn in them; the same for the same arguments, other rows for another seed.

    features: columns of X, standard normal. classes: 0 for regression, with targets that are whole numbers from 0, which
    suit every loss; otherwise class positions. targets: more than 1 gives them shape (rows, targets). slots: columns of
    the sparse part; 0 for none; every third seed has a part in which each entry is 1. weights: from 0.5 to 2, in every
    second seed.

    >>> batch = generated_batch(3, 0, features=2, classes=2)
    >>> batch.features.shape, batch.targets.dtype, batch.sparse
    ((3, 2), dtype('int32'), None)
    """
    rng, fixed = np.random.default_rng([rows, seed]), np.random.default_rng(0)
    outputs = classes if classes > 2 else targets
    X = rng.standard_normal((rows, features), np.float32)
    score = X @ fixed.standard_normal((features, outputs)) / math.sqrt(max(1, features))
    sparse = _sparse(rng, rows, slots, values=bool(seed % 3)) if slots else None
    if sparse is not None:
        effect = fixed.standard_normal((slots, outputs))
        np.add.at(score, np.repeat(np.arange(rows), np.diff(sparse.indptr)), effect[sparse.indices])
    score += 0.3 * rng.standard_normal(score.shape)
    weigh = rng.uniform(0.5, 2, rows).astype(np.float32) if weights and seed % 2 else None
    return Batch(X, _targets(score, classes), weigh, np.arange(rows) + 1000 * seed, sparse=sparse)


def _targets(score: NDArray[np.float64], classes: int) -> NDArray[np.int32] | NDArray[np.float32]:
    if classes > 2:
        return np.asarray(score.argmax(axis=1), np.int32)
    score = score[:, 0] if score.shape[1] == 1 else score
    return (
        np.asarray(score > 0, np.int32) if classes else np.asarray(np.floor(np.exp(np.minimum(score, 4))), np.float32)
    )


def _sparse(rng: np.random.Generator, rows: int, slots: int, *, values: bool) -> Sparse:
    """None to three entries a row, the first slots more often than the last."""
    indptr = np.concatenate([[0], np.cumsum(rng.integers(0, 4, rows))]).astype(np.int64)
    indices = (slots * rng.random(indptr[-1]) ** 2).astype(np.int32)
    found = rng.uniform(0.5, 1.5, len(indices)).astype(np.float32)
    return Sparse(indptr, indices, found if values else None, slots)

"""Problems with a known truth: rows, targets and the loss of the true model, block by block.

A block is a pure function of (name, seed, columns, block number). So rows do not depend on chunks and files, and a larger set
begins with the rows of a smaller one. Every block draws from its own generator
(``SeedSequence(seed, spawn_key=(name, columns, block))``). (The random streams are those of numpy's ``Generator``, which may
change between versions of numpy.)

The truth is linear in the standardised columns ``z = (x - offset) / scale``, each N(0, 1) (within its class)::

    score = weights . z + bias
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from statistics import NormalDist
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["PROBLEMS", "Piece", "Problem", "block_rows"]

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
#: features, shape (columns, rows), float32, a column contiguous; and targets, shape (rows,)
Piece = tuple[Floats, NDArray[Any]]


def block_rows(columns: int) -> int:
    """The number of rows in a block: the power of two at or below 1 MiB of float32 features, at least 16.

    >>> block_rows(40), block_rows(1_000_000)
    (4096, 16)
    """
    return max(16, 1 << max(1, 2**18 // columns).bit_length() - 1)


class Problem:
    """The base of the problems: columns of known scale and offset, and blocks that are drawn one by one.

    ``loss_sum`` is the sum of the true model's losses on the rows that `pieces` has drawn.
    """

    name: ClassVar[str]
    task: ClassVar[str]
    target_type: ClassVar[str]
    decades: ClassVar[float] = 0.0  # scales range from 10^-decades to 10^decades
    far: ClassVar[bool] = False  # every third column is tens to hundreds of standard deviations away from 0

    def __init__(self, columns: int, seed: int) -> None:
        self.columns, self.seed = columns, seed
        self.loss_sum = 0.0
        rng = self._rng(0)
        self.scales = (10.0 ** rng.uniform(-self.decades, self.decades, columns)).astype(np.float32)
        deviations = rng.uniform(-3, 3, columns) if self.decades else np.zeros(columns)
        if self.far:  # float32 still resolves 1e-5 of a standard deviation at 300 of them
            deviations[2::3] = np.copysign(10 ** rng.uniform(1.3, 2.5, columns), deviations)[2::3]
        self.offsets = (deviations * self.scales).astype(np.float32)
        self.weights, self.bias = self._truth(rng)

    def pieces(self, rows: int) -> Iterator[Piece]:
        """Yield the first ``rows`` rows, a block at a time. A piece is valid until the next one is drawn."""
        self.loss_sum = 0.0
        size = block_rows(self.columns)
        z = np.empty((self.columns, size), np.float32)
        for block in range(-(-rows // size)):
            rng = self._rng(block + 1)
            rng.standard_normal(dtype=np.float32, out=z)
            y, losses = self._targets(rng, z)
            np.multiply(z, self.scales[:, None], out=z)
            np.add(z, self.offsets[:, None], out=z)
            n = min(size, rows - block * size)
            self.loss_sum += float(losses[:n].sum(dtype=np.float64))
            yield z[:, :n], y[:n]

    def edges(self, buckets: int) -> Doubles:
        """Return ascending borders that cut the targets into buckets: one a class, or ``buckets`` of about equal size."""
        raise NotImplementedError

    def truth(self) -> dict[str, Any]:
        """Describe the true model, as JSON."""
        arrays = {"weights": self.weights, "bias": self.bias, "scales": self.scales, "offsets": self.offsets}
        return {"name": self.name, "seed": self.seed} | {k: v.tolist() for k, v in arrays.items()}

    def _rng(self, number: int) -> np.random.Generator:
        key = (zlib.crc32(self.name.encode()), self.columns, number)
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(self.seed, spawn_key=key)))

    def _truth(self, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Weights and bias: shapes (columns,) and (), or (classes, columns) and (classes,)."""
        raise NotImplementedError

    def _targets(self, rng: np.random.Generator, z: Floats) -> tuple[NDArray[Any], Doubles]:
        """Return targets and the true model's losses, each of shape (rows,), for standard normal z. May shift z in place."""
        raise NotImplementedError

    def _score(self, z: Floats) -> Floats:
        """The true model's score of each row, shape (rows,) or (classes, rows)."""
        # Not by BLAS: its last bits depend on the number of threads, and targets must not.
        return np.asarray(np.einsum("...j,ji->...i", self.weights, z) + self.bias[..., None])


def _direction(rng: np.random.Generator, columns: int, length: float) -> Floats:
    """Draw a random vector of the given length, so that the score has the same spread for any number of columns."""
    vector = rng.standard_normal(columns)
    return (vector * (length / np.linalg.norm(vector))).astype(np.float32)


class Clicks(Problem):
    """y ~ Bernoulli(sigmoid(score)), the score N(-0.5, 1.7^2): Bayes log-loss about 0.49, 42 % ones."""

    name, task, target_type, decades, far = "clicks", "classify", "int8", 6.0, True

    def edges(self, buckets: int) -> Doubles:
        return np.array([0.0, 1.0, 2.0])

    def _truth(self, rng: np.random.Generator) -> tuple[Floats, Floats]:
        return _direction(rng, self.columns, 1.7), np.array(-0.5, np.float32)

    def _targets(self, rng: np.random.Generator, z: Floats) -> tuple[NDArray[Any], Doubles]:
        score = self._score(z).astype(np.float64)
        y = rng.random(len(score)) < 1 / (1 + np.exp(-score))
        return y.astype(np.int8), np.logaddexp(0, np.where(y, -score, score))


class Regression(Problem):
    """y = score + noise, the score N(10, 2^2), the noise N(0, 1): squared error of the true model about 1."""

    name, task, target_type, decades = "regression", "regress", "float32", 2.0

    def edges(self, buckets: int) -> Doubles:
        spread = NormalDist(10, 5**0.5)  # exact, so the buckets need no pass over the rows
        inner = [spread.inv_cdf(i / buckets) for i in range(1, buckets)]
        return np.array([-np.inf, *inner, np.inf])

    def _truth(self, rng: np.random.Generator) -> tuple[Floats, Floats]:
        return _direction(rng, self.columns, 2.0), np.array(10, np.float32)

    def _targets(self, rng: np.random.Generator, z: Floats) -> tuple[NDArray[Any], Doubles]:
        score = self._score(z)
        y = score + rng.standard_normal(len(score), dtype=np.float32)
        return y, (y.astype(np.float64) - score) ** 2


class Clusters(Problem):
    """Ten equally likely classes, each N(centre, 1), the centres 2.5 from 0: Bayes log-loss about 0.6 (40 columns).

    By Bayes' rule log p(class | z) is centre . z - |centre|^2 / 2, up to a constant: weights are the centres.
    """

    name, task, target_type = "clusters", "classify", "int8"
    classes: ClassVar[int] = 10

    def edges(self, buckets: int) -> Doubles:
        return np.arange(self.classes + 1, dtype=np.float64)

    def _truth(self, rng: np.random.Generator) -> tuple[Floats, Floats]:
        centres = np.stack([_direction(rng, self.columns, 2.5) for _ in range(self.classes)])
        return centres, (-0.5 * (centres**2).sum(axis=1)).astype(np.float32)

    def _targets(self, rng: np.random.Generator, z: Floats) -> tuple[NDArray[Any], Doubles]:
        y = rng.integers(self.classes, size=(z.shape[1],), dtype=np.int8)
        for column, centres in zip(z, self.weights.T, strict=True):
            column += centres[y]
        score = self._score(z).astype(np.float64)
        score -= score.max(axis=0)
        return y, np.log(np.exp(score).sum(axis=0)) - score[y, np.arange(len(y))]


PROBLEMS: dict[str, type[Problem]] = {p.name: p for p in (Clicks, Clusters, Regression)}

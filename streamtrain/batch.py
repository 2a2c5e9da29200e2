"""The rows that the learner sees at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Batch"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows cut from a window, ready to be learned.

    features: shape (rows, features), float32, C-contiguous.
    targets: shape (rows,): int32 class positions, or float32 values for regression; empty where no target was asked for.
    weights: shape (rows,), float32, or None where every row weighs one.
    positions: the rows' positions in the data, shape (rows,), int64, or a function that finds them (see `rows`).
    held_out: whether these rows are for scoring only.

    The arrays belong to the loader and are valid until the next batch is asked for: copy what must be kept.

    >>> batch = Batch(np.zeros((2, 3), np.float32), np.zeros(2, np.int32), None, np.arange(2))
    >>> len(batch), batch.nbytes, batch.rows.tolist()
    (2, 32, [0, 1])
    """

    features: NDArray[np.float32]
    targets: NDArray[np.int32] | NDArray[np.float32]
    weights: NDArray[np.float32] | None
    positions: NDArray[np.int64] | Callable[[], NDArray[np.int64]]
    held_out: bool = False

    def __len__(self) -> int:
        return len(self.features)

    def part(self, start: int, stop: int) -> Batch:
        """Rows ``start`` to ``stop``, without a copy."""
        weights = None if self.weights is None else self.weights[start:stop]
        features, targets = self.features[start:stop], self.targets[start:stop]
        return Batch(features, targets, weights, lambda: self.rows[start:stop], self.held_out)

    @property
    def rows(self) -> NDArray[np.int64]:
        """The position of each row in the data, shape (rows,); 0 is the first row of the first chunk."""
        return self.positions() if callable(self.positions) else self.positions

    @property
    def nbytes(self) -> int:
        """Bytes of features, targets and weights."""
        weights = 0 if self.weights is None else self.weights.nbytes
        return self.features.nbytes + self.targets.nbytes + weights

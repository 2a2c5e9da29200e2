"""What a learner is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from streamtrain.batch import Batch, Sparse
from streamtrain.plan.term import Term

__all__ = ["Learner", "learner_terms"]


@runtime_checkable
class Learner(Protocol):
    """A model that learns from one batch at a time.

    Deterministic: the same batches in the same order give the same bits. Nothing depends on how much is still to come.
    """

    def learn(self, batch: Batch) -> None:
        """Update the model from a batch. Must not change its arrays."""

    def predict(self, X: NDArray[np.float32], sparse: Sparse | None = None) -> NDArray[np.float32]:
        """Predict from X, shape (rows, features), float32, and from the sparse part of the same rows; both are left as they
        are. A learner for tables without categories or text may leave ``sparse`` out: it is given only where there is one.

        Regression: shape (rows,), or (rows, targets). Two classes: shape (rows,), the probability of the second, or
        (rows, 2). More: shape (rows, classes).
        """

    def state_dict(self) -> dict[str, Any]:
        """Everything that learning changes, as arrays and numbers by name; copies."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that ``state_dict`` returned, to the same bits."""

    @property
    def state_bytes(self) -> int:
        """Bytes that the learner's state takes in memory, known before the first row."""


def learner_terms(learner: Learner) -> tuple[Term, ...]:
    """What the memory plan counts for a learner."""
    return (Term("learner", learner.state_bytes, "learner"),)

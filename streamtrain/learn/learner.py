"""What a learner is, and what it may offer beyond that."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from streamtrain.batch import Batch, Sparse
from streamtrain.learn.own_code import Calling, state_bytes_of
from streamtrain.plan.term import Term

__all__ = ["Fused", "Learner", "learner_terms", "loss_name", "takes_sparse", "target_scale"]

Floats = NDArray[np.float32]


@runtime_checkable
class Learner(Protocol):
    """A model that learns from one batch at a time.

    The same batches in the same order give the same bits. Nothing may depend on how many rows follow.

    A learner may describe itself by attributes: ``loss``, a name or an object with a ``name``, for reports;
    ``target_scale``, how a regression target is scaled before it is learned: ``"deviation"`` (the default; to mean 0 and
    standard deviation 1) or ``"mean"`` (divided by its mean, for counts). See also `Fused`.
    """

    def learn(self, batch: Batch) -> None:
        """Update the model from a batch. Must not change its arrays."""

    def predict(self, X: Floats, sparse: Sparse | None = None) -> Floats:
        """Predict rows. Must not change the arrays.

        Parameters
        ----------
        X
            Shape (rows, features), float32.
        sparse
            The sparse part of the same rows. A learner for tables without categories or text may leave this parameter out:
            it is passed only to learners that have it.

        Returns
        -------
        Array, float32. Regression: shape (rows,), or (rows, targets). Two classes: shape (rows,), the probability of the
        second, or (rows, 2). More classes: shape (rows, classes).
        """

    def state_dict(self) -> dict[str, Any]:
        """Copies of everything that learning changes: arrays and numbers by name."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that ``state_dict`` returned, to the same bits. For a state of another shape, raise an error
        and change nothing."""

    @property
    def state_bytes(self) -> int:
        """Bytes of memory that the learner takes, known before the first row."""


@runtime_checkable
class Fused(Learner, Protocol):
    """A learner that can prepare, predict and learn many batches in one call."""

    @property
    def can_run(self) -> bool:
        """Whether `run` can be called with these settings on this machine. Always the same value."""

    @property
    def diverged(self) -> bool:
        """Whether the last call of `run` stopped at a gradient that is not finite."""

    def run(
        self, batch: Batch, size: int, maps: Floats, block: NDArray[np.float64]
    ) -> tuple[int, Floats, Floats | None]:
        """Learn successive batches of ``size`` rows. The rows of ``batch`` have no weights.

        Parameters
        ----------
        batch
            Rows as they were read, with missing numbers filled in; its features may be prepared **in place**.
        size
            Rows of one batch; the last one may be smaller.
        maps
            Centre, shift and scale of the preparation, shape (3, features), float32. The centre must be the shift.
        block
            Shape (2, features), float64: the sums of the raw rows about the centre, and of their squares, are added to it.

        Returns
        -------
        The number of batches learned; the predictions from before each, shape (rows,); and None. The call stops at a batch
        with non-finite sums or gradient. It then returns the predictions of that batch too, and its sums, which are not
        in ``block``, as the third value. The dense part of that batch is learned, unless ``diverged``.
        """


def loss_name(learner: Any) -> str | None:
    """The name of the learner's loss, None if it does not tell."""
    with Calling(learner, "loss raised"):
        loss = getattr(learner, "loss", None)
        name = loss if isinstance(loss, str) else getattr(loss, "name", None)
    return name if isinstance(name, str) else None


def target_scale(learner: Any) -> str:
    """How regression targets are scaled for the learner: see `Learner`."""
    with Calling(learner, "target_scale raised"):
        return getattr(learner, "target_scale", None) or "deviation"


def takes_sparse(learner: Learner) -> bool:
    """Whether the learner's predictions can use the sparse part of rows."""
    try:
        return "sparse" in inspect.signature(learner.predict).parameters
    except ValueError:  # it is compiled, and does not say
        return False


def learner_terms(learner: Learner) -> tuple[Term, ...]:
    """The memory plan's term for a learner."""
    return (Term("learner", state_bytes_of(learner), "learner"),)

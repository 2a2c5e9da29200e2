"""Linear models: `PlainLinear`, and many batches in one call of a compiled kernel if it supports the settings."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from streamtrain.batch import Batch
from streamtrain.kernels.compiled import library
from streamtrain.kernels.fused_linear import LinearStep, move
from streamtrain.learn.linear import PlainLinear, is_measured
from streamtrain.learn.optimizers import Normalized, StreamStats
from streamtrain.learn.update import FORGET

__all__ = ["Linear"]

Floats = NDArray[np.float32]


class Linear(PlainLinear):
    """A linear model: ``margin = X @ weights + intercept + sparse @ sparse_weights``, learned by mini-batch gradients of the
    mean loss.

    Parameters
    ----------
    features
        Columns of X. They should have comparable scales: see ``prepare.Standardize``.
    classes
        How many classes there are; 0 for regression.
    slots
        Columns of the sparse part. Any batch may come without one.
    targets
        How many targets are learned at once, independently. With more than one, targets and predictions have shape
        (rows, targets).
    loss
        A name of ``LOSSES``, or a ``Loss``. By default squared, logistic or softmax, by the number of classes.
    optimizer
        A name of ``OPTIMIZERS``, or an ``Optimizer``.
    learning_rate
        Of the optimizer. Default: by optimizer and loss.
    learning_rate_schedule
        How the rate of the optimizers sgd and momentum falls with the rows.
    l1, l2
        Penalties ``l1 * |w| + l2 / 2 * w^2`` on each weight, added to the mean loss. The intercept is not penalised.
    average
        Whether a running average of the weights predicts: ``A += (W - A) * min(1, 4 / (n + 3))`` at batch n
        (polynomial-decay averaging, Shamir & Zhang 2013). For a slot, n counts the batches in which it occurred.
    parameters
        Of the loss and the optimizer, such as ``delta`` of huber.

    Raises
    ------
    UsageError
        For a value out of range, and for a loss or schedule that does not fit.

    Notes
    -----
    Weights of rows: the slopes of the loss are those of importance-invariant updates (see ``losses.base.Invariant``). Their
    sum is divided by the number of rows, whatever the rows weigh. Rows of weight 0 are ignored.

    Example
    -------
    >>> X = np.array([[-1.0], [1.0]], np.float32)
    >>> model = Linear(1, 2)
    >>> for _ in range(100):
    ...     model.learn(Batch(X, np.array([0, 1], np.int32), None, np.arange(2)))
    >>> (model.predict(X) > 0.5).tolist()
    [False, True]
    """

    diverged = False
    _fused: LinearStep | None = None

    @property
    def target_scale(self) -> str | None:
        """How the loss wants regression targets scaled: see `Loss`."""
        return self.loss.target_scale

    @property
    def can_run(self) -> bool:
        """Whether the compiled kernel supports this model: one output, logistic or squared loss, the optimizer
        `Normalized`, an average, no L1, and no L2 with a sparse part."""
        plain = self._weights.ndim == 1 and self.loss.name in ("logistic", "squared")
        return self._moves_compiled and plain and (self._sparse_weights is None or not self.l2)

    @property
    def _moves_compiled(self) -> bool:
        """Whether a compiled kernel can move the dense weights."""
        return library() is not None and type(self.optimizer) is Normalized and self.average and not self.l1

    @property
    def _scratch_arrays(self) -> int:
        return self.optimizer.scratch_arrays if self._moves_compiled else super()._scratch_arrays

    def _move(self, rows: int) -> None:
        optimizer, stats, state = self.optimizer, self._stats, self._dense
        if not (self._moves_compiled and isinstance(optimizer, Normalized)):
            super()._move(rows)
            return
        state["steps"] += 1
        move(
            self._gradient, self._weights, self._average, state["squares"],
            share=1 / rows, rate=optimizer.scale(self.learning_rate, stats), l2=self.l2,
            factor=min(1.0, FORGET / (float(state["steps"]) + (FORGET - 1))), prior=float(optimizer.under_root(stats)),
        )  # fmt: skip

    def run(
        self, batch: Batch, size: int, maps: Floats, block: NDArray[np.float64]
    ) -> tuple[int, Floats, Floats | None]:
        """Learn many batches in one call of the kernel: see `Fused.run`."""
        stats, sparse = self._stats, batch.sparse
        sparse_weights = None if sparse is None else self._require_slots(sparse)
        counts = np.array([stats.rows, stats.batches, stats.measured, stats.power, stats.noise])
        targets = batch.targets.astype(np.float32, copy=False)
        done, scores, gradient, sums = self._fused_for(maps).run(
            batch.features, size, targets, self._dense["squares"], counts, block,
            learning_rate=self.learning_rate, l2=self.l2, forget=FORGET, sparse=sparse,
            sparse_weights=None if sparse_weights is None else sparse_weights.array, prior=self._priors,
        )  # fmt: skip
        if sparse is not None and sparse_weights is not None:
            sparse_weights.use(sparse.indices)
        rows, batches, measured, power, noise = counts.tolist()
        self._stats = StreamStats(int(rows), int(batches), int(measured), power, noise)
        self._dense["steps"][...] = batches
        if done * size >= len(batch):
            return done, scores, None
        odd = min(size, len(batch) - done * size)
        self.diverged = not math.isfinite(np.add.reduce(gradient))
        if not self.diverged:
            self._learn_odd(gradient, sums, maps, odd)
        return done, scores[: done * size + odd], sums

    def _learn_odd(self, gradient: Floats, sums: Floats, maps: Floats, rows: int) -> None:
        """Finish the step of a batch whose gradient the kernel computed, but whose sums overflowed."""
        stats = self._count(rows)
        if is_measured(stats):
            squares = sums[1] * np.square(maps[2], dtype=np.float64)
            stats.measure(float(np.add.accumulate(squares)[-1]), rows)  # added one after the other, as in the kernel
        assert self._fused is not None
        stats.add_noise(self._fused.squared, rows)
        self._gradient[:] = gradient
        self._move(rows)

    @property
    def _priors(self) -> tuple[float, float]:
        """The priors of the dense weights and of the slots."""
        optimizer = self.optimizer
        return (optimizer.prior, optimizer.for_slots().prior) if isinstance(optimizer, Normalized) else (0.0, 0.0)

    def _fused_for(self, maps: Floats) -> LinearStep:
        if self._fused is None or self._fused.maps is not maps:
            self._fused = LinearStep(maps, self._average, self._weights, logistic=self.loss.name == "logistic")
        return self._fused

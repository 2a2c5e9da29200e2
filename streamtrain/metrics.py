"""Running metrics: what is kept does not grow with the rows.

Rows are collected into blocks, because a few large numpy calls cost less than many small ones. Sums are taken block by
block in float64: neither the cut into batches nor a look at the result changes a bit of what comes out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamtrain.errors import UsageError
from streamtrain.kernels import binary_scores

__all__ = ["Classification", "Metrics", "Regression", "make_metrics"]

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]

_BLOCK = 16384  # rows
_EPS = float(np.finfo(np.float32).eps)  # probabilities are clipped to [eps, 1 - eps], as scikit-learn does for float32
_BINS = 8192  # of the odds of a score, over 2^-32 to 2^32; clipped probabilities lie within
_BIN_SHIFT = 16  # leaves sign, exponent and 7 bits of the fraction: 128 bins for each doubling
_BIN_OF_ONE = int(np.float32(1).view(np.int32)) >> _BIN_SHIFT


class Metrics(Protocol):
    """Running metrics of one kind of target."""

    def update(
        self, targets: NDArray[Any], predictions: NDArray[np.float32], weights: NDArray[Any] | None = None
    ) -> None:
        """Count rows: targets of shape (rows,); predictions as of ``Learner.predict``; weights of shape (rows,)."""

    def result(self) -> dict[str, float | None]:
        """The metrics of all rows so far; None where they are undefined (no rows, one class only)."""

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """The state; copies."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that ``state_dict`` returned."""


class _Blocks:
    """Collects three values a row, the last its weight, and adds up what ``_score`` makes of each ``_BLOCK`` rows."""

    def __init__(self, totals: int) -> None:
        self._pending = np.ones((3, _BLOCK), np.float32)
        self._weighted = False  # whether any pending row may weigh other than one
        self._filled = 0
        self._totals = np.zeros(totals)

    def _push(self, first: NDArray[Any], second: NDArray[Any], weights: NDArray[Any] | None) -> None:
        start, stop = self._filled, self._filled + len(first)
        if stop > _BLOCK:  # what fits, then the rest
            for rows in (slice(_BLOCK - start), slice(_BLOCK - start, None)):
                self._push(first[rows], second[rows], None if weights is None else weights[rows])
            return
        self._pending[0, start:stop] = first
        self._pending[1, start:stop] = second
        if weights is not None or self._weighted:
            self._weighted = True
            self._pending[2, start:stop] = 1 if weights is None else weights
        self._filled = stop
        if stop == _BLOCK:
            self._totals, self._filled = self._all(), 0

    def _all(self) -> Doubles:
        """The totals with the pending rows; changes nothing."""
        if not self._filled:
            return self._totals
        first, second, weights = self._pending[:, : self._filled]
        return self._merge(self._totals, self._score(first, second, weights if self._weighted else None))

    def _score(self, first: Floats, second: Floats, weights: Floats | None) -> Doubles:
        raise NotImplementedError

    def _merge(self, totals: Doubles, block: Doubles) -> Doubles:
        return totals + block

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """The totals and the pending rows."""
        return {"totals": self._totals.copy(), "pending": self._pending[:, : self._filled].copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that ``state_dict`` returned."""
        self._totals = np.array(state["totals"], np.float64)
        self._filled = state["pending"].shape[1]
        self._pending[:, : self._filled] = state["pending"]
        self._weighted = bool((self._pending[2, : self._filled] != 1).any())


class Classification(_Blocks):
    """Mean log-loss (natural logarithm), accuracy and, for two classes, the area under the ROC curve.

    Two classes: a probability of one half or more is a vote for the second. The area comes from a histogram of the
    odds in 8,192 bins, 128 for each doubling: pairs of rows in the same bin count one half, so it is wrong by at most
    half the share of (first, second) pairs that share a bin: ``auc_error()``.

    >>> metrics = Classification(2)
    >>> metrics.update(np.array([0, 0, 1]), np.array([0.1, 0.6, 0.8], np.float32))
    >>> {name: round(value, 4) for name, value in metrics.result().items()}
    {'loss': 0.4149, 'accuracy': 0.6667, 'auc': 1.0}
    """

    def __init__(self, classes: int) -> None:
        if classes < 2:
            raise UsageError(f"classes is {classes}; wanted at least 2")
        self.classes = classes
        super().__init__(1 + 2 * _BINS if classes == 2 else 3)

    def update(
        self, targets: NDArray[Any], predictions: NDArray[np.float32], weights: NDArray[Any] | None = None
    ) -> None:
        """Count rows: targets are class positions, shape (rows,); predictions have shape (rows,) or (rows, classes)."""
        if self.classes == 2:
            self._push(targets, predictions, weights)
        else:
            hit = predictions.argmax(axis=1) == targets
            self._push(hit, predictions[np.arange(len(targets)), targets], weights)

    def _score(self, first: Floats, second: Floats, weights: Floats | None) -> Doubles:
        """Two classes: log-likelihood, then the weight in each bin by class. More: log-likelihood, hits, weight."""
        score = np.clip(second, np.float32(_EPS), np.float32(1 - _EPS))
        if self.classes > 2:
            return np.array([_total(np.log(score), weights), _total(first, weights), _weight(first, weights)])
        first_bin, counts = _BIN_OF_ONE - _BINS // 2, np.zeros((2, _BINS), np.int64)
        if weights is None:
            likelihood = binary_scores(first, second, counts, least=_EPS, shift=_BIN_SHIFT, first_bin=first_bin)
            return np.concatenate([[likelihood], counts.ravel()])
        likelihood = _total(np.log(np.where(first > 0, score, 1 - score)), weights)
        places = ((score / (1 - score)).view(np.int32) >> _BIN_SHIFT) - first_bin
        places = np.clip(places, 0, _BINS - 1) + (first > 0) * _BINS
        return np.concatenate([[likelihood], np.bincount(places, weights, minlength=2 * _BINS)])

    def result(self) -> dict[str, float | None]:
        """loss, accuracy and, for two classes, auc."""
        totals = self._all()
        if self.classes > 2:
            likelihood, hits, weight = totals
            return {"loss": _ratio(-likelihood, weight), "accuracy": _ratio(hits, weight)}
        first, second = totals[1:].reshape(2, _BINS)
        weight = totals[1:].sum()
        hits = first[: _BINS // 2].sum() + second[_BINS // 2 :].sum()
        below = np.cumsum(first) - first / 2  # a second-class row outranks what is below it, and half of its own bin
        auc = _ratio(np.dot(second, below), first.sum() * second.sum())
        return {"loss": _ratio(-totals[0], weight), "accuracy": _ratio(hits, weight), "auc": auc}

    def auc_error(self) -> float | None:
        """The most by which auc may be wrong; None where auc is undefined."""
        first, second = self._all()[1:].reshape(2, _BINS)
        return _ratio(np.dot(first, second) / 2, first.sum() * second.sum())


class Regression(_Blocks):
    """Mean squared error (``loss``), its root, mean absolute error, and the share of variance explained (``r2``).

    The target's variance is merged block by block (Chan, Golub & LeVeque 1983): an offset does no harm.

    >>> metrics = Regression()
    >>> metrics.update(np.array([1, 2, 3], np.float32), np.array([1, 2, 5], np.float32))
    >>> {name: round(value, 4) for name, value in metrics.result().items()}
    {'loss': 1.3333, 'rmse': 1.1547, 'mae': 0.6667, 'r2': -1.0}
    """

    def __init__(self) -> None:
        super().__init__(5)

    def update(
        self, targets: NDArray[Any], predictions: NDArray[np.float32], weights: NDArray[Any] | None = None
    ) -> None:
        """Count rows: targets and predictions of shape (rows,), in the same unit."""
        self._push(targets, predictions, weights)

    def _score(self, first: Floats, second: Floats, weights: Floats | None) -> Doubles:
        """Weight, sums of squared and absolute errors, the targets' mean and sum of squared deviations."""
        targets, weight = first.astype(np.float64), _weight(first, weights)
        error = targets - second
        mean = _total(targets, weights) / weight if weight else 0.0
        deviations = _total((targets - mean) ** 2, weights)
        return np.array([weight, _total(error**2, weights), _total(np.abs(error), weights), mean, deviations])

    def _merge(self, totals: Doubles, block: Doubles) -> Doubles:
        merged = totals + block
        share = block[0] / merged[0] if merged[0] else 0.0
        delta = block[3] - totals[3]
        merged[3] = totals[3] + delta * share
        merged[4] += delta**2 * totals[0] * share
        return merged

    def result(self) -> dict[str, float | None]:
        """loss, rmse, mae, r2."""
        weight, squared, absolute, _, deviations = self._all()
        loss, unexplained = _ratio(squared, weight), _ratio(squared, deviations)
        return {
            "loss": loss,
            "rmse": None if loss is None else math.sqrt(loss),
            "mae": _ratio(absolute, weight),
            "r2": None if unexplained is None else 1 - unexplained,
        }


def _total(values: NDArray[Any], weights: Floats | None) -> float:
    """The weighted sum, in float64."""
    if weights is None:
        return float(np.add.reduce(values, dtype=np.float64))
    return float(np.dot(values.astype(np.float64), weights.astype(np.float64)))


def _weight(values: NDArray[Any], weights: Floats | None) -> float:
    return float(len(values)) if weights is None else float(np.add.reduce(weights, dtype=np.float64))


def make_metrics(task: str, classes: int = 0) -> Classification | Regression:
    """The metrics for a task, 'classify' (of so many classes) or 'regress'. Raises UsageError for another."""
    if task not in ("classify", "regress"):
        raise UsageError(f"task is {task!r}; wanted 'classify' or 'regress'")
    return Classification(classes) if task == "classify" else Regression()


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole > 0 else None

"""Metrics of predicted classes."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from streamtrain.errors import UsageError
from streamtrain.kernels.functions import log
from streamtrain.metrics import histogram
from streamtrain.metrics.blocks import Blocks, Doubles, Floats, ratio, total
from streamtrain.metrics.histogram import BINS, EPS, GROUPS
from streamtrain.state import require_sound

__all__ = ["Classification"]


class Classification(Blocks):
    """Mean log-loss (natural logarithm), accuracy, calibration error and, for two classes, the area under the ROC curve
    and the average precision.

    Two classes: a probability of one half or more predicts the second class. All metrics but the loss come from a histogram
    of the odds (see `streamtrain.metrics.histogram`), so some are not exact: `auc_error`, `average_precision_error` and
    `calibration_error_bound` give the largest possible error.

    The calibration error (Naeini, Cooper & Hauskrecht 2015, "Obtaining well calibrated probabilities using Bayesian
    binning") divides the rows into 15 groups by probability, ``[k/15, (k+1)/15)``. It is the mean, over all rows, of
    ``|share of hits - mean probability|`` of their group. Two classes: the probability of the second class; a row of that
    class is a hit. More classes: the highest probability of a row; the row is a hit where that class is right (Guo et al.
    2017); these sums are exact.

    >>> metrics = Classification(2)
    >>> metrics.update(np.array([0, 0, 1]), np.array([0.1, 0.6, 0.8], np.float32))
    >>> {name: round(value, 3) for name, value in metrics.result().items()}
    {'loss': 0.415, 'accuracy': 0.667, 'auc': 1.0, 'average_precision': 1.0, 'calibration_error': 0.3}
    """

    higher_is_better: ClassVar[dict[str, bool]] = {
        "loss": False,
        "accuracy": True,
        "calibration_error": False,
        "auc": True,
        "average_precision": True,
    }

    def __init__(self, classes: int) -> None:
        if classes < 2:
            raise UsageError(f"classes is {classes}; must be at least 2")
        self.classes = classes
        if classes == 2:  # values: target and score; totals: log-likelihood and histogram
            super().__init__(values=2, totals=1 + 2 * BINS)
        else:  # values: target and its probability, prediction and its probability; totals: log-likelihood, counts, groups
            super().__init__(values=4, totals=1 + 3 * classes + GROUPS)

    def update(
        self, targets: NDArray[Any], predictions: NDArray[np.float32], weights: NDArray[Any] | None = None
    ) -> None:
        """Add rows. targets: positions of classes, shape (rows,). predictions: shape (rows,) or (rows, classes)."""
        if self.classes == 2:
            self._push(weights, targets, predictions)
        else:
            starts, best = np.arange(0, predictions.size, self.classes), predictions.argmax(axis=1)
            self._push(weights, targets, predictions.take(starts + targets), best, predictions.take(starts + best))

    def _score(self, weights: Floats | None, *values: Floats) -> Doubles:
        if self.classes == 2:
            likelihood, counts = histogram.counted(weights, *values)
            return np.concatenate([[likelihood], counts.ravel()])
        targets, own, best, highest = values
        likelihood = total(log(np.clip(own, np.float32(EPS), np.float32(1 - EPS))), weights)
        hit = targets == best
        hits = hit.astype(np.float64) if weights is None else hit * weights.astype(np.float64)
        return np.concatenate([
            [likelihood], self._by_class(targets, weights), self._by_class(best, weights), self._by_class(best, hits),
            _gaps(highest, hit, weights),
        ])  # fmt: skip

    def _by_class(self, classes: Floats, weights: Floats | Doubles | None) -> NDArray[Any]:
        return np.bincount(classes.astype(np.int64), weights, minlength=self.classes)

    def _votes(self, totals: Doubles) -> Doubles:
        """Return the weight of the rows of each class, of those predicted as it, and of those that are both; shape
        (3, classes)."""
        if self.classes == 2:
            return histogram.votes(self._histogram(totals))
        votes: Doubles = totals[1:-GROUPS].reshape(3, self.classes)
        return votes

    def _require_possible(self, totals: NDArray[Any], pending: NDArray[Any]) -> None:
        counts, classes = (totals[1:], pending[:1]) if self.classes == 2 else (totals[1:-GROUPS], pending[[0, 2]])
        require_sound({"totals": counts}, {"totals": 0})
        if ((classes < 0) | (classes >= self.classes) | (classes % 1 != 0)).any():
            raise ValueError(f"the state's pending rows have a class that is none of {self.classes:,}")

    def result(self) -> dict[str, float | None]:
        """Return loss, accuracy, calibration_error and, for two classes, auc and average_precision.

        average_precision is None without rows of the second class, auc without rows of both classes.
        """
        totals = self._all()
        rows, _, hits = self._votes(totals)
        weight = rows.sum()
        scores = {"loss": ratio(-totals[0], weight), "accuracy": ratio(hits.sum(), weight)}
        if self.classes > 2:
            return scores | {"calibration_error": ratio(np.abs(totals[-GROUPS:]).sum(), weight)}
        counts = self._histogram(totals)
        return scores | {
            "auc": histogram.auc(counts),
            "average_precision": histogram.average_precision(counts),
            "calibration_error": histogram.calibration_error(counts),
        }

    def loss(self) -> float | None:
        """Return ``result()["loss"]``, at less cost."""
        totals = self._all()
        return ratio(-totals[0], self._votes(totals)[0].sum())

    def per_class(self) -> list[dict[str, float | None]]:
        """Return one dict a class, by position.

        rows, predicted: the weight of the rows of the class, and of those predicted as it. precision: the share of the
        predicted rows that are of the class, None without any. recall: the share of its rows that are predicted, None
        without any. f1: their harmonic mean, None where both are None.

        >>> metrics = Classification(3)
        >>> metrics.update(np.array([0, 1]), np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]], np.float32))
        >>> for row in metrics.per_class():
        ...     print(row)
        {'rows': 1.0, 'predicted': 2.0, 'precision': 0.5, 'recall': 1.0, 'f1': 0.6666666666666666}
        {'rows': 1.0, 'predicted': 0.0, 'precision': None, 'recall': 0.0, 'f1': 0.0}
        {'rows': 0.0, 'predicted': 0.0, 'precision': None, 'recall': None, 'f1': None}
        """
        return [
            {
                "rows": rows,
                "predicted": predicted,
                "precision": ratio(hits, predicted),
                "recall": ratio(hits, rows),
                "f1": ratio(2 * hits, rows + predicted),
            }
            for rows, predicted, hits in self._votes(self._all()).T.tolist()
        ]

    def auc_error(self) -> float | None:
        """Return the largest possible error of auc; None where auc is undefined."""
        return histogram.auc_error(self._histogram(self._all()))

    def average_precision_error(self) -> float | None:
        """Return the largest possible error of average_precision; None where that is undefined."""
        return histogram.average_precision_error(self._histogram(self._all()))

    def calibration_error_bound(self) -> float | None:
        """Return the largest possible error of calibration_error; None where that is undefined."""
        totals = self._all()
        if self.classes > 2:
            return ratio(0, self._votes(totals)[0].sum())
        return histogram.calibration_error_bound(self._histogram(totals))

    def _histogram(self, totals: Doubles) -> Doubles:
        if self.classes > 2:
            raise UsageError(f"auc and average_precision need two classes; there are {self.classes}")
        counts: Doubles = totals[1:].reshape(2, BINS)
        return counts


def _gaps(probabilities: Floats, hit: NDArray[np.bool_], weights: Floats | None) -> NDArray[Any]:
    """Return the sum of ``hit - probability`` in each group of probabilities; shape (groups,)."""
    within = np.fmin(np.fmax(probabilities, 0), 1).astype(np.float64)  # a learner's score need not be a probability
    groups = np.minimum((within * GROUPS).astype(np.int64), GROUPS - 1)
    gaps = hit - within
    return np.bincount(groups, gaps if weights is None else gaps * weights, minlength=GROUPS)

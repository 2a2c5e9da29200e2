"""What can be said of scores of two classes from a histogram of their odds, and how wrong it may be.

The odds of a score p are p / (1 - p). Their bins are 8,192, 128 for each doubling from 2^-32 to 2^32, so that a bin is at
most 0.002 of probability wide. A histogram has shape (2, bins): the weight of the rows of each class in each bin.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamtrain.kernels import binary_scores
from streamtrain.metrics.blocks import Doubles, Floats, ratio, total

__all__ = [
    "BINS", "EPS", "GROUPS", "auc", "auc_error", "average_precision", "average_precision_error", "calibration_error",
    "calibration_error_bound", "counted", "votes",
]  # fmt: skip

BINS = 8192  # clipped probabilities lie within
EPS = float(np.finfo(np.float32).eps)  # probabilities are clipped to [eps, 1 - eps], as scikit-learn does for float32
GROUPS = 15  # of probabilities, equally wide: what calibration is judged in

_SHIFT = 16  # leaves sign, exponent and 7 bits of the fraction: 128 bins for each doubling
_FIRST = (int(np.float32(1).view(np.int32)) >> _SHIFT) - BINS // 2
_ODDS = (np.arange(_FIRST, _FIRST + BINS + 1, dtype=np.int32) << _SHIFT).view(np.float32).astype(np.float64)
_EDGES = _ODDS / (1 + _ODDS)  # of the bins, in probability


def counted(weights: Floats | None, targets: Floats, scores: Floats) -> tuple[float, Doubles | NDArray[np.int64]]:
    """The log-likelihood and the histogram of some rows; targets, 0 or 1, scores and weights of shape (rows,)."""
    if weights is None:
        counts = np.zeros((2, BINS), np.int64)
        return binary_scores(targets, scores, counts, least=EPS, shift=_SHIFT, first_bin=_FIRST), counts
    score = np.clip(scores, np.float32(EPS), np.float32(1 - EPS))
    likelihood = total(np.log(np.where(targets > 0, score, 1 - score)), weights)
    places = ((score / (1 - score)).view(np.int32) >> _SHIFT) - _FIRST
    places = np.clip(places, 0, BINS - 1) + (targets > 0) * BINS
    return likelihood, np.bincount(places, weights, minlength=2 * BINS).reshape(2, BINS)


def votes(histogram: Doubles) -> Doubles:
    """The weight of the rows of each class, of those predicted to be of it (the second from one half on), and of those
    that are both; shape (3, 2)."""
    below, above = histogram[:, : BINS // 2].sum(axis=1), histogram[:, BINS // 2 :].sum(axis=1)
    return np.array([below + above, [below.sum(), above.sum()], [below[0], above[1]]])


def auc(histogram: Doubles) -> float | None:
    """The area under the ROC curve: the share of (first, second) pairs of rows where the second has the higher score;
    pairs in the same bin count one half."""
    first, second = histogram
    return ratio(np.dot(second, np.cumsum(first) - first / 2), first.sum() * second.sum())


def auc_error(histogram: Doubles) -> float | None:
    """The most by which `auc` may be wrong: half the share of pairs in the same bin."""
    first, second = histogram
    return ratio(np.dot(first, second) / 2, first.sum() * second.sum())


def average_precision(histogram: Doubles) -> float | None:
    """The sum over bins, from the highest score down, of the recall that the bin adds times the precision of all rows in
    it and above. It is the step-wise average precision of scikit-learn, with the scores of a bin taken for equal."""
    _, tied, _ = _precisions(histogram)
    return ratio(tied, histogram[1].sum())


def average_precision_error(histogram: Doubles) -> float | None:
    """The most by which `average_precision` may be wrong, whatever the order and the weights of the rows in a bin."""
    lowest, tied, highest = _precisions(histogram)
    return ratio(max(highest - tied, tied - lowest), histogram[1].sum())


def _precisions(histogram: Doubles) -> tuple[float, float, float]:
    """The precision summed over the rows of the second class: the least it can be, as of equal scores in each bin, and
    the most it can be.

    With T and F of the second and the first class above a bin, t and f in it: as of equal scores, each of the t has
    (T + t) / (T + t + F + f). At most all t stand together before the f: (T + t) / (T + t + F). At least they stand one
    after the other behind the f: the integral of (T + x) / (T + x + F + f) for x from 0 to t.
    """
    some = histogram[1] > 0
    above = np.cumsum(histogram[:, ::-1], axis=1)[:, ::-1]  # with the bin itself
    (f, t), (false, true) = histogram[:, some], above[:, some]
    before = np.where(false > 0, true - t + false, 1)  # where no row of the first class is, the integral is t
    lowest = t - false * np.log1p(t / before)
    return float(lowest.sum()), float((t * true / (true + false)).sum()), float((t * true / (true + (false - f))).sum())


def calibration_error(histogram: Doubles) -> float | None:
    """The expected calibration error: see `Classification`. The scores of a bin are taken to be at its centre."""
    centres = (_EDGES[1:] + _EDGES[:-1]) / 2
    gaps = histogram[1] - histogram.sum(axis=0) * centres
    by_group = np.bincount((centres * GROUPS).astype(np.int64), gaps, minlength=GROUPS)
    return ratio(np.abs(by_group).sum(), histogram.sum())


def calibration_error_bound(histogram: Doubles) -> float | None:
    """The most by which `calibration_error` may be wrong: the mean of how far a row may be from the centre of its bin,
    and twice what the bins can move across the border of two groups that they lie upon."""
    low, high, both = _EDGES[:-1], _EDGES[1:], histogram.sum(axis=0)
    borders = np.arange(1, GROUPS) / GROUPS
    at = np.searchsorted(_EDGES, borders, side="right") - 1
    first, second = histogram[:, at[low[at] < borders]]
    low_there, high_there = (edge[at[low[at] < borders]] for edge in (low, high))
    moved = np.maximum(first * high_there, second * (1 - low_there)).sum()
    return ratio(np.dot(both, (high - low) / 2 + EPS) + 2 * moved, both.sum())

"""Metrics of two classes from a histogram of the odds of their scores, and the largest errors of these metrics.

The odds of a score p are p / (1 - p). There are 8,192 bins: 128 for each doubling from 2^-32 to 2^32, so that a bin is at
most 0.002 of probability wide. A histogram has shape (2, bins): the weight of the rows of each class in each bin.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamtrain.kernels import binary_scores
from streamtrain.kernels.functions import log, log1p
from streamtrain.metrics.blocks import Doubles, Floats, ratio, total

__all__ = [
    "BINS", "EPS", "GROUPS", "auc", "auc_error", "average_precision", "average_precision_error", "calibration_error",
    "calibration_error_bound", "counted", "votes",
]  # fmt: skip

BINS = 8192  # clipped probabilities lie within
EPS = float(np.finfo(np.float32).eps)  # probabilities are clipped to [eps, 1 - eps], as scikit-learn does for float32
GROUPS = 15  # of equal width in probability, for the calibration error

_SHIFT = 16  # of a float32; sign, exponent and 7 bits of the fraction remain: 128 bins for each doubling
_FIRST = (int(np.float32(1).view(np.int32)) >> _SHIFT) - BINS // 2
_ODDS = (np.arange(_FIRST, _FIRST + BINS + 1, dtype=np.int32) << _SHIFT).view(np.float32).astype(np.float64)
_EDGES = _ODDS / (1 + _ODDS)  # of the bins, in probability


def counted(weights: Floats | None, targets: Floats, scores: Floats) -> tuple[float, Doubles | NDArray[np.int64]]:
    """Return the log-likelihood and the histogram of some rows. targets: 0 or 1; all arrays have shape (rows,)."""
    if weights is None:
        counts = np.zeros((2, BINS), np.int64)
        return binary_scores(targets, scores, counts, least=EPS, shift=_SHIFT, first_bin=_FIRST), counts
    score = np.clip(scores, np.float32(EPS), np.float32(1 - EPS))
    likelihood = total(log(np.where(targets > 0, score, 1 - score)), weights)
    bins = ((score / (1 - score)).view(np.int32) >> _SHIFT) - _FIRST
    bins = np.clip(bins, 0, BINS - 1) + (targets > 0) * BINS
    return likelihood, np.bincount(bins, weights, minlength=2 * BINS).reshape(2, BINS)


def votes(histogram: Doubles) -> Doubles:
    """Return the weight of the rows of each class, of those predicted as it (the second class from one half on), and of
    those that are both; shape (3, 2)."""
    below, above = histogram[:, : BINS // 2].sum(axis=1), histogram[:, BINS // 2 :].sum(axis=1)
    return np.array([below + above, [below.sum(), above.sum()], [below[0], above[1]]])


def auc(histogram: Doubles) -> float | None:
    """Return the area under the ROC curve: the share of pairs of rows, one of each class, in which the row of the second
    class has the higher score. Pairs in the same bin count one half."""
    first, second = histogram
    return ratio((second * (np.cumsum(first) - first / 2)).sum(), first.sum() * second.sum())


def auc_error(histogram: Doubles) -> float | None:
    """Return the largest possible error of `auc`: half the share of pairs in the same bin."""
    first, second = histogram
    return ratio((first * second).sum() / 2, first.sum() * second.sum())


def average_precision(histogram: Doubles) -> float | None:
    """Return the sum over bins, from the highest score down, of the recall that the bin adds times the precision of all
    rows in it and above. This is scikit-learn's step-wise average precision if all scores in a bin are equal."""
    _, tied, _ = _precisions(histogram)
    return ratio(tied, histogram[1].sum())


def average_precision_error(histogram: Doubles) -> float | None:
    """Return the largest possible error of `average_precision`, for any order and any weights of the rows in a bin."""
    lowest, tied, highest = _precisions(histogram)
    return ratio(max(highest - tied, tied - lowest), histogram[1].sum())


def _precisions(histogram: Doubles) -> tuple[float, float, float]:
    """Return the precision summed over the rows of the second class: its lower bound, its value if the scores in each bin
    are equal, and its upper bound.

    T and F are the weights of the second and the first class above a bin, t and f those in it. If the scores are equal,
    each of the t has precision (T + t) / (T + t + F + f). It is highest if all t come together before the f:
    (T + t) / (T + t + F). It is lowest if the t come one by one after the f: the integral of (T + x) / (T + x + F + f) for
    x from 0 to t.
    """
    some = histogram[1] > 0
    above = np.cumsum(histogram[:, ::-1], axis=1)[:, ::-1]  # with the bin itself
    (f, t), (false, true) = histogram[:, some], above[:, some]
    before = np.where(false > 0, true - t + false, 1)  # without rows of the first class the integral is t
    lowest = t - false * log1p(t / before)
    return float(lowest.sum()), float((t * true / (true + false)).sum()), float((t * true / (true + (false - f))).sum())


def calibration_error(histogram: Doubles) -> float | None:
    """Return the expected calibration error (see `Classification`), with all scores of a bin at its centre."""
    centres = (_EDGES[1:] + _EDGES[:-1]) / 2
    gaps = histogram[1] - histogram.sum(axis=0) * centres
    by_group = np.bincount((centres * GROUPS).astype(np.int64), gaps, minlength=GROUPS)
    return ratio(np.abs(by_group).sum(), histogram.sum())


def calibration_error_bound(histogram: Doubles) -> float | None:
    """Return the largest possible error of `calibration_error`: the mean of half the width of each row's bin, plus twice
    the sum that rows in bins on a border can move between two groups."""
    low, high, both = _EDGES[:-1], _EDGES[1:], histogram.sum(axis=0)
    borders = np.arange(1, GROUPS) / GROUPS
    at = np.searchsorted(_EDGES, borders, side="right") - 1
    first, second = histogram[:, at[low[at] < borders]]
    low_there, high_there = (edge[at[low[at] < borders]] for edge in (low, high))
    moved = np.maximum(first * high_there, second * (1 - low_there)).sum()
    return ratio((both * ((high - low) / 2 + EPS)).sum() + 2 * moved, both.sum())

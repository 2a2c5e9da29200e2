"""What is scored of a model, for a target: running metrics, and how a report shows them."""

from __future__ import annotations

from typing import Any

from streamtrain.columns.target import Target
from streamtrain.metrics import Metrics, make_metrics
from streamtrain.plan.term import Term

__all__ = ["SCORE_KINDS", "metrics_bytes", "metrics_for", "metrics_term", "per_class", "scores"]

SCORE_KINDS = ("progressive", "holdout", "validation")  # what tells best how good a model is comes last


def metrics_for(target: Target) -> Metrics:
    """The running metrics for a target."""
    return make_metrics(target.task, target.kinds, target.names)


def metrics_bytes(target: Target) -> int:
    """What the running metrics for a target take; nothing is made that is as large."""
    return len(target.several) * make_metrics(target.task, target.kinds, target.several[0].names).nbytes


def metrics_term(size: int) -> Term:
    """What the memory plan counts for running metrics of so many bytes together."""
    return Term("metrics", size, "scores")


def scores(metrics: Metrics) -> dict[str, Any]:
    """The metrics of all rows so far; of several targets their means, and each by itself under ``targets``."""
    found: dict[str, Any] = dict(metrics.result())
    each = getattr(metrics, "per_target", None)
    return found if each is None else found | {"targets": each()}


def per_class(metrics: Metrics, target: Target) -> list[dict[str, Any]] | None:
    """For each class its rows, how often it was predicted, precision, recall and f1; None where there are none to tell
    apart.

    >>> import numpy as np
    >>> target = Target("y", "classify", ("no", "yes"))
    >>> metrics = metrics_for(target)
    >>> metrics.update(np.array([0, 1, 1]), np.array([0.2, 0.3, 0.9], np.float32))
    >>> [(row["class"], row["rows"], row["recall"]) for row in per_class(metrics, target)]
    [('no', 1.0, 1.0), ('yes', 2.0, 0.5)]
    """
    table = getattr(metrics, "per_class", None)
    if not target.classes or table is None:
        return None
    return [{"class": label} | row for label, row in zip(target.classes, table(), strict=True)]

"""The running metrics for a target, and how a report shows them."""

from __future__ import annotations

from typing import Any

from streamtrain.columns.target import Target
from streamtrain.metrics import Classification, Metrics, Regression, make_metrics
from streamtrain.plan.term import Term
from streamtrain.state import Form

__all__ = [
    "HIGHER_IS_BETTER",
    "SCORE_KINDS",
    "metrics_bytes",
    "metrics_for",
    "metrics_forms",
    "metrics_term",
    "per_class",
    "scores",
]

SCORE_KINDS = ("progressive", "holdout", "validation")  # the best judge of a model is last
HIGHER_IS_BETTER = Classification.higher_is_better | Regression.higher_is_better  #: by the name of a score


def metrics_for(target: Target) -> Metrics:
    """Make the running metrics for a target."""
    return make_metrics(target.task, target.kinds, target.names)


def metrics_bytes(target: Target) -> int:
    """Return the bytes of the running metrics for a target, without making them all."""
    return len(target.several) * make_metrics(target.task, target.kinds, target.several[0].names).nbytes


def metrics_forms(target: Target) -> dict[str, Form]:
    """Return the forms of the state of the running metrics for a target, without making them all."""
    forms = make_metrics(target.task, target.kinds, target.several[0].names).forms()
    if not target.parts:
        return forms
    return {f"{j}.{name}": form for j in range(len(target.parts)) for name, form in forms.items()}


def metrics_term(size: int) -> Term:
    """Return the memory plan's term for running metrics of this size in total."""
    return Term("metrics", size, "scores")


def scores(metrics: Metrics) -> dict[str, Any]:
    """Return the metrics of all rows so far; for several targets their means, and each target's under ``targets``."""
    means: dict[str, Any] = dict(metrics.result())
    per_target = getattr(metrics, "per_target", None)
    return means if per_target is None else means | {"targets": per_target()}


def per_class(metrics: Metrics, target: Target) -> list[dict[str, Any]] | None:
    """Return rows, predicted rows, precision, recall and f1 of each class; None where the target has no classes.

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

"""Running metrics, in memory that does not grow with the rows."""

from __future__ import annotations

from collections.abc import Sequence

from streamtrain.errors import UsageError
from streamtrain.metrics.classification import Classification
from streamtrain.metrics.patience import Patience
from streamtrain.metrics.protocol import Metrics
from streamtrain.metrics.regression import Regression
from streamtrain.metrics.several import Several

__all__ = ["VERSION", "Classification", "Metrics", "Patience", "Regression", "Several", "make_metrics"]

VERSION = 2  # of the sums: a run cannot be resumed with another version


def make_metrics(task: str, classes: int = 0, targets: Sequence[str] = ()) -> Classification | Regression | Several:
    """Make the metrics for a task.

    Parameters
    ----------
    task
        ``"classify"`` or ``"regress"``.
    classes
        How many classes there are.
    targets
        The names of the targets, if there are several; each is a number, or has two classes.

    Returns
    -------
    Metrics
        `Classification`, `Regression` or `Several`.

    Raises
    ------
    UsageError
        For another task, fewer than two classes, and several targets of more than two classes.

    Example
    -------
    >>> make_metrics("regress").result()
    {'loss': None, 'rmse': None, 'mae': None, 'r2': None}
    >>> list(make_metrics("classify", 2, ["rain", "snow"]).per_target())
    ['rain', 'snow']
    """
    if task not in ("classify", "regress"):
        raise UsageError(f"task is {task!r}; must be 'classify' or 'regress'")
    if len(targets) < 2:
        return Classification(classes) if task == "classify" else Regression()
    if task == "regress":
        return Several(targets, Regression)
    if classes != 2:
        raise UsageError(
            f"{len(targets)} targets of {classes} classes each: several targets must have two classes each"
        )
    return Several(targets, lambda: Classification(2))

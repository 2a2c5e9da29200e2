"""Optimizers: from a gradient to the change of the weights.

An optimizer is a value and keeps nothing itself. What it remembers of each weight is in arrays beside the weights, all of the
same shape: a dense model passes its whole arrays, a table of sparse weights passes copies of the rows that occur in a batch. So
each optimizer is written once.
"""

from __future__ import annotations

from dataclasses import replace

from streamtrain.errors import UsageError
from streamtrain.learn.optimizers.adaptive import Adagrad, Adam, Ftrl, Normalized
from streamtrain.learn.optimizers.base import Optimizer, StreamStats
from streamtrain.learn.optimizers.steady import SCHEDULES, Momentum, Sgd

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "Adagrad",
    "Adam",
    "Ftrl",
    "Momentum",
    "Normalized",
    "Optimizer",
    "Sgd",
    "StreamStats",
    "get_optimizer",
]

OPTIMIZERS: dict[str, Optimizer] = {
    optimizer.name: optimizer for optimizer in (Normalized(), Sgd(), Momentum(), Adagrad(), Adam(), Ftrl())
}


def get_optimizer(optimizer: str | Optimizer, schedule: str = "sqrt") -> Optimizer:
    """The optimizer of that name, with that schedule. Raises UsageError for an unknown one, or a schedule that it has not.

    >>> get_optimizer("sgd", "inverse").rate({}, 1.0, StreamStats(rows=100_000, power=2.0)).item()
    0.25
    """
    if not isinstance(optimizer, str):
        return optimizer
    if optimizer not in OPTIMIZERS:
        raise UsageError(f"unknown optimizer {optimizer!r}: must be one of {', '.join(sorted(OPTIMIZERS))}")
    if schedule not in SCHEDULES:
        raise UsageError(f"unknown schedule {schedule!r}: must be one of {', '.join(SCHEDULES)}")
    found = OPTIMIZERS[optimizer]
    if isinstance(found, Sgd | Momentum):
        return replace(found, schedule=schedule)
    if schedule != "sqrt":
        raise UsageError(f"schedule is {schedule!r}: optimizer {optimizer!r} has none; it is for 'sgd' and 'momentum'")
    return found

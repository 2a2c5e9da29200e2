"""Optimizers: from a gradient to the change of the weights.

An optimizer is a value and keeps nothing itself. Its state for each weight is in arrays beside the weights, all of the
same shape: a dense model passes whole arrays, sparse weights pass copies of the slots that occur in a batch. So each optimizer
is written once.
"""

from __future__ import annotations

from dataclasses import fields
from importlib import import_module
from typing import Any

from streamtrain.errors import UsageError
from streamtrain.learn.optimizers.adaptive import Adagrad, Adam, Ftrl, Normalized
from streamtrain.learn.optimizers.base import Optimizer, StreamStats
from streamtrain.learn.optimizers.steady import Momentum, Sgd
from streamtrain.learn.settings import OPTIMIZER_HOMES, SCHEDULES

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
    "parameters_of",
]


def _class(name: str) -> Any:
    module, _, kind = OPTIMIZER_HOMES[name].partition(".")
    return getattr(import_module(f"streamtrain.learn.optimizers.{module}"), kind)


OPTIMIZERS: dict[str, Optimizer] = {name: _class(name)() for name in OPTIMIZER_HOMES}


def parameters_of(optimizer: str | Optimizer) -> tuple[str, ...]:
    """The names of an optimizer's parameters, its schedule aside.

    >>> parameters_of("adam")
    ('beta1', 'beta2')
    """
    kind: Any = type(OPTIMIZERS.get(optimizer) if isinstance(optimizer, str) else optimizer)
    return tuple(field.name for field in fields(kind) if field.name != "schedule") if kind is not type(None) else ()


def _has_schedule(kind: Any) -> bool:
    return any(field.name == "schedule" for field in fields(kind))


def get_optimizer(optimizer: str | Optimizer, schedule: str = "sqrt", **parameters: float) -> Optimizer:
    """The optimizer of a name.

    Parameters
    ----------
    optimizer
        A name of ``OPTIMIZERS``; an ``Optimizer`` is returned as it is.
    schedule
        How the rate of sgd and momentum falls with the rows: a name of ``SCHEDULES``.
    parameters
        Parameters of the optimizer, such as ``beta`` of momentum; see `parameters_of`.

    Returns
    -------
    Optimizer

    Raises
    ------
    UsageError
        For an unknown name or schedule, a schedule that the optimizer does not have, and parameters beside an
        ``Optimizer``.

    Example
    -------
    >>> get_optimizer("sgd", "inverse").rate({}, 1.0, StreamStats(rows=100_000, power=2.0)).item()
    0.25
    """
    if not isinstance(optimizer, str):
        if parameters:
            raise UsageError(
                f"parameters ({', '.join(parameters)}) can be given with the name of an optimizer, not with {optimizer!r}"
            )
        return optimizer
    if optimizer not in OPTIMIZERS:
        raise UsageError(f"unknown optimizer {optimizer!r}: must be one of {', '.join(sorted(OPTIMIZERS))}")
    if schedule not in SCHEDULES:
        raise UsageError(f"unknown schedule {schedule!r}: must be one of {', '.join(SCHEDULES)}")
    kind: Any = _class(optimizer)
    if _has_schedule(kind):
        return kind(schedule=schedule, **parameters)  # type: ignore[no-any-return]
    if schedule != "sqrt":
        having = " and ".join(name for name in OPTIMIZERS if _has_schedule(_class(name)))
        raise UsageError(
            f"--learning-rate-schedule {schedule}: is for --optimizer {having}; {optimizer} has its own rates"
        )
    return kind(**parameters)  # type: ignore[no-any-return]

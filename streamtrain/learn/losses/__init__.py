"""Losses: what a margin predicts, and how it should move.

A margin is what a linear model computes: ``X @ weights + intercept``. Its shape is (rows,); (rows, targets) if several
targets are learned at once, independently; or (rows, classes) for softmax. A loss has no state.
"""

from __future__ import annotations

from dataclasses import fields
from importlib import import_module
from typing import Any

from streamtrain.errors import UsageError
from streamtrain.learn.losses.base import Loss
from streamtrain.learn.losses.classify import Hinge, Logistic, Softmax
from streamtrain.learn.losses.regress import Huber, Poisson, Quantile, Squared
from streamtrain.learn.settings import LOSS_HOMES

__all__ = [
    "LOSSES",
    "Hinge",
    "Huber",
    "Logistic",
    "Loss",
    "Poisson",
    "Quantile",
    "Softmax",
    "Squared",
    "get_loss",
]


def _class(name: str) -> Any:
    module, _, kind = LOSS_HOMES[name].partition(".")
    return getattr(import_module(f"streamtrain.learn.losses.{module}"), kind)


LOSSES: dict[str, Loss] = {name: _class(name)() for name in LOSS_HOMES}


def _parameters(loss: Any) -> list[str]:
    return [field.name for field in fields(loss)]


def get_loss(loss: str | Loss, **parameters: float) -> Loss:
    """The loss of a name.

    Parameters
    ----------
    loss
        A name of ``LOSSES``; a ``Loss`` is returned as it is.
    parameters
        Parameters of the loss, such as ``delta`` of huber; those that are not given have their defaults.

    Returns
    -------
    Loss

    Raises
    ------
    UsageError
        For an unknown name, for a parameter that the loss does not have or that is out of range, and for parameters beside
        a ``Loss``.

    Example
    -------
    >>> get_loss("quantile", quantile=0.9)
    Quantile(quantile=0.9)
    """
    if not isinstance(loss, str):
        if parameters:
            raise UsageError(
                f"parameters ({', '.join(parameters)}) can be given with the name of a loss, not with {loss!r} itself"
            )
        return loss
    if loss not in LOSSES:
        raise UsageError(f"unknown loss {loss!r}: must be one of {', '.join(sorted(LOSSES))}")
    if not parameters:
        return LOSSES[loss]
    kind: Any = type(LOSSES[loss])
    known = _parameters(LOSSES[loss])
    for name in parameters:
        if name not in known:
            having = [other for other, made in LOSSES.items() if name in _parameters(made)]
            if having:
                raise UsageError(
                    f"--{name}: is a parameter of --loss {', '.join(having)}: leave it out, or give that loss"
                )
            raise UsageError(f"loss {loss!r} has no parameter {name!r}: it has {', '.join(known) or 'none'}")
    made: Loss = kind(**parameters)
    return made

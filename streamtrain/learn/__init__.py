"""Learners: losses, optimizers and linear models as small pieces that combine freely."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamtrain.options import lazy_names

if TYPE_CHECKING:
    from streamtrain.learn.fused import Linear
    from streamtrain.learn.learner import Learner
    from streamtrain.learn.losses import LOSSES, Loss, get_loss
    from streamtrain.learn.optimizers import OPTIMIZERS, SCHEDULES, Optimizer, StreamStats, get_optimizer

__all__ = [
    "LOSSES",
    "OPTIMIZERS",
    "SCHEDULES",
    "VERSION",
    "Learner",
    "Linear",
    "Loss",
    "Optimizer",
    "StreamStats",
    "get_loss",
    "get_optimizer",
]

VERSION = 1  # of the steps: a run that was started with another one cannot go on

__getattr__ = lazy_names(
    __name__,
    {
        "fused": ("Linear",),
        "learner": ("Learner",),
        "losses": ("LOSSES", "Loss", "get_loss"),
        "optimizers": ("OPTIMIZERS", "SCHEDULES", "Optimizer", "StreamStats", "get_optimizer"),
    },
)

"""Learners: losses, optimizers and linear models as small pieces that combine freely."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamtrain.options import lazy_names

if TYPE_CHECKING:
    from streamtrain.learn.family import FAMILIES, Family, LearnerShape, recipe
    from streamtrain.learn.fused import Linear
    from streamtrain.learn.learner import Learner
    from streamtrain.learn.losses import LOSSES, Loss, get_loss
    from streamtrain.learn.optimizers import OPTIMIZERS, SCHEDULES, Optimizer, StreamStats, get_optimizer

__all__ = [
    "FAMILIES",
    "LOSSES",
    "OPTIMIZERS",
    "SCHEDULES",
    "VERSION",
    "Family",
    "Learner",
    "LearnerShape",
    "Linear",
    "Loss",
    "Optimizer",
    "StreamStats",
    "get_loss",
    "get_optimizer",
    "recipe",
]

VERSION = 3  # of the steps: a run cannot be resumed with another version

__getattr__ = lazy_names(
    __name__,
    {
        "family": ("FAMILIES", "Family", "LearnerShape", "recipe"),
        "fused": ("Linear",),
        "learner": ("Learner",),
        "losses": ("LOSSES", "Loss", "get_loss"),
        "optimizers": ("OPTIMIZERS", "SCHEDULES", "Optimizer", "StreamStats", "get_optimizer"),
    },
)

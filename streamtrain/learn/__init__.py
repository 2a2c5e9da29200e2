"""Learners: losses, update rules and linear models as small pieces that combine freely."""

from __future__ import annotations

from streamtrain.learn.fused import Linear
from streamtrain.learn.learner import Learner
from streamtrain.learn.losses import LOSSES, Loss, get_loss
from streamtrain.learn.optimizers import RULES, SCHEDULES, Clock, Rule, get_rule

__all__ = [
    "LOSSES",
    "RULES",
    "SCHEDULES",
    "VERSION",
    "Clock",
    "Learner",
    "Linear",
    "Loss",
    "Rule",
    "get_loss",
    "get_rule",
]

VERSION = 1  # of the steps: a run that was started with another one cannot go on

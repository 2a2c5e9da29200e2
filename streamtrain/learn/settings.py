"""Settings of the learner; the names of losses and optimizers, and where they are defined.

A new loss or optimizer is one line in `LOSS_HOMES` or `OPTIMIZER_HOMES`, and its class. A parameter is a field of
`LinearSettings` that has the name of the field of that class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from streamtrain.options import option

__all__ = [
    "FAMILIES",
    "LOSS_HOMES",
    "OPTIMIZER_HOMES",
    "SCHEDULES",
    "LearnSettings",
    "LearnerSettings",
    "LinearSettings",
]

FAMILIES = {
    "linear": "streamtrain.learn.linear_family:LINEAR",
}  #: the built-in families of learners by name, each as ``module:attribute``; the only list of them
LOSS_HOMES = {
    "squared": "regress.Squared",
    "huber": "regress.Huber",
    "quantile": "regress.Quantile",
    "poisson": "regress.Poisson",
    "logistic": "classify.Logistic",
    "hinge": "classify.Hinge",
    "softmax": "classify.Softmax",
}  #: the module of `streamtrain.learn.losses` and the class of each
OPTIMIZER_HOMES = {
    "normalized": "adaptive.Normalized",
    "sgd": "steady.Sgd",
    "momentum": "steady.Momentum",
    "adagrad": "adaptive.Adagrad",
    "adam": "adaptive.Adam",
    "ftrl": "adaptive.Ftrl",
}  #: the module of `streamtrain.learn.optimizers` and the class of each
SCHEDULES = ("constant", "sqrt", "inverse")


@dataclass(frozen=True)
class LearnerSettings:
    """Which learner."""

    learner: Any = option(
        "linear", f"The learner: {', '.join(FAMILIES)}, an installed one, or one of your own as module:name.",
        group="learning",
        metavar="NAME", kept=True, continues="same",
    )  # fmt: skip


@dataclass(frozen=True)
class LinearSettings:
    """How the linear family learns. None: the default of loss or optimizer."""

    loss: str | None = option(
        None,
        "What is minimised: the loss of a prediction.",
        group="learning",
        choices=tuple(LOSS_HOMES),
        otherwise="by the task",
        continues="free",  # as far as the family allows: softmax continues logistic
    )
    optimizer: str = option(
        "normalized",
        "How a gradient changes the weights.",
        group="learning",
        choices=tuple(OPTIMIZER_HOMES),
        continues="same",
    )
    learning_rate: float | None = option(
        None,
        "How far a gradient moves the weights.",
        group="learning",
        above=0,
        otherwise="by optimizer and loss",
        continues="free",
    )
    learning_rate_schedule: str = option(
        "sqrt", "How the learning rate of sgd and momentum falls with the rows seen.", group="learning",
        choices=SCHEDULES, continues="same",
    )  # fmt: skip
    l1: float = option(
        0.0, "L1 penalty on the weights: more of them are 0.", group="learning", least=0, continues="free"
    )
    l2: float = option(
        0.0, "L2 penalty on the weights: they stay smaller.", group="learning", least=0, continues="free"
    )
    average: bool = option(
        True,
        "Predict with a running average of the weights.",
        group="learning",
        flag="--average/--no-average",
        continues="same",
    )
    delta: float | None = option(
        None, "Of the loss huber: where errors begin to count linearly, in deviations.", group="learning", above=0,
        otherwise="1.345", continues="same",
    )  # fmt: skip
    quantile: float | None = option(
        None, "Of the loss quantile: which quantile.", group="learning", above=0, below=1, otherwise="0.5",
        continues="same",
    )  # fmt: skip


@dataclass(frozen=True)
class LearnSettings(LinearSettings, LearnerSettings):
    """Which learner, and the settings of every built-in family."""

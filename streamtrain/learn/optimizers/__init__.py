"""Update rules: from a gradient to the change of the weights.

A rule is a value and keeps nothing; what it remembers of each weight are arrays that stand beside the weights. All are of
one shape, whatever it is: a dense model passes its whole arrays, a table of sparse weights copies of the rows that a batch
touches. So each rule is written once.
"""

from __future__ import annotations

from dataclasses import replace

from streamtrain.errors import UsageError
from streamtrain.learn.optimizers.adaptive import Adagrad, Adam, Ftrl, Nag
from streamtrain.learn.optimizers.base import Clock, Rule
from streamtrain.learn.optimizers.steady import SCHEDULES, Momentum, Sgd

__all__ = ["RULES", "SCHEDULES", "Adagrad", "Adam", "Clock", "Ftrl", "Momentum", "Nag", "Rule", "Sgd", "get_rule"]

RULES: dict[str, Rule] = {rule.name: rule for rule in (Nag(), Sgd(), Momentum(), Adagrad(), Adam(), Ftrl())}


def get_rule(rule: str | Rule, schedule: str = "sqrt") -> Rule:
    """The rule of that name, with that schedule. Raises UsageError for an unknown one, or a schedule that it has not.

    >>> get_rule("sgd", "inverse").rate({}, 1.0, Clock(rows=100_000, power=2.0)).item()
    0.25
    """
    if not isinstance(rule, str):
        return rule
    if rule not in RULES:
        raise UsageError(f"unknown rule {rule!r}; wanted one of {', '.join(sorted(RULES))}")
    if schedule not in SCHEDULES:
        raise UsageError(f"unknown schedule {schedule!r}; wanted one of {', '.join(SCHEDULES)}")
    found = RULES[rule]
    if isinstance(found, Sgd | Momentum):
        return replace(found, schedule=schedule)
    if schedule != "sqrt":
        raise UsageError(f"schedule is {schedule!r}: rule {rule!r} has none; it is for 'sgd' and 'momentum'")
    return found

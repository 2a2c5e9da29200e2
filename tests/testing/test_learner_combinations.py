"""The conformance suite on `Linear`: every loss with every second optimizer and the other way about, and with each pair the
next of a list of settings that suits it. That is a part of what can be combined, and the same each time. That all losses
resume with all optimizers is in `test_all_resume.py`."""

from __future__ import annotations

from collections import Counter
from itertools import cycle, islice
from typing import Any
from unittest import SkipTest

import numpy as np
import pytest

from streamtrain.batch import Batch
from streamtrain.errors import UsageError
from streamtrain.learn import LOSSES, OPTIMIZERS, SCHEDULES, Linear
from streamtrain.testing import LearnerTests
from streamtrain.testing.learners.suite import LEARNER_CHECKS

_PENALTIES = {"l1": 1e-3, "l2": 1e-3}
SETTINGS: list[dict[str, Any]] = [
    {}, {"slots": 40}, {"targets": 3}, {"slots": 40, **_PENALTIES}, {"average": False, "l1": 1e-3},
    {"slots": 40, "targets": 3}, {"slots": 40, "average": False, "l2": 1e-3}, {"targets": 3, **_PENALTIES},
    {"slots": 40, "targets": 3, "average": False, **_PENALTIES},
]  # fmt: skip


def takes(**settings: Any) -> bool:
    try:
        Linear(1, **settings)
    except UsageError:
        return False
    return True


def combinations() -> list[dict[str, Any]]:
    """See the module. Softmax takes four classes and two: it has them by turns, as it is slow."""
    turns, schedules, found = cycle((4, 2)), cycle(SCHEDULES), []
    for i, loss in enumerate(LOSSES):
        for j, optimizer in list(enumerate(OPTIMIZERS))[i % 2 :: 2]:
            fitting = [count for count in (0, 2, 4) if takes(loss=loss, classes=count)]
            base = {"loss": loss, "optimizer": optimizer, "classes": next(turns) if len(fitting) > 1 else fitting[0]}
            if all(takes(**base, learning_rate_schedule=schedule) for schedule in SCHEDULES):
                base["learning_rate_schedule"] = next(schedules)
            further = islice(cycle(SETTINGS), 4 * (i + j), None)
            found.append(next(s for more in further if takes(**(s := base | more))))
    return found


COMBINATIONS = combinations()


class Combined(LearnerTests):
    weights, growth_batches, sizes, free_shapes = True, (5, 25), (16, 1, 16, 7), ("sparse",)

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        vars(self).update(
            classes=settings["classes"], targets=settings.get("targets", 1), slots=settings.get("slots", 0)
        )

    def make(self) -> Linear:
        return Linear(self.features, **self.settings)

    def output(self, subject: Linear, batch: Batch) -> Any:
        found = super().output(subject, batch)
        if self.settings["loss"] == "softmax" and self.classes == 2:
            return np.ascontiguousarray(found[:, 1])  # it gives both probabilities; the model takes that of the second
        return found


@pytest.mark.parametrize("settings", COMBINATIONS, ids=lambda settings: ", ".join(map(str, settings.values())))
def test_losses_with_optimizers(settings: dict[str, Any]) -> None:
    subject, failed = Combined(**settings).as_subject(), {}
    for check in LEARNER_CHECKS:
        if check.__name__ == "another_process":  # that takes a second
            continue
        try:
            check(subject)
        except SkipTest:
            pass
        except AssertionError as error:
            failed[check.__name__] = str(error)
    assert failed == {}


def test_every_setting_is_in_two_combinations() -> None:
    used = Counter((name, value) for settings in COMBINATIONS for name, value in settings.items())
    pairs: list[tuple[str, Any]] = [("loss", name) for name in LOSSES] + [("optimizer", name) for name in OPTIMIZERS]
    pairs += [("learning_rate_schedule", name) for name in SCHEDULES] + [("classes", count) for count in (0, 2, 4)]
    pairs += [item for more in SETTINGS for item in more.items()]
    assert [pair for pair in pairs if used[pair] < 2] == []
    for name in ("slots", "targets", "l1", "l2", "average"):  # of each optimizer, and of each loss that takes it
        for kind, names in (("optimizer", OPTIMIZERS), ("loss", LOSSES)):
            having = {settings[kind] for settings in COMBINATIONS if name in settings}
            missing = set(names) - having - ({"softmax"} if name == "targets" else set())
            assert not missing, f"{name} is not tried with {missing}"

"""The conformance suite on every public name of `learn` and `prepare`.

Of all settings of `Linear` a part is tried that is the same each time: every loss with every rule, for each number of classes
that it takes, and with each of these pairs the next of a list of settings that suits it.
"""

from __future__ import annotations

import inspect
from collections import Counter
from dataclasses import replace
from itertools import cycle, islice
from typing import Any
from unittest import SkipTest

import numpy as np
import pytest
from numpy.typing import NDArray

from streamtrain import learn, prepare
from streamtrain.batch import Batch, Texts
from streamtrain.errors import UsageError
from streamtrain.learn import LOSSES, RULES, SCHEDULES, Linear
from streamtrain.prepare import INFINITIES, Preparation, Shape, Slots, Standardize, TargetScale
from streamtrain.testing import LearnerTests, PreparerTests
from streamtrain.testing.learner_suite import LEARNER_CHECKS


class Quick:
    """For those whose like goes to another process: that takes a second."""

    test_another_process = None
    growth_batches = (20, 120)


class TestLinear(LearnerTests):
    weights = True

    def make(self) -> Linear:
        return Linear(self.features, self.classes)


class TestLinearOfTwoClasses(Quick, TestLinear):
    classes = 2


class TestLinearOfFourClasses(Quick, TestLinear):
    classes = 4


class TestLinearOfManyColumns(Quick, TestLinear):
    features, growth_batches = 3000, (10, 100)


class TestLinearWithASparsePart(TestLinear):
    classes, slots, growth_batches = 2, 300, (20, 120)
    free_shapes = ("sparse",)  # the slots used

    def make(self) -> Linear:
        return Linear(self.features, self.classes, slots=self.slots)


class TestLinearOfASparsePartAlone(Quick, TestLinearWithASparsePart):
    features, classes = 0, 0


class TestStandardize(PreparerTests):
    def make(self) -> Standardize:
        return Standardize(self.features)


class TestStandardizeOnceItHasSettled(Quick, TestStandardize):
    sizes = (500,) * 8


class TestStandardizeOfColumnsUnlikeEachOther(Quick, TestStandardize):
    """An indicator, a constant, one far from 0, one that overflows squares, one that is missing at times."""

    def batch(self, rows: int, seed: int) -> Batch:
        found = super().batch(rows, seed)
        X = found.features
        X[:, 0], X[:, 1] = X[:, 0] > 0, 7
        X[:, 2:5] *= np.array([1e-3, 1e-30, 1e25], np.float32)
        X[:, 2] += 1e4
        X[np.random.default_rng(seed).random(rows) < 0.3, 5] = np.nan
        return found

    def learn(self, subject: Standardize, batch: Batch) -> None:
        missing = np.isnan(batch.features)
        subject.observe(np.where(missing, subject.fill_for(batch.features), batch.features), missing)

    def output(self, subject: Standardize, batch: Batch) -> Any:
        return subject.transform(np.where(np.isnan(batch.features), subject.centre, batch.features))


class TestTargetScale(PreparerTests):
    unit = "deviation"

    def make(self) -> TargetScale:
        return TargetScale(self.targets, self.unit)

    def learn(self, subject: TargetScale, batch: Batch) -> None:
        subject.observe(batch.targets)

    def output(self, subject: TargetScale, batch: Batch) -> Any:
        scaled = subject.transform(batch.targets)
        return [scaled, subject.inverse(scaled)]


class TestTargetScaleOfThree(Quick, TestTargetScale):
    targets = 3


class TestTargetScaleByTheMean(Quick, TestTargetScale):
    unit = "mean"


class TestTargetScaleOfThreeByTheMean(Quick, TestTargetScale):
    targets, unit = 3, "mean"


class TestSlots(PreparerTests):
    slots, bits, free_shapes = 200, 8, ("signatures",)
    test_sparse: Any = None  # it makes the columns of one

    def make(self) -> Slots:
        return Slots(self.bits)

    def learn(self, subject: Slots, batch: Batch) -> None:
        subject.observe(signatures(batch))

    def output(self, subject: Slots, batch: Batch) -> Any:
        return subject.transform(signatures(batch))


class TestSlotsThatAreShared(Quick, TestSlots):
    bits = 4


def signatures(batch: Batch) -> NDArray[np.uint32]:
    assert batch.sparse is not None
    return (batch.sparse.indices.astype(np.uint64) * 2654435761 + 1).astype(np.uint32)


# -- preparation ---------------------------------------------------------------------------------------------------------

WORDS = [b"red", b"green", b"blue", b"dark red", b"", "ein l\u00e4ngerer Text".encode()]


class TestPreparation(PreparerTests):
    """Of numbers, some of them missing, two categories, their cross and two texts."""

    growth_batches = (20, 120)
    free_shapes = ("slots.signatures",)
    members = ("learn", "apply", "state_dict", "load_state_dict", "state_bytes")
    shape = Shape(tuple("abcde"), ("city", "day", "only crossed"), 2, ((0, 1), (0, 2)), ("title", "text"))
    bits, infinities = 9, "error"
    missing = 0.1

    def make(self) -> Preparation:
        return Preparation(self.shape, self.bits, self.infinities)

    def batch(self, rows: int, seed: int) -> Batch:
        rng, shape = np.random.default_rng([rows, seed]), self.shape
        X = rng.standard_normal((rows, len(shape.numbers)), np.float32)
        X[rng.random(X.shape) < self.missing] = np.nan
        if self.infinities != "error":
            odd = rng.random(X.shape) < 0.05
            X[odd] = np.copysign(np.float32(np.inf), X[odd])
        codes = rng.integers(1, 6, (rows, len(shape.codes))).astype(np.uint32) if shape.codes else None
        texts = texts_of(rng.integers(-1, len(WORDS), (rows, len(shape.texts)))) if shape.texts else None
        return Batch(X, np.zeros(rows, np.float32), None, np.arange(rows), codes=codes, texts=texts)

    def learn(self, subject: Preparation, batch: Batch) -> None:
        subject.learn(replace(batch, features=batch.features.copy()))  # prepared in place, as it says

    def output(self, subject: Preparation, batch: Batch) -> Any:
        found = subject.apply(replace(batch, features=batch.features.copy()))
        wide = np.zeros((len(batch), subject.slots.width), np.float32)
        if found.sparse is not None:
            entries = np.repeat(np.arange(len(batch)), np.diff(found.sparse.indptr))
            np.add.at(wide, (entries, found.sparse.indices), 1 if found.sparse.values is None else found.sparse.values)
        return [found.features, wide]


def texts_of(which: NDArray[np.int64]) -> Texts:
    """Of WORDS by their places, -1 for one that is missing; shape (rows, columns)."""
    starts = np.cumsum([0, *map(len, WORDS)])
    sizes = np.array([*map(len, WORDS), -1], np.int32)
    return Texts(np.frombuffer(b"".join(WORDS), np.uint8).copy(), starts[which], sizes[which])


class TestPreparationOfNumbers(Quick, TestPreparation):
    shape, missing = Shape(tuple("abcde")), 0.0


class TestPreparationOfNumbersThatAreMissing(Quick, TestPreparation):
    shape, missing = Shape(tuple("abcde")), 0.6


class TestPreparationOfManyNumbers(Quick, TestPreparation):
    """More than are looked through after they were learned."""

    shape, growth_batches, sizes = Shape(tuple(map(str, range(3000)))), (10, 60), (32, 1, 7, 32)
    test_one_row = None  # of so many, tested by the others


class TestPreparationThatClips(Quick, TestPreparation):
    shape, infinities = Shape(tuple("abcde"), ("city",), 1), "clip"


class TestPreparationThatLeavesInfinitiesOut(Quick, TestPreparation):
    shape, infinities = Shape(tuple("abcde")), "missing"


class TestPreparationOfCategories(Quick, TestPreparation):
    """And no number; more values than slots."""

    shape, bits = Shape((), ("city", "day"), 2, ((0, 1),)), 4


class TestPreparationOfTexts(Quick, TestPreparation):
    shape, bits = Shape((), texts=("text",)), 6


def test_preparation_is_tried_with_all_it_does_with_infinities() -> None:
    assert {suite.infinities for suite in (TestPreparation, *TestPreparation.__subclasses__())} == set(INFINITIES)


# -- every name ----------------------------------------------------------------------------------------------------------

#: the public names that learn from rows, and the suites that they pass
TESTED = {
    "Linear": TestLinear, "Preparation": TestPreparation, "Slots": TestSlots, "Standardize": TestStandardize,
    "TargetScale": TestTargetScale,
}  # fmt: skip
#: those that keep nothing of the rows: protocols, values, functions, registries
OTHERS = {
    "INFINITIES", "LOSSES", "RULES", "SCHEDULES", "Clock", "Learner", "Loss", "Rule", "Shape", "default_hash_bits",
    "get_loss", "get_rule",
}  # fmt: skip


@pytest.mark.parametrize("package", [learn, prepare])
def test_every_public_name_is_tested_or_keeps_nothing(package: Any) -> None:
    for name in package.__all__:
        stateful = inspect.isclass(getattr(package, name)) and hasattr(getattr(package, name), "state_dict")
        if name in TESTED:
            assert stateful and isinstance(TESTED[name]().make(), getattr(package, name))
        else:
            assert name in OTHERS, f"{name}: has it a suite?"
            assert not stateful or getattr(getattr(package, name), "_is_protocol", False)


def test_every_name_in_the_lists_is_public() -> None:
    assert TESTED.keys() | OTHERS == {*learn.__all__, *prepare.__all__}


# -- every loss with every rule ------------------------------------------------------------------------------------------

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
    """See the module."""
    further, schedules, found = cycle(SETTINGS), cycle(SCHEDULES), []
    for loss in LOSSES:
        for classes in (0, 2, 4):
            if not takes(loss=loss, classes=classes):
                continue
            for rule in RULES:
                base = {"loss": loss, "rule": rule, "classes": classes}
                if all(takes(**base, schedule=schedule) for schedule in SCHEDULES):
                    base["schedule"] = next(schedules)
                found.append(next(s for more in islice(further, len(SETTINGS)) if takes(**(s := base | more))))
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
def test_every_loss_with_every_rule(settings: dict[str, Any]) -> None:
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
    pairs = [("loss", name) for name in LOSSES] + [("rule", name) for name in RULES]
    pairs += [("schedule", name) for name in SCHEDULES] + [("classes", count) for count in (0, 2, 4)]
    pairs += [item for more in SETTINGS for item in more.items()]
    assert [pair for pair in pairs if used[pair] < 2] == []
    for name in ("slots", "targets", "l1", "l2", "average"):  # of each rule, and of each loss that takes it
        for kind, names in (("rule", RULES), ("loss", LOSSES)):
            having = {settings[kind] for settings in COMBINATIONS if name in settings}
            missing = set(names) - having - ({"softmax"} if name == "targets" else set())
            assert not missing, f"{name} is not tried with {missing}"

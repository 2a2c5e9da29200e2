"""The conformance suite on every public name of `learn` and `prepare`; on the settings of `Linear` see
`test_learner_combinations`."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from streamtrain import learn, prepare
from streamtrain.batch import Batch, Texts
from streamtrain.learn import Linear
from streamtrain.prepare import INFINITIES, Preparation, Shape, Standardize, TargetScale, Vocabulary
from streamtrain.prepare.settings import FeatureSettings
from streamtrain.testing import LearnerTests, PreparerTests


class Quick(LearnerTests):
    """Few rows, in no other process, which takes a second: `TestLinearWithASparsePart` and `TestPreparation` go there."""

    test_another_process: Any = None
    growth_batches = (10, 60)
    sizes: ClassVar[Sequence[int]] = (32, 1, 7, 64, 3, 16)


class QuickPreparer(PreparerTests):
    test_another_process: Any = None
    growth_batches = Quick.growth_batches
    sizes: ClassVar[Sequence[int]] = Quick.sizes


class TestLinear(Quick):
    weights = True

    def make(self) -> Linear:
        return Linear(self.features, self.classes)


class TestLinearOfTwoClasses(TestLinear):
    classes = 2


class TestLinearOfFourClasses(TestLinear):
    classes = 4


class TestLinearOfManyColumns(TestLinear):
    features, growth_batches = 3000, (10, 100)


class TestLinearWithASparsePart(TestLinear):
    classes, slots, sizes = 2, 300, LearnerTests.sizes
    free_shapes = ("sparse",)  # the slots used
    test_another_process: Any = LearnerTests.test_another_process

    def make(self) -> Linear:
        return Linear(self.features, self.classes, slots=self.slots)


class TestLinearOfASparsePartAlone(TestLinearWithASparsePart):
    features, classes, sizes = 0, 0, Quick.sizes
    test_another_process = None


class TestStandardize(QuickPreparer):
    def make(self) -> Standardize:
        return Standardize(self.features)


class TestStandardizeOnceItHasSettled(TestStandardize):
    sizes = (500,) * 8


class TestStandardizeOfColumnsUnlikeEachOther(TestStandardize):
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


class TestTargetScale(QuickPreparer):
    target_scale = "deviation"

    def make(self) -> TargetScale:
        return TargetScale(self.targets, self.target_scale)

    def learn(self, subject: TargetScale, batch: Batch) -> None:
        subject.observe(batch.targets)

    def output(self, subject: TargetScale, batch: Batch) -> Any:
        scaled = subject.transform(batch.targets)
        return [scaled, subject.inverse(scaled)]


class TestTargetScaleOfThree(TestTargetScale):
    targets = 3


class TestTargetScaleByTheMean(TestTargetScale):
    target_scale = "mean"


class TestTargetScaleOfThreeByTheMean(TestTargetScale):
    targets, target_scale = 3, "mean"


class TestSlots(QuickPreparer):
    slots, bits, free_shapes = 200, 8, ("hashes",)
    test_sparse: Any = None  # it makes the columns of one

    def make(self) -> Vocabulary:
        return Vocabulary(self.bits)

    def learn(self, subject: Vocabulary, batch: Batch) -> None:
        subject.observe(hashes(batch))

    def output(self, subject: Vocabulary, batch: Batch) -> Any:
        return subject.transform(hashes(batch))


class TestSlotsThatAreShared(TestSlots):
    bits = 4


def hashes(batch: Batch) -> NDArray[np.uint32]:
    assert batch.sparse is not None
    return (batch.sparse.indices.astype(np.uint64) * 2654435761 + 1).astype(np.uint32)


# -- preparation ---------------------------------------------------------------------------------------------------------

WORDS = [b"red", b"green", b"blue", b"dark red", b"", "ein l\u00e4ngerer Text".encode()]


class PreparationTests(QuickPreparer):
    free_shapes = ("vocabulary.hashes",)
    members = ("learn", "apply", "state_dict", "load_state_dict", "state_bytes")
    shape, bits, infinities, missing = Shape(tuple("abcde")), 9, "error", 0.1

    def make(self) -> Preparation:
        return Preparation(self.shape, FeatureSettings(self.bits, self.infinities))

    def batch(self, rows: int, seed: int) -> Batch:
        rng, shape = np.random.default_rng([rows, seed]), self.shape
        X = rng.standard_normal((rows, len(shape.numbers)), np.float32)
        X[rng.random(X.shape) < self.missing] = np.nan
        if self.infinities != "error":
            odd = rng.random(X.shape) < 0.05
            X[odd] = np.copysign(np.float32(np.inf), X[odd])
        codes = rng.integers(1, 6, (rows, len(shape.hashes))).astype(np.uint32) if shape.hashes else None
        texts = texts_of(rng.integers(-1, len(WORDS), (rows, len(shape.texts)))) if shape.texts else None
        return Batch(X, np.zeros(rows, np.float32), None, np.arange(rows), hashes=codes, texts=texts)

    def learn(self, subject: Preparation, batch: Batch) -> None:
        subject.learn(replace(batch, features=batch.features.copy()))  # prepared in place, as it says

    def output(self, subject: Preparation, batch: Batch) -> Any:
        found = subject.apply(replace(batch, features=batch.features.copy()))
        wide = np.zeros((len(batch), subject.vocabulary.width), np.float32)
        if found.sparse is not None:
            entries = np.repeat(np.arange(len(batch)), np.diff(found.sparse.indptr))
            np.add.at(wide, (entries, found.sparse.indices), 1 if found.sparse.values is None else found.sparse.values)
        return [found.features, wide]


def texts_of(which: NDArray[np.int64]) -> Texts:
    """Of WORDS by their places, -1 for one that is missing; shape (rows, columns)."""
    starts = np.cumsum([0, *map(len, WORDS)])
    sizes = np.array([*map(len, WORDS), -1], np.int32)
    return Texts(np.frombuffer(b"".join(WORDS), np.uint8).copy(), starts[which], sizes[which])


class TestPreparation(PreparationTests):
    """Of numbers, some of them missing, categories, crosses and texts."""

    shape = Shape(tuple("abcde"), ("city", "day", "only crossed"), 2, ((0, 1), (0, 2)), ("title", "text"))
    test_another_process: Any = PreparerTests.test_another_process
    sizes = PreparerTests.sizes


class TestPreparationOfNumbers(PreparationTests):
    missing = 0.0


class TestPreparationOfNumbersThatAreMissing(PreparationTests):
    missing = 0.6


class TestPreparationOfManyNumbers(PreparationTests):
    """More than are looked through after they were learned."""

    shape, growth_batches, sizes = Shape(tuple(map(str, range(1100)))), (5, 25), (32, 1, 7)


class TestPreparationThatClips(PreparationTests):
    shape, infinities = Shape(tuple("abcde"), ("city",), 1), "clip"


class TestPreparationThatLeavesInfinitiesOut(PreparationTests):
    infinities = "missing"


class TestPreparationOfCategories(PreparationTests):
    """And no number; more values than slots."""

    shape, bits = Shape((), ("city", "day"), 2, ((0, 1),)), 4


class TestPreparationOfTexts(PreparationTests):
    shape, bits = Shape((), texts=("text",)), 6


def test_preparation_is_tried_with_all_it_does_with_infinities() -> None:
    assert {suite.infinities for suite in PreparationTests.__subclasses__()} == set(INFINITIES)


# -- every name ----------------------------------------------------------------------------------------------------------

#: the public names that learn from rows, and the suites that they pass
TESTED = {
    "Linear": TestLinear, "Preparation": TestPreparation, "Vocabulary": TestSlots, "Standardize": TestStandardize,
    "TargetScale": TestTargetScale,
}  # fmt: skip
#: those that keep nothing of the rows: protocols, values, functions, registries
OTHERS = {
    "INFINITIES", "LOSSES", "OPTIMIZERS", "SCHEDULES", "VERSION", "StreamStats", "Learner", "Loss", "Optimizer", "Shape",
    "default_hash_bits",
    "get_loss", "get_optimizer", "recipe", "FAMILIES", "Family", "LearnerShape",
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

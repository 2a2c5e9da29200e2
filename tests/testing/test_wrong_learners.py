"""Learners with one defect each: the check that is meant for it finds it, and no other does where that is possible."""

from __future__ import annotations

import random
import re
from typing import Any
from unittest import SkipTest

import numpy as np
import pytest
import wrong_learners
import wrong_learners_world
import wrong_states
from wrong_learners import FEATURES, SLOTS, Good, GoodRun
from wrong_learners_world import SignsByHash

from streamtrain.testing import CheckFailed, LearnerTests, PreparerTests
from streamtrain.testing.learners import checks, world
from streamtrain.testing.learners.fused import fused_run
from streamtrain.testing.learners.suite import LEARNER_CHECKS


class Suite(LearnerTests):
    features, slots, weights, growth_batches = FEATURES, SLOTS, True, (10, 70)
    sizes = (16, 1, 7, 24, 3, 16)

    def __init__(self, kind: Any, **claims: Any) -> None:
        self.make = kind
        vars(self).update(classes=kind.classes, **claims)


def outcomes(kind: Any, *names: str) -> dict[str, str]:
    """Of each check that finds something: what. names: of the checks; by default all but that which takes a second."""
    found = {}
    for check in LEARNER_CHECKS:
        if check.__name__ not in (names or CHECKS - {"another_process"}):
            continue
        try:
            with np.errstate(), pytest.MonkeyPatch.context() as patch:
                patch.setenv("A_LEARNER_HAS_SEEN", "0")
                check(Suite(kind).as_subject())
        except SkipTest as error:
            if check is fused_run and not hasattr(kind, "run"):
                continue
            found[check.__name__] = f"skipped: {error}"
        except CheckFailed as error:
            found[check.__name__] = str(error)
        except Exception as error:  # of the learner's own code
            found[check.__name__] = f"{type(error).__name__}: {error}"
    return found


CHECKS = {check.__name__ for check in LEARNER_CHECKS}
DEFECTS = {
    name: kind
    for module in (wrong_learners, wrong_learners_world, wrong_states)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and issubclass(kind, Good) and kind not in (Good, GoodRun)
}
WRONG: dict[str, set[str]] = {
    "ChangesTheFeatures": {"inputs", "read_only"},
    "ChangesTheWeights": {"inputs", "read_only"},
    "ChangesX": {"inputs", "read_only"},
    "NeedsToWrite": {"read_only"},
    "KeepsTheFirstRow": {"keeps_nothing"},
    "FailsOnNoRows": {"empty_batch", "weights"},
    "CountsBatchesWithoutRows": {"empty_batch"},
    "LearnsNothing": {"learns", "sparse"},
    "DropsTheAxisOfOneRow": {"one_row"},
    "PredictsAColumn": {"outputs", "empty_batch", "one_row"},
    "PredictsDoubles": {"outputs", "empty_batch", "one_row"},
    "NothingBeforeTheFirstRow": {"outputs"},
    "PredictsMargins": {"outputs", "one_row"},
    "OneAgainstTheRest": {"outputs", "one_row"},
    "CentresByTheBatch": {"rows_alone"},
    "GivesItsRoom": {"outputs_are_yours"},
    "GivesItsCache": {"outputs_are_yours"},
    # whatever compares two that learned the same finds it too
    "GlobalNoise": {
        "empty_batch",
        "read_only",
        "keeps_nothing",
        "deterministic",
        "predicting",
        "global_random",
        "clock",
        "surroundings",
        "resumes",
        "other_state",
        "weights",
    },
    "SeedsEverybody": {"global_random"},
    "DrawsFromPython": {"global_random"},
    "OneVelocityForAll": {
        "empty_batch",
        "read_only",
        "keeps_nothing",
        "deterministic",
        "predicting",
        "other_state",
        "weights",
    },
    "FadesWithTheHours": {"clock"},
    "SilencesNumpy": {"surroundings"},
    "OverflowsUnseen": {"surroundings"},
    "GivesUpOnOverflow": {"surroundings"},
    "SetsTheEnvironment": {"surroundings"},
    "KeepsAFileOpen": {"open_files"},
    "SignsByHash": set(),  # but by `another_process`, see below
    "PredictingTicks": {"empty_batch", "read_only", "predicting", "state_copies", "other_state"},
    "ForgetsItsStats": {"resumes"},
    "ForgetsWhatItHadBefore": {"resumes"},
    "AddsToWhatItHas": {"resumes"},
    "StateInHalves": {"resumes"},
    "ReadsTheStateInOrder": {"resumes"},
    "KeepsWhatItPredictsWith": {"resumes"},
    "StateItself": {"state_copies"},
    "KeepsTheStateItLoads": {"state_copies"},
    "StateOfText": {"state_values", "declared_bytes"},
    "LoadsAnyShape": {"other_state"},
    "LoadsHalf": {"other_state"},
    "RefusesWithoutAWord": {"other_state"},
    "KeepsANumberARow": {"bounded_growth"},
    "StateGrows": {"other_state", "bounded_growth", "declared_bytes"},
    "DeclaresTooLittle": {"declared_bytes"},
    "DeclaresTooMuch": {"declared_bytes"},
    "DeclaresOnceItHasLearned": {"declared_bytes"},
    "HoldsMore": {"declared_bytes"},
    "BytesAreAMethod": {"members", "declared_bytes"},
    "CountsRowsOfNoWeight": {"weights"},
    "PredictsWithoutTheSparsePart": {"sparse"},
    "RunsUnprepared": {"fused_run"},
    "RunsWithoutSums": {"fused_run"},
    "RunsOnPastWhatIsNotFinite": {"fused_run"},
    "LearnsWhatIsNotFinite": {"fused_run"},
    "SumsWhatIsNotFinite": {"fused_run"},
}


@pytest.mark.parametrize("name", WRONG)
def test_a_defect_is_found_by_the_check_meant_for_it(name: str) -> None:
    assert set(outcomes(DEFECTS[name])) == WRONG[name]


def test_every_defect_is_in_the_list() -> None:
    assert set(DEFECTS) == set(WRONG)


@pytest.mark.parametrize("classes", [0, 2, 4])
def test_a_learner_without_a_defect_fails_nothing(classes: int) -> None:
    for kind in (Good, GoodRun):
        assert outcomes(type("Better", (kind,), {"classes": classes})) == {}


def test_every_check_finds_something() -> None:
    assert set().union(*WRONG.values()) == CHECKS - {"another_process"}


def test_another_process_has_other_hashes() -> None:
    assert (
        "state.table has other bits in another process" in outcomes(SignsByHash, "another_process")["another_process"]
    )
    assert outcomes(Good, "another_process") == {}


def test_what_cannot_go_to_another_process_says_so() -> None:
    local = type("Local", (Good,), {})
    assert "define it at the top level of a module" in outcomes(local, "another_process")["another_process"]


@pytest.mark.parametrize("suite", [LearnerTests, PreparerTests])
def test_the_classes_have_every_check(suite: type) -> None:
    names = {name for name in dir(suite) if name.startswith("test_")}
    assert names == {f"test_{check}" for check in CHECKS}


@pytest.mark.parametrize(
    ("kind", "check", "words"),
    [
        (wrong_states.KeepsANumberARow, "bounded_growth", r"holds [\d.]+ kB more after 70 batches than after 10 "
         r"\([\d,]+ against [\d,]+ bytes\), batches of 32 rows; at most 11,920 bytes are allowed"),
        (wrong_states.DeclaresTooLittle, "declared_bytes",
         "state_bytes is 108 before the first row, but the arrays of .* have 224 bytes"),
        (wrong_states.ForgetsItsStats, "resumes", "after batch 2 of 6: one that continued from the state of after "
         r"batch 1: state.table\[0, 0\] is [\d.]+ instead of [\d.]+ \(\d+ of 27 differ\)"),
        (wrong_learners_world.KeepsWhatItPredictsWith, "resumes", "before batch 1 of 6: one that had learned and predicted "
         r"other rows and continued from the state of after batch 0: output\[0\] is"),
        (wrong_learners_world.ReadsTheStateInOrder, "resumes", "loading the state of after batch 0 raised"),
        (wrong_learners_world.FadesWithTheHours, "clock", "while hours passed .* output.* is .* instead of"),
        (wrong_learners_world.SilencesNumpy, "surroundings", r"changed np.geterr\(\), which the whole process shares"),
        (wrong_learners_world.SetsTheEnvironment, "surroundings", r"changed os\.environ, which"),
        (wrong_learners_world.OverflowsUnseen, "surroundings", "FloatingPointError: overflow .*np.errstate"),
        (wrong_learners_world.GivesUpOnOverflow, "surroundings", "with numpy raising errors .* and without: output"),
        (wrong_learners_world.KeepsAFileOpen, "open_files", r"1 file is open that was not before: .*world.py \(file \d+\)"),
        (wrong_learners.ChangesX, "inputs", "batch 1: predicting from it changed it: batch.features"),
        (wrong_learners.OneAgainstTheRest, "outputs", "add up to 2, not to 1 within 1e-05"),
    ],
)  # fmt: skip
def test_the_text_has_the_figures_and_the_limit(kind: Any, check: str, words: str) -> None:
    assert re.search(words, outcomes(kind, check)[check])


def test_what_is_not_claimed_is_skipped() -> None:
    for check in (checks.weights, checks.sparse):
        with pytest.raises(SkipTest, match="does not claim"):
            check(Suite(Good, slots=0, weights=False).as_subject())


def global_words() -> list[int]:
    words: list[int] = np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002
    return words


def test_the_random_numbers_of_others_are_as_they_were() -> None:
    before, words = random.getstate(), global_words()
    with pytest.raises(CheckFailed):
        world.global_random(Suite(wrong_learners.GlobalNoise).as_subject())
    assert (random.getstate(), global_words()) == (before, words)


def test_a_preparer_is_observed_and_transforms_a_copy() -> None:
    class Halves:
        def transform(self, X: Any) -> Any:
            X /= 2
            return X

        def observe(self, X: Any) -> None:
            self.rows = len(X)

    suite, batch = PreparerTests(), PreparerTests().batch(5, 0)
    halves, before = Halves(), batch.features.copy()
    suite.learn(halves, batch)
    assert halves.rows == 5
    assert (suite.output(halves, batch) == before / 2).all()
    assert (batch.features == before).all()


def test_a_suite_that_does_not_say_how_one_is_made_says_so() -> None:
    with pytest.raises(NotImplementedError, match="def make"):
        LearnerTests().test_members()


def test_what_a_learner_gives_must_be_arrays() -> None:
    class Gives(LearnerTests):
        def make(self) -> Any:
            return Good()

        def output(self, subject: Any, batch: Any) -> Any:
            return "text"

    with pytest.raises(CheckFailed, match="output is a str, not arrays"):
        Gives().test_outputs()

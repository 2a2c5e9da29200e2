"""`assert_resumes_exactly` on what is wrong, and how it is asked; on what is right see `test_all_resume`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from streamtrain.batch import Batch
from streamtrain.learn import Linear
from streamtrain.testing import CheckFailed, assert_resumes_exactly
from streamtrain.testing.learners.generated import generated_batch


def learn(learner: Linear, batch: Batch) -> Any:
    found = learner.predict(batch.features, batch.sparse)
    learner.learn(batch)
    return found


# -- what is wrong ---------------------------------------------------------------------------------------------------------


class Counts:
    """Gives 0 to 4, in an array that it uses again."""

    def __init__(self) -> None:
        self.at, self.room = 0, np.zeros(2)

    def __iter__(self) -> Iterator[Any]:
        while self.at < 5:
            self.room[:] = self.value()
            self.at += 1
            yield self.room
        self.at = 0

    def value(self) -> float:
        return self.at

    def state_dict(self) -> Any:
        return {"at": self.at}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.at = int(state["at"])


class Elsewhere(Counts):
    """Its position is not in the state, but in the class."""

    at = 0

    def __init__(self) -> None:
        self.room = np.zeros(2)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(Elsewhere, name, value)

    def state_dict(self) -> Any:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


class StartsAgain(Counts):
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict({"at": 0} if state["at"] == 3 else state)


class OtherPositions(Counts):
    """The rows are right, and said to be others."""

    shift = 0

    def __iter__(self) -> Iterator[Any]:
        for room in super().__iter__():
            yield Batch(np.zeros((2, 1), np.float32), room, None, lambda: np.arange(2) + self.shift)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.shift = 2


class EndsEarly(Counts):
    ends = 5

    def __iter__(self) -> Iterator[Any]:
        while self.at < self.ends:
            yield np.array(self.at)
            self.at += 1

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.ends = 4


class GoesOn(EndsEarly):
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.ends = 10**9


class OffByOneBit(Counts):
    loaded = False

    def value(self) -> float:
        return float(np.nextafter(self.at, 9)) if self.loaded and self.at == 4 else self.at

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.loaded = True


class Aliases(Counts):
    def __init__(self) -> None:
        super().__init__()
        self.seen = np.zeros(5)

    def value(self) -> float:
        self.seen[self.at] += 1
        return float(self.seen.sum())

    def state_dict(self) -> Any:
        return {"at": self.at, "seen": self.seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.seen = state["seen"].copy()


class KeepsWhatItLoads(Aliases):
    def state_dict(self) -> Any:
        return {"at": self.at, "seen": self.seen.copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.at, self.seen = int(state["at"]), state["seen"]


class GivesAnIterator(Counts):
    def state_dict(self) -> Any:
        return ((name, value) for name, value in [("at", self.at)])


class HoldsAnIterator(Counts):
    def state_dict(self) -> Any:
        return {"at": self.at, "rest": iter(range(self.at, 5))}


class WrongAtTheEnd(Counts):
    """Everything that it gives is right."""

    extra = 0

    def state_dict(self) -> Any:
        return {"at": self.at, "extra": self.extra}

    def value(self) -> float:
        self.extra += self.at == self.first
        return super().value()

    first = 0

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.extra = int(state["extra"])
        self.first = 4


WRONG: list[tuple[type[Counts], str]] = [
    (Elsewhere, r"from the state before step 2: in step 2: output\[0\] is 0.0 instead of 1.0"),
    (StartsAgain, "from the state before step 4: once loaded: state.at is 0 instead of 3"),
    (OtherPositions, r"from the state before step 1: in step 1: output.positions\[0\] is 2 instead of 0"),
    (EndsEarly, "from the state before step 1: it ended before step 5"),
    (GoesOn, "from the state before step 1: it went on at the end of epoch 1"),
    (OffByOneBit, r"from the state before step 1: in step 5: output\[0\] is 4.0000.* instead of 4.0 \(2 of 2 differ\)"),
    (Aliases, r"a state that had been taken changed in step 1: state.seen\[0\] is 1.0 instead of 0.0"),
    (KeepsWhatItLoads, "from the state before step 1: step 1 raised ValueError: .*read-only"),
    (GivesAnIterator, r"after 0 steps: state_dict\(\) gave a generator, not a dict"),
    (HoldsAnIterator, r"state_dict\(\)\['rest'\] is a range_iterator, not an array or a number"),
    (WrongAtTheEnd, "from the state before step 2: at the end: state.extra is 2 instead of 1"),
]


def test_what_is_right_passes() -> None:
    assert_resumes_exactly(Counts)
    assert_resumes_exactly(Counts, epochs=3)


@pytest.mark.parametrize(("wrong", "message"), WRONG, ids=[wrong.__name__ for wrong, _ in WRONG])
def test_what_is_wrong_is_found(wrong: type[Counts], message: str) -> None:
    with pytest.raises(CheckFailed, match=message):
        assert_resumes_exactly(wrong, epochs=1)


class ForgetsItsStats(Linear):
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        vars(self)["_stats"] = Linear(4)._stats


def test_wrong_learners_are_found() -> None:
    batches = [generated_batch(8, seed, features=4) for seed in range(4)]
    assert_resumes_exactly(lambda: Linear(4), batches, step=learn)
    with pytest.raises(CheckFailed, match=r"from the state before step 2: once loaded: state\..* is .* instead of"):
        assert_resumes_exactly(lambda: ForgetsItsStats(4), batches, step=learn)


# -- how it is asked -------------------------------------------------------------------------------------------------------


def test_each_thing_is_closed() -> None:
    opened: list[Counts] = []
    closed: list[Counts] = []

    class Closes(Counts):
        def close(self) -> None:
            closed.append(self)

    def make() -> Counts:
        opened.append(Closes())
        return opened[-1]

    @contextmanager
    def entered() -> Iterator[Counts]:
        thing = make()
        yield thing
        closed.append(thing)

    for how in (make, entered):
        assert_resumes_exactly(how)
        assert closed == opened and len(opened) == 1 + 7  # before five steps, before the end of the epoch, and there
        opened.clear()
        closed.clear()


@pytest.mark.parametrize(("most", "states"), [(None, 7), (100, 7), (3, 3), (1, 1)])
def test_no_more_states_are_tried_than_asked(most: int | None, states: int) -> None:
    made = []
    assert_resumes_exactly(Counts, into=lambda: made.append(0) or Counts(), most=most)  # type: ignore[func-returns-value]
    assert len(made) == states


def test_what_is_asked_wrongly() -> None:
    for wrong in ({"steps": []}, {"step": learn}, {"most": 0}):
        with pytest.raises(ValueError, match=r"give both steps and step|most is 0"):
            assert_resumes_exactly(Counts, **wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="output is a str, not arrays"):
        assert_resumes_exactly(Counts, ["x"], step=lambda counts, given: given)


def test_what_is_fed_may_be_written_over() -> None:
    given = [np.ones(3)] * 3

    def write(counts: Counts, array: NDArray[Any]) -> Any:
        array += 1
        return array

    assert_resumes_exactly(Counts, given, step=write)
    assert given[0].tolist() == [1, 1, 1]

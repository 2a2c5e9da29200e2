"""The checks of a learner's state; as in `checks`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from streamtrain.batch import Batch
from streamtrain.errors import StreamtrainError
from streamtrain.testing.learners.resuming import require_storable
from streamtrain.testing.learners.subject import LearnerSubject
from streamtrain.testing.learners.values import Arrays, arrays, overwrite, stored
from streamtrain.testing.readers.subject import CheckFailed, Skipped, require

__all__: list[str] = []


def state_values(subject: LearnerSubject) -> None:
    """Arrays and numbers by name, which a file without pickle can hold."""
    thing = subject.make()
    for when in ("before the first row", "after learning"):
        require_storable(thing.state_dict(), when)
        subject.feed(thing, *subject.stream())


def resumes(subject: LearnerSubject) -> None:
    """A fresh learner that loads the state from after any batch continues to the same bits. So does one that had learned and
    predicted other rows."""
    batches = subject.stream()
    went_on, states, given = subject.make(), [], []
    for batch in batches:
        states.append(stored(went_on.state_dict()))
        given.append(subject.gives(went_on, batch))
        subject.feed(went_on, batch)
    states.append(stored(went_on.state_dict()))
    end = subject.gives(went_on, subject.probe)
    for k in range(len(states)):
        other, one = subject.make(), "one that"
        if k in (0, len(states) // 2):
            other, one = (
                _with_a_past(subject, [*batches[k : k + 1], subject.probe]),
                "one that had learned and predicted other rows and",
            )
        of = f"of {len(batches)}: {one} continued from the state of after batch {k}"
        _load(other, states[k], f"the state of after batch {k}")
        subject.require_same(subject.state(other), arrays(states[k], "state"), f"after batch {k} {of}")
        for count, batch in enumerate(batches[k:], k):
            subject.require_same(subject.gives(other, batch), given[count], f"before batch {count + 1} {of}")
            subject.feed(other, batch)
            wanted = arrays(states[count + 1], "state")
            subject.require_same(subject.state(other), wanted, f"after batch {count + 1} {of}")
        subject.require_same(subject.gives(other, subject.probe), end, f"at the end {of}")


def _with_a_past(subject: LearnerSubject, batches: Sequence[Batch]) -> Any:
    """A learner that has learned other rows and predicted these, and may have kept something of that."""
    thing = subject.feed(subject.make(), *subject.stream(seed=700))
    for batch in batches:
        subject.gives(thing, batch)
    return thing


def _load(thing: Any, state: Arrays, what: str) -> None:
    try:
        thing.load_state_dict(state)
    except Exception as error:
        raise CheckFailed(f"loading {what} raised {type(error).__name__}: {error}") from error


def state_copies(subject: LearnerSubject) -> None:
    """State is copied: what `state_dict` returned does not change later, and writing over it, or over a state that was loaded,
    changes nothing."""
    first, *rest = subject.stream()
    thing = subject.feed(subject.make(), first)
    taken = thing.state_dict()
    before = {name: array.copy() for name, array in arrays(taken, "state").items()}
    subject.feed(thing, *rest)
    subject.require_same(
        arrays(taken, "state"), before, "a state that had been taken changed with what was learned later"
    )
    _apart(subject, thing, thing.state_dict(), "after the state that it gave had been written over")
    given = {name: np.array(value) for name, value in thing.state_dict().items()}
    other = subject.make()
    other.load_state_dict(given)
    kept = {name: array.copy() for name, array in given.items()}
    subject.feed(other, first)
    subject.require_same(given, kept, "learning changed the state that had been loaded")
    _apart(subject, other, given, "after the state that it had loaded was written over")


def _apart(subject: LearnerSubject, thing: Any, state: dict[str, Any], what: str) -> None:
    wanted, wanted_state = subject.gives(thing, subject.probe), subject.state(thing)
    overwrite({name: value for name, value in state.items() if np.asarray(value).flags.writeable})
    subject.require_same(subject.gives(thing, subject.probe), wanted, what)
    subject.require_same(subject.state(thing), wanted_state, what)


def other_state(subject: LearnerSubject) -> None:
    """A state with an array of another shape, or without an entry, is refused by an error with a message, and changes
    nothing."""
    batches = subject.stream()
    foreign = stored(subject.feed(subject.make(), *subject.stream(seed=700)).state_dict())
    if not foreign:
        raise Skipped("it has no state")
    thing, other = subject.feed(subject.make(), batches[0]), subject.feed(subject.make(), batches[0])
    wanted = subject.gives(other, subject.probe), subject.state(other)
    for what, spoiled in _spoiled(foreign, subject.free_shapes):
        _refused(thing, spoiled, what)
        for found, was in zip((subject.gives(thing, subject.probe), subject.state(thing)), wanted, strict=True):
            subject.require_same(found, was, f"a refused state ({what}) changed the learner")
    subject.same(
        subject.feed(thing, batches[1]), subject.feed(other, batches[1]), [], "later, after states were refused"
    )


def _spoiled(state: Arrays, free: Sequence[str]) -> Iterator[tuple[str, Arrays]]:
    for name, array in state.items():
        yield f"it lacks {name!r}", {n: a for n, a in state.items() if n != name}
        for axis in range(1 if name in free else 0, array.ndim):
            size = array.shape[axis]
            longer = np.concatenate([array, array.take([0], axis)], axis) if size else array
            for changed in (
                longer,
                array.take([0], axis) if size > 1 else array,
            ):  # one entry would fill all, unnoticed
                if changed.shape != array.shape:
                    shapes = f"{name!r} has shape {changed.shape} instead of {array.shape}"
                    yield shapes, {**state, name: changed}


def _refused(thing: Any, state: Arrays, what: str) -> None:
    try:
        thing.load_state_dict(state)
    except (StreamtrainError, ValueError, KeyError) as error:
        require(bool(str(error)), f"a wrong state ({what}) raised {type(error).__name__} without a message")
        return
    except Exception as error:
        raise CheckFailed(
            f"a wrong state ({what}) raised {type(error).__name__}: {error}; it must raise a ValueError or a KeyError"
        ) from error
    raise CheckFailed(f"a wrong state was loaded without an error: {what}")

"""Whether an interrupted object resumes exactly: tried before every step, comparing everything that follows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from streamtrain.batch import Batch
from streamtrain.testing.learners.subject import LearnerSubject
from streamtrain.testing.learners.values import Arrays, arrays, copied, stored
from streamtrain.testing.readers.subject import CheckFailed, require

__all__ = ["assert_resumes_exactly", "require_storable"]

_END: Arrays = {}  # the output that stands for the end of an epoch


def assert_resumes_exactly(
    make: Callable[[], Any], steps: Sequence[Any] | None = None, *, step: Callable[[Any, Any], Any] | None = None,
    epochs: int = 1, into: Callable[[], Any] | None = None, most: int | None = None,
) -> None:  # fmt: skip
    """Raise CheckFailed unless an object continues to the same bits from each of its states.

    One object takes all steps, and its state is taken before each step and at the end. Then each state is loaded into a
    fresh object, which takes all steps that follow: its outputs and its last state must be the same, bit for bit. A state
    is treated as if it came from a file: it must be numbers and arrays by name, and is loaded as read-only arrays.

    Parameters
    ----------
    make
        Returns a fresh object with ``state_dict()`` and ``load_state_dict(state)``. A context manager is entered; an object
        with ``close()`` is closed.
    steps, step
        For an object that is fed, like a learner: the input of each step, and ``step(object, input)``, which takes the step
        and returns the output to compare: arrays and numbers, alone or in lists, mappings and dataclasses. Inputs are copied
        first. Leave both out for an object that is iterated, like a loader: its outputs are what it yields.
    epochs
        How often to iterate over the object.
    into
        Returns the object that states are loaded into, if not `make`: one with other threads, or one that was used before.
    most
        How many states to try at most, spread evenly. Each costs all steps that follow; all states are in memory.

    Raises
    ------
    CheckFailed
        The message names the step and the first difference.
    ValueError
        Only one of ``steps`` and ``step`` is given, or ``most`` is below 1.

    Example
    -------
    >>> from streamtrain.prepare import TargetScale
    >>> def observe(scale, y):
    ...     scale.observe(y)
    ...     return scale.transform(y)
    >>> rows = np.random.default_rng(0).normal(size=(5, 8))
    >>> assert_resumes_exactly(TargetScale, rows, step=observe)
    >>> class Forgets(TargetScale):
    ...     def load_state_dict(self, state):
    ...         super().load_state_dict({**state, "rows": 0})
    >>> assert_resumes_exactly(Forgets, rows, step=observe)
    Traceback (most recent call last):
    ...
    streamtrain.testing.readers.subject.CheckFailed: from the state before step 2: once loaded: state.rows is 0 instead of 8
    """
    if (steps is None) != (step is None):
        raise ValueError("give both steps and step (for an object that is fed) or neither (for one that is iterated)")
    if most is not None and most < 1:
        raise ValueError(f"most is {most}; it must be at least 1")

    def rest(thing: Any, done: Sequence[Arrays]) -> Iterator[Arrays]:
        if steps is None or step is None:
            return _iterated(thing, epochs - sum(given is _END for given in done))
        return _fed(thing, step, steps[len(done) :])

    with _made(make) as thing:
        states, given = _whole_course(thing, rest(thing, []))
    for k in _spread(len(states), most):
        with _made(into or make) as thing:
            _go_on(thing, states, given, k, rest(thing, given[:k]))


def require_storable(state: Any, when: str) -> None:
    """Raise CheckFailed unless a state is arrays and numbers by name, which can be saved without pickle."""
    require(isinstance(state, dict), f"{when}: state_dict() gave a {type(state).__name__}, not a dict")
    for name, value in state.items():
        require(isinstance(name, str), f"{when}: state_dict() has the name {name!r}, not a string")
        plain = isinstance(value, np.ndarray | np.generic | bool | int | float)
        require(plain, f"{when}: state_dict()[{name!r}] is a {type(value).__name__}, not an array or a number")
        kind = np.asarray(value).dtype
        fits = kind.kind in "biuf" and kind.itemsize <= 8
        require(fits, f"{when}: state_dict()[{name!r}] is {kind}, which cannot be saved without pickle")


@contextmanager
def _made(make: Callable[[], Any]) -> Iterator[Any]:
    with ExitStack() as stack:
        thing = make()
        if hasattr(thing, "__exit__"):
            thing = stack.enter_context(thing)
        elif hasattr(thing, "close"):
            stack.callback(thing.close)
        yield thing


def _iterated(thing: Iterable[Any], epochs: int) -> Iterator[Arrays]:
    for _ in range(epochs):
        for value in thing:
            yield _taken(value)
        yield _END


def _fed(thing: Any, step: Callable[[Any, Any], Any], steps: Sequence[Any]) -> Iterator[Arrays]:
    for given in steps:
        yield _taken(step(thing, copied(given)))


def _taken(value: Any) -> Arrays:
    """Copies of all arrays, made at once because their memory may be reused."""
    return {name: array.copy() for name, array in arrays(_canonical(value), "output").items()}


def _canonical(value: Any) -> Any:
    """A batch in a form that does not depend on where its texts are in the window, with the positions of its rows."""
    if not isinstance(value, Batch):
        return value
    texts = value.texts
    if texts is not None:
        ends = texts.starts + np.maximum(texts.sizes, 0)
        parts = [texts.data[first:last] for first, last in zip(texts.starts.flat, ends.flat, strict=True)]
        texts = replace(
            texts, data=np.concatenate([texts.data[:0], *parts]), starts=np.zeros((len(texts), 0), np.int64)
        )
    return replace(value, texts=texts, positions=value.rows)


def _whole_course(thing: Any, course: Iterator[Arrays]) -> tuple[list[Arrays], list[Arrays]]:
    """The states before each step and at the end, and the output of each step."""
    states: list[Arrays] = []
    given: list[Arrays] = []
    while True:
        state = thing.state_dict()
        require_storable(state, f"after {len(given)} steps")
        states.append(stored(state))
        found = next(course, None)
        if found is None:
            return states, given
        given.append(found)
        _require_state(state, states[-1], f"a state that had been taken changed in {_name(given, len(given) - 1)}")


def _go_on(thing: Any, states: Sequence[Arrays], given: Sequence[Arrays], k: int, course: Iterator[Arrays]) -> None:
    """Load the state before step ``k`` and require the same outputs from there on."""
    begun, name = f"from the state before {_name(given, k)}", "loading it"
    try:
        thing.load_state_dict(states[k])
        _require_state(thing.state_dict(), states[k], f"{begun}: once loaded")
        for number, wanted in enumerate(given[k:], k):
            name = _name(given, number)
            found = next(course)
            require(found is not _END or wanted is _END, f"{begun}: it ended before {name}")
            require(found is _END or wanted is not _END, f"{begun}: it went on at {name}")
            LearnerSubject.require_same(found, wanted, f"{begun}: in {name}")
        _require_state(thing.state_dict(), states[-1], f"{begun}: at the end")
    except CheckFailed:
        raise
    except Exception as error:
        raise CheckFailed(f"{begun}: {name} raised {type(error).__name__}: {error}") from error


def _require_state(found: Any, wanted: Arrays, what: str) -> None:
    LearnerSubject.require_same(arrays(found, "state"), arrays(wanted, "state"), what)


def _name(given: Sequence[Arrays], k: int) -> str:
    """The name of the step that gave output ``k``."""
    ends = sum(found is _END for found in given[:k])
    if k == len(given):
        return "the end"
    return f"the end of epoch {ends + 1}" if given[k] is _END else f"step {k - ends + 1}"


def _spread(count: int, most: int | None) -> list[int]:
    """At most ``most`` of ``count`` positions, evenly, including the first and the last."""
    return sorted({round(place) for place in np.linspace(0, count - 1, min(count, most or count)).tolist()})

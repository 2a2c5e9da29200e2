"""The subject of the checks of learners: something that learns, and how to call it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from streamtrain.batch import Batch
from streamtrain.testing.learners.values import Arrays, arrays, bits_differ, copied
from streamtrain.testing.readers.subject import CheckFailed

__all__ = ["LearnerSubject", "Task"]

_PROBE_ROWS, _PROBE_SEED = 16, 1_000_000


@dataclass(frozen=True)
class Task:
    """What is predicted. classes: 0 for regression. targets: how many are learned at once."""

    classes: int = 0
    targets: int = 1

    def shape(self, rows: int) -> tuple[int, ...]:
        """Of the predictions for so many rows."""
        columns = self.classes if self.classes > 2 else self.targets
        return (rows, columns) if columns > 1 else (rows,)


@dataclass(frozen=True)
class LearnerSubject:
    """A learner, or a piece of preparation, under test.

    make: a fresh one, at every call. learn: let it learn from a batch. output: what it gives for a batch: an array, or
    several in a list, a mapping or a dataclass. batch: so many rows, from a seed. sizes: rows of the batches of a stream.
    members: the names that it must have. task: None for what does not predict. slots: columns of the sparse part that it
    claims; 0 for none. weights: whether it claims those of the rows. growth_batches: between which counts memory must not
    grow. most_declared: how many times the bytes of its state it may declare. free_shapes: entries of its state whose first
    axis depends on what was learned.
    """

    make: Callable[[], Any]
    learn: Callable[[Any, Batch], None]
    output: Callable[[Any, Batch], Any]
    batch: Callable[[int, int], Batch]
    sizes: Sequence[int]
    members: Sequence[str]
    task: Task | None
    slots: int
    weights: bool
    growth_batches: tuple[int, int]
    most_declared: float
    free_shapes: Sequence[str]

    def stream(self, seed: int = 0) -> list[Batch]:
        """Batches of several sizes."""
        return [self.batch(rows, seed + i) for i, rows in enumerate(self.sizes)]

    @property
    def probe(self) -> Batch:
        """Rows that are in none of the streams."""
        return self.batch(_PROBE_ROWS, _PROBE_SEED)

    def feed(self, thing: Any, *batches: Batch) -> Any:
        """Let it learn from a copy of each, so that one defect is not found by every check. Gives it back."""
        for batch in batches:
            self.learn(thing, copied(batch))
        return thing

    def gives(self, thing: Any, batch: Batch) -> Arrays:
        """Copies of what it gives for a copy of a batch."""
        found = self.output(thing, copied(batch))
        try:
            return {name: array.copy() for name, array in arrays(found, "output").items()}
        except TypeError as error:
            raise CheckFailed(str(error)) from error

    def state(self, thing: Any) -> Arrays:
        """Copies of its state."""
        return {name: array.copy() for name, array in arrays(thing.state_dict(), "state").items()}

    def same(self, thing: Any, other: Any, batches: Iterable[Batch], what: str) -> None:
        """Raise CheckFailed unless the two give the same bits for each batch and have the same state."""
        for batch in batches:
            self.require_same(self.gives(thing, batch), self.gives(other, batch), what)
        self.require_same(self.state(thing), self.state(other), what)

    @staticmethod
    def require_same(found: Arrays, wanted: Arrays, what: str) -> None:
        """Raise CheckFailed unless all bits are the same."""
        differs = bits_differ(found, wanted)
        if differs is not None:
            raise CheckFailed(f"{what}: {differs}")

    @staticmethod
    def require_finite(found: Arrays, what: str) -> None:
        """Raise CheckFailed for a NaN or an infinity."""
        for name, array in found.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                count = int((~np.isfinite(array)).sum())
                raise CheckFailed(f"{what}: {name} has {count:,} of {array.size:,} values that are not finite")

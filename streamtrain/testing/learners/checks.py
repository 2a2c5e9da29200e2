"""The checks of what a learner does with batches; as in `checks`: raise CheckFailed or Skipped."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from streamtrain.batch import Batch
from streamtrain.testing.learners.subject import LearnerSubject, Task
from streamtrain.testing.learners.values import Arrays, arrays, bits_differ, copied, distance, overwrite
from streamtrain.testing.readers.subject import Skipped, require

__all__: list[str] = []

_ALONE = 1e-4  # of the largest value: products of matrices of other sizes round otherwise
_WEIGHED = 1e-3
_SUM = 1e-5


def members(subject: LearnerSubject) -> None:
    """It has all members, and state_bytes is a whole number."""
    thing = subject.make()
    for name in subject.members:
        require(hasattr(thing, name), f"{type(thing).__name__} has no {name}")
    declared: Any = thing.state_bytes
    whole = isinstance(declared, int | np.integer) and bool(declared >= 0)
    require(whole, f"state_bytes is {declared!r}, not a whole number of bytes")


def outputs(subject: LearnerSubject) -> None:
    """Finite, before the first row and after; predictions have the shape, type and range of the task."""
    thing = subject.make()
    _right(subject, thing, "before the first row")
    for count, batch in enumerate(subject.stream(), 1):
        _right(subject, subject.feed(thing, batch), f"after batch {count}")


def _right(subject: LearnerSubject, thing: Any, when: str) -> None:
    probe = subject.probe
    found = subject.gives(thing, probe)
    subject.require_finite(found, when)
    if subject.task is not None:
        _predictions(found, subject.task, len(probe), when)


def _predictions(found: Arrays, task: Task, rows: int, when: str) -> None:
    require(list(found) == ["output"], f"{when}: predictions are {list(found)}, not one array")
    values = found["output"]
    wanted = task.shape(rows)
    require(values.shape == wanted, f"{when}: predictions for {rows} rows have shape {values.shape}, not {wanted}")
    require(values.dtype == np.float32, f"{when}: predictions are {values.dtype}, not float32")
    if task.classes and values.size:
        low, high = float(values.min()), float(values.max())
        require(low >= 0 and high <= 1, f"{when}: probabilities from {low:.4g} to {high:.4g}, not within [0, 1]")
    if task.classes > 2 and values.size:
        total = values.sum(axis=1, dtype=np.float64)
        worst = float(total[np.abs(total - 1).argmax()])
        require(
            abs(worst - 1) <= _SUM,
            f"{when}: the probabilities of a row add up to {worst:.6g}, not to 1 within {_SUM:g}",
        )


def learns(subject: LearnerSubject) -> None:
    """Its output after learning differs from its output before."""
    thing, probe = subject.make(), subject.probe
    before = subject.gives(thing, probe)
    batches = subject.stream()
    after = subject.gives(subject.feed(thing, *batches), probe)
    rows = sum(len(batch) for batch in batches)
    require(
        bits_differ(after, before) is not None,
        f"after {rows:,} rows its output is the same, bit for bit, as before the first row",
    )


def empty_batch(subject: LearnerSubject) -> None:
    """A batch without rows can be learned, which changes nothing, and gives an output without rows."""
    thing, probe = subject.make(), subject.probe
    for batch in subject.stream():
        none = batch.part(0, 0)
        for when, state in (("before the first row", subject.make()), ("later", thing)):
            before = subject.state(state)
            what = f"a batch without rows, {when}, changed the state"
            subject.require_same(subject.state(subject.feed(state, none)), before, what)
        found = subject.gives(thing, none)
        if subject.task is not None:
            _predictions(found, subject.task, 0, "for no rows")
        subject.feed(thing, batch)
    apart = subject.feed(subject.make(), *subject.stream())
    subject.same(thing, apart, [probe], "with batches without rows in between")


def one_row(subject: LearnerSubject) -> None:
    """Batches of one row, from the first on."""
    thing = subject.make()
    for seed in range(20):
        batch = subject.batch(1, seed)
        _right(subject, subject.feed(thing, batch), f"after row {seed + 1}")
        if subject.task is not None:
            _predictions(subject.gives(thing, batch), subject.task, 1, "for one row")


def rows_alone(subject: LearnerSubject) -> None:
    """The output for a row does not depend on the other rows of the batch."""
    thing, probe = subject.feed(subject.make(), *subject.stream()), subject.probe
    together = subject.gives(thing, probe)
    if any(array.ndim == 0 or len(array) != len(probe) for array in together.values()):
        raise Skipped("its output does not have one entry for each row")
    for row in range(len(probe)):
        alone = subject.gives(thing, probe.part(row, row + 1))
        wanted = {name: array[row : row + 1] for name, array in together.items()}
        apart = distance(alone, wanted)[0]
        limit = _ALONE * max(1.0, distance(together, together)[1])
        require(apart <= limit, f"row {row} alone and among {len(probe)} gives values {apart:.3g} apart; "
                f"at most {limit:.3g} is allowed")  # fmt: skip


# -- inputs --------------------------------------------------------------------------------------------------------------


def inputs(subject: LearnerSubject) -> None:
    """Neither learning nor predicting changes an array of the batch."""
    thing = subject.make()
    for count, batch in enumerate(subject.stream(), 1):
        before = copied(batch)
        for what, use in (("predicting", subject.output), ("learning", subject.learn)):
            use(thing, batch)
            changed = bits_differ(arrays(batch, "batch"), arrays(before, "batch"))
            require(changed is None, f"batch {count}: {what} from it changed it: {changed}")


def read_only(subject: LearnerSubject) -> None:
    """It also accepts read-only arrays."""
    thing, other = subject.make(), subject.make()
    for batch in subject.stream():
        locked = copied(batch)
        for array in arrays(locked).values():
            array.flags.writeable = False
        subject.output(thing, locked)
        subject.learn(thing, locked)
        subject.same(thing, subject.feed(other, batch), [batch], "of arrays that cannot be written")


def keeps_nothing(subject: LearnerSubject) -> None:
    """The batch belongs to the loader, which writes other rows over it later: that changes nothing."""
    thing, other, probe = subject.make(), subject.make(), subject.probe
    for count, batch in enumerate(subject.stream(), 1):
        lent = copied(batch)
        subject.learn(thing, lent)
        overwrite(lent)
        what = f"after batch {count}, each written over once it was learned"
        subject.same(thing, subject.feed(other, batch), [probe], what)


def outputs_are_yours(subject: LearnerSubject) -> None:
    """An output does not change later, and writing over it changes nothing."""
    first, *rest = subject.stream()
    thing, probe = subject.feed(subject.make(), first), subject.probe
    given = subject.output(thing, copied(probe))
    before = {name: array.copy() for name, array in arrays(given, "output").items()}
    subject.gives(thing, first)
    subject.feed(thing, *rest)
    subject.gives(thing, first)
    subject.require_same(
        arrays(given, "output"), before, "an earlier output changed when it learned and predicted again"
    )
    wanted = subject.gives(thing, probe)
    for array in arrays(subject.output(thing, copied(probe)), "output").values():
        if array.flags.writeable:
            overwrite(array)
    subject.require_same(subject.gives(thing, probe), wanted, "after an earlier output was written over")


# -- the same again ------------------------------------------------------------------------------------------------------


def deterministic(subject: LearnerSubject) -> None:
    """Two learners that get the same batches have the same bits, whatever a third gets in between."""
    thing, other, third, probe = subject.make(), subject.make(), subject.make(), subject.probe
    batches = subject.stream()
    subject.feed(other, *batches)
    for batch, beside in zip(batches, subject.stream(seed=500), strict=True):
        subject.feed(thing, batch)
        subject.feed(third, beside)
    subject.same(thing, other, [probe], "of two that learned the same, one of them beside a third")


def predicting(subject: LearnerSubject) -> None:
    """Predicting changes nothing that follows."""
    thing, other, probe = subject.make(), subject.make(), subject.probe
    for batch in subject.stream():
        before = subject.state(thing)
        subject.gives(thing, probe)
        subject.require_same(subject.state(thing), before, "predicting changed the state")
        subject.feed(thing, batch)
        subject.feed(other, batch)
    subject.same(thing, other, [probe], "of two that learned the same, one of which also predicted")


# -- what not every learner claims ---------------------------------------------------------------------------------------


def weights(subject: LearnerSubject) -> None:
    """Rows of weight 0 are ignored."""
    if not subject.weights:
        raise Skipped("does not claim weights")
    thing, other, probe = subject.make(), subject.make(), subject.probe
    for seed, rows in enumerate((32, 32, 0, 32, 1, 32)):
        batch = _weighed(subject.batch(rows + 16, seed), rows)
        subject.feed(thing, batch)
        subject.feed(other, batch.part(0, rows))
        wanted = subject.gives(other, probe)
        apart, largest = distance(subject.gives(thing, probe), wanted)
        limit = _WEIGHED * max(1.0, largest)
        require(apart <= limit, f"after batch {seed + 1}, each with 16 rows of weight 0, its output is {apart:.3g} from "
                f"that of one that never saw those rows; at most {limit:.3g} is allowed")  # fmt: skip


def _weighed(batch: Batch, rows: int) -> Batch:
    """Weights for the first rows, 0 for the others; which are far from all others, so that it shows if they count."""
    weigh = np.random.default_rng(rows).uniform(0.5, 2, len(batch)).astype(np.float32)
    weigh[rows:] = 0
    features = batch.features.copy()
    features[rows:] *= 10
    return replace(batch, weights=weigh, features=features)


def sparse(subject: LearnerSubject) -> None:
    """The sparse part is learned and counts in predictions; no sparse part means the same as one without entries."""
    if not subject.slots:
        raise Skipped("does not claim a sparse part")
    thing, probe = subject.feed(subject.make(), *subject.stream()), subject.probe
    part = probe.sparse
    require(
        part is not None and part.indptr[-1] > 0, "batch() gave no sparse part: it must have one where slots is not 0"
    )
    assert part is not None
    without = subject.gives(thing, replace(probe, sparse=None))
    require(bits_differ(subject.gives(thing, probe), without) is not None, "the sparse part changes no prediction")
    none = replace(part, indptr=np.zeros_like(part.indptr), indices=part.indices[:0], values=None)
    apart, largest = distance(subject.gives(thing, replace(probe, sparse=none)), without)
    limit = _ALONE * max(1.0, largest)
    require(apart <= limit, f"a sparse part without entries moves predictions by {apart:.3g}; at most {limit:.3g} is "
            "allowed")  # fmt: skip

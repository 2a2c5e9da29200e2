"""The check of learners that take many batches in one call; as in `checks`: raises CheckFailed or Skipped."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from streamtrain.batch import Batch
from streamtrain.learn.learner import Floats, Fused
from streamtrain.testing.learners.subject import LearnerSubject
from streamtrain.testing.learners.values import Arrays, copied, distance
from streamtrain.testing.readers.subject import Skipped, require

__all__ = ["fused_run"]

_SIZE, _ROWS = 8, 75
_APART = 1e-3  # of the largest value: a kernel adds up in another order


def fused_run(subject: LearnerSubject) -> None:
    """Where it claims `run`: many batches in one call are learned as they are one by one, and their rows are summed up; of a
    batch with a number that is not finite nothing is learned."""
    thing = subject.make()
    if not (isinstance(thing, Fused) and thing.can_run):
        raise Skipped("does not claim run: it has none, or can_run is False")
    whole = replace(subject.batch(_ROWS, 0), weights=None)
    maps = np.stack([whole.features[0], whole.features[0], np.full(whole.features.shape[1], 0.5, np.float32)])
    block = np.zeros((2, maps.shape[1]))
    done, predictions, rest = thing.run(copied(whole), _SIZE, maps, block)
    batches = -(-_ROWS // _SIZE)
    require(done == batches and rest is None, f"run learned {done} of {batches} batches, all of them finite")
    other, expected = subject.make(), []
    for start in range(0, _ROWS, _SIZE):
        batch = _prepared(whole.part(start, min(start + _SIZE, _ROWS)), maps)
        expected.append(subject.output(other, batch))
        subject.feed(other, batch)
    _near({"predictions": predictions}, {"predictions": np.concatenate(expected)}, "its predictions")
    _near(subject.state(thing), subject.state(other), "its state")
    about = (whole.features - maps[0]).astype(np.float64)
    _near({"block": block}, {"block": np.stack([about.sum(axis=0), (about**2).sum(axis=0)])}, "the sums of its rows")
    if maps.shape[1]:
        _not_finite(subject, thing, copied(whole.part(0, _SIZE)), maps)


def _prepared(batch: Batch, maps: Floats) -> Batch:
    return replace(batch, features=(batch.features - maps[1]) * maps[2])


def _near(values: Arrays, expected: Arrays, what: str) -> None:
    apart, largest = distance(values, expected)
    limit = _APART * max(1.0, largest)
    require(apart <= limit, f"after run {what} are {apart:.3g} from those of batches learned one by one; "
            f"at most {limit:.3g} is allowed")  # fmt: skip


def _not_finite(subject: LearnerSubject, thing: Fused, batch: Batch, maps: Floats) -> None:
    before, block = subject.state(thing), np.zeros((2, maps.shape[1]))
    batch.features[1, 0] = np.nan
    done, _, sums = thing.run(batch, _SIZE, maps, block)
    found = done == 0 and sums is not None and not np.isfinite(sums).all() and bool(thing.diverged)
    require(
        found, "run did not stop at a batch with a number that is not finite: it must return its sums and be diverged"
    )
    subject.require_same(subject.state(thing), before, "run learned from a batch with a number that is not finite")
    require(not block.any(), "run added the sums of a batch that it did not learn to the block")

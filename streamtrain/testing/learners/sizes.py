"""The checks of a learner's memory; as in `checks`."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from typing import Any

from streamtrain.batch import Batch
from streamtrain.memory.sizes import format_bytes
from streamtrain.testing.learners.subject import LearnerSubject
from streamtrain.testing.learners.values import copied
from streamtrain.testing.readers.subject import require

__all__ = ["FLOOR_BYTES", "ROW_BYTES", "SLACK_BYTES"]

FLOOR_BYTES = 32_000  # what is held and not declared: the objects themselves, room that depends on the rows of a batch
SLACK_BYTES = 10_000  # numpy keeps small blocks for arrays to come, other threads of the process allocate a little
ROW_BYTES = 1  # a number for each row takes more
_ROWS = 32  # a batch


def bounded_growth(subject: LearnerSubject) -> None:
    """Neither its memory nor its state grows with the number of rows learned."""
    few, many = subject.growth_batches
    allowed = ROW_BYTES * (many - few) * _ROWS
    pool = _pool(subject, 2 * few)
    with _traced():
        thing = subject.make()
        _learn(subject, thing, pool, few)
        held, state = _held(), _state_bytes(subject, thing)
        _learn(subject, thing, pool[few:] + pool[:few], many - few)
        if _held() - held > allowed + SLACK_BYTES:
            gc.collect()
        later, later_state = _held(), _state_bytes(subject, thing)
    for what, first, last, limit in (
        ("holds", held, later, allowed + SLACK_BYTES),
        ("has a state of", state, later_state, allowed),
    ):
        require(last - first <= limit,
                f"{what} {format_bytes(last - first)} more after {many:,} batches than after {few:,} ({last:,} against "
                f"{first:,} bytes), batches of {_ROWS} rows; at most {limit:,} bytes are allowed")  # fmt: skip


def declared_bytes(subject: LearnerSubject) -> None:
    """``state_bytes``, as it is before the first row, against the state and the memory held after learning."""
    pool = _pool(subject, 20)
    with _traced():
        before = _held()
        thing = subject.make()
        declared = int(thing.state_bytes)
        _learn(subject, thing, pool, 20)
        if _held() - before > declared + FLOOR_BYTES:
            gc.collect()
        held = _held() - before
    later, state = int(thing.state_bytes), _state_bytes(subject, thing)
    said = f"state_bytes is {declared:,} before the first row"
    require(later <= declared, f"{said} and {later:,} after {20 * _ROWS} rows: it must be known before")
    require(state <= declared, f"{said}, but the arrays of state_dict() have {state:,} bytes")
    require(held <= declared + FLOOR_BYTES, f"{said}, but {held:,} bytes are held after {20 * _ROWS} rows; at most "
            f"{FLOOR_BYTES:,} bytes more than declared are allowed")  # fmt: skip
    limit = int(subject.most_declared * max(state, FLOOR_BYTES))
    require(declared <= limit, f"{said}, but the state has {state:,} bytes; at most {limit:,} is allowed, "
            f"which is {subject.most_declared:g} times the larger of that and {FLOOR_BYTES:,}")  # fmt: skip


def _pool(subject: LearnerSubject, count: int) -> list[Batch]:
    return [subject.batch(_ROWS, seed) for seed in range(count)]


def _learn(subject: LearnerSubject, thing: Any, pool: Sequence[Batch], count: int) -> None:
    """From so many batches, each a copy that nobody else holds."""
    for batch in islice(cycle(pool), count):
        lent = copied(batch)
        subject.output(thing, lent)
        subject.learn(thing, lent)


def _state_bytes(subject: LearnerSubject, thing: Any) -> int:
    return sum(array.nbytes for array in subject.state(thing).values())


def _held() -> int:
    return tracemalloc.get_traced_memory()[0]


@contextmanager
def _traced() -> Iterator[None]:
    if tracemalloc.is_tracing():
        yield
        return
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()

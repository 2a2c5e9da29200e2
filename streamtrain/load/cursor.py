"""Where a loader stands: a few whole numbers, and one for the order of rows in which they mean something."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.errors import UsageError
from streamtrain.plan import Plan
from streamtrain.plan.order import VERSION

__all__ = ["START", "checked", "nowhere", "order_of"]

#: what comes next: epoch, window and row in it; rows handed out to be learned; window and row in it held out; how many rows to
#: learn the window has, where some of them were handed out
START = {"epoch": 0, "window": 0, "row": 0, "rows_seen": 0, "held_window": 0, "held_row": 0, "training": 0}


def order_of(rows: NDArray[np.int64], plan: Plan, seed: int, holdout: float) -> int:
    """A number made of all that the order of the rows and the cut of batches follow from; 63 bits, which an int64 holds.

    rows: of each chunk, shape (chunks,).
    """
    asked = (VERSION, int(plan.window_rows), bool(plan.shuffle), int(seed), float(holdout), int(plan.batch_size))
    digest = hashlib.sha256(repr(asked).encode())
    digest.update(np.ascontiguousarray(rows, "<i8").data)
    return int.from_bytes(digest.digest()[:8], "big") >> 1


def checked(state: Mapping[str, Any], order: int, *, holds_out: bool) -> dict[str, int]:
    """The cursor in a state. holds_out: whether rows are held out. Raises UsageError for what cannot be."""
    if not isinstance(state, Mapping):
        raise UsageError(f"the state of a loader is a mapping, not a {type(state).__name__}")
    names = [*START, "order"]
    if set(state) != set(names):
        raise UsageError(f"the state of a loader has {sorted(names)}, not {sorted(map(str, state))}")
    cursor = {name: _whole(name, state[name]) for name in names}
    if cursor.pop("order") != order:
        raise UsageError(
            "the state is of another order of rows: other chunks, or another seed, shuffle, batch size, hold-out or number "
            "of rows in a window; give this loader what the one had that the state is of, or begin without the state"
        )
    held = cursor["held_window"], cursor["held_row"]
    if held[0] < cursor["window"] if holds_out else any(held):
        raise nowhere(cursor)
    return cursor


def _whole(name: str, value: Any) -> int:
    """An entry of a state as a number: what has gone through a file is one of numpy's."""
    try:
        number = -1 if np.asarray(value).dtype == np.bool_ else operator.index(value)
    except TypeError:
        number = -1
    if number < 0:
        raise UsageError(f"the state of a loader has whole numbers, 0 or more, but its {name!r} is {value!r}")
    return number


def nowhere(cursor: Mapping[str, int]) -> UsageError:
    """The error for a place that is not there."""
    place = ", ".join(f"{name} {number}" for name, number in cursor.items() if name != "rows_seen")
    return UsageError(
        f"the state of the loader is of a place that is not there ({place}): it was changed, or other rows are skipped now"
    )

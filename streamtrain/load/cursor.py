"""The position of a loader: a few integers, and a hash of the order of rows for which they are valid."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Mapping
from typing import Any

import numpy as np

from streamtrain.errors import UsageError
from streamtrain.load.holdout import HoldOut
from streamtrain.plan import Plan
from streamtrain.plan.order import VERSION
from streamtrain.storage.kept import KeptTable
from streamtrain.storage.reader import ChunkTable

__all__ = ["START", "checked", "nowhere", "order_of"]

#: what comes next: the epoch, its window, and the row in it; how many rows were learned: those that were handed
#: out to be learned, but for the skipped ones; and the next held-out window and row
START = {"epoch": 0, "window": 0, "row": 0, "rows_seen": 0, "held_window": 0, "held_row": 0}


def order_of(table: ChunkTable, plan: Plan, seed: int, holdout: HoldOut) -> int:
    """A hash of everything that determines the order of the rows and where batches are cut; 63 bits, so that int64 holds it."""
    cause = (VERSION, int(plan.window_rows), bool(plan.shuffle), int(seed), float(holdout.share), int(plan.batch_size))
    digest = hashlib.sha256(repr(cause).encode())
    digest.update(np.ascontiguousarray(table.rows, "<i8").data)
    kept = table.kept if isinstance(table, KeptTable) else None
    for name, bits in (("kept", kept), ("held", holdout.bits)):
        if bits is not None:
            digest.update(name.encode())
            digest.update(bits.data.data)
    return int.from_bytes(digest.digest()[:8], "big") >> 1


def checked(state: Mapping[str, Any], order: int, *, holds_out: bool) -> dict[str, int]:
    """The cursor in a state. holds_out: whether rows are held out. Raises UsageError for an impossible state, and for the
    state of another order."""
    if not isinstance(state, Mapping):
        raise UsageError(f"the state of a loader is a mapping, not a {type(state).__name__}")
    names = [*START, "order"]
    if set(state) != set(names):
        raise UsageError(f"the state of a loader has {sorted(names)}, not {sorted(map(str, state))}")
    cursor = {name: _whole_number(name, state[name]) for name in names}
    if cursor.pop("order") != order:
        raise UsageError(
            "the state is of another order of rows: the chunks, seed, shuffle, batch size, hold-out or window rows differ; "
            "use the same as the loader that returned the state, or start without a state"
        )
    held = cursor["held_window"], cursor["held_row"]
    if held[0] < cursor["window"] if holds_out else any(held):
        raise nowhere(cursor)
    return cursor


def _whole_number(name: str, value: Any) -> int:
    """An entry of a state as a number; after saving and loading it may be a numpy number."""
    try:
        number = -1 if np.asarray(value).dtype == np.bool_ else operator.index(value)
    except TypeError:
        number = -1
    if number < 0:
        raise UsageError(f"the state of a loader has whole numbers, 0 or more, but its {name!r} is {value!r}")
    return number


def nowhere(cursor: Mapping[str, int]) -> UsageError:
    """The error for a position that does not exist."""
    position = ", ".join(f"{name} {number}" for name, number in cursor.items() if name != "rows_seen")
    return UsageError(
        f"the state of the loader is of a position that does not exist ({position}): the state was changed, or it is of a "
        "loader of other rows"
    )

"""A bounded dictionary: each value that is seen gets a column of the sparse part, for as long as there are any.

What is seen first gets a slot of its own; values that come when all are taken share slots by their hash, as in feature
hashing (Weinberger et al., "Feature hashing for large scale multitask learning", 2009). So few values are one-hot, without a
collision, and many are hashed, with the frequent ones, which come early, kept apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.errors import UsageError
from streamtrain.kernels import zeros
from streamtrain.kernels.hashing import find_slots
from streamtrain.prepare.settings import FEWEST_BITS, MOST_BITS
from streamtrain.state import checked

__all__ = ["Vocabulary"]

Words = NDArray[np.uint32]


class Vocabulary:
    """Vocabulary for 32-bit signatures of values: 2^bits of them, three quarters for values of their own, in the order in which
    they come, a quarter to be shared.

    Slot 0 is that of values that are not known: nothing is learned for it.

    >>> slots = Vocabulary(4)
    >>> slots.observe(np.array([7, 9, 7], np.uint32)).tolist(), slots.transform(np.array([9, 8], np.uint32)).tolist()
    ([1, 2, 1], [2, 0])
    """

    def __init__(self, bits: int) -> None:
        self.require_bits(bits)
        self.bits = bits
        self._sharing = 1 << (bits - 2)
        self._most = (1 << bits) - self._sharing
        self._places = zeros((1 << bits, 2), np.uint32)
        self._counts = np.zeros(2, np.int64)  # slots taken; values that were given one that is shared
        self._entries = 0

    @staticmethod
    def require_bits(bits: int) -> None:
        """Raise UsageError unless there can be so many slots."""
        if not FEWEST_BITS <= bits <= MOST_BITS:
            raise UsageError(f"--hash-bits {bits}: must be from {FEWEST_BITS} to {MOST_BITS}")

    @property
    def width(self) -> int:
        """Columns of the sparse part: all slots, and that of what is unknown."""
        return (1 << self.bits) + 1

    @property
    def used(self) -> int:
        """Values that have a slot of their own."""
        return int(self._counts[0])

    @property
    def shared(self) -> float:
        """Of the entries that were learned from, the share whose value has no slot of its own."""
        return float(self._counts[1]) / self._entries if self._entries else 0.0

    def observe(self, signatures: Words) -> NDArray[np.int32]:
        """The slot of each signature, shape (entries,), uint32, none of them 0; new ones get a slot. int32."""
        self._entries += len(signatures)
        return self._find(signatures, self._counts, claim=True)

    def transform(self, signatures: Words) -> NDArray[np.int32]:
        """The slot of each signature, shape (entries,), int32; 0 for those that are not known."""
        return self._find(signatures, self._counts.copy(), claim=False)

    def _find(self, signatures: Words, counts: NDArray[np.int64], *, claim: bool) -> NDArray[np.int32]:
        return find_slots(signatures, self._places, counts, most=self._most, sharing=self._sharing, claim=claim)

    @property
    def state_bytes(self) -> int:
        """Bytes of the dictionary, full."""
        return self._places.nbytes + 32

    def state_dict(self) -> dict[str, Any]:
        """The signatures, in the order of their slots, shape (used,), and what was counted."""
        taken = self._places[self._places[:, 1] > 0]
        signatures = np.empty(len(taken), np.uint32)
        signatures[taken[:, 1] - 1] = taken[:, 0]
        return {"signatures": signatures, "entries": self._entries, "shared": int(self._counts[1])}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that ``state_dict`` returned. Raises ValueError, and changes nothing, for one that does not
        fit."""
        shared, entries = int(checked(state, {"shared": 0})["shared"]), int(checked(state, {"entries": 0})["entries"])
        signatures = np.ascontiguousarray(state["signatures"], np.uint32)
        if signatures.ndim != 1 or len(signatures) > self._most:
            raise ValueError(f"signatures of shape {signatures.shape}; there are {self._most:,} slots")
        again = Vocabulary(self.bits)
        found = again.observe(signatures)  # in the same order to the same places
        if (found != np.arange(1, len(signatures) + 1)).any() or not signatures.all():
            raise ValueError("the signatures are not those of a dictionary: some of them are the same, or 0")
        self._places, self._counts, self._entries = again._places, again._counts, entries
        self._counts[1] = shared

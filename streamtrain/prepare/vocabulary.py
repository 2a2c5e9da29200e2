"""A bounded vocabulary: it gives each value a slot, a column of the sparse part.

Values that come first get slots of their own. When these are taken, later values share slots by their hash, as in feature
hashing (Weinberger et al., "Feature hashing for large scale multitask learning", 2009). So a column with few
values is one-hot encoded, without collisions. Among many values the frequent ones come early and get slots of their own; the
others are hashed.
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
from streamtrain.state import Form, checked, forms_of

__all__ = ["Vocabulary"]

Words = NDArray[np.uint32]


class Vocabulary:
    """Gives each value, known by its 32-bit hash, the number of a slot in the table of weights.

    bits: there are 2^bits slots. Three quarters of them hold one value each, given out in the order of first appearance. When
    these are used up, each new value is assigned by its hash to one of the others, where several values share a slot. Slot 0,
    beside them, stands for unknown values; its weight stays 0.

    `observe` gives new values a slot, `transform` only looks them up:

    >>> vocabulary = Vocabulary(4)
    >>> vocabulary.observe(np.array([7, 9, 7], np.uint32)).tolist()
    [1, 2, 1]
    >>> vocabulary.transform(np.array([9, 8], np.uint32)).tolist()
    [2, 0]
    """

    def __init__(self, bits: int) -> None:
        self.require_bits(bits)
        self.bits = bits
        self._sharing = 1 << (bits - 2)
        self._most = (1 << bits) - self._sharing
        self._cells = zeros((1 << bits, 2), np.uint32)
        self._counts = np.zeros(2, np.int64)  # slots taken; entries whose value shares a slot
        self._entries = 0

    @staticmethod
    def require_bits(bits: int) -> None:
        """Raise UsageError if the number of bits is out of range."""
        if not FEWEST_BITS <= bits <= MOST_BITS:
            raise UsageError(f"--hash-bits {bits}: must be from {FEWEST_BITS} to {MOST_BITS}")

    @property
    def width(self) -> int:
        """Columns of the sparse part: all slots, and slot 0 for unknown values."""
        return (1 << self.bits) + 1

    @property
    def used(self) -> int:
        """The number of values that have a slot of their own."""
        return int(self._counts[0])

    @property
    def shared(self) -> float:
        """The share of the learned entries whose value has no slot of its own."""
        return float(self._counts[1]) / self._entries if self._entries else 0.0

    def observe(self, hashes: Words) -> NDArray[np.int32]:
        """Return the slot of each hash, int32; new hashes get a slot. hashes: shape (entries,), uint32, none of them 0."""
        self._entries += len(hashes)
        return self._find(hashes, self._counts, claim=True)

    def transform(self, hashes: Words) -> NDArray[np.int32]:
        """Return the slot of each hash, shape (entries,), int32; 0 for unknown hashes."""
        return self._find(hashes, self._counts.copy(), claim=False)

    def _find(self, hashes: Words, counts: NDArray[np.int64], *, claim: bool) -> NDArray[np.int32]:
        return find_slots(hashes, self._cells, counts, most=self._most, sharing=self._sharing, claim=claim)

    @property
    def state_bytes(self) -> int:
        """Bytes of the vocabulary when it is full."""
        return self._cells.nbytes + 32

    def state_dict(self) -> dict[str, Any]:
        """Return the hashes in the order of their slots, shape (used,), and the counts."""
        taken = self._cells[self._cells[:, 1] > 0]
        hashes = np.empty(len(taken), np.uint32)
        hashes[taken[:, 1] - 1] = taken[:, 0]
        return {"hashes": hashes, "entries": self._entries, "shared": int(self._counts[1])}

    @staticmethod
    def forms(bits: int) -> dict[str, Form]:
        """Return the forms of the state of so many bits, without making it."""
        most = (1 << bits) - (1 << (bits - 2))
        return forms_of({"entries": 0, "shared": 0}) | {"hashes": Form("<u4", (most,), loose=0)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that ``state_dict`` returned. Raises ValueError, and changes nothing, for one that does not
        fit."""
        shared, entries = int(checked(state, {"shared": 0})["shared"]), int(checked(state, {"entries": 0})["entries"])
        hashes = np.ascontiguousarray(state["hashes"], np.uint32)
        if not 0 <= shared <= entries:
            raise ValueError(f"{shared:,} of {entries:,} entries share slots")
        if hashes.ndim != 1 or len(hashes) > self._most:
            raise ValueError(f"hashes of shape {hashes.shape}, but there are {self._most:,} slots")
        again = Vocabulary(self.bits)
        slots = again.observe(hashes)  # the same order gives the same slots
        if (slots != np.arange(1, len(hashes) + 1)).any() or not hashes.all():
            raise ValueError("these hashes are not those of a vocabulary: some are equal, or 0")
        self._cells, self._counts, self._entries = again._cells, again._counts, entries
        self._counts[1] = shared

"""The scales of the values in the sparse part: those of a slot are divided by the root of their mean square so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.kernels import zeros
from streamtrain.kernels.hashing import scale_entries
from streamtrain.state import Form, require_sound

__all__ = ["Scales"]


class Scales:
    """Makes values of very different sizes comparable. They are not centred: a value of 0 stays 0, and needs no entry.

    slots: how many there are.

    >>> scales, values = Scales(3), np.array([300, 0.5], np.float32)
    >>> scales.apply(np.array([1, 2], np.int32), values, None, learn=True)
    >>> values.tolist()
    [1.0, 1.0]
    """

    def __init__(self, slots: int) -> None:
        self._table = zeros(
            (slots, 2), np.float64
        )  # of each slot: its values that are not 0, and the sum of their squares

    def apply(
        self, slots: NDArray[np.int32], values: NDArray[np.float32], scaled: NDArray[np.bool_] | None, *, learn: bool
    ) -> None:
        """Scale the values of entries **in place**. scaled: which of them; None for all. learn: whether each counts first."""
        scale_entries(slots, values, self._table, scaled, learn=learn)

    @property
    def state_bytes(self) -> int:
        """Bytes of the table, once all slots occurred."""
        return self._table.nbytes

    def state_dict(self) -> dict[str, Any]:
        """Return the table up to the last slot that occurred; a copy."""
        used = np.flatnonzero(self._table[:, 0])
        return {"table": self._table[: int(used[-1]) + 1 if len(used) else 0].copy()}

    @staticmethod
    def forms(slots: int) -> dict[str, Form]:
        """Return the forms of the state for so many slots, without making it."""
        return {"table": Form("<f8", (slots, 2), loose=0)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that ``state_dict`` returned. Raises ValueError, and changes nothing, for one that does not
        fit."""
        if "table" not in state:
            raise ValueError("the state has no 'scales.table'")
        table = np.asarray(state["table"], np.float64)
        if table.ndim != 2 or table.shape[1] != 2 or len(table) > len(self._table):
            raise ValueError(f"the state's scales have shape {table.shape}; expected at most {self._table.shape}")
        require_sound({"scales.table": table}, {"scales.table": 0.0})
        self._table[: len(table)], self._table[len(table) :] = table, 0

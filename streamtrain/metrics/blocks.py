"""Collects rows into blocks, because a few large numpy calls cost less than many small ones.

Sums are taken block by block in float64, so that the final result has the same bits for any batch size, and also if results
are read on the way.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.state import Form, require_sound

__all__ = ["BLOCK", "Blocks", "Doubles", "Floats", "ratio", "total", "weight_of"]

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]

BLOCK = 16384  # rows


class Blocks:
    """Collects some values and the weight of each row, and adds up what ``_score`` returns for each `BLOCK` of rows.

    values: numbers kept of each row. totals: numbers that ``_score`` returns.
    """

    def __init__(self, values: int, totals: int) -> None:
        self._pending = np.ones((values + 1, BLOCK), np.float32)
        self._weighted = False  # whether the weight of a pending row may differ from 1
        self._filled = 0
        self._totals = np.zeros(totals)

    def _push(self, weights: NDArray[Any] | None, *values: NDArray[Any]) -> None:
        """Add rows. values: each of shape (rows,), kept as float32."""
        start, rows = self._filled, len(values[0])
        stop = start + rows
        if stop > BLOCK:  # first the rows that fit, then block by block
            for first, last in itertools.pairwise([0, *range(BLOCK - start, rows, BLOCK), rows]):
                self._push(None if weights is None else weights[first:last], *[value[first:last] for value in values])
            return
        for k, value in enumerate(values):
            self._pending[k, start:stop] = value
        if weights is not None or self._weighted:
            self._weighted = True
            self._pending[-1, start:stop] = 1 if weights is None else weights
        self._filled = stop
        if stop == BLOCK:
            self._totals, self._filled = self._all(), 0

    def _all(self) -> Doubles:
        """Return the totals with the pending rows; change nothing."""
        if not self._filled:
            return self._totals
        pending = self._pending[:, : self._filled]
        # Depends on the rows alone, so that neither resuming nor an explicit weight of 1 changes a bit.
        weights = pending[-1] if self._weighted and (pending[-1] != 1).any() else None
        return self._merge(self._totals, self._score(weights, *pending[:-1]))

    def _score(self, weights: Floats | None, *values: Floats) -> Doubles:
        raise NotImplementedError

    def _merge(self, totals: Doubles, block: Doubles) -> Doubles:
        return totals + block

    def _require_possible(self, totals: NDArray[Any], pending: NDArray[Any]) -> None:
        """Raise ValueError for totals and pending values that no rows have. All of them are finite."""
        raise NotImplementedError

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays; they never grow."""
        return self._pending.nbytes + self._totals.nbytes

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """The totals and the pending rows."""
        return {"totals": self._totals.copy(), "pending": self._pending[:, : self._filled].copy()}

    def forms(self) -> dict[str, Form]:
        """Return the forms of the state."""
        pending = Form("<f4", (len(self._pending), BLOCK - 1), loose=1)
        return {"totals": Form("<f8", self._totals.shape), "pending": pending}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that ``state_dict`` returned. Raises ValueError, and changes nothing, for the state of other
        metrics, and for numbers that no rows have."""
        totals, pending = np.shape(state["totals"]), np.shape(state["pending"])
        if totals != self._totals.shape or pending[:-1] != self._pending.shape[:-1] or pending[-1] >= BLOCK:
            raise ValueError(
                f"the state has totals of shape {totals} and pending rows of shape {pending}: it belongs to other metrics"
            )
        require_sound({**state, "weights": np.asarray(state["pending"])[-1]}, {"weights": 0})
        self._require_possible(np.asarray(state["totals"]), np.asarray(state["pending"]))
        self._totals = np.array(state["totals"], np.float64)
        self._filled = state["pending"].shape[1]
        self._pending[:, : self._filled] = state["pending"]
        self._weighted = bool((self._pending[-1, : self._filled] != 1).any())


def total(values: NDArray[Any], weights: Floats | None) -> float:
    """Return the weighted sum, in float64."""
    if weights is None:
        return float(np.add.reduce(values, dtype=np.float64))
    return float(np.add.reduce(values.astype(np.float64) * weights))


def weight_of(values: NDArray[Any], weights: Floats | None) -> float:
    """Return the weight of all rows together."""
    return float(len(values)) if weights is None else float(np.add.reduce(weights, dtype=np.float64))


def ratio(part: float, whole: float) -> float | None:
    """Return ``part / whole``; None unless the whole is above 0."""
    return float(part / whole) if whole > 0 else None

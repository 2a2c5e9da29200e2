"""The weights of the sparse part, one row a slot. A batch changes only the slots that occur in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamtrain.batch import Sparse
from streamtrain.errors import DataError
from streamtrain.kernels import zeros
from streamtrain.learn.optimizers import StreamStats
from streamtrain.learn.update import Update
from streamtrain.state import require_sound

__all__ = ["Gathered", "SparseWeights"]

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Gathered:
    """The slots that occur in a batch, and copies of their rows.

    slots: ascending, each once, shape (slots,). positions: the position in ``slots`` of each entry. rows: the row of each
    entry. values: see `Sparse`. copies: shape (slots, fields) or (slots, fields, outputs). state: views of it, by field.
    """

    slots: NDArray[np.int32]
    positions: NDArray[np.int64]
    rows: NDArray[np.int64]
    values: Floats | None
    copies: Floats
    state: dict[str, Floats]

    def margins(self, rows: int) -> Floats:
        """What the entries add to each row's margin, shape (rows,) or (rows, outputs)."""
        return _summed(self.rows, _times(self.state["weights"][self.positions], self.values), rows)

    def gradient(self, slope: Floats) -> Floats:
        """The sum of slope * value over the entries of each slot, shape (slots,) or (slots, outputs)."""
        return _summed(self.positions, _times(slope[self.rows], self.values), len(self.slots))

    def reach(self, rate: Floats, rows: int) -> Floats:
        """The sum of rate * value^2 over the entries of each row, shape (rows,). rate: of each slot, shape (slots,)."""
        terms = rate[self.positions]
        return _summed(self.rows, terms if self.values is None else terms * self.values * self.values, rows)


class SparseWeights:
    """One row for each slot, shape (slots, fields) or (slots, fields, outputs), float32, in ``array``.

    The fields are those of an `Update`; with penalties also ``last``, the batch of a slot's last step. A slot that never
    occurred is all zeros and takes no memory. used: the number of slots up to the highest that occurred.

    Regularisation is lazy: the penalties of the batches in between are applied when a slot occurs again, before anything is
    computed from it. Until then predictions and saved states do not include them.
    """

    def __init__(self, slots: int, outputs: int, update: Update) -> None:
        self.update = update
        self.fields = (*update.fields, *(("last",) if update.applies_penalty else ()))
        self.array = zeros((slots, len(self.fields), outputs)[: 2 + (outputs > 1)], np.float32)
        self.used = 0

    def gather(self, sparse: Sparse, stats: StreamStats) -> Gathered:
        """Copies of the slots that occur in these entries, with all penalties up to this batch applied."""
        slots, positions = np.unique(sparse.indices, return_inverse=True)
        copies = self.array[slots]
        state = {name: copies[:, i] for i, name in enumerate(self.fields)}
        self.update.regularise_lazily(state, stats)
        return Gathered(slots, positions, _rows(sparse), sparse.values, copies, state)

    def move(self, gathered: Gathered, gradient: Floats, stats: StreamStats) -> None:
        """Take a step with the copies, and write them back."""
        if len(gathered.slots):
            self.update.move(gradient, gathered.state, stats)
            self.array[gathered.slots] = gathered.copies
            self.use(gathered.slots)

    def use(self, slots: NDArray[np.int32]) -> None:
        """Count these slots as used."""
        self.used = max(self.used, int(slots.max(initial=-1)) + 1)

    def margins(self, sparse: Sparse) -> Floats:
        """What the entries add to each row's margin by the weights that predict, shape (rows,) or (rows, outputs)."""
        return _summed(_rows(sparse), _times(self.predicting[sparse.indices], sparse.values), len(sparse))

    @property
    def predicting(self) -> Floats:
        """The weights that predict, shape (slots,) or (slots, outputs): a view."""
        return self.array[:, 1 if self.update.averages else 0]

    def state(self) -> Floats:
        """A copy of the used slots."""
        return self.array[: self.used].copy()

    def load(self, state: Floats) -> None:
        """Continue from a copy that ``state`` returned. Raises DataError for one of another shape, ValueError for numbers that
        learning cannot have made."""
        if state.shape[1:] != self.array.shape[1:] or len(state) > len(self.array):
            raise DataError(f"the state's sparse weights have shape {state.shape}; the model's have {self.array.shape}")
        squares = [name for name, like in self.update.optimizer.fields.items() if like == "square"]
        named = {f"sparse ({name})": state[:, i] for i, name in enumerate(self.fields)}
        require_sound(named, {f"sparse ({name})": 0.0 for name in (*squares, "steps", "last", "l1_total")})
        self.array[len(state) : self.used] = 0
        self.used = len(state)
        self.array[: self.used] = state


def _rows(sparse: Sparse) -> NDArray[np.int64]:
    """The row of each entry."""
    return np.repeat(np.arange(len(sparse)), np.diff(sparse.indptr))


def _times(terms: Floats, values: Floats | None) -> Floats:
    """terms * values for each entry, **in place**; terms has shape (entries,) or (entries, outputs)."""
    if values is not None:
        terms *= values if terms.ndim == 1 else values[:, None]
    return terms


def _summed(positions: NDArray[np.int64], terms: Floats, size: int) -> Floats:
    """The sum of the terms of each position, added one after the other in float64, shape (size,) or (size, outputs)."""
    if terms.ndim == 1:
        return np.bincount(positions, terms, size).astype(np.float32)
    sums = np.empty((size, terms.shape[1]), np.float32)
    for output, column in enumerate(terms.T):
        sums[:, output] = np.bincount(positions, column, size)
    return sums

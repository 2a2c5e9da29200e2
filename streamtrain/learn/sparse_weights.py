"""The weights of a sparse part: a table with one row a slot, of which a batch moves those that it touches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamtrain.batch import Sparse
from streamtrain.errors import DataError
from streamtrain.kernels import zeros
from streamtrain.learn.optimizers import StreamStats
from streamtrain.learn.update import Update

__all__ = ["Gathered", "SparseWeights"]

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Gathered:
    """The slots that a batch touches, and copies of what the table has of them.

    slots: ascending, each once, shape (slots,). places: of each entry, in slots; rows: of each entry; values: see `Sparse`.
    copies: shape (slots, fields) or (slots, fields, outputs). state: views of it, by field.
    """

    slots: NDArray[np.int32]
    places: NDArray[np.int64]
    rows: NDArray[np.int64]
    values: Floats | None
    copies: Floats
    state: dict[str, Floats]

    def margins(self, rows: int) -> Floats:
        """The entries' part of each row's margin, shape (rows,) or (rows, outputs)."""
        return _summed(self.rows, _times(self.state["weights"][self.places], self.values), rows)

    def gradient(self, slope: Floats) -> Floats:
        """The sum of slope * value for each slot, shape (slots,) or (slots, outputs)."""
        return _summed(self.places, _times(slope[self.rows], self.values), len(self.slots))

    def reach(self, rate: Floats, rows: int) -> Floats:
        """The sum of rate * value^2 for each row, shape (rows,). rate: of each slot, shape (slots,)."""
        terms = rate[self.places]
        return _summed(self.rows, terms if self.values is None else terms * self.values * self.values, rows)


class SparseWeights:
    """One row for each slot, shape (slots, fields) or (slots, fields, outputs), float32, in ``array``.

    The fields are those of a `Update`, and where it pays penalties ``last``, the batch of a slot's last step. All numbers are
    zero until a slot is touched, and memory of slots that never were is not taken. used: slots up to the highest that was
    touched.

    A slot moves when a batch touches it, and no other does. Penalties of the batches between are paid when it is touched
    next, before anything is computed from it; predictions and saved states are without what is still owed.
    """

    def __init__(self, slots: int, outputs: int, descent: Update) -> None:
        self.descent = descent
        self.fields = (*descent.fields, *(("last",) if descent.pays else ()))
        self.array = zeros((slots, len(self.fields), outputs)[: 2 + (outputs > 1)], np.float32)
        self.used = 0

    def touch(self, sparse: Sparse, clock: StreamStats) -> Gathered:
        """Copies of the slots that these entries touch, with penalties paid."""
        slots, places = np.unique(sparse.indices, return_inverse=True)
        copies = self.array[slots]
        state = {name: copies[:, i] for i, name in enumerate(self.fields)}
        self.descent.settle(state, clock)
        return Gathered(slots, places, _rows(sparse), sparse.values, copies, state)

    def move(self, touched: Gathered, gradient: Floats, clock: StreamStats) -> None:
        """Take a step with the copies and put them back."""
        if len(touched.slots):
            self.descent.move(gradient, touched.state, clock)
            self.array[touched.slots] = touched.copies
            self.use(touched.slots)

    def use(self, slots: NDArray[np.int32]) -> None:
        """Count these slots as touched."""
        self.used = max(self.used, int(slots.max(initial=-1)) + 1)

    def margins(self, sparse: Sparse) -> Floats:
        """What predicts: the entries' part of each row's margin, shape (rows,) or (rows, outputs)."""
        return _summed(_rows(sparse), _times(self.predicting[sparse.indices], sparse.values), len(sparse))

    @property
    def predicting(self) -> Floats:
        """The weights that predict, shape (slots,) or (slots, outputs): a view."""
        return self.array[:, 1 if self.descent.averages else 0]

    def state(self) -> Floats:
        """A copy of the slots used."""
        return self.array[: self.used].copy()

    def load(self, state: Floats) -> None:
        """Continue from what ``state`` gave. Raises DataError for what a table of another shape gave."""
        if state.shape[1:] != self.array.shape[1:] or len(state) > len(self.array):
            raise DataError(f"the state's table has shape {state.shape}; the model's has {self.array.shape}")
        self.array[len(state) : self.used] = 0
        self.used = len(state)
        self.array[: self.used] = state


def _rows(sparse: Sparse) -> NDArray[np.int64]:
    """The row of each entry."""
    return np.repeat(np.arange(len(sparse)), np.diff(sparse.indptr))


def _times(terms: Floats, values: Floats | None) -> Floats:
    """terms * values, of each entry; terms, a temporary array, may have outputs."""
    if values is not None:
        terms *= values if terms.ndim == 1 else values[:, None]
    return terms


def _summed(places: NDArray[np.int64], terms: Floats, size: int) -> Floats:
    """The sum of the terms of each place, one after the other in float64, shape (size,) or (size, outputs)."""
    if terms.ndim == 1:
        return np.bincount(places, terms, size).astype(np.float32)
    sums = np.empty((size, terms.shape[1]), np.float32)
    for output, part in enumerate(terms.T):
        sums[:, output] = np.bincount(places, part, size)
    return sums

"""The ages that were learned. A later model sees times after all of these: a line through the ages would go on for ever."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.state import Form, checked, forms_of, require_sound

__all__ = ["Ages"]


class Ages:
    """The least and the greatest of some columns of numbers, which hold those of later rows.

    columns: their positions among the numbers of a row. names: for messages. held: in how many rows each was beyond the
    edges, since it was made; shape (columns,).

    >>> ages = Ages([1], ["t.age"])
    >>> ages.observe(np.array([[0, 3], [0, np.nan], [0, 5]], np.float32))
    >>> X = np.array([[0, 9], [0, 4], [0, np.nan]], np.float32)
    >>> ages.hold(X)
    >>> X[:, 1].tolist(), ages.held.tolist()
    ([5.0, 4.0, nan], [1])
    """

    def __init__(self, columns: Sequence[int], names: Sequence[str]) -> None:
        self._columns, self._names = np.array(columns, np.int64), tuple(names)
        self._low = np.full(len(names), np.inf, np.float32)
        self._high = np.full(len(names), -np.inf, np.float32)
        self.held = np.zeros(len(names), np.int64)

    def observe(self, X: NDArray[np.float32]) -> None:
        """Widen the edges to the numbers of these rows, shape (rows, features). Missing ones are NaN."""
        if len(self._names) and len(X):
            some = X[:, self._columns]
            np.fmin(self._low, np.fmin.reduce(some), out=self._low)
            np.fmax(self._high, np.fmax.reduce(some), out=self._high)

    def hold(self, X: NDArray[np.float32]) -> None:
        """Replace what is beyond the edges by these, **in place**; nothing where no number was learned."""
        if not len(self._names):
            return
        some, known = X[:, self._columns], self._low <= self._high
        beyond = ((some < self._low) | (some > self._high)) & known
        if beyond.any():
            self.held += np.count_nonzero(beyond, axis=0)
            X[:, self._columns] = np.where(beyond, np.clip(some, self._low, self._high), some)

    def warnings(self, since: NDArray[np.int64]) -> list[str]:
        """Warnings for the user about the rows that were held. since: `held` of before."""
        return [
            f"{name!r} is beyond what was learned in {rows:,} rows and is held at the edge there: learn newer rows, or only "
            f"the times of day, week and year with --as {name.removesuffix('.age')}=clock"
            for name, rows in zip(self._names, (self.held - since).tolist(), strict=True)
            if rows
        ]

    def state_dict(self) -> dict[str, Any]:
        """Return the edges; copies. Nothing without columns."""
        return {"low": self._low.copy(), "high": self._high.copy()} if len(self._names) else {}

    @staticmethod
    def forms(count: int) -> dict[str, Form]:
        """Return the forms of the state of so many columns."""
        return forms_of(Ages(range(count), [""] * count).state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that ``state_dict`` returned. Raises ValueError, and changes nothing, for one that does not
        fit."""
        own = checked(state, self.state_dict())
        if not own:
            return
        none = (own["low"] == np.inf) & (own["high"] == -np.inf)  # before the first value
        require_sound({"low": own["low"][~none], "high": own["high"][~none]}, {})
        if (own["low"][~none] > own["high"][~none]).any():
            raise ValueError("the state's ages are impossible")
        self._low, self._high = own["low"], own["high"]

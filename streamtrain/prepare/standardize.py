"""Raw numeric columns -> columns of comparable scale, by statistics that run with the stream.

A linear model learns fastest when every column has about the same spread and no offset. Columns that hold only two
values are indicators: they become 0/1, because dividing a rare indicator by its small deviation would blow it up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.errors import BadValueError, UsageError
from streamtrain.kernels import affine, sums
from streamtrain.state import checked

__all__ = ["Standardize"]

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

_REFRESH = (
    32  # the map is renewed when 1 / 32 more rows were seen: log(rows) times, and at once when a column changes kind
)
_SETTLED_ROWS = 2048  # seen before the map is trusted with rows that it has not seen
_ARRAYS = ("mean", "m2", "block", "low", "high", "map", "counts", "absent", "seen")
_VARIANCES = (1e-24, 1e24)  # outside of these, float32 squares would lose digits: sum in float64


class Standardize:
    """A running affine map of columns: ``(X - shift) * scale``, where the statistics come from the rows seen so far.

    A column in which only one value was seen maps to 0; one with two values maps to 0 and 1; any other to mean 0 and
    standard deviation 1. A value that is missing stands at the mean: whoever has some replaces them by ``fill_for`` and
    tells which they were. Sums are taken about a running centre, so an offset of a million deviations costs no digits
    beyond those that float32 input has lost already; batches are merged in float64 by Chan, Golub & LeVeque,
    "Algorithms for computing the sample variance", 1983.

    >>> columns = Standardize(2)
    >>> X = np.array([[7, 100], [9, 200], [7, 300]], np.float32)
    >>> columns.observe(X)
    >>> columns.transform(X.copy()).astype(float).round(2).tolist()
    [[0.0, -1.22], [1.0, 0.0], [0.0, 1.22]]
    """

    def __init__(self, features: int) -> None:
        if features < 0:
            raise UsageError(f"features is {features}; wanted at least 0")
        self.features = features
        self._rows = 0  # rows in the merged statistics
        self._mean, self._m2 = np.zeros(features), np.zeros(features)
        self._block_rows = 0  # rows since the last refresh
        self._block = np.zeros((2, features))  # their sum and sum of squares about the centre
        self._low = np.full(features, np.inf, np.float32)
        self._high = np.full(features, -np.inf, np.float32)
        self._counts = np.zeros(features)  # values in the merged statistics, of each column
        self._absent = np.zeros(features)  # missing values since the last refresh
        self._seen = np.zeros(features, np.bool_)  # columns of which there was a value
        self._few = np.arange(features)  # columns in which at most two values were seen
        self._map = np.zeros((3, features), np.float32)  # centre, shift, scale
        self._wide = features > 0  # sum in float64

    @property
    def centre(self) -> Floats:
        """What a missing number is replaced by: the mean, shape (features,), float32."""
        centre: Floats = self._map[0]
        return centre

    @property
    def shift(self) -> Floats:
        """What is subtracted from each column, shape (features,), float32."""
        shift: Floats = self._map[1]
        return shift

    @property
    def scale(self) -> Floats:
        """What each column is multiplied by afterwards, shape (features,), float32."""
        scale: Floats = self._map[2]
        return scale

    def fill_for(self, X: Floats) -> Floats:
        """What NaN in X, shape (rows, features), is to be replaced by: the mean so far; shape (features,), float32."""
        new = np.flatnonzero(~self._seen)
        if new.size and len(X):
            there = ~np.isnan(X[:, new])
            found = there.any(axis=0)
            first = X[there.argmax(axis=0), new]
            self._map[0, new] = np.where(found & np.isfinite(first), first, 0)
        centre: Floats = self._map[0]
        return centre

    def has_new_columns(self, X: Floats) -> bool:
        """Whether X has a value of a column that had none so far."""
        new = np.flatnonzero(~self._seen)
        return bool(new.size) and not np.isnan(X[:, new]).all()

    def observe(self, X: Floats, missing: NDArray[np.bool_] | None = None) -> None:
        """Update the statistics from X, shape (rows, features), float32, C-contiguous. missing: of the same shape, which
        of the values stand for a missing one, and are what ``fill_for`` said.

        Raises BadValueError with ``row`` and ``column``, and changes nothing, if a value is not finite.
        """
        if X.ndim != 2 or X.shape[1] != self.features:
            raise UsageError(f"X has shape {X.shape}; wanted (rows, {self.features})")
        if not X.size:
            if len(X):
                self._take(0, len(X), changed=False, missing=None)
            return
        news = not self._seen.all()
        if news and missing is None:
            self._map[0] = np.where(self._seen, self._map[0], X[0])  # any value will do as the first centre
        found = self._sums(X, self._wide)
        if not self._wide and not finite(found):  # the squares may have overflowed float32
            found = self._sums(X, wide=True)
        if not finite(found):
            if news:
                self._map[0] = np.where(self._seen, self._map[0], 0)
            raise bad_value(X)
        if news:
            there = True if missing is None else ~missing.all(axis=0)
            news, self._seen = bool((there > self._seen).any()), self._seen | there
        changed = self._watch(X, missing) if self._few.size else False
        self._take(found, len(X), changed=changed or news, missing=missing)

    @property
    def maps(self) -> Floats | None:
        """Centre, shift and scale, shape (3, features), float32, once they hold for rows to come: when no column can
        turn out to be an indicator any more, and float32 sums will do. None before."""
        return None if self._few.size or self._wide or self._rows < _SETTLED_ROWS else self._map

    def update_from_sums(self, found: NDArray[Any], prepared: Floats, missing: NDArray[np.bool_] | None = None) -> None:
        """Update the statistics from rows that were prepared by `maps` already, shape (rows, features), given their
        sums about the centre, shape (2, features). Raises BadValueError as `observe` does."""
        if not finite(found):
            if not np.isfinite(prepared).all():
                raise bad_value(prepared)
            with np.errstate(divide="ignore", invalid="ignore"):  # the squares overflowed float32: rebuild them
                centred = np.where(self._map[2] > 0, prepared / self._map[2].astype(np.float64), 0)
            found = np.array([np.add.reduce(centred), np.add.reduce(centred * centred)])
        self._take(found, len(prepared), changed=False, missing=missing)

    @property
    def block(self) -> Doubles:
        """The sums since the map was last renewed, shape (2, features): for who adds to them and tells `added`."""
        return self._block

    @property
    def rows_to_renewal(self) -> int:
        """Rows that can still be added before the map is renewed."""
        return max(0, -(-self._rows // _REFRESH) - self._block_rows)

    def added(self, rows: int, missing: NDArray[np.bool_] | None = None) -> None:
        """Rows whose sums were added to `block`. missing: which of their values were missing."""
        self._take(0, rows, changed=False, missing=missing)

    def _take(self, found: NDArray[Any] | int, rows: int, *, changed: bool, missing: NDArray[np.bool_] | None) -> None:
        self._block += found
        self._block_rows += rows
        if missing is not None:
            self._absent += np.add.reduce(missing, axis=0)
        if changed or self._block_rows * _REFRESH >= self._rows:
            self._refresh()

    def transform(self, X: Floats) -> Floats:
        """Map X, shape (rows, features), float32, C-contiguous, **in place**, and return it."""
        affine(X, self._map[1], self._map[2])
        return X

    def _sums(self, X: Floats, wide: bool) -> Doubles:
        """Sum and sum of squares about the centre, shape (2, features); differences in float64 if ``wide``."""
        if not wide:
            return sums(X, self._map[0])
        with np.errstate(over="ignore", invalid="ignore"):  # the caller looks at what is not finite
            centred = X - self._map[0].astype(np.float64)
            return np.array([np.add.reduce(centred), np.add.reduce(centred * centred)])

    def _watch(self, X: Floats, missing: NDArray[np.bool_] | None) -> bool:
        """Follow the columns that may hold only two values; True if one got a new value."""
        few = self._few
        values, low, high = X[:, few], self._low[few], self._high[few]
        if missing is not None:  # what is missing is no value: any that is there stands for it, or none
            values = np.where(missing[:, few], low, values)
            first = np.where(missing[:, few], np.inf, values).min(axis=0)
            values = np.where(np.isinf(values), first, values)
            there = np.isfinite(first) | np.isfinite(low)
            few, values, low, high = few[there], values[:, there], low[there], high[there]
        if ((values == low) | (values == high)).all():
            return False
        self._low[few] = np.minimum(low, values.min(axis=0))
        self._high[few] = np.maximum(high, values.max(axis=0))
        # What was the low or the high value may now lie between them: that is a third value.
        values = np.concatenate([values, low[None], high[None]]) if np.isfinite(low).all() else values
        two = ((values == self._low[few]) | (values == self._high[few])).all(axis=0)
        self._few = np.setdiff1d(self._few, few[~two], assume_unique=True)
        return True

    def _refresh(self) -> None:
        """Merge the rows since the last refresh into the statistics and renew the map."""
        n = self._block_rows - self._absent
        counts, share = self._counts + n, 1 / np.maximum(self._counts + n, 1)
        means = self._block / np.maximum(n, 1)  # of the deviation from the centre, and of its square
        delta = np.where(n > 0, self._map[0] + means[0] - self._mean, 0)
        self._m2 += np.maximum(means[1] - means[0] ** 2, 0) * n + delta**2 * (self._counts * n * share)
        self._mean += delta * (n * share)
        self._rows, self._counts, self._block_rows = self._rows + self._block_rows, counts, 0
        self._block[:] = 0
        self._absent[:] = 0
        variance = self._m2 * share
        self._map[0] = self._map[1] = self._mean
        self._map[2] = inverse(np.sqrt(variance))
        few = self._few[self._seen[self._few]]
        self._map[1, few] = self._low[few]
        self._map[2, few] = inverse(self._high[few].astype(np.float64) - self._low[few])
        spread = variance[variance > 0]
        self._wide = bool(spread.size) and not (_VARIANCES[0] < spread.min() and spread.max() < _VARIANCES[1])

    @property
    def state_bytes(self) -> int:
        """Bytes of the state, and of what a refresh needs for a moment."""
        state = sum(value.nbytes for value in self.state_dict().values() if isinstance(value, np.ndarray))
        return state + 6 * 8 * self.features

    def state_dict(self) -> dict[str, NDArray[Any] | int | float]:
        """The state: copies of all arrays."""
        few = np.zeros(self.features, np.bool_)
        few[self._few] = True
        state: dict[str, NDArray[Any] | int | float] = {name: getattr(self, f"_{name}").copy() for name in _ARRAYS}
        return state | {"rows": self._rows, "block_rows": self._block_rows, "wide": int(self._wide), "few": few}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that ``state_dict`` returned. Raises ValueError, and changes nothing, for one of other
        columns."""
        found = checked(state, self.state_dict())
        for name in _ARRAYS:
            getattr(self, f"_{name}")[...] = found[name]
        self._rows, self._block_rows, self._wide = int(state["rows"]), int(state["block_rows"]), bool(state["wide"])
        self._few = np.flatnonzero(found["few"])


def finite(sums: NDArray[Any]) -> bool:
    """Whether all values were finite: squares cannot cancel, so one that is not shows in the total of their sums."""
    return math.isfinite(np.add.reduce(sums[1], dtype=np.float64))


def inverse(spread: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / spread, and 0 where the spread is 0: a column without one maps to 0, whatever comes later."""
    factor = np.zeros_like(spread)
    np.divide(1, spread, out=factor, where=spread > 0)
    return np.minimum(factor, np.finfo(np.float32).max)


def bad_value(X: Floats) -> BadValueError:
    """An error that names the first value that is not finite."""
    row, column = (int(place) for place in np.argwhere(~np.isfinite(X))[0])
    return BadValueError(
        f"the value at row {row}, column {column} is {X[row, column]}; wanted a finite number", row=row, column=column
    )

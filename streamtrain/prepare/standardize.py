"""Brings numeric columns to a comparable scale, by running statistics of the stream.

A linear model learns fastest if every column has about the same spread and no offset. Columns with only two values are
indicators: they become 0 and 1, because dividing a rare indicator by its small deviation would make it huge.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.errors import BadValueError, UsageError
from streamtrain.kernels import affine, sums
from streamtrain.state import Form, checked, forms_of, require_sound

__all__ = ["Standardize"]

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

# The map is renewed when the rows have grown by 1 / 32, so about log(rows) times, and whenever a column changes its kind.
_REFRESH = 32
_SETTLED_ROWS = 2048  # from this many rows on, the map prepares rows before it has counted them
_LEAST = dict.fromkeys(("rows", "block_rows", "wide", "m2", "counts", "absent"), 0.0)
_ARRAYS = ("mean", "m2", "block", "low", "high", "map", "counts", "absent", "seen")
_VARIANCES = (1e-24, 1e24)  # outside this range squares in float32 would lose digits, so sums are taken in float64


class Standardize:
    """A running affine map of columns, ``(X - shift) * scale``, from the statistics of the rows so far.

    A column with one value so far maps to 0, one with two values to 0 and 1, any other to mean 0 and standard deviation 1.
    A missing value counts as the mean: the caller replaces it by `fill_for` and passes which values were missing. Sums are
    taken about a running centre, so that an offset of a million deviations costs no digits beyond those that float32 input
    has lost; batches are merged in float64 (Chan, Golub & LeVeque, "Algorithms for computing the sample variance", 1983).

    >>> columns = Standardize(2)
    >>> X = np.array([[7, 100], [9, 200], [7, 300]], np.float32)
    >>> columns.observe(X)
    >>> columns.transform(X.copy()).astype(float).round(2).tolist()
    [[0.0, -1.22], [1.0, 0.0], [0.0, 1.22]]
    """

    def __init__(self, features: int) -> None:
        if features < 0:
            raise UsageError(f"features is {features}; must be at least 0")
        self.features = features
        self._rows = 0  # rows in the merged statistics
        self._mean, self._m2 = np.zeros(features), np.zeros(features)
        self._block_rows = 0  # rows since the last refresh
        self._block = np.zeros((2, features))  # their sum and sum of squares about the centre
        self._low = np.full(features, np.inf, np.float32)
        self._high = np.full(features, -np.inf, np.float32)
        self._counts = np.zeros(features)  # values in the merged statistics, of each column
        self._absent = np.zeros(features)  # missing values since the last refresh
        self._seen = np.zeros(features, np.bool_)  # columns that had a value so far
        self._few = np.arange(features)  # columns with at most two values so far
        self._map = np.zeros((3, features), np.float32)  # centre, shift, scale
        self._wide = features > 0  # sum in float64

    @property
    def centre(self) -> Floats:
        """The numbers that replace missing ones: the means, shape (features,), float32."""
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
        """Return the numbers that replace NaN in X, shape (rows, features): the mean so far, or the first value of a new
        column; shape (features,), float32."""
        new = np.flatnonzero(~self._seen)
        if new.size and len(X):
            there = ~np.isnan(X[:, new])
            any_there = there.any(axis=0)
            first = X[there.argmax(axis=0), new]
            self._map[0, new] = np.where(any_there & np.isfinite(first), first, 0)
        centre: Floats = self._map[0]
        return centre

    def has_new_columns(self, X: Floats) -> bool:
        """Return whether X has a value in a column that has had none so far."""
        new = np.flatnonzero(~self._seen)
        return bool(new.size) and not np.isnan(X[:, new]).all()

    def observe(self, X: Floats, missing: NDArray[np.bool_] | None = None) -> None:
        """Update the statistics.

        X: shape (rows, features), float32, C-contiguous. missing: same shape; which values were missing and are those of
        `fill_for`. Raises BadValueError, with ``row`` and ``column``, and changes nothing, if a value is not finite.
        """
        if X.ndim != 2 or X.shape[1] != self.features:
            raise UsageError(f"X has shape {X.shape}; expected (rows, {self.features})")
        if not X.size:
            if len(X):
                self._add(0, len(X), changed=False, missing=None)
            return
        has_new = not self._seen.all()
        if has_new and missing is None:
            self._map[0] = np.where(self._seen, self._map[0], X[0])  # any value will do as the first centre
        about_centre = self._sums(X, self._wide)
        if not self._wide and not finite(about_centre):  # the squares may have overflowed float32
            about_centre = self._sums(X, wide=True)
        if not finite(about_centre):
            if has_new:
                self._map[0] = np.where(self._seen, self._map[0], 0)
            raise bad_value(X)
        if has_new:
            there = True if missing is None else ~missing.all(axis=0)
            has_new, self._seen = bool((there > self._seen).any()), self._seen | there
        changed = self._watch(X, missing) if self._few.size else False
        self._add(about_centre, len(X), changed=changed or has_new, missing=missing)

    @property
    def maps(self) -> Floats | None:
        """Centre, shift and scale, shape (3, features), float32, once they can prepare later rows; None before.

        They can when no column may still turn out to be an indicator, and sums in float32 are exact enough.
        """
        return None if self._few.size or self._wide or self._rows < _SETTLED_ROWS else self._map

    def update_from_sums(
        self, about_centre: NDArray[Any], prepared: Floats, missing: NDArray[np.bool_] | None = None
    ) -> None:
        """Update the statistics from rows that `maps` has prepared already.

        about_centre: their sums and sums of squares about the centre, shape (2, features). prepared: the rows, shape
        (rows, features). Raises BadValueError as `observe` does.
        """
        if not finite(about_centre):
            if not np.isfinite(prepared).all():
                raise bad_value(prepared)
            with np.errstate(divide="ignore", invalid="ignore"):  # the squares overflowed float32: rebuild them
                centred = np.where(self._map[2] > 0, prepared / self._map[2].astype(np.float64), 0)
            about_centre = np.array([np.add.reduce(centred), np.add.reduce(centred * centred)])
        self._add(about_centre, len(prepared), changed=False, missing=missing)

    @property
    def block(self) -> Doubles:
        """The sums since the map was last renewed, shape (2, features). A kernel adds to them; then call `added`."""
        return self._block

    @property
    def rows_to_renewal(self) -> int:
        """How many more rows can be added before the map is renewed."""
        return max(0, -(-self._rows // _REFRESH) - self._block_rows)

    def added(self, rows: int, missing: NDArray[np.bool_] | None = None) -> None:
        """Count rows whose sums were added to `block`. missing: which of their values were missing."""
        self._add(0, rows, changed=False, missing=missing)

    def _add(
        self, about_centre: NDArray[Any] | int, rows: int, *, changed: bool, missing: NDArray[np.bool_] | None
    ) -> None:
        """Add sums of rows. Renew the map if that is due, or if a column has changed its kind."""
        self._block += about_centre
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
        """Return sums and sums of squares about the centre, shape (2, features); differences in float64 if ``wide``."""
        if not wide:
            return sums(X, self._map[0])
        with np.errstate(over="ignore", invalid="ignore"):  # the caller checks for numbers that are not finite
            centred = X - self._map[0].astype(np.float64)
            return np.array([np.add.reduce(centred), np.add.reduce(centred * centred)])

    def _watch(self, X: Floats, missing: NDArray[np.bool_] | None) -> bool:
        """Follow the columns with at most two values; return whether one of them got a new value."""
        few = self._few
        values, low, high = X[:, few], self._low[few], self._high[few]
        if missing is not None:  # a missing value counts as one of the column's values, or not at all
            values = np.where(missing[:, few], low, values)
            first = np.where(missing[:, few], np.inf, values).min(axis=0)
            values = np.where(np.isinf(values), first, values)
            there = np.isfinite(first) | np.isfinite(low)
            few, values, low, high = few[there], values[:, there], low[there], high[there]
        if ((values == low) | (values == high)).all():
            return False
        self._low[few] = np.minimum(low, values.min(axis=0))
        self._high[few] = np.maximum(high, values.max(axis=0))
        # A value that was the low or the high one may now lie between them: then there are three.
        values = np.concatenate([values, low[None], high[None]]) if np.isfinite(low).all() else values
        two = ((values == self._low[few]) | (values == self._high[few])).all(axis=0)
        self._few = np.setdiff1d(self._few, few[~two], assume_unique=True)
        return True

    def _refresh(self) -> None:
        """Merge the rows since the last refresh into the statistics, and renew the map."""
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
        """Bytes of the state, and of the temporary arrays of a refresh."""
        state = sum(value.nbytes for value in self.state_dict().values() if isinstance(value, np.ndarray))
        return state + 6 * 8 * self.features

    def state_dict(self) -> dict[str, NDArray[Any] | int | float]:
        """Return the state; copies."""
        few = np.zeros(self.features, np.bool_)
        few[self._few] = True
        state: dict[str, NDArray[Any] | int | float] = {name: getattr(self, f"_{name}").copy() for name in _ARRAYS}
        return state | {"rows": self._rows, "block_rows": self._block_rows, "wide": int(self._wide), "few": few}

    @staticmethod
    def forms(features: int) -> dict[str, Form]:
        """Return the forms of the state for so many columns, without making it."""
        return {
            name: form._replace(shape=tuple(features if n == 1 else n for n in form.shape))
            for name, form in forms_of(Standardize(1).state_dict()).items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that ``state_dict`` returned. Raises ValueError, and changes nothing, for a state of other
        columns, and for numbers that no columns have."""
        own = checked(state, self.state_dict())
        _require_possible(own)
        for name in _ARRAYS:
            getattr(self, f"_{name}")[...] = own[name]
        self._rows, self._block_rows, self._wide = int(own["rows"]), int(own["block_rows"]), bool(own["wide"])
        self._few = np.flatnonzero(own["few"])


def _require_possible(state: Mapping[str, NDArray[Any]]) -> None:
    """Raise ValueError for statistics that no rows have."""
    low, high = state["low"], state["high"]
    none = (low == np.inf) & (high == -np.inf)  # before the first value
    require_sound({**state, "low": low[~none], "high": high[~none], "scale": state["map"][2]}, _LEAST | {"scale": 0.0})
    require_sound({"squares": state["block"][1]}, {"squares": 0.0})
    if (low[~none] > high[~none]).any() or state["wide"] > 1:
        raise ValueError("the state's low or wide is impossible")
    if (state["counts"] > state["rows"]).any() or (state["absent"] > state["block_rows"]).any():
        raise ValueError("the state counts more values than rows")


def finite(sums: NDArray[Any]) -> bool:
    """Return whether all values were finite. Squares cannot cancel, so a value that is not finite shows in their sum."""
    return math.isfinite(np.add.reduce(sums[1], dtype=np.float64))


def inverse(spread: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 / spread, and 0 where the spread is 0: a column without a spread maps to 0."""
    factor = np.zeros_like(spread)
    np.divide(1, spread, out=factor, where=spread > 0)
    return np.minimum(factor, np.finfo(np.float32).max)


def bad_value(X: Floats) -> BadValueError:
    """Return an error that names the first value that is not finite."""
    row, column = (int(position) for position in np.argwhere(~np.isfinite(X))[0])
    return BadValueError(
        f"the value at row {row}, column {column} is {X[row, column]}; expected a finite number", row=row, column=column
    )

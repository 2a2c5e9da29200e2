"""From what a window holds to what a learner takes: dense numbers and a sparse part, by what the stream has shown so far.

One batch, walked through: numbers that are missing are put at the running mean and leave an entry behind, "was missing"
(`numbers`); the entries of a row are the signatures of what was missing, of its categories, of their crosses and of the
n-grams of its texts; a bounded dictionary gives each signature a column of the sparse part (`slots`); the numbers are
centred and scaled by running statistics (`numbers`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.batch import Batch, Sparse
from streamtrain.columns.categories import NULL, seed_of
from streamtrain.errors import BadValueError, UsageError
from streamtrain.kernels import sums
from streamtrain.kernels.hashing import entries
from streamtrain.plan.term import Term
from streamtrain.prepare.ngrams import Part, beside, text_part
from streamtrain.prepare.standardize import Standardize
from streamtrain.prepare.vocabulary import Vocabulary
from streamtrain.state import checked, part

__all__ = ["INFINITIES", "Preparation", "Shape", "default_hash_bits"]

INFINITIES = ("error", "clip", "missing")
_CLIP = 10.0  # running standard deviations from the mean
_MOST_BITS, _FEWEST_BITS = 18, 6
_TABLE_BYTES, _SLOT_BYTES = 32 << 20, 16  # of a learner with one output: weight, average, optimizer, steps
_MOST_MISSING_BITS = 10  # where slots are for missing numbers alone
_MANY_SHARED = 0.05  # of all entries
_CHECKED_WIDTH = 1024  # wider rows are looked through before they are learned: kernels prepare them in place

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Shape:
    """What a row of a window holds. numbers: their names. hashes: names of columns; the first ``categories`` of them are
    learned from. crosses: for each, which of the hashes. texts: names.

    >>> Shape(("x",), ("city", "day"), 2, ((0, 1),)).sparse
    True
    """

    numbers: tuple[str, ...] = ()
    hashes: tuple[str, ...] = ()
    categories: int = 0
    crosses: tuple[tuple[int, ...], ...] = ()
    texts: tuple[str, ...] = ()

    @property
    def sparse(self) -> bool:
        """Whether there is a sparse part even where nothing is missing."""
        return bool(self.categories or self.crosses or self.texts)


def default_hash_bits(shape: Shape, outputs: int = 1) -> int:
    """The most bits, up to 18, with which the slots of a learner of so many outputs take at most 32 MiB, and at least 6;
    where slots are for missing numbers alone as many as these need, and at most 10.

    >>> default_hash_bits(Shape(hashes=("city",), categories=1)), default_hash_bits(Shape(hashes=("c",), categories=1), 23)
    (18, 16)
    >>> default_hash_bits(Shape(("x", "y")))
    4
    """
    if not shape.sparse:
        return max(4, min(_MOST_MISSING_BITS, math.ceil(math.log2(max(1, len(shape.numbers)) * 4 / 3)) + 1))
    most = _TABLE_BYTES // (_SLOT_BYTES * outputs)
    return max(_FEWEST_BITS, min(_MOST_BITS, most.bit_length() - 1))


class Preparation:
    """Columns -> numbers. Its state is learned in the stream, bounded, and part of the model.

    shape: of a row. hash_bits: 2^hash_bits slots for the values of categories, crosses and n-grams. infinities: what to do
    with a number that is infinite, or too large for float32: ``"error"``; ``"clip"``, to 10 running standard deviations from
    the mean, or missing while the column has none; ``"missing"``.

    >>> preparation = Preparation(Shape(("x",), ("city",), 1))
    >>> X, codes = np.array([[1], [np.nan], [3]], np.float32), np.array([[7], [8], [7]], np.uint32)
    >>> batch = preparation.learn(Batch(X, np.zeros(3), None, np.arange(3), hashes=codes))
    >>> batch.features.ravel().tolist(), batch.sparse.indptr.tolist(), batch.sparse.indices.tolist()
    ([0.0, 0.5, 1.0], [0, 1, 3, 4], [1, 2, 3, 1])
    """

    def __init__(self, shape: Shape, hash_bits: int | None = None, infinities: str = "error") -> None:
        if infinities not in INFINITIES:
            raise UsageError(f"--infinities {infinities}: there are {', '.join(INFINITIES)}")
        self.shape, self.infinities = shape, infinities
        self.numbers = Standardize(len(shape.numbers))
        self.slots = Vocabulary(default_hash_bits(shape) if hash_bits is None else hash_bits)
        names = [*shape.numbers, *shape.texts]
        first = {name: i for i, name in reversed([*enumerate(names)])}  # a column may be named like a part of another
        seeds = (seed_of(name, NULL, *([] if first[name] == i else [str(i)])) for i, name in enumerate(names))
        self._missing = np.array([seed or 1 for seed in seeds], np.uint32)
        self._seeds = np.array([seed_of(*(shape.hashes[i] for i in cross)) for cross in shape.crosses], np.uint32)
        # Whether rows are looked through before they are learned. Kernels stop at a batch in which something is not finite;
        # where they prepare rows in place, or where slots have been given out for the rows behind it, that is too late.
        self._looks = shape.sparse or len(shape.numbers) > _CHECKED_WIDTH

    # -- one batch -----------------------------------------------------------------------------------------------------

    def learn(self, batch: Batch) -> Batch:
        """Take a batch into the statistics and prepare it, its features **in place**. Raises BadValueError for infinities,
        where these are errors, with their ``row`` and ``column``."""
        self.look(batch.features)
        trusted = self.is_settled(batch.features)
        found, missing = self.complete(batch, learn=True)
        if trusted:  # as compiled kernels do it: prepared as the rows before say, then counted
            about = sums(found.features, self.numbers.centre)
            self.numbers.transform(found.features)
            self.numbers.update_from_sums(about, found.features, missing)
            return found
        self.numbers.observe(found.features, missing)
        if missing is not None:  # the mean has moved
            np.copyto(found.features, self.numbers.centre, where=missing)
        self.numbers.transform(found.features)
        return found

    def apply(self, batch: Batch) -> Batch:
        """Prepare a batch, its features **in place**, by what was learned so far; nothing changes."""
        found, _ = self.complete(batch, learn=False)
        self.numbers.transform(found.features)
        return found

    def complete(self, batch: Batch, *, learn: bool) -> tuple[Batch, Mask | None]:
        """The batch with its sparse part, and numbers in place of those that are missing, **in place**; and which these
        were, None where there are none. What is left is `Standardize.transform`."""
        features = batch.features
        missing = self._find_missing(features) if not learn or self._looks else None
        if missing is None and not self.shape.sparse:
            return batch, None
        fill = None
        if missing is not None:
            fill = self.numbers.fill_for(features) if learn else self.numbers.centre
        sparse = self._sparse(batch, fill, 0 if missing is None else int(np.count_nonzero(missing)), learn)
        return replace(batch, sparse=sparse, hashes=None, texts=None), missing

    def is_settled(self, features: NDArray[np.float32]) -> bool:
        """Whether rows are prepared by what was known before them: once that has settled, and if nothing is new in them."""
        return self.numbers.maps is not None and not self.numbers.has_new_columns(features)

    def look(self, features: NDArray[np.float32]) -> bool:
        """Whether there is a number that is not finite. From the first one on all rows are looked through."""
        self._looks = self._looks or not np.isfinite(features).all()
        return self._looks

    @property
    def looks(self) -> bool:
        """Whether rows are looked through before they are learned: some number was missing before."""
        return self._looks

    def _find_missing(self, features: NDArray[np.float32]) -> Mask | None:
        """Which numbers are missing; those that are infinite are dealt with."""
        odd = ~np.isfinite(features)
        if not odd.any():
            return None
        infinite = odd & ~np.isnan(features)
        if infinite.any():
            if self.infinities == "error":
                row, column = (int(i) for i in np.argwhere(infinite)[0])
                raise BadValueError(f"a feature is {features[row, column]}", row=row, column=column)
            if self.infinities == "clip":
                known = infinite & (self.numbers.scale > 0)
                self._clip(features, known)
                odd ^= known
                infinite ^= known
            features[infinite] = np.nan
        return odd if odd.any() else None

    def _clip(self, features: NDArray[np.float32], infinite: Mask) -> None:
        """Put infinities where numbers end: as far from the mean as 10 deviations, in the column's own unit."""
        column = np.nonzero(infinite)[1]
        ends = _CLIP / self.numbers.scale[column]
        features[infinite] = self.numbers.centre[column] + np.sign(features[infinite]) * ends

    def _sparse(self, batch: Batch, fill: NDArray[np.float32] | None, absent: int, learn: bool) -> Sparse:
        shape, rows = self.shape, len(batch)
        texts = self._texts(batch)
        sizes = None if texts is None else np.diff(texts.indptr)
        others = 0 if texts is None else int(texts.indptr[-1])
        total = absent + others + rows * (shape.categories + len(shape.crosses))
        indptr, signatures = entries(
            batch.features,
            fill,
            self._missing,
            batch.hashes,
            shape.categories,
            shape.crosses,
            self._seeds,
            sizes,
            total,
        )
        values = None
        if texts is not None and sizes is not None:
            values = np.ones(len(signatures), np.float32)
            places = np.repeat(indptr[1:] - sizes - texts.indptr[:-1], sizes) + np.arange(others)
            signatures[places], values[places] = texts.signatures, texts.values
        slots = self.slots.observe(signatures) if learn else self.slots.transform(signatures)
        return Sparse(indptr, slots, values, self.slots.width)

    def _texts(self, batch: Batch) -> Part | None:
        if batch.texts is None or not self.shape.texts:
            return None
        first = len(self.shape.numbers)
        parts = [
            text_part(batch.texts, i, seed_of(name), int(self._missing[first + i]))
            for i, name in enumerate(self.shape.texts)
        ]
        return parts[0] if len(parts) == 1 else beside(parts)

    # -- what it did ---------------------------------------------------------------------------------------------------

    def as_dict(self) -> dict[str, Any]:
        """For a report: numbers a row; slots, those taken by a value of their own, and the share of the entries that were
        learned from whose value shares one with others."""
        slots = self.slots
        return {
            "numbers": len(self.shape.numbers),
            "categories": self.shape.categories,
            "crosses": len(self.shape.crosses),
            "texts": len(self.shape.texts),
            "hash_bits": slots.bits,
            "slots": slots.width - 1,
            "slots_used": slots.used,
            "shared_entries": round(slots.shared, 6),
        }

    def warnings(self) -> list[str]:
        """What a user should know of it."""
        if self.slots.shared <= _MANY_SHARED:
            return []
        return [
            f"{self.slots.shared:.1%} of the values of categories and text share slots with others: {self.slots.used:,} values "
            f"have one of their own; --hash-bits {self.slots.bits + 2} gives room to four times as many"
        ]

    # -- state ---------------------------------------------------------------------------------------------------------

    @property
    def state_bytes(self) -> int:
        """Bytes of the statistics and of the dictionary, full."""
        return self.numbers.state_bytes + self.slots.state_bytes

    @property
    def terms(self) -> tuple[Term, ...]:
        """What the memory plan counts."""
        return (Term("preparation", self.state_bytes, "preparation"),)

    def state_dict(self) -> dict[str, Any]:
        """Everything that learning changes; copies."""
        state = {f"numbers.{name}": value for name, value in self.numbers.state_dict().items()}
        state |= {f"slots.{name}": value for name, value in self.slots.state_dict().items()}
        return state | {"looks": int(self._looks)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that ``state_dict`` returned. Raises ValueError, and changes nothing, for one of another
        shape."""
        looks = checked(state, {"looks": 0})["looks"]
        numbers, slots = Standardize(self.numbers.features), Vocabulary(self.slots.bits)
        numbers.load_state_dict(part(state, "numbers."))
        slots.load_state_dict(part(state, "slots."))
        self.numbers, self.slots, self._looks = numbers, slots, bool(looks)

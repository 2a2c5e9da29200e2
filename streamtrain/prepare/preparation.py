"""Turns the rows of a window into what a learner takes, dense numbers and a sparse part, by statistics of the rows so far.

One batch, step by step: missing numbers are replaced by the running mean, and each adds an entry "was missing". The entries
of a row are hashes: of its missing numbers, its categories, their crosses, and the n-grams of its texts. A bounded vocabulary
gives each hash a slot, which is a column of the sparse part (`vocabulary`). Running statistics centre and scale the numbers
(`numbers`), and scale the values of bags (`scales`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.batch import Batch, Sparse, Texts
from streamtrain.columns.categories import NULL, seed_of
from streamtrain.errors import BadValueError
from streamtrain.kernels import sums
from streamtrain.kernels.hashing import entries
from streamtrain.options import check
from streamtrain.plan.term import Term
from streamtrain.prepare.ages import Ages
from streamtrain.prepare.bags import bag_part, mark_missing, require_finite
from streamtrain.prepare.ngrams import Part, beside, chosen, text_part
from streamtrain.prepare.scales import Scales
from streamtrain.prepare.settings import FeatureSettings
from streamtrain.prepare.shape import Shape, default_hash_bits
from streamtrain.prepare.standardize import Standardize
from streamtrain.prepare.vocabulary import Vocabulary
from streamtrain.state import Form, checked, forms_of, part, prefixed

__all__ = ["Preparation"]

_CLIP = 10.0  # running standard deviations from the mean
_MANY_SHARED = 0.05  # of all entries: a larger share gives a warning
_CHECKED_WIDTH = 1024  # kernels prepare wider rows in place, so these are checked before they are learned

Mask = NDArray[np.bool_]


class Preparation:
    """Turns columns into numbers. Its state is learned from the stream, has a bounded size, and is part of the model.

    Parameters
    ----------
    shape
        What a row holds.
    settings
        ``hash_bits``: there are 2^hash_bits slots for the values of categories, crosses and n-grams; None: see
        `default_hash_bits`. ``infinities``: what to do with a number that is infinite, or too large for float32.
        ``"error"``: raise. ``"clip"``: replace it by the mean plus or minus 10 running standard deviations, or treat it as
        missing while the deviation is 0. ``"missing"``: treat it as missing. Entries of sparse rows have no
        deviation, so that clipped ones are missing.

    Raises
    ------
    UsageError
        For an invalid setting.

    Example
    -------
    >>> preparation = Preparation(Shape(("x",), ("city",), 1))
    >>> X, hashes = np.array([[1], [np.nan], [3]], np.float32), np.array([[7], [8], [7]], np.uint32)
    >>> batch = preparation.learn(Batch(X, np.zeros(3), None, np.arange(3), hashes=hashes))
    >>> batch.features.ravel().tolist(), batch.sparse.indptr.tolist(), batch.sparse.indices.tolist()
    ([0.0, 0.5, 1.0], [0, 1, 3, 4], [1, 2, 3, 1])
    """

    def __init__(self, shape: Shape, settings: FeatureSettings | None = None) -> None:
        self.shape, self.settings = shape, FeatureSettings() if settings is None else settings
        check(self.settings)
        hash_bits = self.settings.hash_bits
        self.numbers = Standardize(len(shape.numbers))
        self.ages = Ages(shape.ages, [shape.numbers[i] for i in shape.ages])
        self.vocabulary = Vocabulary(default_hash_bits(shape) if hash_bits is None else hash_bits)
        self.scales = Scales(self.vocabulary.width) if shape.scaled else None
        names = [*shape.numbers, *shape.texts]
        first = {name: i for i, name in reversed([*enumerate(names)])}  # a column may have the name of another's part
        seeds = (seed_of(name, NULL, *([] if first[name] == i else [str(i)])) for i, name in enumerate(names))
        self._missing = np.array([seed or 1 for seed in seeds], np.uint32)
        self._seeds = np.array([seed_of(*(shape.hashes[i] for i in cross)) for cross in shape.crosses], np.uint32)
        # Kernels stop at a batch with a number that is not finite. That is too late if they have prepared rows in place, or
        # if later rows have got slots already: in these cases rows are checked before they are learned.
        self._checks_finite = shape.sparse or len(shape.numbers) > _CHECKED_WIDTH

    # -- one batch -----------------------------------------------------------------------------------------------------

    def learn(self, batch: Batch) -> Batch:
        """Add a batch to the statistics and prepare it, its features **in place**.

        Raises BadValueError, with ``row`` and ``column``, for infinities that are errors.
        """
        self.check_finite(batch.features)
        is_settled = self.is_settled(batch.features)
        filled, missing = self.fill_missing(batch, learn=True)
        if is_settled:  # as compiled kernels do it: prepare by earlier rows, then count
            about_centre = sums(filled.features, self.numbers.centre)
            self.numbers.transform(filled.features)
            self.numbers.update_from_sums(about_centre, filled.features, missing)
            return filled
        self.numbers.observe(filled.features, missing)
        if missing is not None:  # the mean has moved
            np.copyto(filled.features, self.numbers.centre, where=missing)
        self.numbers.transform(filled.features)
        return filled

    def apply(self, batch: Batch) -> Batch:
        """Prepare a batch, its features **in place**, by the statistics so far; do not change these."""
        filled, _ = self.fill_missing(batch, learn=False)
        self.numbers.transform(filled.features)
        return filled

    def fill_missing(self, batch: Batch, *, learn: bool) -> tuple[Batch, Mask | None]:
        """Fill in missing numbers, **in place**, and add the sparse part. The caller then calls `Standardize.transform`.

        Returns the batch, and which numbers were missing, shape (rows, features); None if there were none.
        """
        features = batch.features
        if learn:
            self.ages.observe(features)
        else:
            self.ages.hold(features)
        missing = self._find_missing(features) if not learn or self._checks_finite else None
        if missing is None and not self.shape.sparse:
            return batch, None
        fill = None
        if missing is not None:
            fill = self.numbers.fill_for(features) if learn else self.numbers.centre
        sparse = self._sparse(batch, fill, 0 if missing is None else int(np.count_nonzero(missing)), learn)
        return replace(batch, sparse=sparse, hashes=None, texts=None), missing

    def is_settled(self, features: NDArray[np.float32]) -> bool:
        """Return whether the statistics of earlier rows can prepare these rows: they have settled, and no column is new."""
        return self.numbers.maps is not None and not self.numbers.has_new_columns(features)

    def check_finite(self, features: NDArray[np.float32]) -> bool:
        """Check whether all numbers are finite. Once one is not, every later batch is checked. Returns whether that is so."""
        self._checks_finite = self._checks_finite or not np.isfinite(features).all()
        return self._checks_finite

    @property
    def checks_finite(self) -> bool:
        """Whether rows are checked for missing numbers before they are learned."""
        return self._checks_finite

    def _find_missing(self, features: NDArray[np.float32]) -> Mask | None:
        """Return which numbers are missing; None if there are none. Infinite numbers are replaced first."""
        missing = ~np.isfinite(features)
        if not missing.any():
            return None
        infinite = missing & ~np.isnan(features)
        if infinite.any():
            if self.settings.infinities == "error":
                row, column = (int(i) for i in np.argwhere(infinite)[0])
                raise BadValueError(f"a feature is {features[row, column]}", row=row, column=column)
            if self.settings.infinities == "clip":
                clipped = infinite & (self.numbers.scale > 0)
                self._clip(features, clipped)
                missing ^= clipped
                infinite ^= clipped
            features[infinite] = np.nan
        return missing if missing.any() else None

    def _clip(self, features: NDArray[np.float32], infinite: Mask) -> None:
        """Replace infinities by the mean plus or minus 10 standard deviations, in the column's own unit."""
        column = np.nonzero(infinite)[1]
        ends = _CLIP / self.numbers.scale[column]
        features[infinite] = self.numbers.centre[column] + np.sign(features[infinite]) * ends

    def _sparse(self, batch: Batch, fill: NDArray[np.float32] | None, absent: int, learn: bool) -> Sparse:
        shape, rows = self.shape, len(batch)
        texts, flags = self._texts(batch)
        sizes = None if texts is None else np.diff(texts.indptr)
        others = 0 if texts is None else int(texts.indptr[-1])
        if texts is not None and not absent and not shape.categories and not shape.crosses:
            slots = self._slots(texts.hashes, texts.values, flags, learn)
            return Sparse(texts.indptr, slots, texts.values, self.vocabulary.width)
        total = absent + others + rows * (shape.categories + len(shape.crosses))
        indptr, hashes = entries(
            batch.features, fill, self._missing, batch.hashes, shape.categories, shape.crosses, self._seeds, sizes, total
        )  # fmt: skip
        values, scaled = None, None
        if texts is not None and sizes is not None:
            values = np.ones(len(hashes), np.float32)
            positions = np.repeat(indptr[1:] - sizes - texts.indptr[:-1], sizes) + np.arange(others)
            hashes[positions], values[positions] = texts.hashes, texts.values
            if self.scales is not None:
                scaled = np.zeros(len(hashes), np.bool_)
                scaled[positions] = True if flags is None else flags
        return Sparse(indptr, self._slots(hashes, values, scaled, learn), values, self.vocabulary.width)

    def _slots(
        self, hashes: NDArray[np.uint32], values: NDArray[np.float32] | None, scaled: Mask | None, learn: bool
    ) -> NDArray[np.int32]:
        """The slots of entries, whose values are scaled **in place**. scaled: which of them; None for all."""
        slots = self.vocabulary.observe(hashes) if learn else self.vocabulary.transform(hashes)
        if self.scales is not None and values is not None:
            self.scales.apply(slots, values, scaled, learn=learn)
        return slots

    def _texts(self, batch: Batch) -> tuple[Part | None, Mask | None]:
        """The entries of texts and bags, and which of them are scaled; None for all, or if there are no scales."""
        if batch.texts is None or not self.shape.texts:
            return None, None
        first = len(self.shape.numbers)
        parts = [
            self._bag(batch.texts, i, int(self._missing[first + i]))
            if name in self.shape.bags
            else text_part(batch.texts, i, seed_of(name), int(self._missing[first + i]))
            for i, name in enumerate(self.shape.texts)
        ]
        joined = parts[0] if len(parts) == 1 else beside(parts)
        if self.scales is None or self.shape.scaled == self.shape.texts:
            return joined, None
        return joined, chosen(parts, [name in self.shape.scaled for name in self.shape.texts])

    def _bag(self, texts: Texts, column: int, missing: int) -> Part:
        part = bag_part(texts, column)
        if self.settings.infinities == "error":
            require_finite(part, self.shape.texts[column])
        mark_missing(part, missing)
        return part

    # -- for the report ------------------------------------------------------------------------------------------------

    def as_dict(self) -> dict[str, Any]:
        """Return the facts for the report: columns of each kind, slots, slots with a value of their own, and the share of
        the learned entries whose value shares a slot."""
        vocabulary = self.vocabulary
        return {
            "numbers": len(self.shape.numbers),
            "categories": self.shape.categories,
            "crosses": len(self.shape.crosses),
            "texts": len(self.shape.texts),
            "hash_bits": vocabulary.bits,
            "slots": vocabulary.width - 1,
            "slots_used": vocabulary.used,
            "shared_entries": round(vocabulary.shared, 6),
        }

    def warnings(self) -> list[str]:
        """Return warnings for the user."""
        vocabulary = self.vocabulary
        if vocabulary.shared <= _MANY_SHARED:
            return []
        return [
            f"{vocabulary.shared:.1%} of the values of categories and text share slots with others: {vocabulary.used:,} values "
            f"have one of their own; --hash-bits {vocabulary.bits + 2} has room for four times as many"
        ]

    # -- state ---------------------------------------------------------------------------------------------------------

    @property
    def state_bytes(self) -> int:
        """Bytes of the statistics, and of the vocabulary when it is full."""
        scales = 0 if self.scales is None else self.scales.state_bytes
        return self.numbers.state_bytes + self.vocabulary.state_bytes + scales

    @property
    def terms(self) -> tuple[Term, ...]:
        """The memory plan's terms for the statistics and the vocabulary."""
        return (Term("preparation", self.state_bytes, "preparation"),)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that learning changes; copies."""
        state = prefixed("numbers.", self.numbers.state_dict()) | prefixed("vocabulary.", self.vocabulary.state_dict())
        scales = {} if self.scales is None else prefixed("scales.", self.scales.state_dict())
        return state | scales | prefixed("ages.", self.ages.state_dict()) | {"checks_finite": int(self._checks_finite)}

    @staticmethod
    def forms(shape: Shape, hash_bits: int) -> dict[str, Form]:
        """Return the forms of the state for rows of a shape and so many bits, without making it."""
        forms = prefixed("numbers.", Standardize.forms(len(shape.numbers))) | forms_of({"checks_finite": 0})
        forms |= prefixed("ages.", Ages.forms(len(shape.ages)))
        scales = Scales.forms((1 << hash_bits) + 1) if shape.scaled else {}
        return forms | prefixed("scales.", scales) | prefixed("vocabulary.", Vocabulary.forms(hash_bits))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that ``state_dict`` returned. Raises ValueError, and changes nothing, for one of another
        shape."""
        checks_finite = checked(state, {"checks_finite": 0})["checks_finite"]
        if checks_finite not in (0, 1):
            raise ValueError(f"the state's checks_finite has {checks_finite}: it must be 0 or 1")
        numbers = Standardize(self.numbers.features)
        numbers.load_state_dict(part(state, "numbers."))
        ages = Ages(self.shape.ages, [self.shape.numbers[i] for i in self.shape.ages])
        ages.load_state_dict(part(state, "ages."))
        scales = None if self.scales is None else Scales(self.vocabulary.width)
        if scales is not None:
            scales.load_state_dict(part(state, "scales."))
        self.vocabulary.load_state_dict(part(state, "vocabulary."))  # which changes nothing if it raises
        self.scales = scales
        self.numbers, self.ages, self._checks_finite = numbers, ages, bool(checks_finite)

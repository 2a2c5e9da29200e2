"""What a row of a window holds, for the preparation; and how many slots it needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Shape", "default_hash_bits"]

_MOST_BITS, _FEWEST_BITS = 18, 6
_TABLE_BYTES, _SLOT_BYTES = 32 << 20, 16  # of a learner with one output: weight, average, optimizer, steps
_MOST_MISSING_BITS = 10  # if only missing numbers need slots


@dataclass(frozen=True)
class Shape:
    """What a row of a window holds.

    numbers, texts: names of columns. hashes: names of columns that are hashed, of which the first ``categories`` are learned
    from. crosses: the positions of the hashes that each cross combines. bags: which of the texts are bags, by name. scaled:
    which of the bags have entries with values. ages: the positions of the numbers that are ages.

    >>> Shape(("x",), ("city", "day"), 2, ((0, 1),)).sparse
    True
    """

    numbers: Sequence[str] = ()
    hashes: tuple[str, ...] = ()
    categories: int = 0
    crosses: tuple[tuple[int, ...], ...] = ()
    texts: tuple[str, ...] = ()
    bags: tuple[str, ...] = ()
    ages: tuple[int, ...] = ()
    scaled: tuple[str, ...] = ()

    @property
    def sparse(self) -> bool:
        """Whether there is a sparse part even if no number is missing."""
        return bool(self.categories or self.crosses or self.texts)


def default_hash_bits(shape: Shape, outputs: int = 1) -> int:
    """Return the bits of the default number of slots, 2^bits.

    It is the largest number from 6 to 18 for which the slots of a learner with so many outputs take at most 32 MiB. If only
    missing numbers need slots, it is the number of bits that these need, at most 10.

    >>> default_hash_bits(Shape(hashes=("city",), categories=1)), default_hash_bits(Shape(hashes=("c",), categories=1), 23)
    (18, 16)
    >>> default_hash_bits(Shape(("x", "y")))
    4
    """
    if not shape.sparse:
        return max(4, min(_MOST_MISSING_BITS, math.ceil(math.log2(max(1, len(shape.numbers)) * 4 / 3)) + 1))
    most = _TABLE_BYTES // (_SLOT_BYTES * outputs)
    return max(_FEWEST_BITS, min(_MOST_BITS, most.bit_length() - 1))

"""A sample of the bytes of files: enough to notice that somebody wrote other values, for the price of a few requests."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["sampled"]

_PIECES, _PIECE_BYTES = 256, 16_384  # data smaller than their product, 4 MB, are read whole


def sampled(sizes: ArrayLike) -> Iterator[tuple[int, int, int]]:
    """Pieces of files, for a fingerprint: everything where the data are small, 4 MB where they are large. The offsets depend
    on the sizes alone.

    sizes: the bytes of each file. Yields the number of a file, and the first and last offset of a piece, in this order.

    >>> list(sampled([5, 3]))
    [(0, 0, 5), (1, 0, 3)]
    """
    nbytes = np.asarray(sizes, np.int64)
    ends = np.cumsum(nbytes)
    total = int(ends[-1]) if len(ends) else 0
    if total <= _PIECES * _PIECE_BYTES:
        yield from ((number, 0, int(size)) for number, size in enumerate(nbytes))
        return
    # The offsets are random: evenly spaced ones could hit the same column in every row group, and never the others.
    offsets = np.random.Generator(np.random.PCG64(total)).integers(0, total, _PIECES)
    for offset in np.sort(offsets).tolist():
        number = int(np.searchsorted(ends, offset, "right"))
        start, size = offset - int(ends[number] - nbytes[number]), int(nbytes[number])
        yield number, start, min(size, start + _PIECE_BYTES)

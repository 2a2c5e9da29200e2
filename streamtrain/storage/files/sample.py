"""A sample of the bytes of files: enough to notice that somebody wrote other values, for the price of a few requests."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

import numpy as np

__all__ = ["sampled"]

_PIECES, _PIECE_BYTES = 256, 16_384  # data smaller than their product, 4 MB, are read whole


def sampled(files: Sequence[tuple[str, int]], read: Callable[[str, int, int], bytes]) -> Iterator[bytes]:
    """Pieces of files, for a fingerprint: everything where the data are small, 4 MB where they are large. The offsets depend
    on the sizes alone.

    files: names and bytes. read: returns the bytes of a file between two offsets.

    >>> contents = {"a": b"12345", "b": b"678"}
    >>> list(sampled([("a", 5), ("b", 3)], lambda name, start, stop: contents[name][start:stop]))
    [b'12345', b'678']
    """
    ends = list(accumulate(size for _, size in files))
    total = ends[-1] if ends else 0
    if total <= _PIECES * _PIECE_BYTES:
        yield from (read(name, 0, size) for name, size in files)
        return
    # The offsets are random: evenly spaced ones could hit the same column in every row group, and never the others.
    offsets = np.random.Generator(np.random.PCG64(total)).integers(0, total, _PIECES)
    for offset in np.sort(offsets).tolist():
        number = bisect_right(ends, offset)
        name, size = files[number]
        start = offset - (ends[number] - size)
        yield read(name, start, min(size, start + _PIECE_BYTES))

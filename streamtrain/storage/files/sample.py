"""A look at what files hold: enough to tell that somebody wrote other values, at the price of a few requests."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

import numpy as np

__all__ = ["sampled"]

_PIECES, _PIECE_BYTES = 256, 16_384  # of data below 4 MB, all


def sampled(files: Sequence[tuple[str, int]], read: Callable[[str, int, int], bytes]) -> Iterator[bytes]:
    """Pieces of files, for a fingerprint: all of small data, 4 MB of large, from places that follow from the sizes alone.

    files: names and bytes. read: the bytes of a file from a place to another.

    >>> held = {"a": b"12345", "b": b"678"}
    >>> list(sampled([("a", 5), ("b", 3)], lambda name, start, stop: held[name][start:stop]))
    [b'12345', b'678']
    """
    ends = list(accumulate(size for _, size in files))
    total = ends[-1] if ends else 0
    if total <= _PIECES * _PIECE_BYTES:
        yield from (read(name, 0, size) for name, size in files)
        return
    # At random: what is evenly spaced may meet one column in each row group, and never the others.
    places = np.random.Generator(np.random.PCG64(total)).integers(0, total, _PIECES)
    for place in np.sort(places).tolist():
        number = bisect_right(ends, place)
        name, size = files[number]
        start = place - (ends[number] - size)
        yield read(name, start, min(size, start + _PIECE_BYTES))

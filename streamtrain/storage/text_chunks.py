"""Chunks of a text file, found by one pass over its records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from streamtrain.storage.records import Block

__all__ = ["CHUNK_BYTES", "CHUNK_ROWS", "Extent", "extents"]

CHUNK_BYTES, CHUNK_ROWS = 4_000_000, 65_536


class Extent(NamedTuple):
    """Records that are read together. start, stop: bytes in the file, once decompressed. line: the number of the first
    line. longest: bytes of the longest record."""

    start: int
    stop: int
    rows: int
    line: int
    longest: int


def extents(blocks: Iterable[Block], *, cut: bool) -> Iterator[Extent]:
    """The chunks of a file: cut after the record with which they have 65,536 of them or 4 MB; or all in one. Runs without a
    record are none."""
    held: Extent | None = None
    for block in blocks:
        while len(block.lines.ends):
            held = held or Extent(block.start, block.start, 0, block.line, 0)
            ends, counts = block.lines.ends, np.cumsum(block.lines.is_row)
            full = len(ends)
            if cut:
                by_rows = int(np.searchsorted(counts, CHUNK_ROWS - held.rows))
                by_bytes = int(np.searchsorted(ends, CHUNK_BYTES - (block.start - held.start)))
                full = min(by_rows, by_bytes)
            taken = min(full + 1, len(ends))
            longest = max(held.longest, int(np.diff(ends[:taken], prepend=0).max()))
            stop, rows = block.start + int(ends[taken - 1]), held.rows + int(counts[taken - 1])
            held = held._replace(stop=stop, rows=rows, longest=longest)
            if full == len(ends):
                break
            if rows:
                yield held
            held, block = None, block.after(taken)
    if held is not None and held.rows:
        yield held

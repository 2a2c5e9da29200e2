"""Find the records of a text file and cut them into chunks, without decoding them. It works block by block, with a few large
numpy operations each.

A record is a line; in CSV it is several lines if line ends are in quotes. Blank lines are not records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from streamtrain.storage.text.scanners import BadRecord

__all__ = [
    "CHUNK_BYTES",
    "CHUNK_ROWS",
    "MAX_RECORD_BYTES",
    "Block",
    "Extent",
    "Lines",
    "Scanner",
    "blocks",
    "count_lines",
    "extents",
    "first_bad",
]

MAX_RECORD_BYTES = 16 << 20
CHUNK_BYTES, CHUNK_ROWS = 4_000_000, 65_536
_LF = 10
_BOM = b"\xef\xbb\xbf"


class Lines(NamedTuple):
    """The complete records and blank lines of a block.

    ends: the position after each of them, shape (lines,). is_row: whether it is a record, shape (lines,).
    """

    ends: NDArray[np.int64]
    is_row: NDArray[np.bool_]


class Scanner(Protocol):
    """Finds records in successive parts of a file."""

    def ends(self, data: bytes) -> NDArray[np.int64]: ...
    def is_row(self, data: bytes, ends: NDArray[np.int64]) -> NDArray[np.bool_]: ...


class Readable(Protocol):
    """A source of bytes."""

    def read(self, nbytes: int) -> bytes: ...


@dataclass(frozen=True)
class Block:
    """Some whole records. start: their offset in the decompressed file. line: the number of their first line."""

    data: bytes
    lines: Lines
    start: int
    line: int

    @property
    def rows(self) -> int:
        return int(np.count_nonzero(self.lines.is_row))

    @property
    def starts(self) -> NDArray[np.int64]:
        return np.concatenate([[0], self.lines.ends[:-1]]).astype(np.int64)

    def line_at(self, at: int) -> int:
        """The number of the line that begins at byte ``at`` of the block."""
        return self.line + count_lines(self.data[:at])

    def after(self, records: int) -> Block:
        """The rest of the block after the first ``records`` records and blank lines."""
        at = int(self.lines.ends[records - 1]) if records else 0
        lines = Lines(self.lines.ends[records:] - at, self.lines.is_row[records:])
        return Block(self.data[at:], lines, self.start + at, self.line_at(at))

    def upto(self, nbytes: int) -> Block:
        """The first records of the block: about ``nbytes`` bytes, at least one row."""
        row = int(np.flatnonzero(self.lines.is_row)[0]) + 1
        n = max(row, int(np.searchsorted(self.lines.ends, nbytes)))
        lines = Lines(self.lines.ends[:n], self.lines.is_row[:n])
        return Block(self.data[: lines.ends[-1]], lines, self.start, self.line)


def blocks(source: Readable, nbytes: int, scanner: Scanner, *, start: int = 0, line: int = 1) -> Iterator[Block]:
    """Read the rest of a source in blocks of whole records, of about ``nbytes`` each.

    start, line: the current offset and line number of the source.
    Raises BadRecord for a record of more than 16 MiB, and for one that never ends because a quote is not closed.
    """
    held, held_bytes = list[bytes](), 0  # the beginning of a record, in which no end was found
    part, ended = b"", False
    while not ended:
        fresh = source.read(nbytes)
        ended = not fresh
        fresh = part + fresh
        if not start and not held and fresh.startswith(_BOM):
            fresh, start = fresh[len(_BOM) :], len(_BOM)
        if ended and (fresh or held) and not (fresh or held[-1]).endswith(b"\n"):
            fresh += b"\n"
        part = fresh[-1:] if not ended and fresh.endswith(b"\r") else b""  # perhaps the first half of CR LF
        fresh = fresh[: len(fresh) - len(part)]
        ends = scanner.ends(fresh)
        if len(ends):
            end = int(ends[-1])
            data, rest = b"".join([*held, fresh[:end]]), fresh[end:]
            ends += held_bytes
            held, held_bytes = [rest] if rest else [], len(rest)
            del fresh, rest
            try:
                block = Block(data, Lines(ends, scanner.is_row(data, ends)), start, line)
            except BadRecord as error:
                raise BadRecord(line + error.line - 1, error.what) from None
            del data
            yield block
            start, line = start + len(block.data), line + count_lines(block.data)
            del block
        elif fresh:
            held.append(fresh)
            held_bytes += len(fresh)
        if held_bytes > MAX_RECORD_BYTES or (ended and held):
            what = f"is longer than {MAX_RECORD_BYTES >> 20} MiB" if not ended else "does not end"
            raise BadRecord(line, f"the record that begins here {what}: check for a quote that is never closed")


def count_lines(data: bytes) -> int:
    r"""The number of line ends: LF, CR LF, or CR alone.

    >>> count_lines(b"a\nb\r\nc\rd\n")
    4
    """
    alone = data.count(b"\r") - data.count(b"\r\n") if b"\r" in data else 0
    return (
        int(np.count_nonzero(np.frombuffer(data, np.uint8) == _LF)) + alone
    )  # bytes.count is slow where there are many


def first_bad(n: int, works: Callable[[int], bool]) -> int:
    """The index of the first bad one of ``n`` records, by bisection. works: whether the first so many records are good."""
    low, high = 0, n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if works(middle) else (low, middle)
    return low


class Extent(NamedTuple):
    """A run of records that is read as one chunk. start, stop: offsets in the decompressed file. line: the number of the first
    line. longest: bytes of the longest record."""

    start: int
    stop: int
    rows: int
    line: int
    longest: int


def extents(blocks: Iterable[Block], *, cut: bool) -> Iterator[Extent]:
    """Join the records of a file to chunks. With ``cut``, a chunk ends once it has 65,536 records or 4 MB; otherwise there is
    only one. A chunk without records is left out."""
    current: Extent | None = None
    for block in blocks:
        while len(block.lines.ends):
            current = current or Extent(block.start, block.start, 0, block.line, 0)
            ends, counts = block.lines.ends, np.cumsum(block.lines.is_row)
            full = len(ends)
            if cut:
                by_rows = int(np.searchsorted(counts, CHUNK_ROWS - current.rows))
                by_bytes = int(np.searchsorted(ends, CHUNK_BYTES - (block.start - current.start)))
                full = min(by_rows, by_bytes)
            taken = min(full + 1, len(ends))
            longest = max(current.longest, int(np.diff(ends[:taken], prepend=0).max()))
            stop, rows = block.start + int(ends[taken - 1]), current.rows + int(counts[taken - 1])
            current = current._replace(stop=stop, rows=rows, longest=longest)
            if full == len(ends):
                break
            if rows:
                yield current
            current, block = None, block.after(taken)
    if current is not None and current.rows:
        yield current

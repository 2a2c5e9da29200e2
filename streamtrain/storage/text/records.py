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

__all__ = [
    "CHUNK_BYTES",
    "CHUNK_ROWS",
    "MAX_RECORD_BYTES",
    "BadRecord",
    "Block",
    "Extent",
    "Lines",
    "blocks",
    "count_lines",
    "csv_lines",
    "extents",
    "first_bad",
    "json_lines",
]

MAX_RECORD_BYTES = 16 << 20
CHUNK_BYTES, CHUNK_ROWS = 4_000_000, 65_536
_LF, _CR, _QUOTE, _BRACE = b'\n\r"{'
_BOM = b"\xef\xbb\xbf"


class Lines(NamedTuple):
    """The complete records and blank lines of a block.

    ends: the position after each of them, shape (lines,). is_row: whether it is a record, shape (lines,).
    """

    ends: NDArray[np.int64]
    is_row: NDArray[np.bool_]


class BadRecord(Exception):
    """A record is invalid. line: the number of its first line, counted from 1."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(line, what)
        self.line, self.what = line, what


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


def blocks(
    source: Readable, nbytes: int, lines_of: Callable[[bytes], Lines], *, start: int = 0, line: int = 1
) -> Iterator[Block]:
    """Read the rest of a source in blocks of whole records, of about ``nbytes`` each.

    start, line: the current offset and line number of the source.
    Raises BadRecord for a record of more than 16 MiB, and for one that never ends because a quote is not closed.
    """
    held, ended = b"", False
    while not ended:
        fresh = source.read(nbytes)
        ended = not fresh
        data = held + fresh
        if not start and data.startswith(_BOM):
            data, start = data[len(_BOM) :], len(_BOM)
        if ended and data and data[-1] != _LF:
            data += b"\n"
        try:
            lines = lines_of(data)
        except BadRecord as error:
            raise BadRecord(line + error.line - 1, error.what) from None
        end = int(lines.ends[-1]) if len(lines.ends) else 0
        held = data[end:]
        if end:
            block = Block(data[:end], lines, start, line)
            del data
            yield block
            start, line = start + end, line + count_lines(block.data)
        if len(held) > MAX_RECORD_BYTES or (ended and held):
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


def csv_lines(data: bytes, delimiter: str) -> Lines:
    r"""Find the records of CSV. As in pyarrow, a quote is only special at the start of a field.

    >>> csv_lines(b'a,"b\n"\n\n5" c,d\r\ne', ",")
    Lines(ends=array([ 7,  8, 16]), is_row=array([ True, False,  True]))
    """
    text = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(text == _LF)
    has_cr = b"\r" in data
    if has_cr:
        returns = np.flatnonzero(text == _CR)
        returns = returns[: -1 if returns[-1] == len(text) - 1 else None]  # the last one may be the first half of CR LF
        alone = returns[text[returns + 1] != _LF]
        ends = np.sort(np.concatenate([ends, alone])) if len(alone) else ends
    if b'"' in data:
        quotes = _quotes(text, delimiter)
        ends = ends[np.searchsorted(quotes, ends) % 2 == 0]
    sizes = np.diff(ends, prepend=-1)
    blank = sizes == 1
    if has_cr:
        blank |= (sizes == 2) & (text[ends - 1] == _CR)
    return Lines(ends + 1, ~blank)


def _quotes(text: NDArray[np.uint8], delimiter: str) -> NDArray[np.int64]:
    """The positions of opening and closing quotes, in turns. A doubled quote counts as closing and opening again."""
    quotes = np.flatnonzero(text == _QUOTE)
    before = text[quotes - 1]  # wraps around for the first byte, which is a start anyway
    starts = (before == ord(delimiter)) | (before == _LF) | (before == _CR) | (quotes == 0)
    follows = np.diff(quotes, prepend=-2) == 1
    if (starts | follows)[::2].all():
        return quotes
    kept: list[int] = []
    for at, start in zip(quotes.tolist(), starts.tolist(), strict=True):  # some quotes are plain text: `5" pipe`
        is_open = len(kept) % 2 == 1
        if is_open or start or (kept and kept[-1] == at - 1):
            kept.append(at)
    return np.asarray(kept, np.int64)


def json_lines(data: bytes) -> Lines:
    r"""Find the records of JSON lines. Raises BadRecord for a line that does not begin with ``{``, because a leading ``null``
    crashes pyarrow.

    >>> json_lines(b'{"a": 1}\n \n{"a": 2}\n{')
    Lines(ends=array([ 9, 11, 20]), is_row=array([ True, False,  True]))
    """
    text = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(text == _LF) + 1
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)[: len(ends)]
    is_row = text[starts] == _BRACE
    for i in np.flatnonzero(~is_row).tolist():
        content = data[starts[i] : ends[i]].strip(b" \t\r\n")
        is_row[i] = content.startswith(b"{")
        if content and not is_row[i]:
            shown = repr(content[:40].decode(errors="replace"))
            raise BadRecord(
                i + 1, f"expected an object in braces, but found {shown}: JSON lines have one object on each line"
            )
    return Lines(ends, is_row)


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

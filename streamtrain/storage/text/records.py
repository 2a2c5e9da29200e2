"""Where the records of a text file begin and end, and the chunks that they make, without decoding them: block by block,
a few large operations each.

A record is a line, or in CSV several of them where line ends stand in quotes. Blank lines are no records.
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
    """What stands in a block. ends: where the next begins, of each record or blank line that is complete, shape (lines,).
    is_row: whether it is a record."""

    ends: NDArray[np.int64]
    is_row: NDArray[np.bool_]


class BadRecord(Exception):
    """A record that cannot be one. line: where it begins, counted from 1."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(line, what)
        self.line, self.what = line, what


class Readable(Protocol):
    def read(self, nbytes: int) -> bytes: ...


@dataclass(frozen=True)
class Block:
    """Whole records. start: where they begin in the file, once decompressed. line: the number of their first line."""

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
        """The number of the line that begins at a byte of the block."""
        return self.line + count_lines(self.data[:at])

    def after(self, records: int) -> Block:
        """What follows the first lines."""
        at = int(self.lines.ends[records - 1]) if records else 0
        lines = Lines(self.lines.ends[records:] - at, self.lines.is_row[records:])
        return Block(self.data[at:], lines, self.start + at, self.line_at(at))

    def upto(self, nbytes: int) -> Block:
        """Its first records: as many as make so many bytes, one row at least."""
        row = int(np.flatnonzero(self.lines.is_row)[0]) + 1
        n = max(row, int(np.searchsorted(self.lines.ends, nbytes)))
        lines = Lines(self.lines.ends[:n], self.lines.is_row[:n])
        return Block(self.data[: lines.ends[-1]], lines, self.start, self.line)


def blocks(
    source: Readable, nbytes: int, lines_of: Callable[[bytes], Lines], *, start: int = 0, line: int = 1
) -> Iterator[Block]:
    """What is left of a source, in blocks of whole records, of about ``nbytes`` each. start, line: where the source stands.

    Raises BadRecord for a record of more than 16 MiB, and for one that does not end (a quote that is never closed).
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
            raise BadRecord(line, f"the record that begins here {what}: is a quote opened that is never closed?")


def count_lines(data: bytes) -> int:
    r"""How many line ends: LF, CR LF, or CR alone.

    >>> count_lines(b"a\nb\r\nc\rd\n")
    4
    """
    alone = data.count(b"\r") - data.count(b"\r\n") if b"\r" in data else 0
    return (
        int(np.count_nonzero(np.frombuffer(data, np.uint8) == _LF)) + alone
    )  # bytes.count is slow where there are many


def csv_lines(data: bytes, delimiter: str) -> Lines:
    r"""The records of CSV. Quotes count where pyarrow says that they do: one opens at the start of a field alone.

    >>> csv_lines(b'a,"b\n"\n\n5" c,d\r\ne', ",")
    Lines(ends=array([ 7,  8, 16]), is_row=array([ True, False,  True]))
    """
    text = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(text == _LF)
    has_cr = b"\r" in data
    if has_cr:
        returns = np.flatnonzero(text == _CR)
        returns = returns[: -1 if returns[-1] == len(text) - 1 else None]  # the last may be half of a line end
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
    """Where quotes open and close, in turns. A quote that is doubled closes and opens again."""
    quotes = np.flatnonzero(text == _QUOTE)
    before = text[quotes - 1]  # of the first byte the last, but that is at a start
    starts = (before == ord(delimiter)) | (before == _LF) | (before == _CR) | (quotes == 0)
    follows = np.diff(quotes, prepend=-2) == 1
    if (starts | follows)[::2].all():
        return quotes
    kept: list[int] = []
    for at, start in zip(quotes.tolist(), starts.tolist(), strict=True):  # some are text: `5" pipe`
        is_open = len(kept) % 2 == 1
        if is_open or start or (kept and kept[-1] == at - 1):
            kept.append(at)
    return np.asarray(kept, np.int64)


def json_lines(data: bytes) -> Lines:
    r"""The records of JSON lines. Raises BadRecord for a line that does not begin with ``{``: a ``null`` before anything else
    ends the process in pyarrow.

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
            raise BadRecord(i + 1, f"not an object in braces, but {shown}: JSON lines have one object on each line")
    return Lines(ends, is_row)


def first_bad(n: int, works: Callable[[int], bool]) -> int:
    """The number of the first of ``n`` records with which they do not work. works: of so many from the first."""
    low, high = 0, n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if works(middle) else (low, middle)
    return low


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

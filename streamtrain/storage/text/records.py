"""Find the records of a text file and cut them into chunks, without decoding them. It works block by block, with a few large
numpy operations each.

A record is a line; in CSV it is several lines if line ends are in quotes. Blank lines are not records.
"""

from __future__ import annotations

import re
from array import array
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
    "CsvScanner",
    "Extent",
    "JsonScanner",
    "Lines",
    "Scanner",
    "blocks",
    "count_lines",
    "extents",
    "first_bad",
]

MAX_RECORD_BYTES = 16 << 20
CHUNK_BYTES, CHUNK_ROWS = 4_000_000, 65_536
MAX_JSON_DEPTH = 64
_LF, _CR, _SPACE, _TAB, _QUOTE, _BRACE, _BRACKET = b'\n\r \t"{['
_SCANNED_BYTES = 1 << 18
_AT_ONCE = 1 << 15  # quotes that are looked at one by one; lines of spaces that are
_JSON_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[][{}]', re.DOTALL)
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


def _without_blank_runs(ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of successive lines without a byte only the last."""
    follows = np.diff(ends) == 1
    return ends[~np.concatenate([[False], follows[:-1] & follows[1:], [False]])] if follows.any() else ends


class CsvScanner:
    r"""Finds the records of CSV in successive parts of a file, which do not end between CR and LF. As in pyarrow, a quote is
    only special at the start of a field.

    >>> CsvScanner(",").ends(b'a,"b\n"\n\n5" c,d\r\ne')
    array([ 7,  8, 16])
    """

    def __init__(self, delimiter: str) -> None:
        self._delimiter = ord(delimiter)
        self._last = _LF  # the byte before the next part
        self._is_open = self._after_quote = False  # whether a quote is open there, whether it comes directly before

    def ends(self, data: bytes) -> NDArray[np.int64]:
        """The position after each record, and after each run of blank lines, that ends in the next part."""
        found, start = [np.empty(0, np.int64)], 0
        while start < len(data):  # few bytes at a time: a position takes eight
            stop = start + _SCANNED_BYTES
            stop += data[stop - 1 : stop] == b"\r"
            found.append(_without_blank_runs(self._some_ends(data[start:stop]) + start))
            start = stop
        return np.concatenate(found)

    def _some_ends(self, data: bytes) -> NDArray[np.int64]:
        text = np.frombuffer(data, np.uint8)
        ends = np.flatnonzero(text == _LF)
        if b"\r" in data:
            returns = np.flatnonzero(text == _CR)
            alone = returns[text[np.minimum(returns + 1, len(text) - 1)] != _LF]
            ends = np.sort(np.concatenate([ends, alone])) if len(alone) else ends
        if b'"' in data:
            quotes = self._quotes(text)
            ends = ends[np.searchsorted(quotes, ends) % 2 == self._is_open]
            self._is_open ^= len(quotes) % 2 == 1
            self._after_quote = len(quotes) > 0 and int(quotes[-1]) == len(text) - 1
        else:
            ends = ends[:0] if self._is_open else ends
            self._after_quote = False
        self._last = data[-1]
        return ends + 1

    def _quotes(self, text: NDArray[np.uint8]) -> NDArray[np.int64]:
        """The positions of opening and closing quotes, in turns. A doubled quote counts as closing and opening again."""
        quotes = np.flatnonzero(text == _QUOTE)
        before = text[quotes - 1]
        if not quotes[0]:
            before[0] = _QUOTE if self._after_quote else self._last
        starts = (before == self._delimiter) | (before == _LF) | (before == _CR)
        follows = np.diff(quotes, prepend=-2) == 1
        follows[0] = self._after_quote and not quotes[0]
        if (starts | follows)[int(self._is_open) :: 2].all():
            return quotes
        del before, follows
        kept = array("q", [-1] if self._after_quote else [])  # some quotes are plain text: `5" pipe`
        first, is_open = len(kept), self._is_open
        for some in range(0, len(quotes), _AT_ONCE):
            each = slice(some, some + _AT_ONCE)
            for at, start in zip(quotes[each].tolist(), starts[each].tolist(), strict=True):
                if is_open or start or (kept and kept[-1] == at - 1):
                    kept.append(at)
                    is_open = not is_open
        return np.asarray(kept, np.int64)[first:]

    @staticmethod
    def is_row(data: bytes, ends: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether what ends there is a record, and not blank lines."""
        first = np.frombuffer(data, np.uint8)[np.concatenate([[0], ends[:-1]])]
        is_row: NDArray[np.bool_] = (first != _LF) & (first != _CR)
        return is_row


class JsonScanner:
    r"""Finds the records of JSON lines.

    >>> JsonScanner.ends(b'{"a": 1}\n \n{"a": 2}\n{')
    array([ 9, 11, 20])
    """

    @staticmethod
    def ends(data: bytes) -> NDArray[np.int64]:
        """The position after each record, and after each run of blank lines, that ends in the next part."""
        return _without_blank_runs(np.flatnonzero(np.frombuffer(data, np.uint8) == _LF) + 1)

    @staticmethod
    def is_row(data: bytes, ends: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether what ends there is a record, and not a blank line. Raises BadRecord for a line that does not begin with
        ``{``, because a leading ``null`` crashes pyarrow, and for one that is nested too deep, which does so, too."""
        text = np.frombuffer(data, np.uint8)
        starts = np.concatenate([[0], ends[:-1]])
        first = text[starts]
        is_row: NDArray[np.bool_] = first == _BRACE
        others = np.flatnonzero(~is_row & (first != _LF))
        if len(others) > _AT_ONCE:
            space = (text == _LF) | (text == _CR) | (text == _SPACE) | (text == _TAB)
            others = others[~np.logical_and.reduceat(space, starts)[others]]
        for line in others.tolist():
            content = data[starts[line] : ends[line]].strip(b" \t\r\n")
            is_row[line] = content.startswith(b"{")
            if content and not is_row[line]:
                shown = repr(content[:40].decode(errors="replace"))
                raise BadRecord(
                    line + 1,
                    f"expected an object in braces, but found {shown}: JSON lines have one object on each line",
                )
        opens = (text == _BRACE) | (text == _BRACKET)
        if np.count_nonzero(opens) > len(ends) + MAX_JSON_DEPTH:
            for line in np.flatnonzero(np.add.reduceat(opens, starts, dtype=np.int64) > MAX_JSON_DEPTH).tolist():
                if _depth(data[starts[line] : ends[line]]) > MAX_JSON_DEPTH:
                    raise BadRecord(line + 1, f"is nested more than {MAX_JSON_DEPTH} levels deep: flatten it")
        return is_row


def _depth(record: bytes) -> int:
    """How deep lists and objects are nested in a record; it stops looking beyond the limit."""
    depth = deepest = 0
    for token in _JSON_TOKENS.finditer(record):
        byte = token[0]
        depth += (byte in b"{[") - (byte in b"}]") if len(byte) == 1 else 0
        deepest = max(deepest, depth)
        if deepest > MAX_JSON_DEPTH:
            break
    return deepest


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

"""Where the records of CSV and of JSON lines end, in successive parts of a file; and which lines are blank."""

from __future__ import annotations

import re
from array import array

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_JSON_DEPTH", "BadRecord", "CsvScanner", "JsonScanner"]

MAX_JSON_DEPTH = 64
_LF, _CR, _SPACE, _TAB, _QUOTE, _BRACE, _BRACKET = b'\n\r \t"{['
_SCANNED_BYTES = 1 << 18
_AT_ONCE = 1 << 15  # quotes that are looked at one by one; lines of spaces that are
_JSON_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[][{}]', re.DOTALL)


class BadRecord(Exception):
    """A record is invalid. line: the number of its first line, counted from 1."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(line, what)
        self.line, self.what = line, what


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

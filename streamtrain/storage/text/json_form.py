"""JSON that is not one object on each line: one array of objects, or objects that are printed over several lines.

It becomes JSON lines of the same length. So records have the offsets that they have in the file, and reading can start at any
of them.
"""

from __future__ import annotations

import json
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from streamtrain.storage.text.scanners import BadRecord
from streamtrain.storage.text.source import Wrapped

__all__ = ["AsLines", "Form", "form_of"]

#: lines: one object on each line; array: one array of objects; objects: one after the other, over several lines
Form = Literal["lines", "array", "objects"]

_BLANKS = b" \t\r\n"
_AT_ONCE = 1 << 17  # bytes: positions take eight times as much
_QUOTE, _BACKSLASH, _LF, _CR, _COMMA, _SPACE = b'"\\\n\r, '
_OPENING, _CLOSING = b"{[", b"}]"
_IS_MARK = np.zeros(256, bool)
_IS_MARK[list(b"{}[],\r\n")] = True
_MAY_PRECEDE = np.zeros(256, bool)
_MAY_PRECEDE[list(b" \t\r\n,[")] = True
_DEPTH = np.zeros(256, np.int64)
_DEPTH[list(_OPENING)], _DEPTH[list(_CLOSING)] = 1, -1


def form_of(head: bytes, *, lines_only: bool) -> Form:
    """The form of JSON that begins with these bytes. lines_only: the name promises one object on each line, as ``.jsonl``
    does, so a first line that is no object is damaged.

    >>> [form_of(text, lines_only=False) for text in (b'[{"a": 1}]', b'{"a": [\\n1]}', b'{"a": 1}\\n{')]
    ['array', 'objects', 'lines']
    """
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip(_BLANKS)
    if text.startswith(b"["):
        return "array" if text[1:].lstrip(_BLANKS)[:1] in (b"{", b"]") else "lines"
    first, end, _ = text.partition(b"\n")
    if lines_only or not end or not text.startswith(b"{"):
        return "lines"
    try:
        json.loads(first)
    except ValueError as error:
        whole = (
            isinstance(error, json.JSONDecodeError) and error.pos < len(error.doc.rstrip()) and "Extra" not in error.msg
        )
        return "lines" if whole else "objects"
    return "lines"


class AsLines(Wrapped):
    r"""A source of JSON in another form as one of JSON lines of the same length: an object begins after a line end, and there
    are no others. What is between objects becomes blank.

    head: bytes that were read from the source already. is_begun: whether the source begins with an object, not with the file.
    to_end: whether it ends with the file.

    >>> from io import BytesIO
    >>> AsLines(BytesIO(b'[{"a":\n [1]},\n {"a": "}"}]'), "array", is_begun=False, to_end=True).read(100)
    b' {"a":  [1]}  \n{"a": "}"}'
    """

    def __init__(self, source: Any, form: Form, *, head: bytes = b"", is_begun: bool, to_end: bool) -> None:
        self._source, self._head, self._to_end = source, head, to_end
        self._base = int(form == "array")  # how deep objects are
        self._depth = self._base if is_begun else 0
        self._in_text = self._escaped = self._ended = False
        self._objects = 0
        self._held = b""  # the last byte, which may become a line end

    def read(self, nbytes: int) -> bytes:
        """About so many bytes; none at the end."""
        made = b""
        while not made and not self._ended:
            data, self._head = self._head or self._source.read(nbytes), b""
            if not data:
                self._ended = True
                self._require_end()
                return self._held
            made = b"".join(self._made(data[at : at + _AT_ONCE]) for at in range(0, len(data), _AT_ONCE))
        return made

    def _require_end(self) -> None:
        if self._to_end and (self._depth or self._in_text):
            what = (
                "the array" if self._base and self._depth == 1 and not self._in_text else "the object that begins here"
            )
            raise BadRecord(max(1, self._objects), f"{what} does not end: the file may be cut off")

    def _made(self, data: bytes) -> bytes:
        """The next bytes, one behind."""
        held = len(self._held)
        out = np.frombuffer(self._held + data, np.uint8).copy()
        text = np.frombuffer(data, np.uint8)
        marks, depths = self._marks(text)
        kinds = text[marks]
        before = depths - _DEPTH[kinds]
        out[held + marks[(kinds == _LF) | (kinds == _CR) | ((kinds == _COMMA) & (depths == self._base))]] = _SPACE
        if self._base:
            out[held + marks[np.minimum(before, depths) == 0]] = _SPACE  # the brackets of the array
        begins = held + marks[(kinds == _OPENING[0]) & (before == self._base)]
        self._begin(out, begins, np.concatenate([np.frombuffer(self._held, np.uint8), text]))
        self._depth = int(depths[-1]) if len(depths) else self._depth
        made = out.tobytes()
        self._held = made[-1:]
        return made[:-1]

    def _begin(self, out: NDArray[np.uint8], begins: NDArray[np.int64], written: NDArray[np.uint8]) -> None:
        """Put line ends before objects, but for the first."""
        first = int(not self._objects)
        rest = begins[first:] if first else begins
        wrong = np.flatnonzero(~_MAY_PRECEDE[written[rest - 1]] & (out[rest - 1] != _SPACE)) if len(rest) else rest
        if len(wrong):
            number = self._objects + first + int(wrong[0])
            raise BadRecord(number, "the next object follows directly: put a comma, a blank or a line end between them")
        out[rest - 1] = _LF
        self._objects += len(begins)

    def _marks(self, text: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The positions of brackets, commas and line ends outside of text, and how deep it is after each."""
        is_quote = text == _QUOTE
        self._leave_escaped(text, is_quote)
        in_text = np.bitwise_xor.accumulate(is_quote) ^ self._in_text
        self._in_text = bool(in_text[-1])
        marks = np.flatnonzero(_IS_MARK[text] & ~in_text)
        return marks, self._depth + np.cumsum(_DEPTH[text[marks]])

    def _leave_escaped(self, text: NDArray[np.uint8], is_quote: NDArray[np.bool_]) -> None:
        """Leave out the quotes after an odd number of backslashes."""
        slashes = np.flatnonzero(text == _BACKSLASH)
        if self._escaped:
            is_quote[0] = False
        if not len(slashes):
            self._escaped = False
            return
        runs = np.flatnonzero(np.diff(slashes, prepend=-2) != 1)  # where a run of backslashes begins
        number = np.arange(len(slashes)) - np.repeat(runs, np.diff(np.append(runs, len(slashes)))) + 1
        if self._escaped and not slashes[0]:
            number[: runs[1] if len(runs) > 1 else None] += 1
        escaped = slashes[number % 2 == 1] + 1  # if it is no backslash
        is_quote[escaped[escaped < len(text)]] = False
        self._escaped = len(escaped) > 0 and int(escaped[-1]) == len(text)

"""How much memory the files of a run may take while they are opened. They may come from anybody, and say anything.

What a text of JSON takes is estimated from its bytes before it is parsed, what arrays take from the header of their file.
"""

from __future__ import annotations

import os
from io import BufferedReader
from pathlib import Path

from streamtrain.errors import BudgetRefused, WrongFile
from streamtrain.memory.monitor import budget_of
from streamtrain.memory.process import resident_bytes
from streamtrain.memory.sizes import format_bytes, parse_budget

__all__ = ["Room", "open_at_once", "parsed_bytes", "stored_bytes"]

_UNASKED_BYTES = 90_000_000  # of parsed JSON, for any file: 50,000 columns, 700,000 classes, or 30,000 lines of scores
_PER_ARRAY_BYTE = 12  # and so much more beside arrays: a column of numbers has 82 bytes of state and 1 kB of JSON
_STRING_BYTES, _ITEM_BYTES, _FIELD_BYTES, _OBJECT_BYTES, _LIST_BYTES = 40, 40, 100, 200, 80
_BLOCK_BYTES = 512  # of `st_blocks`
_SMALL_BYTES = 4 << 20  # a file that takes so little is not refused: the plan says how much is needed in all


def parsed_bytes(text: bytes) -> int:
    """About how many bytes a text of JSON takes while it is parsed and afterwards, the text included: rather too many.

    >>> parsed_bytes(b'{"name": ["x", 1]}')
    576
    """
    strings, items = _STRING_BYTES * (text.count(b'"') // 2), _ITEM_BYTES * (text.count(b",") + 1)
    fields, objects, lists = (text.count(sign) for sign in (b":", b"{", b"["))
    inside = _FIELD_BYTES * fields + _OBJECT_BYTES * objects + _LIST_BYTES * lists
    return len(text) * (2 if text.isascii() else 5) + strings + items + inside


class Room:
    """The memory that opening the files of a run may take.

    budget_bytes: of the whole process; None if the user gave none. Then JSON may take 90 MB and 12 times the bytes of the
    arrays beside it, which is more than models of real tables need, and arrays may take half of the available memory.
    can_ask: whether the user could give a budget, for the message. unasked_bytes: in the place of the 90 MB.
    """

    def __init__(
        self, budget_bytes: int | None = None, *, can_ask: bool = False, unasked_bytes: int = _UNASKED_BYTES
    ) -> None:
        self.budget_bytes, self._can_ask, self._unasked_bytes = budget_bytes, can_ask, unasked_bytes

    @classmethod
    def of(cls, memory: float | str | None) -> Room:
        """memory: as a setting. Raises SizeError if it does not parse."""
        return cls(None if memory is None else parse_budget(memory), can_ask=True)

    def require_text(self, path: Path, size: int, array_bytes: int = 0) -> None:
        """Raise WrongFile or BudgetRefused for JSON that takes too much. size: see `parsed_bytes`; or the bytes of a text that
        was not read yet. array_bytes: of the arrays that it describes."""
        unasked = self._unasked_bytes + _PER_ARRAY_BYTE * array_bytes
        left = None if self.budget_bytes is None else self.budget_bytes - _resident()
        if size <= unasked if left is None else size <= max(left, _SMALL_BYTES):
            return
        if size <= unasked:
            raise self._refused(path, size)
        remedy = f": if you trust it, give --memory {_megabytes(_resident() + size)} or more" if self._can_ask else ""
        raise WrongFile(
            f"{path}: reading its text would take about {format_bytes(size)}, and it may take {format_bytes(unasked)}: "
            f"more was hardly written by streamtrain{remedy}"
        )

    def require_arrays(self, path: Path, size: int) -> None:
        """Raise BudgetRefused for arrays of this size in bytes if they cannot be loaded beside the model that they are for."""
        budget = budget_of(None) if self.budget_bytes is None else self.budget_bytes
        if 2 * size > max(budget - _resident(), _SMALL_BYTES):
            raise self._refused(path, 2 * size)

    def _refused(self, path: Path, size: int) -> BudgetRefused:
        limit = (
            "half of the available memory"
            if self.budget_bytes is None
            else f"--memory {format_bytes(self.budget_bytes)}"
        )
        return BudgetRefused(
            f"{path}: opening it takes about {format_bytes(size)} beside the {format_bytes(_resident())} that the process has, "
            f"more than {limit}; nothing was loaded: give a larger --memory: it needs {_megabytes(_resident() + size)}, and "
            "the data come on top"
        )


def _megabytes(size: int) -> str:
    return f"{-(-size // 10**6)}MB"


def _resident() -> int:
    return resident_bytes() or 0


def stored_bytes(status: os.stat_result, size: int) -> int:
    """How many of the bytes of a file are really on the disk: a sparse file may claim a terabyte."""
    blocks = getattr(status, "st_blocks", None)  # Windows has none
    return size if blocks is None else min(size, blocks * _BLOCK_BYTES)


def open_at_once(path: str | Path) -> BufferedReader:
    """Open a file for reading. A pipe is opened too, but without waiting for somebody who writes: see `os.fstat`."""
    return open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))

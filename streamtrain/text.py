"""Names as they can be shown: whoever chose them may have put anything into them."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str) -> str:
    """One line that can be written as UTF-8: what drives a terminal, turns the writing direction or is half a character
    (as in the names of files that are not UTF-8) is escaped.

    >>> print(printable("two\\nlines \\udcff"))
    two\\nlines \\udcff
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)

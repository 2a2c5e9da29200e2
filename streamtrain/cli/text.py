"""Names as people typed them, and as a terminal can show them."""

from __future__ import annotations

import re

__all__ = ["split_names"]

_NAME = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^,]*))\s*(?:,|$)')


def split_names(text: str) -> list[str]:
    """Names between commas; one that holds a comma, or begins or ends with a space, stands in double quotes.

    >>> split_names('a, b,"c,d"')
    ['a', 'b', 'c,d']
    """
    found = [m[1].replace('""', '"') if m[1] is not None else m[2].strip() for m in _NAME.finditer(text)]
    return [name for name in found if name]

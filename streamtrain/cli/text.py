"""Names as people typed them, and as a terminal can show them."""

from __future__ import annotations

import re

from streamtrain.errors import UsageError

__all__ = ["split_names", "split_pair", "weights_of"]

_NAME = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^,]*))\s*(?:,|$)')


def split_names(text: str) -> list[str]:
    """Names between commas; one that holds a comma, or begins or ends with a space, stands in double quotes.

    >>> split_names('a, b,"c,d"')
    ['a', 'b', 'c,d']
    """
    found = [m[1].replace('""', '"') if m[1] is not None else m[2].strip() for m in _NAME.finditer(text)]
    return [name for name in found if name]


def split_pair(text: str, flag: str, wanted: str) -> tuple[str, str]:
    """What stands before and behind the last ``=``. Raises UsageError where there is none.

    >>> split_pair("a=b=text", "--as", "COL=ROLE")
    ('a=b', 'text')
    """
    name, between, value = text.rpartition("=")
    if not between or not name:
        raise UsageError(f"{flag} {text}: give {wanted}")
    return name, value


def weights_of(text: str) -> dict[str, float]:
    """Weights by name. Raises UsageError for what is none.

    >>> weights_of("a=2,b=0.5")
    {'a': 2.0, 'b': 0.5}
    """
    found = {}
    for pair in split_names(text):
        name, value = split_pair(pair, "--class-weight", "balanced, or weights: a=2,b=0.5")
        try:
            found[name] = float(value)
        except ValueError:
            raise UsageError(f"--class-weight {pair}: {value!r} is no number") from None
    return found

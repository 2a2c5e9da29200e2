"""Names as they can be shown: whoever chose them may have put anything into them."""

from __future__ import annotations

import re

__all__ = ["printable", "without_secrets"]


def printable(text: str) -> str:
    """One line that can be written as UTF-8: what drives a terminal, turns the writing direction or is half a character
    (as in the names of files that are not UTF-8) is escaped.

    >>> print(printable("two\\nlines \\udcff"))
    two\\nlines \\udcff
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def without_secrets(target: str) -> str:
    """The name of data for people and for reports: of a URL no password and no query, which may be a signature. In names of
    buckets a ``?`` is part of a glob.

    >>> without_secrets("https://user:word@host/a.csv?signature=x"), without_secrets("s3://bucket/part-?.csv")
    ('https://host/a.csv', 's3://bucket/part-?.csv')
    >>> without_secrets("https://user:wo/rd@host/a.csv")
    'https://***'
    """
    scheme, mark, rest = target.partition("://")
    if not mark:
        return target
    host, slash, path = rest.partition("/")
    _, colon, port = re.split(r"[?#]", host)[0].rpartition("@")[2].rpartition(":")
    if colon and "@" in path + host and not (port.isdigit() or port.endswith("]")):
        return f"{scheme}://***"  # the beginning of a password that has a / ? or # in it
    shown = f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
    return shown if scheme in ("s3", "gs", "az", "memory") else shown.partition("?")[0]

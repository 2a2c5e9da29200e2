"""Times, shares and names as the pictures of a profile write them."""

from __future__ import annotations

from streamtrain.errors import printable

__all__ = ["format_seconds", "percent", "shortened"]


def format_seconds(seconds: float) -> str:
    """A time for people.

    >>> format_seconds(0.01234), format_seconds(179.7), format_seconds(3601)
    ('0.0123 s', '3 min 0 s', '1 h 0 min')
    """
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def percent(share: float) -> str:
    """A share for people.

    >>> percent(0.00834), percent(0.5), percent(0.998)
    ('0.83 %', '50 %', '99.8 %')
    """
    return f"{100 * share:.{2 if share < 0.0995 else 3}g} %"


def shortened(name: str, most: int) -> str:
    """A name, `printable`, of at most so many letters: the beginning and the end of it where it has more.

    >>> shortened("part-00000.parquet", 11)
    'part-…rquet'
    """
    text, half = printable(name), most // 2
    return text if len(text) <= most else f"{text[: most - half - 1]}…{text[-half:]}"

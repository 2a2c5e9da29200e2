"""Times, shares, scores and names as pages and pictures write them."""

from __future__ import annotations

from datetime import UTC, datetime

from streamtrain.errors import printable

__all__ = ["format_date", "format_score", "format_seconds", "percent", "shortened"]


def format_date(text: str) -> str:
    """A date of ISO 8601 for people, in UTC; anything else as it is.

    >>> format_date("2026-01-31T13:00:05+01:00"), format_date("yesterday")
    ('2026-01-31 12:00:05 UTC', 'yesterday')
    """
    try:
        return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except ValueError:
        return text


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


def format_score(value: float) -> str:
    """A score for people: four places, or four digits where it is large or tiny.

    >>> format_score(0.51234), format_score(1234567.8), format_score(0.00001234), format_score(0)
    ('0.5123', '1,234,568', '1.234e-05', '0.0000')
    """
    if value and abs(value) < 0.0005:
        return f"{value:.4g}"
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:,.0f}"


def shortened(name: str, most: int) -> str:
    """A `printable` name of at most this many letters: of a longer name the beginning and the end.

    >>> shortened("part-00000.parquet", 11)
    'part-…rquet'
    """
    text, half = printable(name), most // 2
    return text if len(text) <= most else f"{text[: most - half - 1]}…{text[-half:]}"

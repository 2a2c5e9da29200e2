"""Sizes in bytes as text, the sum of named terms, and shares that add up to 1."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction

from streamtrain.errors import SizeError

__all__ = ["format_bytes", "parse_budget", "parse_bytes", "predicted_peak", "readable_above", "shares", "sorted_terms"]

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15}
_UNITS |= {f"{unit}i": 1024**power for power, unit in enumerate("kmgtp", start=1)}
_STEPS = 1000  # that make a whole
_LEAST_BARE_BUDGET = 10**6
_SIZE = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([kmgtp]?i?)b?\s*", re.IGNORECASE)


def parse_bytes(size: float | str) -> int:
    """Return a size in bytes: ``512MB`` is 512 * 10^6, ``2GiB`` is 2 * 2^30, a bare number is bytes.

    Raises SizeError for anything else, and for less than one byte.

    >>> parse_bytes("512MB"), parse_bytes("2GiB"), parse_bytes("1.5 kB"), parse_bytes(1000)
    (512000000, 2147483648, 1500, 1000)
    >>> parse_bytes("lots")
    Traceback (most recent call last):
    streamtrain.errors.SizeError: 'lots' is not a size: write a number with a unit, as in 512MB (10^6) or 2GiB (2^30)
    """
    match = None if isinstance(size, bool) else _SIZE.fullmatch(str(size))
    unit = match[2].lower() if match else "?"
    if match is None or unit not in _UNITS:
        raise SizeError(f"{size!r} is not a size: write a number with a unit, as in 512MB (10^6) or 2GiB (2^30)")
    number = int(Fraction(match[1]) * _UNITS[unit])  # exact: a float holds 53 bits
    if number < 1:
        raise SizeError(f"{size!r} is less than one byte: write a positive size, as in 512MB")
    return number


def parse_budget(size: float | str) -> int:
    """A memory budget in bytes. Raises SizeError as `parse_bytes` does, and for a bare number that is too small
    to mean bytes.

    >>> parse_budget("512MB")
    512000000
    >>> parse_budget(500)
    Traceback (most recent call last):
    streamtrain.errors.SizeError: --memory 500: is 500 bytes; write 500MB if megabytes are meant
    """
    number = parse_bytes(size)
    if number < _LEAST_BARE_BUDGET and not re.search("[a-z]", str(size), re.IGNORECASE):
        raise SizeError(f"--memory {size}: is {number} bytes; write {str(size).strip()}MB if megabytes are meant")
    return number


def format_bytes(size: int) -> str:
    """Write a size for people, in powers of ten.

    >>> format_bytes(512_000_000), format_bytes(999), format_bytes(1_500), format_bytes(3_284_000_000)
    ('512 MB', '999 B', '1.5 kB', '3.28 GB')
    """
    number, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if abs(number) < 999.5:
            break
        number, unit = number / 1000, larger
    return f"{number:.3g} {unit}"


def readable_above(size: int) -> int:
    """The least size from ``size`` on that `format_bytes` shows in full: whole MB, and three digits.

    >>> readable_above(150_000_001), readable_above(5_541_000_000), readable_above(7)
    (151000000, 5550000000, 1000000)
    """
    step = int(10 ** max(6, len(str(size)) - 3))
    return -(-size // step) * step


def predicted_peak(terms: Mapping[str, int]) -> int:
    """Return the predicted peak of the process: the sum of the terms, because one process holds all of them at once.

    >>> predicted_peak({"baseline": 80, "windows": 20})
    100
    """
    return sum(terms.values())


def sorted_terms(terms: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return the terms with their bytes, largest first."""
    return sorted(terms.items(), key=lambda item: -item[1])


def shares(parts: Mapping[str, float]) -> dict[str, float]:
    """Return the share of each part in the sum, in steps of 0.1 %, rounded so that the shares add up to 1.

    Each is rounded down, and the steps that are left go to those that lost most. All are 0 where the sum is.

    >>> shares({"wait": 1.0, "learn": 1.0, "other": 1.0})
    {'wait': 0.334, 'learn': 0.333, 'other': 0.333}
    """
    total = sum(parts.values())
    exact = {name: _STEPS * part / total if total else 0.0 for name, part in parts.items()}
    steps = {name: int(share) for name, share in exact.items()}
    left = (_STEPS if total else 0) - sum(steps.values())
    for name in sorted(exact, key=lambda name: steps[name] - exact[name])[:left]:
        steps[name] += 1
    return {name: count / _STEPS for name, count in steps.items()}

"""Where a page or a picture may be written, checked before the work is done, and writing it whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from streamtrain.errors import UsageError, printable
from streamtrain.state import write_beside

__all__ = ["PAGE_ENDINGS", "require_file", "written"]

PAGE_ENDINGS = (".html", ".htm")


def require_file(path: str | Path, endings: Sequence[str], data: Any = None) -> Path:
    """Return the path if a file with one of the endings can be written there. Raises UsageError otherwise.

    data: the data that are read; the file may not be among them.

    >>> require_file("no/such/memory.html", [".html"])
    Traceback (most recent call last):
    ...
    streamtrain.errors.UsageError: no/such/memory.html: the folder no/such does not exist: create it, or name another
    >>> require_file("data.parquet", [".html", ".htm"])
    Traceback (most recent call last):
    ...
    streamtrain.errors.UsageError: data.parquet: must end in .html or .htm
    """
    asked, place = printable(str(path)), Path(path)
    if place.suffix.lower() not in endings:
        *others, last = endings
        known = f"{', '.join(others)} or {last}" if others else last
        raise UsageError(f"{asked or 'the file name'}: must end in {known}")
    try:
        if not place.parent.is_dir():
            raise UsageError(
                f"{asked}: the folder {printable(str(place.parent))} does not exist: create it, or name another"
            )
        if (place.exists() or place.is_symlink()) and not place.is_file():
            raise UsageError(f"{asked}: exists and is not a file: name another")
        if not os.access(place if place.exists() else place.parent, os.W_OK):
            raise UsageError(f"{asked}: cannot be written: name another file")
        if isinstance(data, (str, Path)) and Path(data).is_dir() and Path(data).resolve() in place.resolve().parents:
            raise UsageError(f"{asked}: is inside the data: name a file elsewhere")
    except (OSError, ValueError) as error:  # the name is too long, or has a null byte
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{asked}: cannot be written: {getattr(error, 'strerror', None) or error}") from None
    return place


@contextmanager
def written(place: Path) -> Iterator[Path]:
    """Yield a hidden path for a file that takes the name ``place`` when the block ends (see `write_beside`).

    Raises UsageError where it cannot be written."""
    try:
        with write_beside(place) as hidden:
            yield hidden
    except OSError as error:
        raise UsageError(f"{printable(str(place))}: cannot be written: {error.strerror or error}") from error

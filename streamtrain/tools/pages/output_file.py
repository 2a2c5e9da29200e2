"""The file of a page or a picture: checked before the work is done, and written completely or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from streamtrain.errors import UsageError, printable
from streamtrain.state import write_beside
from streamtrain.storage.files.apart import require_apart

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
    shown, file = printable(str(path)), Path(path)
    if file.suffix.lower() not in endings:
        *others, last = endings
        known = f"{', '.join(others)} or {last}" if others else last
        raise UsageError(f"{shown or 'the file name'}: must end in {known}")
    try:
        if not file.parent.is_dir():
            raise UsageError(
                f"{shown}: the folder {printable(str(file.parent))} does not exist: create it, or name another"
            )
        if (file.exists() or file.is_symlink()) and not file.is_file():
            raise UsageError(f"{shown}: exists and is not a file: name another")
        if not os.access(file if file.exists() else file.parent, os.W_OK):
            raise UsageError(f"{shown}: cannot be written: name another file")
        require_apart(str(path), file, data)
    except (OSError, ValueError) as error:  # the name is too long, or has a null byte
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{shown}: cannot be written: {getattr(error, 'strerror', None) or error}") from None
    return file


@contextmanager
def written(file: Path) -> Iterator[Path]:
    """Yield a hidden path for a file that takes the name ``file`` when the block ends (see `write_beside`).

    Raises UsageError where it cannot be written."""
    try:
        with write_beside(file) as hidden:
            yield hidden
    except OSError as error:
        raise UsageError(f"{printable(str(file))}: cannot be written: {error.strerror or error}") from error

"""Where a profile may be written: to be asked before it is taken, not after."""

from __future__ import annotations

import os
from pathlib import Path

from streamtrain.errors import UsageError
from streamtrain.text import printable

__all__ = ["require_file"]


def require_file(path: str | Path) -> Path:
    """The path, if a file can be written there; otherwise UsageError.

    >>> require_file("no/such/folder/memory.html")
    Traceback (most recent call last):
    ...
    streamtrain.errors.UsageError: no/such/folder/memory.html: there is no folder no/such/folder: make it first, or name another
    """
    asked, place = printable(str(path)), Path(path)
    if not place.parent.is_dir():
        raise UsageError(f"{asked}: there is no folder {printable(str(place.parent))}: make it first, or name another")
    if place.is_dir():
        raise UsageError(f"{asked}: is a folder: name a file")
    if not os.access(place if place.exists() else place.parent, os.W_OK):
        raise UsageError(f"{asked}: cannot be written: name another place")
    return place

"""What a command prints on stdout: with ``--json`` its result alone, and errors of writing there say where they are from."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TextIO

__all__ = ["kept_for_result", "result_on_stdout"]

_kept: list[TextIO] = []  # stdout, while something else is in its place


@contextmanager
def kept_for_result() -> Iterator[None]:
    """Send what the block prints to stderr, as code of a user may print anything, but for its `result_on_stdout`."""
    _kept.append(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _kept.pop()


@contextmanager
def result_on_stdout() -> Iterator[None]:
    """Print the result of a command, and flush it. An OSError of the block names stdout."""
    out = _kept[-1] if _kept else sys.stdout
    try:
        with redirect_stdout(out):
            yield
            print(end="", flush=True)
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, "stdout") from error

"""Messages of the library on stderr, for the command line. A program that uses the library decides for itself."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from streamtrain.errors import printable

__all__ = ["shown_on_stderr"]


class _ToStderr(logging.Handler):
    """One line a message, to what ``sys.stderr`` is at that moment: a progress bar puts itself there."""

    def emit(self, record: logging.LogRecord) -> None:
        kind = "warning: " if record.levelno >= logging.WARNING else ""
        with suppress(OSError):  # whoever read stderr is gone
            print(kind + printable(record.getMessage()), file=sys.stderr, flush=True)


@contextmanager
def shown_on_stderr() -> Iterator[None]:
    """Show messages of the logger ``streamtrain``, from level INFO on, for the block."""
    logger, handler = logging.getLogger("streamtrain"), _ToStderr()
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]

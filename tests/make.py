"""What tests of several folders share."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["PROMPT", "WAIT", "wait_for"]

WAIT = 300.0
"""Seconds that anything may take on a busy machine: a test that waits longer has failed."""

PROMPT = 15.0
"""Seconds for what takes less than one on an idle machine, where what must not be waited for takes minutes."""


def wait_for(condition: Callable[[], object], what: str, *, seconds: float = WAIT) -> None:
    """Wait until the condition is true, looked at a hundred times a second. Raises AssertionError after ``seconds``.

    what: what is waited for, for the message.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:g} s for {what}"
        time.sleep(0.01)

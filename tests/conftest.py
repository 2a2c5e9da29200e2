"""For all tests."""

from __future__ import annotations

import gc
import signal

from hypothesis import settings

settings.register_profile("any machine", deadline=None)  # some are slow, or busy
settings.load_profile("any machine")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # shells start what runs in the background so
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """What the imports made is not looked through again. Every run collects garbage before it measures its peak, which would
    take 0.1 to 0.3 s each time, with the libraries of all tests in one process: half of the time of tests that fit or copy."""
    gc.collect()
    gc.freeze()

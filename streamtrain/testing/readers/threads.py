"""Many threads at once, as a check of what a reader shares between them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

from streamtrain.testing.readers.subject import require

__all__ = ["in_threads"]

_THREADS, _THREADS_SECONDS = 8, 120.0


def in_threads(work: Callable[[int], None]) -> None:
    """Run ``work`` on eight threads that start together and switch often. Raises the first exception, or CheckFailed if they
    are not done after two minutes."""
    start, errors = threading.Barrier(_THREADS), []

    def one(number: int) -> None:
        try:
            start.wait(_THREADS_SECONDS)
            work(number)
        except BaseException as error:  # a SystemExit would end the thread without a word
            errors.append(error)

    threads = [threading.Thread(target=one, args=(i,), daemon=True) for i in range(_THREADS)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(_THREADS_SECONDS)
    finally:
        sys.setswitchinterval(interval)
    for error in errors:
        raise error
    require(
        not any(thread.is_alive() for thread in threads),
        f"reads on {_THREADS} threads did not end within {_THREADS_SECONDS:.0f} s",
    )

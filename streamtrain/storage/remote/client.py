"""Requests with retries: the pauses grow, their number and time are bounded, they are counted, and they stop at once when the
process ends."""

from __future__ import annotations

import math
import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from streamtrain.errors import DataError, UsageError
from streamtrain.storage.files.store import Stat
from streamtrain.storage.remote.address import Address, problem_of_path
from streamtrain.storage.remote.failure import Failure, error_of, gone_silent
from streamtrain.storage.remote.transport import Entry, Part, Transport, connect, is_signed

__all__ = ["Client", "Traffic"]

_TRIES = 24
_SECONDS = 60.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 5.0
_POLL_SECONDS = 0.2  # interval at which a wait checks whether the process is ending

_pool = ThreadPoolExecutor(
    1, thread_name_prefix="streamtrain-alive"
)  # raises RuntimeError once the interpreter is ending

T = TypeVar("T")


class Traffic:
    """Counts of requests to a server (retries included), retries, and bytes received."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.requests = self.retries = self.nbytes = 0

    def add(self, requests: int = 0, retries: int = 0, nbytes: int = 0) -> None:
        """Add to the counts. Thread-safe."""
        with self._lock:
            self.requests += requests
            self.retries += retries
            self.nbytes += nbytes

    def as_dict(self) -> dict[str, int]:
        """The counts by name, for the report."""
        return {"requests": self.requests, "retries": self.retries, "bytes": self.nbytes}

    def __reduce__(self) -> tuple[Any, ...]:  # each process has its own counts
        return Traffic, ()


class Client:
    """Makes requests to one server, bucket or container. Picklable and thread-safe.

    Every method raises NotFoundError, DataError (access refused, or all retries failed) or CorruptError (the file has changed).
    The messages name the URL.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self.traffic = Traffic()
        self._seconds = _retry_seconds()
        self._random = random.Random()  # random pauses, so that processes do not retry at the same moment
        self._transport: Transport | None = None
        self._lock = threading.Lock()

    def part(self, path: str, start: int, stop: int) -> Part:
        """The bytes from ``start`` to ``stop``, fewer if the file ends earlier, and its current size and version."""
        return self._request(path, lambda to: to.part(path, start, stop))

    def tail(self, path: str, count: int) -> Part:
        """The last ``count`` bytes of a file."""
        return self._request(path, lambda to: to.tail(path, count))

    def whole(self, path: str) -> Part:
        """All bytes of a file."""
        return self._request(path, lambda to: to.whole(path))

    def stat(self, path: str) -> Stat:
        """The current size and version of a file."""
        return self._request(path, lambda to: to.stat(path))

    def entries(self, path: str, *, deep: bool) -> list[Entry] | None:
        """The content of a folder, or with ``deep`` the files at any depth; None if the server does not list it."""
        return self._request(path, lambda to: to.entries(path, deep=deep))

    def _request(self, path: str, request: Callable[[Transport], T]) -> T:
        if (problem := problem_of_path(path)) is not None:  # a name from a listing
            raise DataError(
                f"{self.address.at(path).shown}: the name has {problem}, so that no server can be asked for it: rename "
                "the file on the server, or download it"
            )
        transport = self._connected()
        started = time.monotonic()
        most = _TRIES + int(self._seconds)
        for tries in range(1, most + 1):
            self.traffic.add(requests=1, retries=int(tries > 1))
            try:
                answer = _on_a_thread(lambda: request(transport))
            except Failure as failure:
                waited = time.monotonic() - started
                pause = self._random.uniform(0, min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2.0**tries))
                if failure.final:
                    raise error_of(failure, self.address.at(path), signed=is_signed(self.address)) from None
                if tries == most or waited + pause > self._seconds:
                    raise gone_silent(failure, self.address.at(path), tries, waited) from None
                _wait(threading.Event(), pause)
            else:
                self.traffic.add(nbytes=answer.data.size if isinstance(answer, Part) else 0)
                return answer
        raise AssertionError("unreachable")

    def _connected(self) -> Transport:
        with self._lock:
            if self._transport is None:
                self._transport = connect(self.address)
            return self._transport

    def __getstate__(self) -> dict[str, Any]:
        return {"address": self.address}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["address"])  # type: ignore[misc]


def _on_a_thread(request: Callable[[], T]) -> T:
    """Make a request on a thread of its own. A running request cannot be interrupted, but the thread that waits for it can: it
    sees Ctrl-C and the end of the process."""
    outcome: list[T | BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            outcome.append(request())
        except BaseException as error:
            outcome.append(error)
        done.set()

    threading.Thread(target=run, name="streamtrain-request", daemon=True).start()
    _wait(done, math.inf)
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def _wait(event: threading.Event, seconds: float) -> None:
    """Wait for an event, at most so many seconds. Raises KeyboardInterrupt once the process is ending."""
    end = time.monotonic() + seconds
    while not event.wait(min(_POLL_SECONDS, max(0.0, end - time.monotonic()))) and time.monotonic() < end:
        try:
            _pool.submit(int)
        except RuntimeError:  # at its end the interpreter waits for pool threads, and this may be one
            raise KeyboardInterrupt from None


def _retry_seconds() -> float:
    text = os.environ.get("STREAMTRAIN_RETRY_SECONDS", "")
    try:
        seconds = float(text or _SECONDS)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= 86_400:
        raise UsageError(f"STREAMTRAIN_RETRY_SECONDS={text}: must be a number of seconds from 0 to 86400")
    return seconds

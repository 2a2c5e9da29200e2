"""Who reads. Each window is one low-level dask graph with a task for each run of pieces: a large chunk, or neighbouring small
ones, because a task takes 3 kB however little it does. dask's threaded scheduler runs it, or the threads of a
``distributed.Client`` read its whole chunks. dask never gets a whole epoch at once: with a slow learner it would load all of
it ahead. What is read, and in which order rows are learned, does not depend on the scheduler."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import dask.threaded

from streamtrain.errors import DataError, UsageError

__all__ = ["ClusterScheduler", "ThreadScheduler", "connected", "make_scheduler", "require_cluster", "threads_of"]

_CONNECT_SECONDS = 30.0

Task = tuple[Callable[..., Any], *tuple[Any, ...]]


class ThreadScheduler:
    """dask's threaded scheduler, on a pool of threads that `close` ends."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="streamtrain-read")

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Any]]:
        graph = {f"read-{i}": task for i, task in enumerate(tasks)}
        yield from enumerate(dask.threaded.get(graph, list(graph), pool=self._pool))

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


class ClusterScheduler:
    """The threads of a ``distributed.Client``, which read chunks and return arrays, a few at a time."""

    def __init__(self, client: Any, threads: int) -> None:
        self._client, self._workers = client, threads

    def run(self, tasks: Iterable[Task]) -> Iterator[tuple[int, Any]]:
        """The number and the result of each task, in any order. If a task raised a DataError, that error is its result."""
        from distributed import as_completed

        waiting = enumerate(tasks)
        numbers: dict[str, int] = {}
        ready = as_completed(loop=self._client.loop)
        for _ in range(self._workers):
            self._submit(waiting, numbers, ready)
        while numbers:
            future = next(ready)
            try:
                result = future.result()
            except DataError as error:
                result = error
            number = numbers.pop(future.key)
            future.release()
            self._submit(waiting, numbers, ready)
            yield number, result

    def _submit(self, waiting: Iterator[tuple[int, Task]], numbers: dict[str, int], ready: Any) -> None:
        if (task := next(waiting, None)) is not None:
            number, (function, *arguments) = task
            future = self._client.submit(function, *arguments, pure=False)
            numbers[future.key] = number
            ready.add(future)

    def share(self, value: Any) -> Any:
        """A value that is sent to every worker once."""
        return self._client.scatter(value, broadcast=True, hash=False)

    def close(self) -> None:
        """Does nothing: the client belongs to the caller."""


def make_scheduler(client: Any, threads: int) -> ThreadScheduler | ClusterScheduler:
    """The scheduler of a ``distributed.Client``; without one, of threads of this process."""
    return ThreadScheduler(threads) if client is None else ClusterScheduler(client, threads)


def _is_client(cluster: Any) -> bool:
    return hasattr(cluster, "submit") and hasattr(cluster, "scatter")


def require_cluster(cluster: Any) -> None:
    """Raise UsageError unless this is a ``distributed.Client``, the address of a dask scheduler, or None."""
    if cluster is None or _is_client(cluster) or (isinstance(cluster, str) and ":" in cluster):
        return
    raise UsageError(
        f"--cluster {cluster}: must be the address of a dask scheduler, as in tcp://host:8786, or a distributed.Client"
    )


@contextmanager
def connected(cluster: Any) -> Iterator[Any]:
    """The client of a cluster, for as long as the block runs: a ``distributed.Client`` as it is, one that is made for the
    address of a dask scheduler and closed in the end, or None for no cluster.

    Raises UsageError for anything else, for an address where no scheduler answers, and without distributed.
    """
    require_cluster(cluster)
    if cluster is None or _is_client(cluster):
        yield cluster
        return
    try:
        from distributed import Client
    except ImportError:
        raise UsageError(f"--cluster {cluster}: needs distributed: pip install 'streamtrain[distributed]'") from None
    try:
        client = Client(cluster, set_as_default=False, timeout=_CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise UsageError(f"--cluster {cluster}: cannot connect: {error}") from error
    with client:
        yield client


def threads_of(client: Any) -> int | None:
    """How many threads a cluster has; None without one."""
    return None if client is None else max(1, sum(client.nthreads().values()))

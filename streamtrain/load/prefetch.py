"""The background half of the loader: one thread fills the windows in order, ahead of the learner."""

from __future__ import annotations

import queue
import threading
from contextlib import ExitStack
from functools import cached_property
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.errors import DataError
from streamtrain.load.chunks import load_chunks
from streamtrain.load.holdout import HoldOut
from streamtrain.load.ledger import Ledger
from streamtrain.load.read import PieceReader, Stopped
from streamtrain.load.schedulers import ClusterScheduler, connected, make_scheduler
from streamtrain.load.source import Source
from streamtrain.load.window import Window, WindowOrder
from streamtrain.memory.gate import ByteGate, never
from streamtrain.memory.monitor import Monitor
from streamtrain.memory.process import steady_allocators
from streamtrain.plan import Plan
from streamtrain.plan.order import streamed

__all__ = ["Prefetcher"]

_POLL_SECONDS = 0.2  # how long a wait lasts before it checks whether the thread still runs
_STOP_SECONDS = 1.0  # how long to wait for a read to end before it is abandoned


class Prefetcher:
    """Fills windows from ``window`` of ``epoch`` on. `next` returns them in order, `release` takes back used ones.

    As many windows are in flight as there are buffers: filling waits for a free one. An error is raised in place of its window.
    """

    def __init__(
        self, source: Source, plan: Plan, cluster: Any, *, seed: int, holdout: HoldOut, epoch: int, window: int,
        epochs: int | None, monitor: Monitor | None, ledger: Ledger | None,
    ) -> None:  # fmt: skip
        self._source, self._plan, self._seed, self._holdout = source, plan, seed, holdout
        self._first, self._epochs = (epoch, window), epochs
        self._stack = ExitStack()
        self.gate = ByteGate(max(1, plan.read_bytes), monitor.near if monitor else never)
        self.reader = PieceReader(
            source.reader, source.table, source.layout, share=plan.read_share, slice_rows=plan.slice_rows,
            streamed=streamed(source.table.rows, plan.window_rows, shuffle=plan.shuffle),
            sliced=plan.sliced, gate=self.gate, read_bytes=plan.read_bytes // max(1, min(plan.threads, plan.chunks)),
            threads=plan.threads, ledger=ledger, digests=source.digests,
        )  # fmt: skip
        self._free: queue.SimpleQueue[Window | None] = queue.SimpleQueue()
        rows = min(plan.window_rows, plan.rows)
        buffers = [Window(source.layout, rows) for _ in range(min(plan.windows_in_flight, max(1, plan.windows)))]
        self.buffer_bytes = sum(w.arrays.nbytes for w in buffers)
        for buffer in buffers:
            self._free.put(buffer)
        self._ready: queue.SimpleQueue[Window | BaseException | None] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._scheduler = make_scheduler(self._stack.enter_context(connected(cluster)), plan.threads)
        self._stack.enter_context(steady_allocators())
        self._thread = threading.Thread(target=self._run, name="streamtrain-fill", daemon=True)
        self._thread.start()

    def next(self) -> Window | None:
        """The next window; None at the end of an epoch. Raises the error that filling it raised."""
        while True:
            try:
                item = self._ready.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                if not self._thread.is_alive() and self._ready.empty():
                    raise RuntimeError("the loader's thread ended without an error: this is a bug") from None
                continue
            if isinstance(item, BaseException):
                self._ready.put(item)  # every later call raises it again
                raise item
            return item

    def release(self, window: Window) -> None:
        """Take back a window that is used up."""
        self._free.put(window)

    def stop(self) -> None:
        """Stop reading and release threads; reads under way are abandoned."""
        self._stopped.set()
        self.reader.stopped = True
        self.gate.close()
        self._free.put(None)
        self._thread.join(_STOP_SECONDS)
        self._scheduler.close()
        self._stack.close()

    def _run(self) -> None:
        try:
            epoch, first = self._first
            for number in count(epoch) if self._epochs is None else range(epoch, self._epochs):
                self._run_epoch(number, first if number == epoch else 0)
        except Stopped:
            return
        except BaseException as error:
            self._ready.put(error)

    def _run_epoch(self, epoch: int, first: int) -> None:
        orders = WindowOrder.of_epoch(
            self._source.table, self._plan, seed=self._seed, epoch=epoch, holdout=self._holdout, first=first
        )
        while True:
            window = self._take_free()
            window.forget()  # before the next order is made: each may have a million pieces
            if (order := next(orders, None)) is None:
                self._free.put(window)
                break
            window.begin(order)
            self._fill(window)
            window.finish()
            self._ready.put(window)
        self._ready.put(None)

    def _take_free(self) -> Window:
        window = self._free.get()
        if window is None or self._stopped.is_set():
            raise Stopped
        return window

    def _fill(self, window: Window) -> None:
        whole, streamed = self.reader.runs(window.order.pieces)
        if isinstance(self._scheduler, ClusterScheduler):
            self._fill_from_cluster(self._scheduler, window, whole)
            for run in streamed:  # their streams are open here
                self.reader.read_run(run, window)
        else:
            tasks = [(self.reader.read_run, run, window) for run in (*streamed, *whole)]
            for _ in self._scheduler.run(tasks):
                pass

    def _fill_from_cluster(self, scheduler: ClusterScheduler, window: Window, runs: list[NDArray[np.int64]]) -> None:
        """Let the cluster read whole chunks."""
        kept = [np.array([n for n in run.tolist() if not self.reader.is_lost(n, window)], np.int64) for run in runs]
        kept = [run for run in kept if len(run)]
        chunks, table = window.order.pieces.chunks, self._source.table
        tasks = (
            (
                load_chunks,
                *self._shared,
                [table[i] for i in chunks[run].tolist()],
                self.reader.groups,
                self.reader.skips,
            )
            for run in kept
        )
        for i, result in scheduler.run(tasks):
            if isinstance(result, DataError):
                raise result
            arrays, unusable, digests, errors = result
            for piece, digest in digests.items():
                if self._source.digests is not None:
                    self._source.digests.check(int(chunks[kept[i][piece]]), digest)
            positions = window.order.positions_together(kept[i])
            window.arrays.scatter_from(arrays, positions)
            for piece, rows, why in unusable:
                self.reader.skip(int(chunks[kept[i][piece]]), window, positions[rows], why)
            for piece, error in errors.items():
                self.reader.lose(int(kept[i][piece]), window, error)
            if self._stopped.is_set():
                raise Stopped

    @cached_property
    def _shared(self) -> tuple[Any, Any]:
        """Reader and layout on every worker of the cluster, sent once."""
        scheduler = self._scheduler
        assert isinstance(scheduler, ClusterScheduler)
        return scheduler.share(self._source.reader), scheduler.share(self._source.layout)

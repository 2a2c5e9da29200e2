"""The background half of the loader: one thread fills the windows in order, ahead of the learner."""

from __future__ import annotations

import queue
import threading
from contextlib import ExitStack
from functools import cached_property, partial
from itertools import count
from typing import Any

from streamtrain.errors import DataError
from streamtrain.load.ledger import Ledger
from streamtrain.load.read import PieceReader, Placed, Stopped, load_chunk
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
        self, source: Source, plan: Plan, cluster: Any, *, seed: int, holdout: float, epoch: int, window: int,
        epochs: int | None, monitor: Monitor | None, ledger: Ledger | None,
    ) -> None:  # fmt: skip
        self._source, self._plan, self._seed, self._holdout = source, plan, seed, holdout
        self._first, self._epochs, self._skips = (epoch, window), epochs, ledger is not None
        self._stack = ExitStack()
        self.gate = ByteGate(max(1, plan.read_bytes), monitor.near if monitor else never)
        self.reader = PieceReader(
            source.reader, source.table, source.layout, share=plan.read_share, slice_rows=plan.slice_rows,
            streamed=streamed(source.table.rows, plan.window_rows, shuffle=plan.shuffle),
            sliced=plan.sliced, gate=self.gate, read_bytes=plan.read_bytes // max(1, min(plan.threads, plan.chunks)),
            ledger=ledger,
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
        for order in orders:
            window = self._take_free()
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
        placed = window.order.placed()
        if isinstance(self._scheduler, ClusterScheduler):
            self._fill_from_cluster(self._scheduler, window, placed)
        else:
            tasks = [(partial(self.reader.read_sequence, pieces, window),) for pieces in self.reader.sequences(placed)]
            for _ in self._scheduler.run(tasks):
                pass

    def _fill_from_cluster(self, scheduler: ClusterScheduler, window: Window, placed: list[Placed]) -> None:
        """Let the cluster read whole chunks; pieces of streamed chunks are read here, because their streams are open here."""
        placed = [
            (piece, positions) for piece, positions in placed if not self.reader.is_lost(piece, window, positions)
        ]
        whole = [(piece, positions) for piece, positions in placed if self.reader.is_whole(piece)]
        chunks = [self._source.table[piece.chunk] for piece, _ in whole]
        tasks = [(load_chunk, *self._shared, chunk, self.reader.groups, self._skips) for chunk in chunks]
        for i, result in scheduler.run(tasks):
            piece, positions = whole[i]
            if isinstance(result, DataError):
                self.reader.lose(piece, window, positions, result)
            else:
                arrays, lost = result
                window.arrays.scatter_from(arrays, positions(0, piece.rows))
                for rows in lost:
                    window.lose(positions(0, piece.rows)[rows])
            if self._stopped.is_set():
                raise Stopped
        for piece, positions in placed:
            if not self.reader.is_whole(piece):
                self.reader.read(piece, window, positions)

    @cached_property
    def _shared(self) -> tuple[Any, Any]:
        """Reader and layout on every worker of the cluster, sent once."""
        scheduler = self._scheduler
        assert isinstance(scheduler, ClusterScheduler)
        return scheduler.share(self._source.reader), scheduler.share(self._source.layout)

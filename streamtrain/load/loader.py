"""The loader: windows are filled in the background, batches of exactly the asked size are cut in the foreground.

One batch, walked through: `shuffle.windows` says which pieces make up the next window; a background thread (`fill`)
hands them to the scheduler, one dask task a piece; each task reads its chunk inside the byte gate and writes the numbers
into a free window buffer, each row at the place at which it will be learned (`read`, `layout`, `window`); the full window
waits its turn; ``next()`` cuts the next ``batch_size`` rows off it (`cut`); the buffer of a used-up window is filled again.

State is a few integers: nothing that is in a buffer is part of it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from streamtrain.batch import Batch
from streamtrain.errors import CorruptError, UsageError
from streamtrain.load.batches import BatchBuffer
from streamtrain.load.cursor import START, checked, nowhere, order_of
from streamtrain.load.ledger import Ledger
from streamtrain.load.prefetch import Prefetcher
from streamtrain.load.source import Source
from streamtrain.load.window import Window
from streamtrain.memory.monitor import Monitor
from streamtrain.memory.sizes import format_bytes
from streamtrain.notebook import count, html_table, one_line
from streamtrain.plan import Plan
from streamtrain.plan.order import windows

__all__ = ["Loader"]


class Loader:
    """Batches of exactly ``plan.batch_size`` rows, each training row once an epoch; the last of an epoch may be smaller.

    Iterating runs to the end of the current epoch; iterating again runs the next one. Held-out rows arrive as batches of
    their own (``batch.held_out``), once the rows of their window have been handed out. Close it, or use it in ``with``.

    source, plan: what to read, and how (`Source.plan`). seed: of the order. holdout: the share of rows for scoring only.
    scheduler: ``"threads"`` or a ``distributed.Client``. epochs: how many there will be; None for no end (the first
    windows of the next epoch are then read ahead). monitor: reads go one at a time while it says that the process is near
    its budget. ledger: where chunks that cannot be read and rows without a usable target are entered and left out: the
    rows that remain stand in the order in which they would without them. None: these are errors.

    >>> import numpy as np
    >>> from streamtrain.load import Source
    >>> source = Source.open({"x": np.arange(100.0), "y": np.arange(100) % 2}, target="y").surveyed()
    >>> with Loader(source, source.plan(batch_size=40), epochs=1) as loader:
    ...     [len(batch) for batch in loader]
    [40, 40, 20]
    """

    def __init__(
        self, source: Source, plan: Plan, *, seed: int = 0, holdout: float = 0.0, scheduler: Any = None,
        epochs: int | None = None, monitor: Monitor | None = None, ledger: Ledger | None = None,
    ) -> None:  # fmt: skip
        if not 0 <= holdout < 1:
            raise UsageError(f"--holdout {holdout}: must be at least 0 and below 1")
        if seed < 0:
            raise UsageError(f"--seed {seed}: must not be negative")
        self.source, self.plan = source, plan
        self._options: dict[str, Any] = {
            "scheduler": scheduler,
            "seed": seed,
            "holdout": holdout,
            "epochs": epochs,
            "monitor": monitor,
            "ledger": ledger,
        }
        self._training = BatchBuffer(source.layout, plan.batch_size)
        self._scoring = BatchBuffer(source.layout, plan.batch_size) if holdout else None
        self._cursor = dict(START)
        self._filler: Prefetcher | None = None
        self._window: Window | None = None
        self._row = 0  # of the window: the next to gather
        self._reads_over = self._ended = self._begins = False
        self.wait_seconds = 0.0  # how long `next` waited for windows

    def state_dict(self) -> dict[str, int]:
        """The cursor: epoch, window and row to hand out next, rows seen, window and row held out; and ``order``, a number
        that only loaders have that cut the same batches from the same rows."""
        return {**self._cursor, "order": self._order}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Stand where another loader of the same order stood; it may have had other threads, and read other bytes at once.

        Raises UsageError, and changes nothing, for what is no state, and for a state of another order: of other chunks, or
        another seed, shuffle, batch size, hold-out or number of rows in a window. A place that is not there in this order
        is an error when iterating comes to it.
        """
        cursor = checked(state, self._order, holds_out=self._scoring is not None)
        self.close()
        self._cursor, self._ended = cursor, False

    @cached_property
    def _order(self) -> int:
        return order_of(self.source.table.rows, self.plan, self._options["seed"], self._options["holdout"])

    @property
    def epoch(self) -> int:
        """The epoch that the next batch belongs to."""
        return self._cursor["epoch"]

    @property
    def rows_seen(self) -> int:
        """Rows handed out to be learned, over all epochs."""
        return self._cursor["rows_seen"]

    @property
    def read_seconds(self) -> float:
        """Time spent in reads, over all threads."""
        return self._filler.reader.seconds if self._filler else 0.0

    def measured_bytes(self) -> dict[str, int]:
        """What terms of the plan really took: buffers by their size, reads by the most that the gate held."""
        batches = self._training.nbytes + (self._scoring.nbytes if self._scoring else 0)
        if self._filler is None:
            return {"windows": 0, "reads": 0, "batches": batches}
        return {"windows": self._filler.buffer_bytes, "reads": self._filler.gate.peak_bytes, "batches": batches}

    def held_bytes(self) -> dict[str, int]:
        """Bytes at this moment: of the window buffers, and what the gate admitted."""
        filler = self._filler
        if filler is None:
            return {"window_bytes": 0, "reading_bytes": 0}
        return {"window_bytes": filler.buffer_bytes, "reading_bytes": filler.gate.held_bytes}

    def __iter__(self) -> Iterator[Batch]:
        self._ended = False
        return self

    def runs(self, most: int) -> Iterator[Batch]:
        """As iterating, but up to ``most`` batches that stand one after the other in a window arrive as one, for those
        who learn from many at a time. The last of them may be smaller only where a batch would be."""
        self._ended = False
        while (batch := self._next(most if self._training.views else 1)) is not None:
            yield batch

    def __next__(self) -> Batch:
        batch = self._next(1)
        if batch is None:
            raise StopIteration
        return batch

    def _next(self, most: int) -> Batch | None:
        """Up to ``most`` batches; None at the end of the epoch."""
        epochs = self._options["epochs"]
        if self._ended or (epochs is not None and self.epoch >= epochs):
            return None
        filler = self._start()
        while (window := self._current(filler)) is not None:
            first, rows = self._row, self._training.rows
            last = min(window.standing.training, first + rows - self._training.filled)
            if not self._training.filled and last - first == rows:
                last += min(most - 1, (window.standing.training - last) // rows) * rows
            if first < last:
                self._row = last
                if (batch := self._training.view(window, first, last)) is not None:
                    return self._hand_out(batch, window.arrangement.number, window.standing.training)
                self._training.gather(window, first, last)
                if self._training.filled == self._training.rows:
                    return self._hand_out(self._training.batch(), window.arrangement.number, window.standing.training)
            elif (batch := self._next_held(window)) is not None:
                return batch
            else:
                self._last, self._row, self._window = window.arrangement.number, 0, None
                filler.release(window)
        if self._training.filled:
            return self._hand_out(self._training.batch(), self._last + 1, 0)
        self._require(self._scoring is None or self._cursor["held_window"] == self._last + 1)
        self._cursor |= {"epoch": self.epoch + 1, "window": 0, "row": 0, "held_window": 0, "held_row": 0, "training": 0}
        self._reads_over, self._ended = False, True
        return None

    def _start(self) -> Prefetcher:
        if self._filler is None:
            epoch, window = self._cursor["epoch"], self._cursor["window"]
            self._filler = Prefetcher(self.source, self.plan, **self._options, epoch=epoch, window=window)
            self._row, self._last = self._cursor["row"], window - 1
            self._begins = True
        return self._filler

    def _current(self, filler: Prefetcher) -> Window | None:
        """The window that rows are taken from; None at the end of the epoch."""
        if self._window is None and not self._reads_over:
            started = time.perf_counter()
            self._window = filler.next()
            self._reads_over = self._window is None
            self.wait_seconds += time.perf_counter() - started
            if self._begins:
                self._require(self._is_there(self._window))
                self._begins = False
        return self._window

    def _is_there(self, first: Window | None) -> bool:
        """Whether the row to hand out next is in the first window that was read, or begins what is behind the last one."""
        if first is not None:
            training = first.standing.training
            if self._row and training != self._cursor["training"] >= self._row:
                self.close()
                before = self._cursor["training"]
                raise CorruptError(
                    f"window {self._cursor['window'] + 1} of epoch {self.epoch + 1} had {before:,} rows to learn when it was "
                    f"left, and has {training:,} now: a chunk of it can be read no more, or can be read again "
                    f"({self._skipped()}): restore the data as they were"
                )
            return self._row <= training
        table, plan, seed = self.source.table, self.plan, self._options["seed"]
        order = windows(table.rows, plan.window_rows, seed=seed, epoch=self.epoch, shuffle=plan.shuffle)
        return self._row == 0 and self._cursor["window"] == sum(1 for _ in order)

    def _skipped(self) -> str:
        """The chunks that are skipped, as far as can be said in a line."""
        ledger = self._options["ledger"]
        names = [] if ledger is None else [entry["chunk"] for entry in ledger.entries()]
        return f"skipped now: {', '.join(names[:3]) or 'none'}{' and more' if len(names) > 3 else ''}"

    def _require(self, is_there: bool) -> None:
        """Raise UsageError unless the place at which the state stands is there, however often one asks."""
        if not is_there:
            self.close()
            raise nowhere(self._cursor)

    def _hand_out(self, batch: Batch, window: int, training: int) -> Batch:
        held = self._cursor["held_window"], self._cursor["held_row"]
        self._require(self._scoring is None or held == (window, 0))  # what is held out comes at the end of its window
        seen = self.rows_seen + len(batch)
        self._cursor |= {"window": window, "row": self._row, "rows_seen": seen, "training": training}
        return batch

    def _next_held(self, window: Window) -> Batch | None:
        """The next held-out rows of the window, unless they have been handed out."""
        if self._scoring is None or self._cursor["held_window"] > window.arrangement.number:
            return None
        row = self._cursor["held_row"] if self._cursor["held_window"] == window.arrangement.number else 0
        first = window.standing.training + row
        self._require(first <= window.standing.rows)
        last = min(window.standing.rows, first + self._scoring.rows)
        done = last == window.standing.rows
        self._cursor |= {"held_window": window.arrangement.number + done, "held_row": 0 if done else row + last - first}
        if first == last:
            return None
        if (batch := self._scoring.view(window, first, last, held_out=True)) is not None:
            return batch
        self._scoring.gather(window, first, last)
        return self._scoring.batch(held_out=True)

    def close(self) -> None:
        """Stop reading and give back threads and buffers. The state stays: iterating goes on from there."""
        if self._filler is not None:
            self._filler.stop()
        self._filler = self._window = None
        self._reads_over = False
        self._training.batch()  # rows gathered for a batch that was not handed out are gathered again

    def __repr__(self) -> str:
        return one_line(
            self,
            f"{count(self.plan.rows, 'row')} in batches of {self.plan.batch_size}",
            count(self.plan.windows, "window"),
            f"epoch {self.epoch + 1}",
            f"{count(self.rows_seen, 'row')} seen",
        )

    def _repr_html_(self) -> str:
        rows = [
            ("rows", f"{self.plan.rows:,}"),
            ("features", f"{self.source.layout.width:,}"),
            ("batch size", self.plan.batch_size),
            ("window rows", f"{self.plan.window_rows:,}"),
            ("windows", f"{self.plan.windows:,}"),
            ("epoch", self.epoch + 1),
            ("rows seen", f"{self.rows_seen:,}"),
            *((f"bytes of {name}", format_bytes(size)) for name, size in self.measured_bytes().items()),
        ]
        return html_table(repr(self)[1:-1], ("", ""), rows)

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

"""The loader: windows are filled in the background, batches of exactly the requested size are cut in the foreground.

One batch: `plan.order.windows` lists the pieces of the next window; a thread (`prefetch`) hands them to the scheduler, one dask
task for a large chunk or a run of small ones; each task reads inside the byte gate, and writes every row to its position in a
free window (`read`, `columns.layout`, `window`), from which ``next()`` cuts ``batch_size`` rows (`batches`). The state is a few
integers: nothing that is in a buffer is part of it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from streamtrain.batch import Batch
from streamtrain.errors import UsageError
from streamtrain.load.batches import BatchBuffer, count_batches
from streamtrain.load.cursor import START, checked, nowhere, order_of
from streamtrain.load.holdout import HoldOut
from streamtrain.load.ledger import Ledger
from streamtrain.load.prefetch import Prefetcher
from streamtrain.load.schedulers import require_cluster
from streamtrain.load.source import Source
from streamtrain.load.window import Window
from streamtrain.memory.monitor import Monitor
from streamtrain.memory.sizes import format_bytes
from streamtrain.notebook import count, html_table, one_line
from streamtrain.plan import Plan
from streamtrain.plan.order import windows

__all__ = ["Loader"]


class Loader:
    """Shuffled batches of exactly ``plan.batch_size`` rows: each training row once an epoch.

    Iterating runs to the end of the current epoch; iterating again runs the next one. Its last batch may be smaller. Held-out
    rows arrive as batches of their own (``batch.held_out``), after the other rows of their window. Close the loader.

    Parameters
    ----------
    source, plan
        What to read, and how (`Source.plan`). If the target was not surveyed yet, the loader surveys it.
    seed, holdout
        The seed of the order, and the share of the rows that are for scoring only, if no column says which.
    cluster
        A ``distributed.Client``, or the address of a dask scheduler, whose workers read; None for threads of this process.
    epochs
        How many epochs there will be; None for no end: then the first windows of the next epoch are read ahead.
    copy
        Whether batches are copies that outlive the next batch. By default they are views of buffers, valid until the
        next batch is requested. Copies take memory that is not part of the plan.
    monitor
        While it says that the process is near its budget, there is one read at a time.
    ledger
        Unreadable chunks and rows that cannot be used are entered here and skipped: they keep their places, and their weight
        is 0. Without a ledger they are errors.

    Raises
    ------
    UsageError
        For a hold-out that is not in [0, 1), a negative seed, or an invalid cluster; later if it does not answer.
    DataError
        For an error in the data, also while iterating.

    Examples
    --------
    >>> source = Source.open({"x": [0.5] * 100, "y": [0, 1] * 50}, target="y")
    >>> with Loader(source, source.plan(batch_size=40), epochs=1) as loader:
    ...     len(loader), loader.feature_names, [len(batch) for batch in loader]
    (3, ('x',), [40, 40, 20])
    """

    def __init__(
        self, source: Source, plan: Plan, *, seed: int = 0, holdout: float = 0.0, cluster: Any = None,
        epochs: int | None = None, copy: bool = False, monitor: Monitor | None = None, ledger: Ledger | None = None,
    ) -> None:  # fmt: skip
        if not 0 <= holdout < 1:
            raise UsageError(f"--holdout {holdout}: must be at least 0 and below 1")
        if seed < 0:
            raise UsageError(f"--seed {seed}: must not be negative")
        require_cluster(cluster)
        if source.layout.target is not None and not source.layout.target.is_known:
            source = source.surveyed(ledger=ledger)
        self.source, self.plan, self._copies = source, plan, copy
        self._held = source.held or HoldOut(float(holdout), None, source.table)
        reading = {"cluster": cluster, "monitor": monitor, "ledger": ledger}
        self._options: dict[str, Any] = reading | {"seed": seed, "holdout": self._held, "epochs": epochs}
        self._training = BatchBuffer(source.layout, plan.batch_size)
        self._scoring = BatchBuffer(source.layout, plan.batch_size) if self._held else None
        self._cursor = dict(START)
        self._prefetcher: Prefetcher | None = None
        self._window: Window | None = None
        self._row = 0  # the next row of the window to hand out
        self._reads_over = self._ended = self._begins = False
        self._unnoted: tuple[int, Any] = (0, ())  # rows of the last batch, and the chunk of each that is skipped
        self.wait_seconds = 0.0  # how long `next` waited for windows

    def __len__(self) -> int:
        """How many batches an epoch has. With a hold-out this takes some seconds for 10^8 rows."""
        return count_batches(self.source.table, self.plan, self._options["seed"], self.epoch, self._held)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The name of each column of ``batch.features``: ``x``, ``X[2,5]`` for an entry, ``t.age`` for a part of a time."""
        return tuple(self.source.layout.number_names)

    def state_dict(self) -> dict[str, int]:
        """The cursor: what is handed out next, and rows seen; and ``order``, which loaders of the same batches share."""
        return self._cursor | {"order": self._order}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where a loader of the same order was when ``state_dict`` returned this state. Threads may differ.

        Raises UsageError, and changes nothing, for anything but a state, and for a state of another order: other chunks,
        seed, shuffle, batch size, hold-out or window rows. A position that does not exist raises once iterating reaches it.
        """
        cursor = checked(state, self._order, holds_out=self._scoring is not None)
        self.close()
        self._cursor, self._ended = cursor, False

    @cached_property
    def _order(self) -> int:
        return order_of(self.source.table, self.plan, self._options["seed"], self._held)

    @property
    def epoch(self) -> int:
        """The epoch that the next batch belongs to."""
        return self._cursor["epoch"]

    @property
    def rows_seen(self) -> int:
        """Rows handed out to be learned, over all epochs, without the skipped ones."""
        return self._cursor["rows_seen"]

    @property
    def read_seconds(self) -> float:
        """Seconds spent in reads, summed over all threads."""
        return self._prefetcher.reader.seconds if self._prefetcher else 0.0

    def measured_bytes(self) -> dict[str, int]:
        """The measured bytes of terms of the plan: the size of buffers, and the most bytes that the gate held for reads."""
        batches = self._training.nbytes + (self._scoring.nbytes if self._scoring else 0)
        buffers, reads = (own.buffer_bytes, own.gate.peak_bytes) if (own := self._prefetcher) else (0, 0)
        return {"windows": buffers, "reads": reads, "batches": batches}

    def held_bytes(self) -> dict[str, int]:
        """Bytes at this moment: of the window buffers, and of the reads that the gate admitted."""
        buffers, reads = (own.buffer_bytes, own.gate.held_bytes) if (own := self._prefetcher) else (0, 0)
        return {"window_bytes": buffers, "reading_bytes": reads}

    def __iter__(self) -> Iterator[Batch]:
        self._ended = False
        return self

    def runs(self, most: int) -> Iterator[Batch]:
        """Like iterating, but up to ``most`` successive batches of a window arrive as one; only the last may be smaller."""
        self._ended = False
        while (batch := self._next(most if self._training.views else 1)) is not None:
            yield batch.copy() if self._copies else batch

    def __next__(self) -> Batch:
        batch = self._next(1)
        if batch is None:
            raise StopIteration
        return batch.copy() if self._copies else batch

    def _next(self, most: int) -> Batch | None:
        """Up to ``most`` batches; None at the end of the epoch."""
        self.note_skipped()
        epochs = self._options["epochs"]
        if self._ended or (epochs is not None and self.epoch >= epochs):
            return None
        prefetcher = self._start()
        while (window := self._current(prefetcher)) is not None:
            number, training = window.order.number, window.order.training
            first, size = self._row, self._training.rows
            last = min(training, first + size - self._training.filled)
            if not self._training.filled and last - first == size:
                last += min(most - 1, (training - last) // size) * size
            if first < last:
                self._row = last
                if (batch := self._training.view(window, first, last)) is not None:
                    return self._hand_out(batch, number)
                self._training.gather(window, first, last)
                if self._training.filled == size:
                    return self._hand_out(self._training.batch(), number)
            elif (batch := self._next_held(window)) is not None:
                return batch
            else:
                self._last, self._row, self._window = number, 0, None
                prefetcher.release(window)
        if self._training.filled:
            return self._hand_out(self._training.batch(), self._last + 1)
        self._require(self._scoring is None or self._cursor["held_window"] == self._last + 1)
        self._cursor |= {"epoch": self.epoch + 1, "window": 0, "row": 0, "held_window": 0, "held_row": 0}
        self._reads_over, self._ended = False, True
        return None

    def _start(self) -> Prefetcher:
        if self._prefetcher is None:
            epoch, window = self._cursor["epoch"], self._cursor["window"]
            self._prefetcher = Prefetcher(self.source, self.plan, **self._options, epoch=epoch, window=window)
            self._row, self._last = self._cursor["row"], window - 1
            self._begins = True
        return self._prefetcher

    def _current(self, prefetcher: Prefetcher) -> Window | None:
        """The window to take rows from; None at the end of the epoch."""
        if self._window is None and not self._reads_over:
            started = time.perf_counter()
            self._window = prefetcher.next()
            self._reads_over = self._window is None
            self.wait_seconds += time.perf_counter() - started
            if self._begins:
                self._require(self._exists(self._window))
                self._begins = False
        return self._window

    def _exists(self, first: Window | None) -> bool:
        """Whether the next row to hand out is in the first window that was read, or at the end of the epoch."""
        if first is not None:
            return self._row <= first.order.training
        rows, plan, seed = self.source.table.rows, self.plan, self._options["seed"]
        order = windows(rows, plan.window_rows, seed=seed, epoch=self.epoch, shuffle=plan.shuffle)
        return self._row == 0 and self._cursor["window"] == sum(1 for _ in order)

    def _require(self, exists: bool) -> None:
        """Raise UsageError if the position of the state does not exist. Checked whenever a batch is requested."""
        if not exists:
            self.close()
            raise nowhere(self._cursor)

    def note_skipped(self) -> None:
        """Enter the skipped rows of the last batch in the ledger, as requesting the next one does: see `Ledger.count`."""
        (rows, chunks), self._unnoted = self._unnoted, (0, ())
        if (ledger := self._options["ledger"]) is not None:
            ledger.count(rows, chunks)

    def _hand_out(self, batch: Batch, window: int) -> Batch:
        held = self._cursor["held_window"], self._cursor["held_row"]
        self._require(self._scoring is None or held == (window, 0))  # held-out rows come at the end of their window
        self._unnoted = len(batch), self._training.skipped_chunks
        seen = self.rows_seen + len(batch) - len(self._training.skipped_chunks)
        self._cursor |= {"window": window, "row": self._row, "rows_seen": seen}
        return batch

    def _next_held(self, window: Window) -> Batch | None:
        """The next held-out rows of the window; None if all were handed out."""
        number, end = window.order.number, window.order.rows
        if self._scoring is None or self._cursor["held_window"] > number:
            return None
        row = self._cursor["held_row"] if self._cursor["held_window"] == number else 0
        first = window.order.training + row
        self._require(first <= end)
        last = min(end, first + self._scoring.rows)
        done = last == end
        self._cursor |= {"held_window": number + done, "held_row": 0 if done else row + last - first}
        if first == last:
            return None
        batch = self._scoring.view(window, first, last, held_out=True)
        if batch is None:
            self._scoring.gather(window, first, last)
            batch = self._scoring.batch(held_out=True)
        self._unnoted = len(batch), self._scoring.skipped_chunks
        return batch

    def close(self) -> None:
        """Stop reading; release threads and buffers. Iterating again continues from the state."""
        if self._prefetcher is not None:
            self._prefetcher.stop()
        self._prefetcher = self._window = None
        self._reads_over = False
        self._training.batch()  # drop the rows of an unfinished batch: they are read again

    def __repr__(self) -> str:
        rows, windows = f"{count(self.plan.rows, 'row')} in batches of {self.plan.batch_size}", self.plan.windows
        seen = count(self.rows_seen, "row")
        return one_line(self, rows, count(windows, "window"), f"epoch {self.epoch + 1}", f"{seen} seen")

    def _repr_html_(self) -> str:
        rows = [
            ("rows", f"{self.plan.rows:,}"),
            ("features", f"{self.source.layout.width:,}"),
            *(
                (name, f"{getattr(self.plan, name.replace(' ', '_')):,}")
                for name in ("batch size", "window rows", "windows")
            ),
            ("epoch", self.epoch + 1),
            ("rows seen", f"{self.rows_seen:,}"),
            *((f"bytes of {name}", format_bytes(size)) for name, size in self.measured_bytes().items()),
        ]
        return html_table(repr(self)[1:-1], ("", ""), rows)

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

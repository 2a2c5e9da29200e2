"""The training loop: predict, score, learn; checkpoints on the way, a report at the end. `fit` is what surrounds it.

One batch, step by step: the loader hands out rows that follow one another in a window (`Loader.runs`); the model predicts
them and then learns them; `Scores` scores the predictions; the cursor moves on. No signal interrupts such a step: a checkpoint
always holds the state after a whole step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from streamtrain.batch import Batch
from streamtrain.errors import BadValueError
from streamtrain.learn.learner import Fused, learner_terms, loss_name
from streamtrain.load import Loader
from streamtrain.load.ledger import Ledger
from streamtrain.memory.process import objects_at_rest, peak_bytes, resident_bytes
from streamtrain.memory.timeline import Timeline
from streamtrain.metrics import Metrics
from streamtrain.metrics.scores import metrics_term
from streamtrain.model import diverged
from streamtrain.plan.scratch import Scratch
from streamtrain.plan.term import baseline_term, bytes_by_name
from streamtrain.runs.checkpoint import CheckpointSchedule, checkpoint_term
from streamtrain.runs.report import Report
from streamtrain.state import part, utc_now
from streamtrain.storage.files.store import traffic
from streamtrain.train.environment import software
from streamtrain.train.history import ScoreLine, Scores
from streamtrain.train.interrupts import Interrupts
from streamtrain.train.job import Job
from streamtrain.train.progress import Progress
from streamtrain.train.sink import RunSink
from streamtrain.train.validation import Scorer, load_digests, state_of_digests

__all__ = ["Progress", "RunSink", "Trainer"]
_TICK_SECONDS = 0.2


class Trainer:
    """A fit that is under way.

    validation: other data, scored at the end of each epoch. progress: called a few times a second. sink: gets the scores and
    checkpoints; None for none. checkpoint_seconds: see `CheckpointSchedule`.
    """

    def __init__(
        self, job: Job, validation: Scorer | None, progress: Callable[[Progress], object] | None, client: Any = None,
        *, sink: RunSink | None = None, checkpoint_seconds: float = 30.0,
    ) -> None:  # fmt: skip
        self.job, self.validation, self.progress, self.sink = job, validation, progress, sink
        self.model, self.settings, self.plan = job.model, job.settings, job.plan
        self.history = Scores(self.model.target, holdout=self.settings.holds_out, patience=self.settings.patience)
        self.schedule = CheckpointSchedule(checkpoint_seconds, self.plan.stage_bytes.get("checkpoint", 0))
        self.baseline = resident_bytes()
        self.monitor, self.interrupts = job.monitor(self._measured, self._watch), Interrupts()
        self.loader = Loader(
            job.source, self.plan, seed=self.settings.seed, holdout=self.settings.holdout, cluster=client,
            epochs=self.settings.epochs, monitor=self.monitor, ledger=job.ledger and job.ledger.in_use,
        )  # fmt: skip
        self.cursor = self.loader.state_dict()  # after the last whole step
        self.timeline = Timeline()
        self.stage = "train"
        self.checkpoint_bytes = 0  # the most that one checkpoint copied
        self.next_tick = self.learn_seconds = self.validation_seconds = 0.0
        self.before: dict[str, float] = {}  # seconds spent by earlier processes of this run
        self.started = time.perf_counter()
        self.start_date = utc_now()

    # -- the loop ------------------------------------------------------------------------------------------------------

    def run(self, enough: Callable[[int, float], bool] | None = None) -> Report:
        """Train to the end, or until ``enough(rows seen, seconds)`` is true; this is checked every few batches."""
        self.started = time.perf_counter()
        # BLAS runs on one thread: the cores are for the reads, and sums do not depend on their number.
        # Numbers that are not finite are found and raise an error: numpy need not warn about them.
        quiet = np.errstate(over="ignore", invalid="ignore")
        with self.interrupts, threadpool_limits(1, "blas"), objects_at_rest(), quiet, self.loader, self.monitor:
            try:
                stopped = False
                while self.history.epochs < self.settings.epochs and not (stopped or self.history.is_over):
                    stopped = self._run_epoch(enough)
                    self._end_epoch()
                self._save()
            except KeyboardInterrupt:
                if self.interrupts.is_whole:  # otherwise the step itself raised it
                    self._save()
                raise
            if self.history.best is not None:
                self.model.load_state_dict(self.history.best[1])
            return self._report()

    def _run_epoch(self, enough: Callable[[int, float], bool] | None) -> bool:
        """Train one epoch, or the rest of it. Returns whether ``enough`` stopped it."""
        for batch in self.loader.runs(self._batches_at_once()):
            with self.interrupts.whole():
                self._step(batch)
                line = self.history.on_the_way(self.loader.rows_seen, self.seconds)
                self.cursor = self.loader.state_dict()
                self.loader.note_skipped()
            self._record(line)
            if self.monitor.over():
                self.monitor.check()
            now = time.perf_counter()
            if now > self.next_tick:
                self._tick()
            if self.schedule.due(now - self.started):
                self._save()
            if enough is not None and enough(self.loader.rows_seen, now - self.started):
                return True
        return False

    def _batches_at_once(self) -> int:
        """Batches between two checks of clock, budget and Ctrl-C: few enough for a few milliseconds."""
        if not isinstance(self.model.learner, Fused):  # any other learner may take any time
            return 1
        return max(1, Scratch.of(self.job.source.longest_layout).rows_at_once // self.plan.batch_size)

    def _step(self, batch: Batch) -> None:
        began = time.perf_counter()
        try:
            if batch.held_out:
                self.history.scored(batch, self.model.predict(batch))
            else:
                self.history.learned(batch, self.model.train(batch, self.plan.batch_size), self.plan.batch_size)
        except BadValueError as error:
            raise self.job.source.located(error, batch) from error
        self.learn_seconds += time.perf_counter() - began

    def _end_epoch(self) -> None:
        self.model.require_finite()
        scores = self._validate()
        with self.interrupts.whole():
            line = self.history.end_epoch(self.loader.rows_seen, self.seconds, scores, self.model.state_dict)
            self.cursor = self.loader.state_dict()
            if self.validation is not None:
                self.validation.whole()
        self._record(line)
        self._tick()
        if self.schedule.due(time.perf_counter() - self.started, at_end=True):
            self._save()

    def _validate(self) -> Metrics | None:
        """The scores of the validation data; None where there are none."""
        if self.validation is None:
            return None

        def look(*_: int) -> None:
            if time.perf_counter() > self.next_tick:
                self._tick()

        began, self.stage = time.perf_counter(), "validate"
        try:
            return self.validation.score(self.model, self.monitor, look)
        finally:
            self.validation_seconds += time.perf_counter() - began
            self.stage = "train"

    def _record(self, line: ScoreLine | None) -> None:
        if line is not None and self.sink is not None:
            self.sink.record(line)

    @property
    def seconds(self) -> float:
        """Seconds that the loop has run, in this process and in earlier ones of the run."""
        return self.before.get("loop", 0.0) + time.perf_counter() - self.started

    # -- several times a second ------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        """Check the budget and the loss, and report progress."""
        self.next_tick = time.perf_counter() + _TICK_SECONDS
        self.monitor.check()
        loss = self.history.progressive.loss()
        if loss is not None and not math.isfinite(loss):
            raise diverged("the progressive loss", self.model.learner)
        if self.progress is not None:
            rows, total = self.loader.rows_seen + self.history.held, self.plan.rows * self.settings.epochs
            epochs, memory = (self.history.epochs, self.settings.epochs), (resident_bytes(), self.plan.budget_bytes)
            self.progress(Progress(rows, total, *epochs, self.seconds, loss, *memory, self.stage))

    def _watch(self) -> None:
        """Record a moment if one is due. The thread of the monitor calls it, so that waiting is recorded too."""
        if self.timeline.is_due(self.seconds):
            self.timeline.record(self.seconds, self.stage, self.now())

    def _measured(self) -> dict[str, int]:
        """The measured bytes of terms of the plan, by name."""
        terms = [*learner_terms(self.model.learner), metrics_term(self.history.nbytes)]
        if self.sink is not None:
            terms.append(checkpoint_term(self.checkpoint_bytes))
        if self.baseline is not None:
            terms.append(baseline_term(self.baseline))
        return self.loader.measured_bytes() | bytes_by_name(terms)

    def now(self) -> Mapping[str, int]:
        """Rows learned so far, and the bytes of windows and reads at this moment. Safe to call from another thread."""
        return {"rows": self.loader.rows_seen, **self.loader.held_bytes()}

    # -- state ---------------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        """Write a checkpoint of the state after the last whole step."""
        if self.sink is None:
            return
        began = time.perf_counter()
        scores, arrays = self.history.state_dict()
        ledger = None if self.job.ledger is None else self.job.ledger.state_dict()
        own = {"ledger": ledger, "validation_ledger": None if self.validation is None else self.validation.skipped}
        header = {"cursor": self.cursor, "history": scores, "seconds": self._times(), **own}
        arrays |= {f"model.{name}": array for name, array in self.model.state_dict().items()}
        arrays |= {f"timeline.{name}": array for name, array in self.timeline.state_dict().items()}
        arrays |= state_of_digests(self.job.source, self.validation)
        self.checkpoint_bytes = max(self.checkpoint_bytes, sum(np.asarray(array).nbytes for array in arrays.values()))
        self.sink.save(header, arrays)
        self.schedule.took(began - self.started, time.perf_counter() - self.started)

    def load(self, header: Mapping[str, Any], arrays: Mapping[str, Any], *, judges_anew: bool = False) -> None:
        """Continue from a checkpoint of the same job; the job has already loaded the ledger. judges_anew: the validation data
        are others. Raises ValueError, KeyError or UsageError for the state of another job."""
        if header["cursor"]["window"] > self.plan.windows:
            raise ValueError(f"cursor.window is {header['cursor']['window']:,}, and an epoch has {self.plan.windows:,}")
        self.loader.load_state_dict(header["cursor"])
        self.history.load_state_dict(header["history"], arrays)
        self.model.load_state_dict(part(arrays, "model."))
        self.timeline.load_state_dict(part(arrays, "timeline."))
        self.cursor, self.before = self.loader.state_dict(), dict(header["seconds"])
        load_digests(arrays, self.job.source, None if judges_anew else self.validation)
        if judges_anew:
            self.history.judge_anew(self.before["loop"], self.loader.rows_seen)
        elif self.validation is not None and header.get("validation_ledger"):
            self.validation.go_on(self.model, header["validation_ledger"])
        if self.job.ledger is not None:
            self.job.ledger.has_read(self.loader.rows_seen + self.history.held)

    @property
    def _ledgers(self) -> list[Ledger]:
        each = self.job.ledger, None if self.validation is None else self.validation.ledger
        return [ledger for ledger in each if ledger is not None]

    def _times(self) -> dict[str, float]:
        """Seconds of each part of the work, in this process and in earlier ones of the run."""
        times = {
            "loop": time.perf_counter() - self.started,
            "read": self.loader.read_seconds,
            "wait": self.loader.wait_seconds,
            "learn": self.learn_seconds,
            "validation": self.validation_seconds,
            "checkpoint": self.schedule.spent,
        }
        return {name: spent + self.before.get(name, 0.0) for name, spent in times.items()}

    def _report(self) -> Report:
        history, settings = self.history, self.settings
        self.monitor.check()
        self.timeline.record(self.seconds, "train", self.now())
        times = self._times()
        loop = times.pop("loop")
        plan = self.plan
        if plan.held_rows is None and history.epochs:  # each of them is scored once an epoch
            plan = replace(plan, held_rows=history.held // history.epochs)
        return Report(
            plan=plan,
            settings=settings.as_dict(),
            learner=settings.learner if isinstance(settings.learner, str) else type(self.model.learner).__name__,
            loss=loss_name(self.model.learner) or "unknown",
            task=history.target.task,
            classes=list(history.target.classes) or None,
            targets=list(history.target.names),
            per_class=history.per_class,
            best_epoch=history.best_epoch,
            preparation=self.model.preparation.as_dict(),
            rows=history.rows,
            rows_seen=self.loader.rows_seen,
            batches=history.batches,
            epochs=history.epochs,
            loop_seconds=loop,
            metrics=history.metrics,
            measured_terms=self._measured(),
            skipped=[entry for ledger in self._ledgers for entry in ledger.entries()],
            remote=traffic(self.job.source.reader),
            warnings=[
                *self.monitor.warnings,
                *self.model.preparation.warnings(),
                *(self.validation.warnings if self.validation is not None else ()),
            ],
            measured_peak_bytes=peak_bytes(),
            time=times | {"other": loop - sum(times.values()) + times["read"]},
            started=self.start_date,
            finished=utc_now(),
            versions=software(),
            timeline=self.timeline.moments(),
        )

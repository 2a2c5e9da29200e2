"""The loop: predict, score, learn; checkpoints on the way, a report at the end. `fitting` has what stands around it.

One batch, walked through: the loader hands out rows that stand one after the other (`Loader.runs`); the model predicts them,
then learns them; `Scores` scores the predictions; the cursor moves on. These are one step, which no signal cuts in two: what
a checkpoint holds is always the state behind a whole step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from threadpoolctl import threadpool_limits

from streamtrain.batch import Batch
from streamtrain.errors import BadValueError
from streamtrain.learn.learner import Fused, learner_terms, loss_name
from streamtrain.load import Loader
from streamtrain.memory.process import peak_bytes, resident_bytes
from streamtrain.metrics.scores import metrics_term
from streamtrain.model import diverged
from streamtrain.plan.scratch import Scratch
from streamtrain.plan.term import baseline_term, bytes_by_name
from streamtrain.runs.checkpoint import CheckpointSchedule, checkpoint_term
from streamtrain.runs.report import Report
from streamtrain.state import part
from streamtrain.storage.files.place import traffic
from streamtrain.train.history import ScoreLine, Scores
from streamtrain.train.interrupts import Interrupts
from streamtrain.train.job import Job
from streamtrain.train.validation import Scorer

__all__ = ["Progress", "RunSink", "Trainer"]

_TICK_SECONDS = 0.2


@dataclass(frozen=True)
class Progress:
    """How far a fit is: what a progress line shows. message: what is to be said once, if anything."""

    rows_seen: int
    rows_total: int
    epoch: int
    seconds: float
    loss: float | None
    resident_bytes: int | None
    budget_bytes: int
    message: str | None = None


class RunSink(Protocol):
    """Keeps what a fit comes to."""

    def record(self, scores: ScoreLine, /) -> None:
        """Scores, as they come."""

    def save(self, known: Mapping[str, Any], arrays: Mapping[str, Any], /) -> None:
        """Where the fit stands: numbers and text, for JSON, and arrays by name."""


class Trainer:
    """One fit under way. keeper: where scores and checkpoints go; None: nowhere. checkpoint_seconds: see
    `CheckpointSchedule`."""

    def __init__(
        self, job: Job, validation: Scorer | None, progress: Callable[[Progress], object] | None, scheduler: Any = None,
        *, keeper: RunSink | None = None, checkpoint_seconds: float = 30.0,
    ) -> None:  # fmt: skip
        self.job, self.validation, self.progress, self.keeper = job, validation, progress, keeper
        self.model, self.settings, self.plan = job.model, job.settings, job.plan
        self.history = Scores(self.model.target, holdout=self.settings.holdout > 0, patience=self.settings.patience)
        self.pace = CheckpointSchedule(checkpoint_seconds, self.plan.stage_bytes.get("checkpoint", 0))
        self.baseline = resident_bytes()
        self.monitor, self.interrupts = job.monitor(self._measured), Interrupts()
        self.loader = Loader(
            job.source, self.plan, seed=self.settings.seed, holdout=self.settings.holdout, scheduler=scheduler,
            epochs=self.settings.epochs, monitor=self.monitor, ledger=job.ledger,
        )  # fmt: skip
        self.cursor = self.loader.state_dict()  # behind the last whole step
        self.copied_bytes = 0  # for a checkpoint, at most
        self.next_tick = self.learn_seconds = 0.0
        self.before: dict[str, float] = {}  # seconds that went by in the processes before this one
        self.started = time.perf_counter()

    # -- the loop ------------------------------------------------------------------------------------------------------

    def run(self, enough: Callable[[int, float], bool] | None = None) -> Report:
        """Train, to the end or until ``enough(rows seen, seconds)``, which is asked every few batches."""
        self.started = time.perf_counter()
        # The learner's BLAS runs on one thread: the cores belong to the reads, and its sums do not depend on their number.
        # Numbers out of bounds are looked for, and are an error: numpy need not warn of them.
        quiet = np.errstate(over="ignore", invalid="ignore")
        with self.interrupts, threadpool_limits(1, "blas"), quiet, self.loader, self.monitor:
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
        """Whether it was stopped before its end."""
        for batch in self.loader.runs(self._batches_at_once()):
            with self.interrupts.whole():
                self._step(batch)
                line = self.history.on_the_way(self.loader.rows_seen, self.seconds)
                self.cursor = self.loader.state_dict()
            self._record(line)
            if self.monitor.over():
                self.monitor.check()
            now = time.perf_counter()
            if now > self.next_tick:
                self._tick()
            if self.pace.due(now - self.started):
                self._save()
            if enough is not None and enough(self.loader.rows_seen, now - self.started):
                return True
        return False

    def _batches_at_once(self) -> int:
        """Batches between two looks at the clock, the budget and Ctrl-C: few enough rows for a few milliseconds."""
        if not isinstance(self.model.learner, Fused):  # nobody knows how long it takes
            return 1
        return max(1, Scratch.of(self.job.source.layout).rows_at_once // self.plan.batch_size)

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
        other = None if self.validation is None else self.validation.score(self.model, self.monitor)
        with self.interrupts.whole():
            line = self.history.end_epoch(self.loader.rows_seen, self.seconds, other, self.model.state_dict)
            self.cursor = self.loader.state_dict()
        self._record(line)
        self._tick()
        if self.pace.due(time.perf_counter() - self.started, at_end=True):
            self._save()

    def _record(self, line: ScoreLine | None) -> None:
        if line is not None and self.keeper is not None:
            self.keeper.record(line)

    @property
    def seconds(self) -> float:
        """Of the loop so far, in this process and those before."""
        return self.before.get("loop", 0.0) + time.perf_counter() - self.started

    # -- what is said on the way -----------------------------------------------------------------------------------------

    def _tick(self) -> None:
        self.next_tick = time.perf_counter() + _TICK_SECONDS
        self.monitor.check()
        loss = self.history.progressive.loss()
        if loss is not None and not math.isfinite(loss):
            raise diverged("the progressive loss")
        self.say(loss=loss)

    def say(self, message: str | None = None, loss: float | None = None) -> None:
        """Tell whoever wants to know how far it is."""
        if self.progress is not None:
            history, plan = self.history, self.plan
            seen, total = self.loader.rows_seen + history.held, plan.rows * self.settings.epochs
            resident = resident_bytes()
            self.progress(
                Progress(seen, total, history.epochs, self.seconds, loss, resident, plan.budget_bytes, message)
            )

    def _measured(self) -> dict[str, int]:
        """What terms of the plan really took."""
        terms = [*learner_terms(self.model.learner), metrics_term(self.history.nbytes)]
        if self.keeper is not None:
            terms.append(checkpoint_term(self.copied_bytes))
        if self.baseline is not None:
            terms.append(baseline_term(self.baseline))
        return self.loader.measured_bytes() | bytes_by_name(terms)

    def now(self) -> Mapping[str, int]:
        """What a profile records of this moment, from another thread."""
        return {"rows": self.loader.rows_seen, **self.loader.held_bytes()}

    # -- state ---------------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        """Where the fit stands, behind the last whole step."""
        if self.keeper is None:
            return
        began = time.perf_counter()
        known, arrays = self.history.state_dict()
        ledger = None if self.job.ledger is None else self.job.ledger.state_dict()
        stands = {"cursor": self.cursor, "history": known, "ledger": ledger, "seconds": self._times()}
        arrays |= {f"model.{k}": v for k, v in self.model.state_dict().items()}
        self.copied_bytes = max(self.copied_bytes, sum(np.asarray(array).nbytes for array in arrays.values()))
        self.keeper.save(stands, arrays)
        self.pace.took(began - self.started, time.perf_counter() - self.started)

    def load(self, known: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
        """Stand where a fit of the same job stood. The ledger is the job's. Raises ValueError, KeyError or UsageError for a
        state of another."""
        self.loader.load_state_dict(known["cursor"])
        self.history.load_state_dict(known["history"], arrays)
        self.model.load_state_dict(part(arrays, "model."))
        self.cursor, self.before = self.loader.state_dict(), dict(known["seconds"])

    def _times(self) -> dict[str, float]:
        """Seconds so far, in this process and those before."""
        times = {
            "loop": time.perf_counter() - self.started,
            "read": self.loader.read_seconds,
            "wait": self.loader.wait_seconds,
            "learn": self.learn_seconds,
            "checkpoint": self.pace.spent,
        }
        return {name: spent + self.before.get(name, 0.0) for name, spent in times.items()}

    def _report(self) -> Report:
        history, settings = self.history, self.settings
        self.monitor.check()
        times = self._times()
        loop = times.pop("loop")
        return Report(
            plan=self.plan,
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
            skipped=self.job.ledger.entries() if self.job.ledger is not None else [],
            remote=traffic(self.job.source.reader),
            warnings=[*self.monitor.warnings, *self.model.preparation.warnings()],
            measured_peak_bytes=peak_bytes(),
            time=times | {"other": loop - times["wait"] - times["learn"] - times["checkpoint"]},
        )

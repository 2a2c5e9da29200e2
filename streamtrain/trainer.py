"""The loop: predict, score, learn; and what stands around it: plan before, report after."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from streamtrain.batch import Batch
from streamtrain.errors import BadValueError, DataError, UsageError
from streamtrain.inference import Scorer
from streamtrain.job import Job
from streamtrain.load import Loader, for_scheduler
from streamtrain.memory import peak_bytes, reset_peak, resident_bytes
from streamtrain.metrics import Metrics, Patience
from streamtrain.model import Model, diverged
from streamtrain.report import Report
from streamtrain.run import RunFolder
from streamtrain.scores import metrics_for, per_class, scores
from streamtrain.settings import Settings
from streamtrain.storage.place import traffic

__all__ = ["FitResult", "Progress", "Trainer", "fit"]

_TICK_SECONDS = 0.2
_FIRST_RECORD = 1024  # rows learned when scores are recorded first; then each time that they have doubled


@dataclass(frozen=True)
class Progress:
    """How far a fit is: what a progress line shows."""

    rows_seen: int
    rows_total: int
    epoch: int
    seconds: float
    loss: float | None
    resident_bytes: int | None
    budget_bytes: int


@dataclass(frozen=True)
class FitResult:
    """What `fit` returns: the model, ready to predict, and the report."""

    model: Model
    report: Report

    def as_dict(self) -> dict[str, Any]:
        """The report as the command line prints it."""
        return self.report.as_dict()


def fit(
    data: Any, *, target: str | Sequence[str], out: str | Path | None = None, validate: Any = None, scheduler: Any = None,
    progress: Callable[[Progress], object] | None = None, **settings: Any,
) -> FitResult:  # fmt: skip
    """Train on data of any size within a memory budget.

    data: a path, glob, directory, Zarr store, URL, reader, or arrays and tables in memory. target: its column, or several.
    out: a folder for the run, new or empty. validate: other data, scored at the end of each epoch. scheduler:
    ``"threads"`` or a ``distributed.Client``, which then reads. progress: called a few times a second.
    The other settings are those of the command line: see `streamtrain.job.Settings`.

    Raises UsageError and DataError for what cannot be, BudgetRefused before a feature is read if the plan does not fit,
    BudgetExceeded if the process went over its budget.

    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=20_000)
    >>> result = fit({"x": x, "y": (x > 0).astype(int)}, target="y", seed=1)
    >>> result.report.rows, result.report.metrics["progressive"]["accuracy"] > 0.95
    (20000, True)
    """
    started = time.perf_counter()
    asked = Settings.of(target, for_scheduler(settings, scheduler))
    if asked.patience is not None and validate is None and not asked.holdout:
        raise UsageError(f"--patience {asked.patience}: needs rows to judge by: --holdout or --validate")
    folder = RunFolder(out) if out is not None else None
    if folder is not None and not isinstance(asked.learner, str):
        raise UsageError("out: a learner that was passed in cannot be saved: keep its state_dict() yourself")
    reset_peak()
    validation = Scorer.planned(validate, asked) if validate is not None else None
    job = Job.open(data, asked, extra_terms={"validation": validation.bytes} if validation else None)
    job.plan.require_fits()
    if validation is not None:
        validation.require_columns(job.model)
    if folder is not None:
        folder.start()
    trainer = Trainer(job.ready(), validation, progress, scheduler, folder.record if folder else None)
    report = trainer.run()
    report.seconds = time.perf_counter() - started
    if folder is not None:
        report.run, report.fingerprint = str(out), job.source.reader.fingerprint()
        folder.write(trainer.model, report)
    return FitResult(trainer.model, report)


@dataclass
class Trainer:
    """One fit under way."""

    job: Job
    validation: Scorer | None
    progress: Callable[[Progress], object] | None
    scheduler: Any = None
    record: Callable[[dict[str, Any]], object] | None = None  # is told scores as they come
    history: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.model, self.settings, self.plan = self.job.model, self.job.settings, self.job.plan
        self.target = self.model.target
        self.progressive, self.holdout = self._metrics(), self._metrics()
        self.batches = self.rows = self.held_total = 0
        self.learn_seconds = 0.0
        self.baseline = resident_bytes()
        self.next_tick = 0.0
        self.monitor = self.job.monitor(self._measured)
        self.loader = self._loader()
        self.next_record = _FIRST_RECORD
        self.patience = None if self.settings.patience is None else Patience(self.settings.patience)
        self.judged = self.progressive  # metrics of the rows that tell best how good the model is
        # epoch, the model's state behind it, and what it was judged by
        self.best: tuple[int, dict[str, Any], Metrics] | None = None

    def _metrics(self) -> Metrics:
        return metrics_for(self.target)

    def run(self, enough: Callable[[int, float], bool] | None = None) -> Report:
        """Train, to the end or until ``enough(rows seen, seconds)``, which is asked every few batches."""
        self.started = time.perf_counter()
        # The learner's BLAS runs on one thread: the cores belong to the reads, and its sums do not depend on their number.
        # Numbers out of bounds are looked for, and are an error: numpy need not warn of them.
        quiet = np.errstate(over="ignore", invalid="ignore")
        with threadpool_limits(1, "blas"), quiet, self.loader, self.monitor:
            for epoch in range(self.settings.epochs):
                self.holdout = self._metrics()
                stopped = self._run_epoch(epoch, enough)
                if self._end_epoch(epoch) or stopped:
                    break
            if self.best is not None:
                self.model.load_state_dict(self.best[1])
            return self._report(epoch + 1)

    def _loader(self) -> Loader:
        asked = self.settings
        return Loader(
            self.job.source, self.plan, seed=asked.seed, holdout=asked.holdout, scheduler=self.scheduler,
            epochs=asked.epochs, monitor=self.monitor, ledger=self.job.ledger,
        )  # fmt: skip

    def _run_epoch(self, epoch: int, enough: Callable[[int, float], bool] | None) -> bool:
        """Whether it was stopped before its end."""
        for batch in self.loader.runs(self._batches_at_once()):
            self._step(batch)
            if self.loader.rows_seen >= self.next_record:
                self._record(epoch)
            if self.monitor.over():
                self.monitor.check()
            now = time.perf_counter()
            if now > self.next_tick:
                self._tick(epoch)
            if enough is not None and enough(self.loader.rows_seen, now - self.started):
                return True
        return False

    def _batches_at_once(self) -> int:
        """Batches between two looks at the clock, the budget and Ctrl-C: few enough rows for a few milliseconds."""
        if not isinstance(self.settings.learner, str):  # who knows what it takes
            return 1
        return max(1, self.job.source.layout.scratch.rows_at_once // self.plan.batch_size)

    def _step(self, batch: Batch) -> None:
        began = time.perf_counter()
        try:
            if batch.held_out:
                self.holdout.update(batch.targets, self.model.predict(batch), batch.weights)
                self.held_total += len(batch)
            else:
                predictions = self.model.train(batch, self.plan.batch_size)
                self.progressive.update(batch.targets, predictions, batch.weights)
                self.batches += -(-len(batch) // self.plan.batch_size)
        except BadValueError as error:
            raise self.job.source.located(error, batch) from error
        self.learn_seconds += time.perf_counter() - began

    def _tick(self, epoch: int) -> None:
        now = time.perf_counter()
        self.next_tick = now + _TICK_SECONDS
        self.monitor.check()
        loss = self.progressive.loss()
        if loss is not None and not math.isfinite(loss):
            raise diverged("the progressive loss")
        if self.progress is not None:
            seen, total = self.loader.rows_seen + self.held_total, self.plan.rows * self.settings.epochs
            seconds, budget = now - self.started, self.plan.budget_bytes
            self.progress(Progress(seen, total, epoch, seconds, loss, resident_bytes(), budget))

    def _record(self, epoch: int) -> None:
        """Scores on the way, each time that twice as many rows have been learned."""
        while self.next_record <= self.loader.rows_seen:
            self.next_record *= 2
        if self.record is not None:
            found = {"progressive": scores(self.progressive), "holdout": None, "validation": None}
            self.record(self._line(epoch, found))

    def _line(self, epoch: int, found: dict[str, Any]) -> dict[str, Any]:
        seconds = round(time.perf_counter() - self.started, 3)
        return {"epoch": epoch, "rows_seen": self.loader.rows_seen, "seconds": seconds} | found

    def _end_epoch(self, epoch: int) -> bool:
        """Whether to stop before the last epoch."""
        progressive = scores(self.progressive)
        found: dict[str, Any] = {"progressive": progressive, "holdout": None, "validation": None}
        if progressive["loss"] is None:
            raise DataError("nothing was learned: every row is held out, weighs nothing, or was skipped")
        self.model.require_finite()
        self.rows = self.rows or self.loader.rows_seen  # of the first epoch: each once
        self.judged = self.progressive
        if self.settings.holdout:
            self.judged = self.holdout
            found["holdout"] = scores(self.holdout)
        if self.validation is not None:
            self.judged = self.validation.score(self.model, self.monitor)
            found["validation"] = scores(self.judged)
        self.history.append(self._line(epoch, found))
        if self.record is not None:
            self.record(self.history[-1])
        self._tick(epoch)
        return self.patience is not None and self._has_enough(epoch, found["validation"] or found["holdout"])

    def _has_enough(self, epoch: int, judged: dict[str, Any]) -> bool:
        """Whether the loss on rows that were not learned has not become better for long enough; the best is kept."""
        assert self.patience is not None
        if judged["loss"] is None:
            raise DataError("--patience: no loss to judge by: no row was held out, or is in the validation data")
        stop = self.patience.update(judged["loss"])
        if self.patience.best is not None and self.patience.best[1] == epoch:
            self.best = epoch, self.model.state_dict(), self.judged
        return stop

    def _measured(self) -> dict[str, int]:
        """What terms of the plan really took."""
        sizes = self.loader.measured_bytes() | {"learner": self.model.learner.state_bytes}
        return sizes if self.baseline is None else sizes | {"baseline": self.baseline}

    def now(self) -> Mapping[str, int]:
        """What a profile records of this moment, from another thread."""
        return {"rows": self.loader.rows_seen, **self.loader.held_bytes()}

    def _last(self) -> dict[str, Any]:
        """The scores of the model that is kept."""
        return self.history[self.best[0] if self.best else -1]

    def _report(self, epochs: int) -> Report:
        loader, seconds = self.loader, time.perf_counter() - self.started
        self.monitor.check()
        waited, learned = loader.wait_seconds, self.learn_seconds
        return Report(
            plan=self.plan,
            settings=self.settings.as_dict(),
            learner=self.settings.learner
            if isinstance(self.settings.learner, str)
            else type(self.model.learner).__name__,
            loss=getattr(getattr(self.model.learner, "loss", None), "name", "unknown"),
            task=self.target.task,
            classes=list(self.target.classes) or None,
            targets=list(self.target.names),
            per_class=per_class(self.best[2] if self.best else self.judged, self.target),
            best_epoch=self.best[0] if self.best else None,
            preparation=self.model.preparation.as_dict(),
            rows=self.rows,
            rows_seen=loader.rows_seen,
            batches=self.batches,
            epochs=epochs,
            loop_seconds=seconds,
            metrics={name: self._last()[name] for name in ("progressive", "holdout", "validation")},
            measured_terms=self._measured(),
            skipped=self.job.ledger.entries() if self.job.ledger is not None else [],
            remote=traffic(self.job.source.reader),
            warnings=[*self.monitor.warnings, *self.model.preparation.warnings()],
            measured_peak_bytes=peak_bytes(),
            time={"read": loader.read_seconds, "wait": waited, "learn": learned, "other": seconds - waited - learned},
        )

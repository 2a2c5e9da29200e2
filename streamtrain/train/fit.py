"""``fit``: what stands around the loop. Settings, metadata, a plan; a run folder, its checkpoints and where to go on; the
report and the model at the end."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from streamtrain.errors import ColumnError, RunError, StreamtrainError, UsageError, without_secrets
from streamtrain.kernels import warn_unless_compiled
from streamtrain.learn.learner import loss_name
from streamtrain.memory.process import reset_peak
from streamtrain.metrics.scores import SCORE_KINDS
from streamtrain.model import Model
from streamtrain.model.new_classes import start_from
from streamtrain.notebook import count, html_table, one_line
from streamtrain.plan.term import Term
from streamtrain.runs.folder import RunFolder
from streamtrain.runs.report import Report, StoredReport, memory_table
from streamtrain.train import identity
from streamtrain.train.job import Job
from streamtrain.train.resume import FitRequest, StartPoint
from streamtrain.train.settings import Settings
from streamtrain.train.trainer import Progress, Trainer
from streamtrain.train.validation import Scorer

__all__ = ["FitResult", "run_fit"]

_SECONDS = 30.0  # between two checkpoints


@dataclass(frozen=True, repr=False)
class FitResult:
    """What `fit` returns: the model, ready to predict, and the report. The report is the stored one where the run was already
    finished."""

    model: Model
    report: Report | StoredReport

    def as_dict(self) -> dict[str, Any]:
        """The report as the command line prints it."""
        return self.report.as_dict()

    def __repr__(self) -> str:
        report = self.as_dict()
        metrics = report["metrics"]
        scores: dict[str, Any] = next((metrics[kind] for kind in reversed(SCORE_KINDS) if metrics[kind]), {})
        values = [f"{name} {value:.4g}" for name, value in scores.items() if isinstance(value, float)]
        return one_line(
            self,
            f"{report['learner']} with {report['loss']} loss",
            f"{count(report['rows'], 'row')} in {count(report['epochs'], 'epoch')}",
            *values[:2],  # the loss, and accuracy or rmse
        )

    def _repr_html_(self) -> str:
        report = self.as_dict()
        rows: list[tuple[Any, ...]] = [
            (f"{kind} {name}", f"{value:.4g}")
            for kind, scores in report["metrics"].items()
            for name, value in (scores or {}).items()
            if isinstance(value, float)
        ]
        rows += [(name, f"{report[name]:,}") for name in ("rows", "rows_seen", "epochs", "seconds", "rows_per_second")]
        rows += [(f"memory: {name}", measured or planned) for name, planned, measured in memory_table(report["memory"])]
        return html_table(repr(self)[1:-1], ("", ""), [*rows, ("run", report["run"])])


def run_fit(asked: FitRequest, out: str | Path | None, resume: bool) -> FitResult:
    """Train as asked: see `streamtrain.fit`."""
    asked.check(out, resume)
    if out is None:
        return _Fit(asked, asked.begin(), None).run()
    with RunFolder(out, resume=resume) as folder:
        return _Fit(asked, _start(asked, folder, resume), folder).run()


def _start(asked: FitRequest, folder: RunFolder, resume: bool) -> StartPoint:
    header = folder.checkpoints.newest() if resume else None
    if header is None:
        return asked.begin()
    with _reading(folder):
        return asked.go_on(header)


@contextmanager
def _reading(folder: RunFolder) -> Iterator[None]:
    """What is wrong in a checkpoint whose checksum is right: somebody else has made it, or there is a mistake in here."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, StreamtrainError):
            raise
        raise RunError(
            f"{folder.checkpoints.folder}: the newest checkpoint is not what a run writes ({type(error).__name__}: {error}): "
            "start over in another folder"
        ) from error


class _Fit:
    """A fit, from its plan to its report."""

    def __init__(self, asked: FitRequest, start: StartPoint, folder: RunFolder | None) -> None:
        self.started = time.perf_counter()
        self.asked, self.start, self.folder = asked, start, folder
        self.warnings: list[str] = [] if start.checkpoint is None else list(start.checkpoint["warnings"])
        self.news: list[str] = []  # warnings that were not there before
        self.static: dict[str, Any] = {}  # of every checkpoint

    def run(self) -> FitResult:
        """Plan, train, report."""
        settings, folder = self.start.effective, self.folder
        _require_judge(settings, self.start.validate)
        warn_unless_compiled()
        reset_peak()
        validation = None if self.start.validate is None else Scorer.planned(self.start.validate, settings)
        job = self._open(settings, validation.terms if validation else ())
        header = self.start.checkpoint
        if header is not None and folder is not None:
            self._require_same(header, self._describe(job, validation))
            with _reading(folder):
                if (finished := self._finished(header)) is not None:
                    return finished
                _require_epochs(settings, header)
        job.plan.require_fits()
        if validation is not None:
            validation.require_columns(job.model)
        if folder is not None and header is None:
            self._describe(job, validation)
        job = job.ready()
        trainer = Trainer(
            job, validation, self.asked.progress, self.asked.scheduler, keeper=folder, checkpoint_seconds=self.seconds
        )
        self._place(trainer)
        return self._end(trainer, trainer.run())

    @property
    def seconds(self) -> float:
        """Between checkpoints: as asked now, or when the run was started."""
        asked, header = self.asked.checkpoint_seconds, self.start.checkpoint
        return float(asked if asked is not None else _SECONDS if header is None else header["checkpoint_seconds"])

    def _open(self, settings: Settings, validation: Sequence[Term]) -> Job:
        try:
            job = Job.open(self.asked.data, settings, validation=validation, known=self.start.known)
        except ColumnError as error:
            if self.start.checkpoint is None:
                raise
            raise RunError(f"--resume: the data are not those that the run was started with: {error}") from error
        self.start = replace(self.start, known=None)  # a model as large as the one that learns
        return job

    def _place(self, trainer: Trainer) -> None:
        """Let it stand where it is to begin."""
        start, folder, described = self.start, self.folder, None
        if start.parent is not None:
            start_from(trainer.model, start.parent.model)
        if folder is not None:
            described = trainer.model.describe()
        if start.checkpoint is not None and folder is not None:
            if json.dumps(described) != start.described:
                raise RunError(
                    "--resume: these settings make another model here than they did when the run was started: go on with the "
                    "version of streamtrain that started it, or start a new run in another folder"
                )
            with _reading(folder):
                trainer.load(start.checkpoint, folder.checkpoints.arrays())
            self._say_where(trainer)
        if folder is not None:
            folder.begin(self.static | {"model": described, "resolved": _resolved(trainer)}, trainer.history.lines)
        self.start = replace(start, parent=None, described=None)

    def _say_where(self, trainer: Trainer) -> None:
        cursor, plan, settings = trainer.cursor, trainer.plan, trainer.settings
        streams = ", its streamed chunks from their start" if plan.streamed_chunks else ""
        if cursor["window"] >= plan.windows:
            what = "its end is next"
        elif not cursor["row"]:
            what = f"window {cursor['window'] + 1} of {plan.windows} is next"
        else:
            what = f"window {cursor['window'] + 1} of {plan.windows} is read again{streams}"
        if trainer.history.epochs < settings.epochs:
            epoch = f"epoch {trainer.history.epochs + 1} of {settings.epochs}"
            trainer.say(f"going on in {epoch}, {cursor['rows_seen']:,} rows learned: {what}")
        for warning in self.news:
            trainer.say(warning)

    def _describe(self, job: Job, validation: Scorer | None) -> dict[str, Any]:
        """What must be the same when a run goes on; it is part of every checkpoint."""
        start, before, data = self.start, self.start.checkpoint, identity.describe_data(job.source)
        if data["fingerprint"] is None and before is None:
            self.warnings.append(
                "the reader has no fingerprint: nothing tells whether data are the same, so --resume refuses"
            )
        self.static |= {
            "settings": start.settings.as_dict(),
            "data": data,
            "validate": _path(start.validate),
            "validation": None if validation is None else identity.describe_data(validation.open(job.model)),
            "versions": identity.versions(),
            "environment": identity.environment() if before is None else before["environment"],
            "lineage": start.lineage,
            "resumes": 0 if before is None else before["resumes"] + 1,
            "warnings": self.warnings,
            "checkpoint_seconds": self.seconds,
        }
        return self.static

    def _require_same(self, header: Mapping[str, Any], found: Mapping[str, Any]) -> None:
        assert self.folder is not None
        identity.require_same_data(header["data"], found["data"])
        if header["validation"] is not None:
            identity.require_same_data(header["validation"], found["validation"], "the validation data")
        damaged = [f"{damage}: going on from the checkpoint before" for damage in self.folder.checkpoints.damaged]
        self.news = [*damaged, *identity.environment_changes(header)]
        self.warnings += [warning for warning in self.news if warning not in self.warnings]

    def _finished(self, header: Mapping[str, Any]) -> FitResult | None:
        """The result of a run that has nothing left to do; None where there is something, if only to write it."""
        folder, history = self.folder, header["history"]
        assert folder is not None
        done = len(history["ends"])
        if not (history["is_over"] or done >= self.start.settings.epochs):
            return None
        try:
            model, report = folder.model(), folder.report()
        except RunError:
            return None  # it was about to be written, or is damaged: it is written from the checkpoint
        if (report.get("epochs"), report.get("rows_seen")) != (done, header["cursor"]["rows_seen"]):
            return None
        more = "" if history["is_over"] else f"; --epochs {done + 1} or more goes on"
        epochs = f"{done} epoch{'' if done == 1 else 's'}"
        message = f"{folder.asked} is finished: {epochs}{' (--patience)' if history['is_over'] else ''}{more}"
        if self.asked.progress is not None:
            seen = header["cursor"]["rows_seen"]
            self.asked.progress(Progress(seen, seen, done, 0.0, None, None, 0, message))
        return FitResult(model, StoredReport(report))

    def _end(self, trainer: Trainer, report: Report) -> FitResult:
        report.warnings[:0] = self.warnings
        report.settings, report.lineage = self.start.settings.as_dict(), self.start.lineage
        before = self.start.checkpoint
        report.seconds = time.perf_counter() - self.started + (before["seconds"]["loop"] if before is not None else 0.0)
        if self.folder is not None:
            report.warnings += self.folder.warnings
            report.run, report.fingerprint = str(self.folder.asked), self.static["data"]["fingerprint"]
            report.resumes = self.static["resumes"]
            self.folder.write(trainer.model, report)
        return FitResult(trainer.model, report)


def _require_judge(settings: Settings, validate: Any) -> None:
    if settings.patience is not None and validate is None and not settings.holdout:
        raise UsageError(f"--patience {settings.patience}: needs rows to judge by: --holdout or --validate")


def _require_epochs(settings: Settings, header: Mapping[str, Any]) -> None:
    """Raise RunError where the run has begun more epochs than it is asked for."""
    begun = len(header["history"]["ends"])
    if any(header["cursor"][name] for name in ("window", "row", "held_window", "held_row")):
        begun = header["cursor"]["epoch"] + 1
    if settings.epochs < begun:
        raise RunError(f"--epochs {settings.epochs}: the run is in its epoch {begun}: give {begun} or more")


def _resolved(trainer: Trainer) -> dict[str, Any]:
    """What was made of settings that need not be given, as far as they decide what is learned."""
    model, plan = trainer.model, trainer.plan
    return {
        "batch_size": plan.batch_size,
        "window_rows": plan.window_rows,
        "hash_bits": model.preparation.slots.bits,
        "task": model.task,
        "loss": loss_name(model.learner),
    }


def _path(data: Any) -> str | None:
    """Data as a path that can be given again; None for what has none, or has a secret in it."""
    text = str(data) if isinstance(data, (str, Path)) else None
    return text if text is not None and without_secrets(text) == text else None

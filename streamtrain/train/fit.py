"""``fit``: everything around the training loop. It checks the settings, plans, opens the run folder, resumes from its newest
checkpoint, and writes the model and the report at the end."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from streamtrain.errors import ColumnError, RunError, StreamtrainError
from streamtrain.kernels import warn_unless_compiled
from streamtrain.memory.monitor import Monitor, opening, within
from streamtrain.model.loading import Described
from streamtrain.model.new_classes import start_from
from streamtrain.model.room import Room
from streamtrain.model.tensors import Entry
from streamtrain.notebook import count
from streamtrain.plan.term import Term
from streamtrain.runs.folder import RunFolder
from streamtrain.runs.report import Report, StoredReport
from streamtrain.state import utc_now
from streamtrain.train import environment, identity
from streamtrain.train.facts import is_other_validation, path_of, require_epochs, require_judge, resolved
from streamtrain.train.interrupts import noted
from streamtrain.train.job import Job
from streamtrain.train.result import FitResult
from streamtrain.train.resume import FitRequest, StartPoint
from streamtrain.train.settings import Settings
from streamtrain.train.stored import checked_checkpoint, loading, reading
from streamtrain.train.trainer import Trainer
from streamtrain.train.unchanged import note_stamps, require_unchanged
from streamtrain.train.validation import Scorer

__all__ = ["FitResult", "run_fit"]

_log = logging.getLogger("streamtrain")
_SECONDS = 30.0  # between two checkpoints


def run_fit(request: FitRequest, out: str | Path | None, resume: bool) -> FitResult:
    """Train by a request: see `streamtrain.fit`."""
    request.check(out, resume)
    memory, stops = request.given.get("memory"), request.given.get("on_overrun", "raise") == "raise"
    with within(memory, stops=stops) as opened:
        if out is None:
            return _Fit(request, request.begin(), None, opened).run()
        with RunFolder(out, resume=resume) as folder:
            return _Fit(request, _start(request, folder, resume), folder, opened).run()


def _start(request: FitRequest, folder: RunFolder, resume: bool) -> StartPoint:
    room = Room.of(request.given.get("memory"))
    found: list[Described] = []

    def check(path: Path, header: dict[str, Any], entries: Sequence[Entry]) -> None:
        found[:] = [checked_checkpoint(path, header, entries, request.given.get("learner"), room)]

    header = folder.checkpoints.newest(check, room) if resume else None
    if header is None:
        return request.begin()
    with reading(folder), opening(f"the model in {folder.checkpoints.folder}"):
        return request.go_on(header, found[0].make())


class _Fit:
    """One call of `fit`, from the plan to the report."""

    def __init__(self, request: FitRequest, start: StartPoint, folder: RunFolder | None, opened: Monitor) -> None:
        self.started = time.perf_counter()
        # a checkpoint may have said it
        opened.budget(start.settings.memory, stops=start.settings.on_overrun == "raise")
        self.request, self.start, self.folder = request, start, folder
        self.warnings: list[str] = [] if start.checkpoint is None else list(start.checkpoint["warnings"])
        self.new_warnings: list[str] = []  # that the checkpoint does not have yet
        self.logged: set[str] = set()  # warnings, each of which is logged once
        self.static: dict[str, Any] = {}  # the part of a checkpoint that stays the same
        self.contents_differ = False  # the data have another fingerprint, and nothing else differs
        self.judges_anew = False  # by other validation data
        self.start_date = utc_now() if start.checkpoint is None else start.checkpoint["started"]

    def run(self) -> FitResult:
        """Plan, train, report."""
        settings, folder = self.start.effective, self.folder
        require_judge(settings, self.start.validate)
        warn_unless_compiled()
        validation = None
        if self.start.validate is not None:
            validation = Scorer.planned(self.start.validate, settings, self.start.snapshots("validation"))
        job = self._open(settings, validation.terms if validation else ())
        header = self.start.checkpoint
        if header is not None and folder is not None:
            self._require_same(header, self._describe(job, validation), job.model.learner)
            with reading(folder):
                if (finished := self._finished(header)) is not None:
                    if self.contents_differ and not self.request.accepts:
                        raise identity.other_contents([])
                    return finished
                require_epochs(settings, header)
        job.plan.require_fits()
        if validation is not None:
            with job.monitor():
                validation.check(job.model, is_known=header is not None and not self.judges_anew)
        if folder is not None and header is None:
            self._describe(job, validation)
        if (parent := self.start.parent) is not None:
            leaks = parent.leaks(settings, lambda: identity.describe_data(job.source)["fingerprint"])
            self.warnings += [*parent.warnings, *leaks]
            self._warn(self.warnings)
        job = job.ready()
        self._warn(job.plan.warnings)
        trainer = Trainer(
            job, validation, self.request.progress, self.request.client, sink=folder, checkpoint_seconds=self.seconds
        )
        self._place(trainer)
        with noted(self._how_to_go_on):
            return self._end(trainer, trainer.run())

    @property
    def seconds(self) -> float:
        """Seconds between two checkpoints: as given now, or when the run was started."""
        seconds, header = self.request.checkpoint_seconds, self.start.checkpoint
        return float(seconds if seconds is not None else _SECONDS if header is None else header["checkpoint_seconds"])

    def _how_to_go_on(self) -> str | None:
        """How to resume, if a checkpoint exists."""
        if self.folder is None or not self.folder.checkpoints.exist():
            return None
        return f"the run is kept: fit(..., out={str(self.folder.given_path)!r}, resume=True) goes on"

    def _warn(self, warnings: Sequence[str]) -> None:
        """Log each warning once."""
        for warning in warnings:
            if warning not in self.logged:
                self.logged.add(warning)
                _log.warning(warning)

    def _open(self, settings: Settings, validation: Sequence[Term]) -> Job:
        try:
            job = Job.open(self.request.data, settings, validation=validation, prior=self.start.prior)
        except ColumnError as error:
            if self.start.checkpoint is None:
                raise
            raise RunError(f"--resume: these are not the data that the run was started with: {error}") from error
        self.start = replace(self.start, prior=None)  # drop it: it holds a model as large as the one that learns
        return job

    def _place(self, trainer: Trainer) -> None:
        """Bring the trainer to where it begins: a new model, a parent's model, or a checkpoint."""
        start, folder, described = self.start, self.folder, None
        if start.parent is not None:
            start_from(trainer.model, start.parent.model)
        if folder is not None:
            described = trainer.model.describe()
        if start.checkpoint is not None and folder is not None:
            if json.dumps(described) != start.expected:
                raise RunError(
                    "--resume: these settings give another model than they did when the run was started: continue with the "
                    "version of streamtrain that started it, or start a new run in another folder"
                )
            self._load(trainer, start.checkpoint, folder)
            self._log_position(trainer)
        elif folder is not None:
            note_stamps(trainer)
        if folder is not None:
            folder.begin(self.static | {"model": described, "resolved": resolved(trainer)}, trainer.history.lines)
        self.start = replace(start, parent=None, described=None)

    def _load(self, trainer: Trainer, header: Mapping[str, Any], folder: RunFolder) -> None:
        """Load the checkpoint, and compare the data with it."""
        arrays = folder.checkpoints.arrays()
        has_digests = any(name.startswith("digests.") for name in arrays)
        try:
            with loading(folder):
                trainer.load(header, arrays, judges_anew=self.judges_anew)
        except StreamtrainError:
            if self.contents_differ:  # the reason, if the rows of the chunks are others
                raise identity.other_contents([]) from None
            raise
        del arrays
        how = {"has_digests": has_digests, "contents_differ": self.contents_differ, "verify": self.request.verify}
        warnings, accepted = require_unchanged(trainer, **how, accepts=self.request.accepts)
        if accepted:
            self._change("data", identity.few(accepted), "accepted as they are now")
            warnings.append(
                f"--data-changed accept: the rows of what changed are learned as they are now: {identity.few(accepted)}"
            )
        self.new_warnings += warnings
        self.warnings += [warning for warning in warnings if warning not in self.warnings]

    def _log_position(self, trainer: Trainer) -> None:
        cursor, plan, settings = trainer.cursor, trainer.plan, trainer.settings
        streams = ", its streamed chunks from their start" if plan.streamed_chunks else ""
        if cursor["window"] >= plan.windows:
            next_step = "the end of the epoch is next"
        elif not cursor["row"]:
            next_step = f"window {cursor['window'] + 1} of {plan.windows} is next"
        else:
            next_step = f"window {cursor['window'] + 1} of {plan.windows} is read again{streams}"
        if trainer.history.epochs < settings.epochs:
            epoch = f"epoch {trainer.history.epochs + 1} of {settings.epochs}"
            _log.info(f"resuming in {epoch} after {cursor['rows_seen']:,} rows: {next_step}")
        self._warn(self.new_warnings)

    def _describe(self, job: Job, validation: Scorer | None) -> dict[str, Any]:
        """The part that is the same in every checkpoint; a resumed run is compared with it."""
        start, before, data = self.start, self.start.checkpoint, identity.describe_data(job.source)
        if data["fingerprint"] is None and before is None:
            self.warnings.append(
                "the reader has no fingerprint: --resume will refuse, because it cannot tell whether the data are the same"
            )
        self.static |= {
            "settings": start.settings.as_dict(),
            "data": data,
            "validate": path_of(start.validate),
            "validation": None if validation is None else identity.describe_data(validation.open(job.model)),
            "versions": environment.versions(),
            "environment": environment.environment() if before is None else before["environment"],
            "lineage": start.lineage,
            "changes": start.all_changes,
            "resumes": 0 if before is None else before["resumes"] + 1,
            "started": self.start_date,
            "warnings": self.warnings,
            "checkpoint_seconds": self.seconds,
        }
        return self.static

    def _require_same(self, header: Mapping[str, Any], described: Mapping[str, Any], learner: Any) -> None:
        assert self.folder is not None
        self.contents_differ = identity.only_contents_differ(
            header["data"], described["data"], sizes=not self.request.accepts
        )
        if not self.contents_differ:  # otherwise what has changed is found out once the checkpoint is loaded
            identity.require_same_data(header["data"], described["data"])
        before, now = header["validation"], described["validation"]
        if self.request.validate is None and before is not None:
            identity.require_same_data(before, now, "the validation data")
        self.judges_anew = is_other_validation(before, now)
        if self.judges_anew:
            self._change("validate", header["validate"], described["validate"])
        damaged = [f"{damage}: the checkpoint before it is used" for damage in self.folder.checkpoints.damaged]
        self.new_warnings = [*damaged, *environment.environment_changes(header, learner)]
        self.warnings += [warning for warning in self.new_warnings if warning not in self.warnings]

    def _change(self, name: str, was: Any, now: Any) -> None:
        """Record a change, with the rows seen."""
        self.start = replace(self.start, changes=[*self.start.changes, {"setting": name, "was": was, "is": now}])
        self.static["changes"] = self.start.all_changes

    def _finished(self, header: Mapping[str, Any]) -> FitResult | None:
        """The stored result if the run is finished; None if anything is left to do, even if only the result is not written."""
        folder, history = self.folder, header["history"]
        assert folder is not None
        done = len(history["ends"])
        if self.request.verify:  # what was learned is to be compared all the same
            return None
        if not (history["is_over"] or done >= self.start.settings.epochs):
            return None
        try:
            model, report = folder.model(self.request.given.get("learner")), folder.report()
            epochs, rows_seen = report.get("epochs", int), report.get("rows_seen", int)
            warnings = report.values("warnings", str)
        except RunError:  # missing or damaged: of any other cause `FitRequest.go_on` has raised an error already
            return None  # it is written from the checkpoint
        if (epochs, rows_seen) != (done, header["cursor"]["rows_seen"]):
            return None
        more = "" if history["is_over"] else f"; --epochs {done + 1} or more continues it"
        _log.info(
            f"{folder.given_path} is finished: {count(done, 'epoch')}{' (--patience)' if history['is_over'] else ''}{more}"
        )
        self._warn(warnings)
        return FitResult(model, StoredReport(report.content))

    def _end(self, trainer: Trainer, report: Report) -> FitResult:
        report.warnings[:0] = self.warnings
        report.settings, report.lineage = self.start.settings.as_dict(), self.start.lineage
        before = self.start.checkpoint
        report.started = self.start_date
        report.seconds = time.perf_counter() - self.started + (before["seconds"]["loop"] if before is not None else 0.0)
        if self.folder is not None:
            report.warnings += self.folder.warnings
            report.run, report.fingerprint = str(self.folder.given_path), self.static["data"]["fingerprint"]
            report.resumes, report.changes = self.static["resumes"], self.static["changes"]
            self.folder.write(trainer.model, report)
        self._warn(report.warnings)
        return FitResult(trainer.model, report)

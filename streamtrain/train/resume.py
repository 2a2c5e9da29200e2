"""Where a fit begins: from nothing, with the model of another run, which learns from other data, or where it was stopped."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from streamtrain.errors import RunError, UsageError
from streamtrain.learn.family import require_savable
from streamtrain.learn.learner import loss_name
from streamtrain.memory.process import release_freed_memory
from streamtrain.model import Model, load_model
from streamtrain.runs.folder import read_report
from streamtrain.train import identity
from streamtrain.train.identity import flag, is_same
from streamtrain.train.job import PriorModel
from streamtrain.train.settings import Settings

__all__ = ["FitRequest", "ParentRun", "StartPoint"]

_SIZES = ("batch_size", "window_rows", "hash_bits")


#: settings of the linear family that a run may change on its way: they shape no state
_FREE = ("learning_rate", "l1", "l2")


@dataclass(frozen=True)
class ParentRun:
    """The run that another one continues. model: with all that it has learned; lineage: of it and its own parents, the oldest
    first: ``run``, ``rows_seen``, ``fingerprint`` of its data."""

    run: str
    model: Model
    lineage: list[dict[str, Any]]

    @classmethod
    def load(cls, run: str | Path, learner: Any = None) -> ParentRun:
        """learner: see `load_model`. Raises RunError for a folder that holds no finished run."""
        model, report = load_model(run, learner=learner), read_report(Path(run))
        own = {"run": str(run), "rows_seen": report.get("rows_seen"), "fingerprint": report.get("fingerprint")}
        parents = report.get("lineage", [])
        return cls(str(run), model, [*(parents if isinstance(parents, list) else []), own])

    @property
    def _own(self) -> dict[str, Any]:
        """The settings that are the model's."""
        model, layout = self.model, self.model.layout
        assert model.recipe is not None
        names = list(model.target.names)
        return asdict(model.recipe.settings) | {
            "learner": model.recipe.name,
            "target": names[0] if len(names) == 1 else names,
            "task": model.task,
            "features": [column.name for column in layout.columns],
            "roles": {column.name: column.role for column in layout.columns},
            "crosses": [":".join(cross) for cross in layout.crosses],
            "weight": layout.weight,
            "hash_bits": model.preparation.slots.bits,
            "infinities": model.prepared.infinities,
        }

    def settings(self, target: str | Sequence[str] | None, given: Mapping[str, Any]) -> Settings:
        """Those of the model, and what is given beside them. Raises UsageError where something of the model's is given
        otherwise."""
        own, found = self._own, {name: value for name, value in given.items() if value is not None}
        if target is not None:
            found["target"] = target
        different = []
        for name, value in own.items():
            same = name not in found or is_same(found[name], value) or self._may_be(name, found[name])
            if not same and name not in _FREE:
                different.append(f"{flag(name)} is {found[name]}, the model has {value}")
        for name in ("l1", "l2"):
            if name in own and bool(found.get(name, own[name])) != bool(
                own[name]
            ):  # what a penalty needs is part of the state
                different.append(f"{flag(name)} is {found[name]}, the model has {own[name]}")
        if found.get("exclude"):
            different.append("--exclude: the columns are the model's")
        if different:
            raise UsageError(
                f"--continue-from {self.run}: {'; '.join(different)}: leave these out, or start a run of its own without it"
            )
        merged = own | {name: value for name, value in found.items() if name in (*_FREE, "loss") or name not in own}
        return Settings.of(merged.pop("target"), merged)

    def _may_be(self, name: str, value: Any) -> bool:
        """Whether it is the loss that the model has by default, or the one that goes on where there are more classes."""
        loss = loss_name(self.model.learner)
        return name == "loss" and (value == loss or (loss, value) == ("logistic", "softmax"))


@dataclass(frozen=True)
class StartPoint:
    """Where a fit begins. settings: as they were asked. known: what is known of the columns. checkpoint: the header of the one
    that it goes on from, but for its ``model``; described: that, as JSON. parent: the run whose model it goes on with. lineage:
    of the parents, the oldest first. validate: other data."""

    settings: Settings
    known: PriorModel | None = None
    checkpoint: Mapping[str, Any] | None = None
    described: str | None = None
    parent: ParentRun | None = None
    lineage: list[dict[str, Any]] = field(default_factory=list)
    validate: Any = None

    @property
    def effective(self) -> Settings:
        """The settings, with what the run had made of sizes that were not given."""
        made = {} if self.checkpoint is None else self.checkpoint["resolved"]
        return replace(self.settings, **{name: made[name] for name in _SIZES if name in made})


@dataclass(frozen=True)
class FitRequest:
    """What `fit` was asked."""

    data: Any
    target: str | Sequence[str] | None
    given: dict[str, Any]
    continue_from: str | Path | None
    checkpoint_seconds: Any  # of `fit`
    validate: Any
    scheduler: Any
    progress: Callable[[Any], object] | None

    def check(self, out: str | Path | None, resume: bool) -> None:
        """What needs no look at a disk."""
        seconds = self.checkpoint_seconds
        number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
        if seconds is not None and not (number and 0 <= seconds < math.inf):
            raise UsageError(f"--checkpoint-seconds {seconds}: must be a number of seconds, 0 or more")
        paths: tuple[tuple[str, Any], ...] = (("out", out), ("continue_from", self.continue_from))
        for name, path in paths:
            if not isinstance(path, str | Path | None) or "\0" in str(path):
                raise UsageError(f"{name}={path!r}: must be a path")
        if not isinstance(resume, bool):
            raise UsageError(f"resume={resume!r}: must be True or False")
        if self.progress is not None and not callable(self.progress):
            raise UsageError(f"progress={self.progress!r}: must be a function")
        if resume and out is None:
            raise UsageError("--resume: say which run: --out RUN")
        alone = not resume and self.continue_from is None  # otherwise what is given is not all that there is
        if self.target is not None and alone:
            Settings.of(self.target, {name: value for name, value in self.given.items() if value is not None})
        elif alone:
            raise UsageError("--target: say which column is to be predicted")
        learner = self.given.get("learner")
        if learner is not None and (out is not None or self.continue_from is not None):
            require_savable(learner)

    def begin(self) -> StartPoint:
        """From the beginning, or with the model of another run."""
        if self.continue_from is not None:
            parent = ParentRun.load(self.continue_from, self.given.get("learner"))
            settings = parent.settings(self.target, self.given)
            return StartPoint(settings, PriorModel(parent.model), None, None, parent, parent.lineage, self.validate)
        if self.target is None:
            raise UsageError("--target: say which column is to be predicted; there is no run yet that could say it")
        given = {name: value for name, value in self.given.items() if value is not None}
        return StartPoint(Settings.of(self.target, given), validate=self.validate)

    def go_on(self, header: dict[str, Any]) -> StartPoint:
        """From a checkpoint."""
        identity.require_same_versions(header)
        model, described = Model.of(header["model"], self.given.get("learner")), json.dumps(header.pop("model"))
        settings = identity.resumed_settings(header, self.target, self.given)
        parents = header["lineage"]
        if self.continue_from is not None and not (parents and _is_same_path(parents[-1]["run"], self.continue_from)):
            was = f"continued from {parents[-1]['run']}" if parents else "did not continue another"
            raise RunError(f"--continue-from {self.continue_from}: the run {was}: leave it out, or name another folder")
        validate = header["validate"] if self.validate is None else self.validate
        if header["validation"] is None and validate is not None:
            raise RunError(
                "--validate: the run was started without it: leave it out, or start a new run in another folder"
            )
        if header["validation"] is not None and validate is None:
            raise RunError("--validate: the run scores data that have no path: give them again")
        release_freed_memory()  # of the header, most of which was the model's
        return StartPoint(
            settings, PriorModel(model, True, header["ledger"]), header, described, None, parents, validate
        )


def _is_same_path(one: str | Path, other: str | Path) -> bool:
    return Path(one).resolve() == Path(other).resolve()

"""Where a fit begins: from nothing, with the model of another run, or where it was stopped."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from streamtrain import identity
from streamtrain.errors import RunError, UsageError
from streamtrain.job import Known
from streamtrain.lineage import Parent
from streamtrain.memory import release_freed_memory
from streamtrain.model import model_of
from streamtrain.settings import Settings

__all__ = ["Asked", "Start"]

_SIZES = ("batch_size", "window_rows", "hash_bits")


@dataclass(frozen=True)
class Start:
    """Where a fit begins. settings: as they were asked. known: what is known of the columns. checkpoint: the header of the one
    that it goes on from, but for its ``model``; described: that, as JSON. parent: the run whose model it goes on with. lineage:
    of the parents, the oldest first. validate: other data."""

    settings: Settings
    known: Known | None = None
    checkpoint: Mapping[str, Any] | None = None
    described: str | None = None
    parent: Parent | None = None
    lineage: list[dict[str, Any]] = field(default_factory=list)
    validate: Any = None

    @property
    def effective(self) -> Settings:
        """The settings, with what the run had made of sizes that were not given."""
        made = {} if self.checkpoint is None else self.checkpoint["resolved"]
        return replace(self.settings, **{name: made[name] for name in _SIZES if name in made})


@dataclass(frozen=True)
class Asked:
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
        if not isinstance(learner, str | None) and (out is not None or self.continue_from is not None):
            raise UsageError("out: a learner that was passed in cannot be saved: keep its state_dict() yourself")

    def begin(self) -> Start:
        """From the beginning, or with the model of another run."""
        if self.continue_from is not None:
            parent = Parent.load(self.continue_from)
            settings = parent.settings(self.target, self.given)
            return Start(settings, Known(parent.model), None, None, parent, parent.lineage, self.validate)
        if self.target is None:
            raise UsageError("--target: say which column is to be predicted; there is no run yet that could say it")
        given = {name: value for name, value in self.given.items() if value is not None}
        return Start(Settings.of(self.target, given), validate=self.validate)

    def go_on(self, header: dict[str, Any]) -> Start:
        """From a checkpoint."""
        identity.require_same_versions(header)
        model, described = model_of(header["model"]), json.dumps(header.pop("model"))
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
        return Start(settings, Known(model, True, header["ledger"]), header, described, None, parents, validate)


def _is_same_path(one: str | Path, other: str | Path) -> bool:
    return Path(one).resolve() == Path(other).resolve()

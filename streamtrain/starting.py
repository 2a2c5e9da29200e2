"""Where a fit begins: from nothing, with the model of another run, or where it was stopped."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from streamtrain import identity
from streamtrain.errors import RunError, UsageError
from streamtrain.job import Known
from streamtrain.lineage import Parent
from streamtrain.model import model_of
from streamtrain.settings import Settings

__all__ = ["Asked", "Start"]

_SIZES = ("batch_size", "window_rows", "hash_bits")


@dataclass(frozen=True)
class Start:
    """Where a fit begins. settings: as they were asked. known: what is known of the columns. checkpoint: the header of the one
    that it goes on from. parent: the run whose model it goes on with. lineage: of the parents, the oldest first."""

    settings: Settings
    known: Known | None = None
    checkpoint: Mapping[str, Any] | None = None
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
        if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not 0 <= seconds < math.inf:
            raise UsageError(f"--checkpoint-seconds {seconds}: must be a number of seconds, 0 or more")
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
            return Start(settings, Known(parent.model), None, parent, parent.lineage, self.validate)
        if self.target is None:
            raise UsageError("--target: say which column is to be predicted; there is no run yet that could say it")
        given = {name: value for name, value in self.given.items() if value is not None}
        return Start(Settings.of(self.target, given), validate=self.validate)

    def go_on(self, known: Mapping[str, Any]) -> Start:
        """From a checkpoint."""
        identity.require_same_versions(known)
        model = model_of(known["model"])
        settings = identity.resumed_settings(known, self.target, self.given)
        parents = known["lineage"]
        if self.continue_from is not None and not (parents and _is_same_path(parents[-1]["run"], self.continue_from)):
            was = f"continued from {parents[-1]['run']}" if parents else "did not continue another"
            raise RunError(f"--continue-from {self.continue_from}: the run {was}: leave it out, or name another folder")
        epoch = known["cursor"]["epoch"] + 1
        if settings.epochs < epoch and any(
            known["cursor"][name] for name in ("window", "row", "held_window", "held_row")
        ):
            raise RunError(f"--epochs {settings.epochs}: the run is in its epoch {epoch}: give {epoch} or more")
        validate = known["validate"] if self.validate is None else self.validate
        if (known["validation"] is None) != (validate is None):
            has = "none" if known["validation"] is None else "some that have no path: give them again"
            raise RunError(f"--validate: the run has {has}")
        return Start(settings, Known(model, known["ledger"] or {}), known, None, parents, validate)


def _is_same_path(one: str | Path, other: str | Path) -> bool:
    return Path(one).resolve() == Path(other).resolve()

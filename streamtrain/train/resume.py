"""Where a fit begins: from nothing, with the model of another run, or where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from streamtrain.columns.settings import read_target
from streamtrain.errors import RunError, UsageError
from streamtrain.learn.family import require_savable
from streamtrain.load.settings import LoadSettings
from streamtrain.memory.process import release_freed_memory
from streamtrain.model import Model, load_model
from streamtrain.model.stored import StoredFields
from streamtrain.options import flag, options_of, plain
from streamtrain.prepare.settings import feature_settings
from streamtrain.runs.folder import read_report
from streamtrain.runs.stored import lineage_of
from streamtrain.storage.files.apart import require_apart
from streamtrain.storage.where.opening import unfiltered
from streamtrain.train import identity
from streamtrain.train.identity import is_same, shown
from streamtrain.train.job import PriorModel
from streamtrain.train.last_checkpoint import LastCheckpoint
from streamtrain.train.settings import Settings

__all__ = ["FitRequest", "ParentRun", "StartPoint"]

_LEAKS = "--continue-from:"  # how the warning about rows that were learned before begins


@dataclass(frozen=True)
class ParentRun:
    """The run that another one continues. model: with everything that it has learned; lineage: of this run and its parents, the
    oldest first: ``run``, ``rows_seen``, ``fingerprint`` of its data. held: its settings of the hold-out; None if it may have
    learned rows that these hold out. warnings: where it has not finished."""

    run: str
    model: Model
    lineage: list[dict[str, Any]]
    held: LoadSettings | None = None
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, run: str | Path, learner: Any = None, memory: Any = None) -> ParentRun:
        """learner, memory: see `load_model`. Raises RunError for a folder that holds no run with a model or a checkpoint."""
        if (stopped := LastCheckpoint.of(run, learner, memory)) is not None:
            model, stored, warnings = stopped.model, stopped.header, stopped.warnings
            names = "cursor.rows_seen", "data.fingerprint"
        else:
            model, stored, warnings = load_model(run, learner=learner, memory=memory), read_report(Path(run)), []
            names = "rows_seen", "fingerprint"
        rows_seen, fingerprint = stored.get(names[0], int), stored.get(names[1], str, optional=True)
        own = {"run": str(run), "rows_seen": rows_seen, "fingerprint": fingerprint}
        return cls(str(run), model, [*lineage_of(stored), own], _held_by(stored), warnings)

    def leaks(self, settings: Settings, fingerprint: Callable[[], str | None]) -> list[str]:
        """The warning that rows are held out now that this run, or one before it, may have learned; none if it cannot have.
        fingerprint: of the data now."""
        if not settings.holds_out:
            return []
        before, by_position = self.held, settings.hold_out_rule is None
        if before is not None:
            same = (before.holdout_by, before.holdout_after) == (settings.holdout_by, settings.holdout_after)
            if same and before.held_share >= settings.held_share:
                return []
        was, now = self.lineage[-1]["fingerprint"], fingerprint() if by_position else None
        if by_position and None not in (was, now) and unfiltered(str(was)) != unfiltered(str(now)):
            return []  # a position says something of its own data only
        return [
            f"{_LEAKS} {self.run} may have learned rows that are held out now, because its hold-out was another: their "
            "scores may be too good: hold out by the same settings in both runs, or give --validate with data that "
            "neither has learned"
        ]

    @property
    def _own(self) -> dict[str, Any]:
        """The settings that belong to the model: all that `continues` is not "new" for, as far as its learner has them."""
        model, layout = self.model, self.model.layout
        assert model.recipe is not None
        names = list(model.target.names)
        return asdict(model.recipe.settings) | {
            "learner": model.recipe.name,
            "target": read_target(names),
            "task": model.task,
            "features": [column.name for column in layout.columns],
            "exclude": [],
            "roles": {column.name: column.role for column in layout.columns},
            "crosses": [":".join(cross) for cross in layout.crosses],
            "weight": layout.weight,
            **feature_settings(model.prepared),
            "hash_bits": model.preparation.vocabulary.bits,
        }

    def settings(self, given: Mapping[str, Any]) -> Settings:
        """The model's settings, and the given ones that are not the model's. Raises UsageError if a setting of the model is
        given with another value."""
        own, values, different = self._own, dict(given), []
        rules = {name: option for name, (_, option) in options_of(Settings).items()}
        for name, value in given.items():
            option = rules.get(name)
            if option is None or option.continues == "new":
                continue
            values[name] = option.read(plain(value)) if option.read is not None else value
            same = name not in own or is_same(values[name], own[name])
            if not same and option.continues == "same":
                different.append(f"{flag(name, option)} is {shown(value)}, the model has {shown(own[name])}")
        if different:
            raise UsageError(
                f"--continue-from {self.run}: {'; '.join(different)}: leave these out, or drop --continue-from"
            )
        free = {name for name in values if name in rules and rules[name].continues == "free"}
        return Settings.of(own | {name: value for name, value in values.items() if name in free or name not in own})


@dataclass(frozen=True)
class StartPoint:
    """Where a fit begins. settings: as given. prior: the earlier model, its columns and target. checkpoint: the header to
    resume from, without ``model``; described: that model as JSON. parent: the run whose model is continued. lineage: of the
    parents, the oldest first. validate: validation data. changes: recorded changes of settings, as in
    `identity.Resumed`."""

    settings: Settings
    prior: PriorModel | None = None
    checkpoint: Mapping[str, Any] | None = None
    described: str | None = None
    parent: ParentRun | None = None
    lineage: list[dict[str, Any]] = field(default_factory=list)
    validate: Any = None
    changes: list[dict[str, Any]] = field(default_factory=list)

    @property
    def all_changes(self) -> list[dict[str, Any]]:
        """The changes of settings so far, each with the rows that had been learned."""
        if self.checkpoint is None:
            return []
        seen = self.checkpoint["cursor"]["rows_seen"]
        return [*self.checkpoint["changes"], *({"rows_seen": seen} | change for change in self.changes)]

    @property
    def expected(self) -> str:
        """The expected model description, as JSON: that of the checkpoint, with the changed settings."""
        assert self.described is not None
        model = json.loads(self.described)
        for own in (model["settings"], model["preparation"]):
            own |= {c["setting"]: c["is"] for c in self.changes if c["setting"] in own}
        return json.dumps(model)

    @property
    def effective(self) -> Settings:
        """The settings; sizes and snapshots of tables that were not given are those that the run chose."""
        made = {} if self.checkpoint is None else self.checkpoint["resolved"]
        chosen = {name: made[name] for name in identity.resolved_names() if made}
        return replace(self.settings, **chosen, snapshots=self.snapshots("data"))

    def snapshots(self, what: str) -> dict[str, str]:
        """The snapshots of tables that the run has read. what: data or validation."""
        return {} if self.checkpoint is None else dict((self.checkpoint[what] or {}).get("snapshots", {}))


@dataclass(frozen=True)
class FitRequest:
    """The arguments of `fit`. given: the settings that were given, by name. client: a ``distributed.Client``, or None. verify:
    whether what was read before is compared before a run is resumed."""

    data: Any
    given: Mapping[str, Any]
    continue_from: str | Path | None
    checkpoint_seconds: Any  # of `fit`
    validate: Any
    client: Any
    progress: Callable[[Any], object] | None
    verify: bool = False
    accepts: bool = False  # data whose content has changed

    def check(self, out: str | Path | None, resume: bool) -> None:
        """Check everything that needs no reading. Raises UsageError."""
        if out is not None:
            require_apart(f"--out {out}", out, self.data, self.validate)
        if self.progress is not None and not callable(self.progress):
            raise UsageError(f"progress={self.progress!r}: must be a function")
        if not resume and self.continue_from is None:  # otherwise the run knows more settings
            if "target" not in self.given:
                raise UsageError("--target: required: the column to predict")
            Settings.of(self.given)
        learner = self.given.get("learner")
        if learner is not None and (out is not None or self.continue_from is not None):
            require_savable(learner)

    def begin(self) -> StartPoint:
        """Begin a new run, or one that continues the model of another run."""
        if self.continue_from is not None:
            parent = ParentRun.load(self.continue_from, self.given.get("learner"), self.given.get("memory"))
            settings = parent.settings(self.given)
            return StartPoint(settings, PriorModel(parent.model), None, None, parent, parent.lineage, self.validate)
        if "target" not in self.given:
            raise UsageError("--target: required, as there is no run to resume")
        return StartPoint(Settings.of(self.given), validate=self.validate)

    def go_on(self, header: dict[str, Any], model: Model) -> StartPoint:
        """Resume from a checkpoint. header: its header, which was checked. model: the one that it describes."""
        described = json.dumps(header.pop("model"))
        resumed = identity.resumed_settings(header, self.given)
        parents = header["lineage"]
        if self.continue_from is not None and not (parents and _is_same_path(parents[-1]["run"], self.continue_from)):
            was = f"continued from {parents[-1]['run']}" if parents else "did not continue another"
            raise RunError(f"--continue-from {self.continue_from}: the run {was}: leave it out, or name another folder")
        validate = header["validate"] if self.validate is None else self.validate
        if header["validation"] is not None and validate is None:
            raise RunError("--validate: the run's validation data have no path: pass them again")
        release_freed_memory()  # most of the header was the description of the model
        return StartPoint(
            resumed.settings,
            PriorModel(model, True, header["ledger"]),
            header,
            described,
            None,
            parents,
            validate,
            resumed.changes,
        )


def _held_by(stored: StoredFields) -> LoadSettings | None:
    """The settings of the hold-out of a run, from its report or a checkpoint; None if it may have learned rows that they hold
    out."""
    if any(warning.startswith(_LEAKS) for warning in stored.values("warnings", str)):
        return None
    settings = stored.inner("settings")
    share = settings.get("holdout", float, optional=True) or 0.0
    by = settings.get("holdout_by", str, optional=True)
    after = settings.get("holdout_after", str, optional=True)
    return LoadSettings(holdout=share, holdout_by=by, holdout_after=after)


def _is_same_path(one: str | Path, other: str | Path) -> bool:
    return Path(one).resolve() == Path(other).resolve()

"""What was asked, made precise: settings are checked, columns chosen, the target surveyed, the plan made.

In this order, so that nothing is read for a budget that cannot be met: settings, then metadata, then a plan; only when
that fits the target, then the plan again, now that the classes and so the learner's bytes are known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from streamtrain.errors import UsageError
from streamtrain.learn import LOSSES, RULES, Learner
from streamtrain.ledger import Ledger
from streamtrain.load import Source
from streamtrain.memory import parse_bytes
from streamtrain.model import LinearSettings, Model
from streamtrain.monitor import Monitor
from streamtrain.plan import Plan
from streamtrain.storage.arrow import near_names
from streamtrain.target import Target
from streamtrain.text import without_secrets

__all__ = ["Job", "Settings", "make_plan"]

_LEARNERS = ("linear",)
_ON_OVERRUN = ("raise", "warn")
_ON_ERROR = ("raise", "skip")
_STATE_COPIES = 3  # of everything that learning changes, while it is written: the arrays, their bytes, and the file


@dataclass(frozen=True)
class Settings:
    """Everything that `fit` can be asked, with its defaults. Raises UsageError for what cannot be, before any I/O."""

    target: str
    features: Sequence[str] | None = None
    exclude: Sequence[str] = ()
    weight: str | None = None
    task: str | None = None
    classes: Sequence[str] | None = None
    learner: str | Learner = "linear"
    loss: str | None = None
    rule: str = "nag"
    step: float | None = None
    l1: float = 0.0
    l2: float = 0.0
    average: bool = True
    memory: int | str | None = None
    epochs: int = 1
    batch_size: int | None = None
    window_rows: int | None = None
    shuffle: bool = True
    seed: int = 0
    workers: int | None = None
    holdout: float = 0.0
    missing_chunks: str = "error"
    on_overrun: str = "raise"
    on_error: str = "raise"
    max_skipped: float = 0.01

    def __post_init__(self) -> None:
        _require_names(self)
        _require_kinds(self)
        _choose("--learner", self.learner if isinstance(self.learner, str) else "linear", _LEARNERS)
        _choose("--rule", self.rule, sorted(RULES))
        _choose("--on-overrun", self.on_overrun, _ON_OVERRUN)
        _choose("--on-error", self.on_error, _ON_ERROR)
        if self.loss is not None:
            _choose("--loss", self.loss, sorted(LOSSES))
        for flag, number in (("--epochs", self.epochs), ("--batch-size", self.batch_size),
                             ("--window-rows", self.window_rows), ("--workers", self.workers)):  # fmt: skip
            if number is not None and number < 1:
                raise UsageError(f"{flag} {number}: must be at least 1")
        if not 0 <= self.holdout < 1:
            raise UsageError(f"--holdout {self.holdout}: must be at least 0 and below 1")
        if not 0 <= self.max_skipped <= 1:
            raise UsageError(f"--max-skipped {self.max_skipped}: must be a share of the rows, from 0 to 1")
        if self.seed < 0:
            raise UsageError(f"--seed {self.seed}: must not be negative")
        if self.memory is not None:
            parse_bytes(self.memory)
        if self.weight == self.target:
            raise UsageError(f"--weight {self.weight}: is the target")
        self.linear.make(1, 3 if self.loss == "softmax" else 0 if self.loss == "squared" else 2)  # checks step, l1, l2

    @classmethod
    def of(cls, target: str, settings: dict[str, Any]) -> Settings:
        """Settings by name, as keyword arguments give them."""
        for name in settings:
            if name not in cls.__dataclass_fields__:
                raise UsageError(f"no setting {name!r}: {near_names(name, list(cls.__dataclass_fields__))}")
        return cls(target, **settings)

    def as_dict(self) -> dict[str, Any]:
        """What was asked, for the report."""
        asked = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return asked | {"learner": self.learner if isinstance(self.learner, str) else type(self.learner).__name__}

    @property
    def linear(self) -> LinearSettings:
        return LinearSettings(self.loss, self.rule, self.step, self.l1, self.l2, self.average)


def _require_names(asked: Settings) -> None:
    """The settings that name something do so."""
    for name in ("features", "exclude", "classes"):
        if isinstance(getattr(asked, name), (str, bytes)):
            raise UsageError(f"{name}={getattr(asked, name)!r}: give a list of names")
    for name in ("target", "weight", "loss", "rule", "task"):
        if not isinstance(getattr(asked, name), str | None) or (name == "target" and not asked.target):
            raise UsageError(f"{name}={getattr(asked, name)!r}: must be a name")


def _require_kinds(asked: Settings) -> None:
    """Switches are switches, counts are whole numbers, a learner is one."""
    for name in ("average", "shuffle"):
        if not isinstance(getattr(asked, name), (bool, np.bool_)):
            raise UsageError(f"{name}={getattr(asked, name)!r}: must be True or False")
    for name in ("epochs", "batch_size", "window_rows", "workers", "seed"):
        value = getattr(asked, name)
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if not whole and (value is not None or name in ("epochs", "seed")):
            raise UsageError(f"{name}={value!r}: must be a whole number")
    if not isinstance(asked.learner, str) and (
        isinstance(asked.learner, type) or not isinstance(asked.learner, Learner)
    ):
        raise UsageError(f"learner={asked.learner!r}: must be a name, or an object with the members of Learner")


def _choose(flag: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise UsageError(f"{flag} {value}: {near_names(value, known)}")


@dataclass(frozen=True)
class Job:
    """A source, a fresh model for it, and the plan. ledger: of what is skipped; None where nothing may be."""

    source: Source
    model: Model
    plan: Plan
    settings: Settings
    ledger: Ledger | None = None

    @classmethod
    def open(cls, data: Any, settings: Settings, *, extra_terms: Mapping[str, int] | None = None) -> Job:
        """Open the data, plan, survey the target, plan again. A plan that does not fit is left for the caller to
        refuse (`Plan.require_fits`); where it is the first one, the target was not read."""
        source = Source.open(
            data, target=settings.target, features=settings.features, exclude=settings.exclude,
            weight=settings.weight, task=settings.task, missing_chunks=settings.missing_chunks,
        )  # fmt: skip
        job = cls._planned(source, settings, extra_terms)
        if not job.plan.fits:
            return job
        ledger = None
        if settings.on_error == "skip":
            named = without_secrets(str(data)) if isinstance(data, (str, Path)) else type(data).__name__
            ledger = Ledger(named, source.table.total_rows, settings.max_skipped)
        with job.monitor():
            surveyed = source.surveyed(classes=settings.classes, task=settings.task, ledger=ledger)
        return replace(cls._planned(surveyed, settings, extra_terms), ledger=ledger)

    def monitor(self, measured: Callable[[], Mapping[str, int]] = dict) -> Monitor:
        """What holds the process to the plan's budget (see `Monitor`)."""
        stops = self.settings.on_overrun == "raise"
        return Monitor(self.plan.budget_bytes, self.plan.terms, measured=measured, stops=stops)

    def ready(self) -> Job:
        """The same job, now that its plan is accepted: the first features are read (see `Source.with_origins`)."""
        with self.monitor():
            source = self.source.with_origins(self.ledger)
        return replace(self, source=source, model=_make_model(source, self.settings))

    @classmethod
    def _planned(cls, source: Source, settings: Settings, extra_terms: Mapping[str, int] | None) -> Job:
        target = source.layout.target
        assert target is not None
        known = replace(target, classes=(0, 1)) if target.task == "classify" and not target.classes else target
        _require_loss_fits(settings, known)
        model = _make_model(replace(source, layout=replace(source.layout, target=known)), settings)
        plan = source.plan(
            memory=settings.memory, batch_size=settings.batch_size, window_rows=settings.window_rows,
            workers=settings.workers, shuffle=settings.shuffle,
            learner_bytes=model.learner.state_bytes, preparation_bytes=model.preparation.state_bytes,
            extra_terms={"checkpoint": _copy_bytes(model)} | dict(extra_terms or {}),
        )  # fmt: skip
        return cls(source, model, plan, settings)


def _make_model(source: Source, settings: Settings) -> Model:
    layout, target = source.layout, source.layout.target
    assert target is not None
    if isinstance(settings.learner, str):
        return Model(layout, settings.linear.make(layout.width, len(target.classes)), settings.linear)
    return Model(layout, settings.learner, None)


def _copy_bytes(model: Model) -> int:
    """What copies of the state take: one is looked at, and what can be saved is in memory three times meanwhile."""
    state = model.learner.state_bytes + model.preparation.state_bytes
    return state if model.settings is None else _STATE_COPIES * state


def _require_loss_fits(settings: Settings, target: Target) -> None:
    if settings.loss is None:
        return
    regression = settings.loss == "squared"
    if regression and target.task == "classify":
        raise UsageError(f"--loss squared is for regression, but target {target.name!r} is classes: add --task regress")
    if not regression and target.task == "regress":
        raise UsageError(
            f"--loss {settings.loss} is for classes, but target {target.name!r} is numbers: add --task classify, "
            "or use --loss squared"
        )
    if settings.loss == "logistic" and len(target.classes) > 2:
        raise UsageError(
            f"--loss logistic is for two classes, target {target.name!r} has {len(target.classes)}: use softmax"
        )


def make_plan(data: Any, *, target: str, **settings: Any) -> Plan:
    """What `fit` with these settings would do and take. Reads metadata, and the target if the plan fits.

    >>> import numpy as np
    >>> plan = make_plan({"x": np.arange(5000.0), "y": np.arange(5000) % 2}, target="y")
    >>> plan.rows, plan.windows, plan.window_rows, plan.batch_size, plan.fits
    (5000, 1, 5000, 16, True)
    """
    return Job.open(data, Settings.of(target, settings)).plan

"""From data and settings to a job that can run: columns are chosen, the target is surveyed, the plan is made.

The order is settings, metadata, plan, and only if the plan fits, the target; then the plan again, because the classes decide
the bytes of the learner. So a fit reads nothing for a budget that cannot be met.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np

from streamtrain.columns.target import Target
from streamtrain.errors import UsageError, data_name, near_names
from streamtrain.learn.family import Recipe
from streamtrain.learn.learner import target_scale
from streamtrain.learn.own_code import state_bytes_of
from streamtrain.load import Source
from streamtrain.load.holdout import HoldOut
from streamtrain.load.ledger import Ledger
from streamtrain.memory.monitor import Monitor, unlimited
from streamtrain.metrics.scores import metrics_bytes, metrics_term
from streamtrain.model import Model
from streamtrain.model.new_classes import require_target
from streamtrain.model.opening import open_for
from streamtrain.plan import Plan
from streamtrain.plan.scratch import Scratch
from streamtrain.plan.term import Term
from streamtrain.prepare.settings import PreparationSettings, feature_settings
from streamtrain.runs.checkpoint import checkpoint_term
from streamtrain.train.settings import Settings

__all__ = ["Job", "PriorModel", "Settings"]

_MAX_WEIGHT = float(np.finfo(np.float32).max)
_FEWEST_BITS = 10  # the fewest that are suggested: fewer slots distinguish too little


@dataclass(frozen=True)
class PriorModel:
    """The model of an earlier run, with its columns and its target.

    goes_on: whether this run itself is resumed, on its own data; then neither the target nor the first rows are read again.
    ledger: the state of its ledger, if it has one.
    """

    model: Model
    goes_on: bool = False
    ledger: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Job:
    """A source, a new model for it, and the plan. ledger: the record of skipped rows; None if none were, or may be."""

    source: Source
    model: Model
    plan: Plan
    settings: Settings
    ledger: Ledger | None = None
    is_known: bool = False  # whether the first rows need not be read, because an earlier run has read them

    @classmethod
    def open(
        cls,
        data: Any,
        settings: Settings,
        *,
        validation: Sequence[Term] = (),
        prior: PriorModel | None = None,
        asks: bool = False,
    ) -> Job:
        """Open the data, plan, survey the target, plan again.

        Returns a job even if its plan does not fit: the caller refuses it (`Plan.require_fits`). If the first plan does not
        fit, the target is not read; unless this only ``asks`` what would be enough, which the classes decide. validation: the
        terms of scoring validation data (`Scorer.terms`).
        """
        source = _open(data, settings, prior)
        so_far = None if prior is None else prior.ledger
        ledger = Ledger.of(settings, data_name(data), source.table, settings.infinities, source.unread, so_far)
        job = replace(cls._planned(source, settings, validation), ledger=ledger, is_known=prior is not None)
        if prior is not None and prior.goes_on:
            return replace(job, plan=replace(job.plan, is_fixed=True, read_so_far="Nothing was read."))
        if not job.plan.fits and not asks:
            return job
        with job.monitor():
            surveyed = _surveyed(job, None if prior is None else prior.model)
        surveyed = replace(surveyed, least_baseline_bytes=job.plan.baseline_bytes)
        return replace(cls._planned(surveyed, settings, validation), ledger=ledger, is_known=prior is not None)

    def monitor(self, measured: Callable[[], Mapping[str, int]] = dict, watch: Callable[[], object] = dict) -> Monitor:
        """The monitor that holds the process to the plan's budget. measured, watch: see `Monitor`."""
        stops = self.settings.on_overrun == "raise"
        budget_bytes = self.plan.enough_bytes or self.plan.budget_bytes
        return Monitor(budget_bytes, self.plan.term_bytes, measured=measured, stops=stops, watch=watch)

    def ready(self) -> Job:
        """The same job after its plan was accepted. Reads the first rows of some features (see `Source.with_offsets`), unless
        an earlier run has done so."""
        if self.is_known:
            return replace(self, model=_make_model(self.source, self.settings))
        with self.monitor():
            source = self.source.with_offsets(self.ledger)
        return replace(self, source=source, model=_make_model(source, self.settings))

    @classmethod
    @unlimited()
    def _planned(cls, source: Source, settings: Settings, validation: Sequence[Term]) -> Job:
        target = source.layout.target
        assert target is not None
        likely = target
        if not source.is_surveyed and target.task == "classify" and not target.parts:
            likely = replace(target, classes=(0, 1))
        recipe = settings.recipe
        if isinstance(recipe, Recipe):
            recipe.require_fits(likely.name, likely.task, len(likely.classes))
        fresh = replace(source, layout=replace(source.layout, target=likely))

        def planned(settings: Settings) -> tuple[Model, Plan]:
            model = _make_model(fresh, settings)
            return model, _plan(source, model, settings, validation)

        model, plan = planned(settings)
        bits = model.preparation.vocabulary.bits if model.preparation.shape.sparse else _FEWEST_BITS
        if not plan.fits and bits > _FEWEST_BITS and planned(replace(settings, hash_bits=_FEWEST_BITS))[1].fits:
            fewer = range(bits - 1, _FEWEST_BITS - 1, -1)
            enough = next((n for n in fewer if planned(replace(settings, hash_bits=n))[1].fits), None)
            plan = replace(plan, enough_hash_bits=enough)
        if not plan.fits and len(fresh.layout.columns) > 1:
            plan = replace(plan, fits_fewer_columns=_plan_of_one_column(fresh, settings, validation).fits)
        if not source.is_surveyed and likely.task == "classify":
            more = f"If {target.name!r} has more than two classes, it takes more: `streamtrain plan` counts them."
            plan = replace(plan, read_so_far=f"{plan.read_so_far} {more}")
        return cls(source, model, plan, settings)


def _open(data: Any, settings: Settings, prior: PriorModel | None) -> Source:
    choice: dict[str, Any] = {"hold_out": settings.hold_out_rule, "skips": settings.on_error == "skip"}
    if prior is not None:
        source = open_for(prior.model, data, with_target=True, reading=settings.reading, **choice)
        return replace(source, is_surveyed=prior.goes_on).with_digests()
    return Source.open(
        data, target=settings.target, features=settings.features, exclude=settings.exclude,
        weight=settings.weight, task=settings.task, roles=cast("Mapping[str, str]", settings.roles), crosses=settings.crosses,
        reading=settings.reading, **choice,
    )  # fmt: skip


def _surveyed(job: Job, old: Model | None) -> Source:
    """The source with its target surveyed, and its text columns found. old: the model that is continued."""
    settings, ledger, earlier = job.settings, job.ledger, None if old is None else old.target
    source = job.source.surveyed(classes=settings.classes, task=settings.task, ledger=ledger, earlier=earlier)
    if target_scale(job.model.learner) == "mean":  # counts are counted from 0
        source = source.with_layout(replace(source.layout, target=_from_zero(source.layout.target)))
    if old is None:
        return source.with_roles(ledger)
    assert source.layout.target is not None
    recipe = settings.recipe
    require_target(source.layout.target, old, recipe if isinstance(recipe, Recipe) else None)
    return source


def _from_zero(target: Target | None) -> Target | None:
    """The target with an offset of 0: counts must keep their zero."""
    if target is None or not any(target.offsets):
        return target
    return replace(target, offset=0.0, parts=tuple(replace(part, offset=0.0) for part in target.parts))


def _plan(source: Source, model: Model, settings: Settings, validation: Sequence[Term]) -> Plan:
    scratch, learner_bytes = Scratch.of(source.longest_layout), state_bytes_of(model.learner)
    plan = source.plan(
        memory=settings.memory, batch_size=settings.batch_size, window_rows=settings.window_rows,
        threads=settings.threads, shuffle=settings.shuffle,
        terms=_terms(model, settings, validation, 0 if source.digests is None else source.digests.term.bytes),
        scratch_bytes=partial(scratch.learning, learner_bytes=learner_bytes, fused=model.is_fused),
    )  # fmt: skip
    if source.held is None and settings.holdout:
        return replace(plan, held_rows=HoldOut(settings.holdout, None, source.table).count)
    return plan


def _plan_of_one_column(source: Source, settings: Settings, validation: Sequence[Term]) -> Plan:
    """The plan for the smallest feature alone."""
    smallest = min(source.layout.columns, key=lambda column: (column.numbers, column.becomes.row_bytes(column)))
    alone = source.with_layout(replace(source.layout, columns=(smallest,), crosses=()))
    return _plan(alone, _make_model(alone, settings), settings, validation)


def _make_model(source: Source, settings: Settings) -> Model:
    layout = source.layout
    assert layout.target is not None
    weights = class_weights(layout.target, settings.class_weight) if source.is_surveyed else ()
    return Model(layout, settings.recipe, PreparationSettings(**feature_settings(settings), class_weights=weights))


def _terms(model: Model, settings: Settings, validation: Sequence[Term], digests_bytes: int) -> tuple[Term, ...]:
    """The memory besides the loader: the model, its scores, a checkpoint, and the scoring of validation data. digests_bytes: of
    the training data.

    With patience, the best model so far is held, too. A checkpoint is planned even if the run is not saved: the plan decides
    the order of the rows, which must not depend on --out.
    """
    best = settings.patience is not None
    scored = 2 + settings.holds_out + best  # rows learned, rows held out, those of the epoch before, and the best
    metrics = metrics_term(scored * metrics_bytes(model.target))
    digests_bytes += sum(term.bytes for term in validation if term.name == "digests")
    arrays_bytes = (1 + best) * model.state_bytes + metrics.bytes + digests_bytes
    checkpoint = checkpoint_term(arrays_bytes, len(model.layout.columns))
    terms = (*model.terms, metrics, checkpoint)
    if not validation:
        return terms
    again = [*validation, *(term for term in terms if term.for_validation)]
    return *terms, Term("validation", sum(term.bytes for term in again), "scores")


def class_weights(target: Target, weights_given: str | Mapping[Any, float] | None) -> tuple[float, ...]:
    """The weight of each class, in the order of the classes; empty if ``weights_given`` is None.

    With ``"balanced"`` a class weighs ``rows / (classes * count)``: all classes weigh the same in total, and the mean
    weight of a row is 1. Raises UsageError for invalid weights.

    >>> class_weights(Target("y", "classify", ("a", "b"), (90, 10), 100), "balanced")
    (0.5555555555555556, 5.0)
    """
    if weights_given is None:
        return ()
    if target.parts or target.task != "classify":
        raise UsageError("--class-weight: needs one target that has classes: leave it out")
    if weights_given == "balanced":
        if not target.counts or not all(target.counts):
            raise UsageError(
                "--class-weight balanced: needs the rows of each class, which --classes does not count: leave out --classes"
            )
        return tuple(sum(target.counts) / (len(target.counts) * count) for count in target.counts)
    assert isinstance(weights_given, Mapping)
    by_name: dict[str, Any] = {str(name): weight for name, weight in weights_given.items()}
    names = [str(name) for name in target.classes]
    for name, weight in by_name.items():
        if name not in names:
            raise UsageError(f"--class-weight {name}={weight}: no such class: {near_names(name, names)}")
        if not (isinstance(weight, (int, float)) and 0 <= weight <= _MAX_WEIGHT):
            raise UsageError(f"--class-weight {name}={weight}: must be a number, 0 or more, that float32 can hold")
    weights = tuple(float(by_name.get(name, 1.0)) for name in names)
    if not any(weights):
        raise UsageError("--class-weight: every class has weight 0: give at least one a weight above 0")
    return weights

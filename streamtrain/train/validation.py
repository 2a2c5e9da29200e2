"""A model on other data, in the order of the rows: its memory plan, its predictions, its scores.

`Scorer` scores the validation data of a fit. `evaluate` and `predict` of the tools use the same functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from streamtrain.batch import Batch
from streamtrain.errors import BadValueError, DataError, data_name
from streamtrain.load import Loader, Source
from streamtrain.load.demand import longest_layout, opened_term
from streamtrain.load.digests import Digests
from streamtrain.load.ledger import Ledger
from streamtrain.load.settings import SkipSettings
from streamtrain.memory.monitor import Monitor
from streamtrain.memory.process import peak_bytes
from streamtrain.metrics import Metrics
from streamtrain.metrics.scores import metrics_for
from streamtrain.model import Model
from streamtrain.model.opening import open_for
from streamtrain.options import checked
from streamtrain.plan import Plan
from streamtrain.plan.scratch import Scratch
from streamtrain.plan.settings import PlanSettings
from streamtrain.plan.term import Term
from streamtrain.state import part
from streamtrain.storage.kept import KeptTable
from streamtrain.storage.reader import snapshots_of
from streamtrain.storage.settings import ReadSettings

__all__ = [
    "DIGESTS", "RowProgress", "Scorer", "load_digests", "output_row_bytes", "plan_for_process", "predictions",
    "require_settings", "score", "state_of_digests",
]  # fmt: skip

#: how the names of the digests begin in a checkpoint, and the data that they are of
DIGESTS = {"digests.": "data", "validation.digests.": "validation"}

RowProgress = Callable[[int, int], object]
"""Called repeatedly with the rows done and all rows."""

_BATCH_ROWS = 8192
_WINDOW_BYTES, _BATCH_BYTES = 32 * 10**6, 2 * 10**6


def _plan(
    source: Source, model: Model | None, memory: float | str | None, threads: int | None, *, written_bytes: int = 0,
    loading: int = 0,
) -> Plan:  # fmt: skip
    """A plan that reads the rows in their order. The window only costs memory then, so it is small.

    written_bytes: bytes held by the writer of the predictions. loading: bytes that the process took at its peak and has given
    back.
    """
    outputs = output_row_bytes(model)
    scratch = Scratch.of(longest_layout(source.reader, source.table, (model or source).layout))
    row_bytes = 4 * source.layout.width + scratch.predicting(1) + outputs
    batch = max(1, min(_BATCH_ROWS, _BATCH_BYTES // row_bytes))
    terms = [Term("outputs", batch * outputs + written_bytes, "output", for_validation=True)]
    if loading:
        terms.append(Term("loading", loading, "other"))
    return source.plan(
        memory=memory, batch_size=batch, threads=threads, shuffle=False, window_bytes=_WINDOW_BYTES, terms=terms,
        scratch_bytes=scratch.predicting,
    )  # fmt: skip


def plan_for_process(
    source: Source, model: Model, memory: float | str | None, threads: int | None, *, written_bytes: int = 0
) -> Plan:
    """The plan for a process that has loaded the model and opened the data; its peak may be above everything that follows."""
    plan = _plan(source, model, memory, threads, written_bytes=written_bytes)
    more = (peak_bytes() or 0) - plan.peak_bytes
    return _plan(source, model, memory, threads, written_bytes=written_bytes, loading=more) if more > 0 else plan


def output_row_bytes(model: Model | None) -> int:
    """Bytes of the predictions of one row: margins, probabilities and the columns that are written."""
    return 32 + (16 * max(len(model.classes), len(model.target.names)) if model else 0)


def require_settings(memory: float | str | None, threads: int | None) -> None:
    """Raise UsageError for invalid settings, before any I/O."""
    checked(PlanSettings, {"memory": memory, "threads": threads})


def state_of_digests(source: Source, validation: Scorer | None) -> dict[str, NDArray[Any]]:
    """What was read of the data and of the validation data of a fit, as arrays of a checkpoint."""
    each = _digests(source, validation).items()
    return {prefix + name: array for prefix, digests in each for name, array in digests.state_dict().items()}


def load_digests(arrays: Mapping[str, Any], source: Source, validation: Scorer | None) -> None:
    """Go on from the arrays of a checkpoint, which has none of these if an earlier version wrote it."""
    for prefix, digests in _digests(source, validation).items():
        if state := part(arrays, prefix):
            digests.load_state_dict(state)


def _digests(source: Source, validation: Scorer | None) -> dict[str, Digests]:
    each = source.digests, None if validation is None else validation.digests
    return {prefix: digests for prefix, digests in zip(DIGESTS, each, strict=True) if digests is not None}


def predictions(
    source: Source, plan: Plan, model: Model, monitor: Monitor, progress: RowProgress | None = None,
    ledger: Ledger | None = None,
) -> Iterator[tuple[Batch, NDArray[np.float32]]]:  # fmt: skip
    """The rows of the source in batches, with the model's predictions (see `Model.predict`). Skipped rows have weight 0."""
    done = 0
    with threadpool_limits(1, "blas"), Loader(source, plan, epochs=1, monitor=monitor, ledger=ledger) as loader:
        for batch in loader:
            monitor.check()
            try:
                found = model.predict(batch)
            except BadValueError as error:
                raise source.located(error, batch) from error
            yield batch, found
            done += len(batch)
            if progress is not None:
                progress(done, plan.rows)


def score(
    source: Source, plan: Plan, model: Model, monitor: Monitor, progress: RowProgress | None = None,
    ledger: Ledger | None = None,
) -> Metrics:  # fmt: skip
    """The metrics of the model on the rows of the source."""
    metrics = metrics_for(model.target)
    for batch, found in predictions(source, plan, model, monitor, progress, ledger):
        metrics.update(batch.targets, found, batch.weights)
    return metrics


@dataclass
class Scorer:
    """Validation data, which are scored at the end of each epoch.

    data: as `fit` takes them. reading: how they are read. terms: the memory of scoring them, for the plan of the fit.
    skipping: what happens to rows that cannot be used. digests: what was read of them; None before they are opened for the
    model. kept: their rows that match ``--where``, if it is given: they are found once. unread: the chunks that could not be
    read then. ledger: of the skipped rows; None before the data are opened, or if such rows are errors. skipped: its state
    after the latest whole score. warnings: of the latest score.
    """

    data: Any
    reading: ReadSettings
    terms: tuple[Term, ...]
    skipping: SkipSettings
    digests: Digests | None = None
    kept: KeptTable | None = None
    warnings: list[str] = field(default_factory=list)
    unread: Mapping[int, DataError] = field(default_factory=dict)
    ledger: Ledger | None = None
    skipped: dict[str, Any] | None = None

    @classmethod
    def planned(cls, data: Any, settings: Any, snapshots: Mapping[str, str]) -> Scorer:
        """Open the data before training: their errors are raised then, and the memory of scoring is planned. snapshots: of
        tables, that the run has read."""
        reading = settings.reading.for_validation(snapshots)
        source = Source.open(
            data, target=settings.target, features=settings.features, exclude=settings.exclude,
            task=settings.task, roles=settings.roles, crosses=settings.crosses, reading=reading,
            skips=settings.on_error == "skip",
        )  # fmt: skip
        if source.layout.bags or source.layout.unknown_lists:  # of which the first rows tell the size
            source = source.with_roles()
        plan = cls.least(source, None)
        terms = (opened_term(source.reader, source.table), *(term for term in plan.terms if term.for_validation))
        pinned = replace(reading, snapshots=snapshots_of(source.reader))
        kept = source.table if isinstance(source.table, KeptTable) else None
        return cls(data, pinned, terms, settings, kept=kept, unread=source.unread)

    @staticmethod
    def least(source: Source, model: Model | None) -> Plan:
        """The smallest plan, whatever memory is available: its bytes are a term of the fit's plan, and so affect its order."""
        return _plan(source, model, 1, 1)

    def check(self, model: Model, *, is_known: bool) -> None:
        """Raise the errors that `score` would raise after the first epoch, about columns and the target. is_known: whether an
        earlier process of the run has read the target."""
        source = self.open(model)
        if not is_known:
            source.checked_target(self.ledger)

    def whole(self) -> None:
        """Keep the counts of skipped rows: the latest score is part of the run. One that is interrupted is repeated."""
        self.skipped = None if self.ledger is None else self.ledger.state_dict()

    def go_on(self, model: Model, skipped: dict[str, Any]) -> None:
        """Go on with the skipped rows so far. skipped: from a checkpoint."""
        self.skipped = skipped
        self.ledger = self._made(self.open(model), model)

    def _made(self, source: Source, model: Model) -> Ledger | None:
        name, infinities = data_name(self.data), model.prepared.infinities
        return Ledger.of(self.skipping, name, source.table, infinities, self.unread, self.skipped)

    def open(self, model: Model) -> Source:
        """The data, with the columns of the model."""
        skips = self.skipping.on_error == "skip"
        source = open_for(model, self.data, with_target=True, reading=self.reading, skips=skips, kept=self.kept)
        if self.digests is None:
            self.digests = source.with_digests().digests
            self.ledger = self._made(source, model)
        return replace(source, digests=self.digests)

    def score(self, model: Model, monitor: Monitor, progress: RowProgress | None = None) -> Metrics:
        """The metrics of the model on these data. monitor: that of the whole fit."""
        source, held = self.open(model), model.preparation.ages.held.copy()
        metrics = score(source, self.least(source, model), model, monitor, progress, self.ledger and self.ledger.in_use)
        self.warnings = [f"--validate: {warning}" for warning in model.preparation.ages.warnings(since=held)]
        return metrics

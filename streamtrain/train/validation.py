"""A model on other data: what that takes, its predictions and its scores, row by row in the order of the data.

`Scorer` is the validation data of a fit; `evaluate` and `predict` of the tools stand on the same functions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from streamtrain.batch import Batch
from streamtrain.errors import BadValueError, DataError
from streamtrain.load import Loader, Source
from streamtrain.memory.monitor import Monitor
from streamtrain.memory.process import peak_bytes
from streamtrain.metrics import Metrics
from streamtrain.metrics.scores import metrics_for
from streamtrain.model import Model
from streamtrain.model.opening import open_for
from streamtrain.options import check
from streamtrain.plan import Plan
from streamtrain.plan.scratch import Scratch
from streamtrain.plan.settings import PlanSettings
from streamtrain.plan.term import Term

__all__ = ["Scorer", "chunk_rows", "plan_behind", "predicted", "prediction_schema", "require_settings", "score"]

_BATCH_ROWS = 8192
_WINDOW_BYTES, _BATCH_BYTES, _OUTPUT_BYTES = 32 * 10**6, 2 * 10**6, 8 * 10**6


def _plan(
    source: Source, model: Model | None, memory: float | str | None, threads: int | None, *, written: bool = False,
    loading: int = 0,
) -> Plan:  # fmt: skip
    """Rows in file order: the window is a matter of memory only, so it is small. ``written``: for predictions, too. loading:
    bytes that are gone again."""
    outputs, scratch = _output_bytes(model), Scratch.of((model or source).layout)
    row_bytes = 4 * source.layout.width + scratch.predicting(1) + outputs
    batch = max(1, min(_BATCH_ROWS, _BATCH_BYTES // row_bytes))
    output_bytes = batch * outputs
    if written and model is not None:
        from streamtrain.storage.parquet.writer import footer_entry_bytes

        entries = sum(map(footer_entry_bytes, prediction_schema(model)))  # of each row group, held to the end
        groups = -(-source.table.total_rows // chunk_rows(model))
        output_bytes += 2 * chunk_rows(model) * outputs + groups * entries
    terms = [Term("outputs", output_bytes, "output", for_validation=True)]
    if loading:
        terms.append(Term("loading", loading, "other"))
    return source.plan(
        memory=memory, batch_size=batch, threads=threads, shuffle=False, window_bytes=_WINDOW_BYTES, terms=terms,
        scratch_bytes=scratch.predicting,
    )  # fmt: skip


def plan_behind(
    source: Source, model: Model, memory: float | str | None, threads: int | None, *, written: bool
) -> Plan:
    """The plan of a process that has loaded the model and looked at the data, which may have taken more than all the rest
    will."""
    plan = _plan(source, model, memory, threads, written=written)
    more = (peak_bytes() or 0) - plan.peak_bytes
    return _plan(source, model, memory, threads, written=written, loading=more) if more > 0 else plan


def _output_bytes(model: Model | None) -> int:
    """Bytes of the predictions for one row: margins, probabilities and what is written of them."""
    return 32 + (16 * max(len(model.classes), len(model.target.names)) if model else 0)


def chunk_rows(model: Model | None) -> int:
    """Rows of a row group of predictions: about 8 MB of them."""
    return max(1024, min(65_536, _OUTPUT_BYTES // _output_bytes(model)))


def require_settings(memory: float | str | None, threads: int | None) -> None:
    """Settings first, before any I/O."""
    check(PlanSettings(memory=memory, threads=threads))


def predicted(
    source: Source, plan: Plan, model: Model, monitor: Monitor
) -> Iterator[tuple[Batch, NDArray[np.float32]]]:
    with threadpool_limits(1, "blas"), Loader(source, plan, epochs=1, monitor=monitor) as loader:
        for batch in loader:
            monitor.check()
            try:
                yield batch, model.predict(batch)
            except BadValueError as error:
                raise source.located(error, batch) from error


def score(source: Source, plan: Plan, model: Model, monitor: Monitor) -> Metrics:
    metrics = metrics_for(model.target)
    for batch, predictions in predicted(source, plan, model, monitor):
        metrics.update(batch.targets, predictions, batch.weights)
    return metrics


def prediction_schema(model: Model) -> pa.Schema:
    fields: list[tuple[str, pa.DataType]] = []
    for target in model.target.several:
        of = f"_{target.name}" if model.target.parts else ""
        if target.task == "regress":
            fields.append((f"prediction{of}", pa.float64() if target.offset else pa.float32()))
        else:
            fields.append((f"prediction{of}", target.labels.type))
            fields += [(f"probability{of}_{c}", pa.float32()) for c in target.classes]
    names = [name for name, _ in fields]
    twice = [name for name in names if names.count(name) > 1] if model.target.parts else []
    if twice:
        raise DataError(
            f"two columns of predictions would be called {twice[0]!r}: the names of the targets are too much alike"
        )
    return pa.schema(fields)


@dataclass
class Scorer:
    """Validation data, scored again and again while a model is trained."""

    data: Any
    missing_chunks: str
    terms: tuple[Term, ...]  # of the training data's plan

    @classmethod
    def planned(cls, data: Any, settings: Any) -> Scorer:
        """Open the data early, so that what is wrong with it is said before training, and what it takes is planned."""
        source = Source.open(
            data, target=settings.target, features=settings.features, exclude=settings.exclude,
            task=settings.task, roles=settings.roles, crosses=settings.crosses, missing_chunks=settings.missing_chunks,
        )  # fmt: skip
        plan = cls._least(source, None)
        return cls(data, settings.missing_chunks, tuple(term for term in plan.terms if term.for_validation))

    @staticmethod
    def _least(source: Source, model: Model | None) -> Plan:
        """The smallest plan, whatever memory there is: what it takes is part of another plan, and so of its order."""
        return _plan(source, model, 1, 1)

    def require_columns(self, model: Model) -> None:
        """Raise now what `score` would raise of columns after the first epoch. Reads metadata."""
        self.open(model)

    def open(self, model: Model) -> Source:
        """The data, as the model takes them."""
        return open_for(model, self.data, with_target=True, missing_chunks=self.missing_chunks)

    def score(self, model: Model, monitor: Monitor) -> Metrics:
        """The metrics of the model on this data, within the budget that the monitor of the whole fit holds."""
        source = self.open(model)
        return score(source, self._least(source, model), model, monitor)

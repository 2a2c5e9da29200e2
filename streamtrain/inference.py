"""A trained model on other data: scores, and predictions streamed to a file. Rows keep their order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from streamtrain.batch import Batch
from streamtrain.errors import BadValueError, DataError, RunError, StreamtrainError, UsageError
from streamtrain.load import Loader, Source
from streamtrain.memory import parse_bytes, peak_bytes, reset_peak
from streamtrain.metrics import Metrics
from streamtrain.model import Model, load_model, open_for
from streamtrain.monitor import Monitor
from streamtrain.plan import Plan
from streamtrain.scores import metrics_for, per_class, scores
from streamtrain.storage.place import LocalPlace, Located

__all__ = ["Scorer", "evaluate", "predict"]

_BATCH_ROWS = 8192
_WINDOW_BYTES, _BATCH_BYTES, _OUTPUT_BYTES = 32 * 10**6, 2 * 10**6, 8 * 10**6


def _plan(
    source: Source, model: Model | None, memory: int | str | None, workers: int | None, *, written: bool = False,
    loading: int = 0,
) -> Plan:  # fmt: skip
    """Rows in file order: the window is a matter of memory only, so it is small. ``written``: for predictions, too. loading:
    bytes that are gone again."""
    outputs, scratch = _output_bytes(model), (model or source).layout.scratch
    row_bytes = 4 * source.layout.width + scratch.predicting(1) + outputs
    batch = max(1, min(_BATCH_ROWS, _BATCH_BYTES // row_bytes))
    extra = {"outputs": batch * outputs}
    if written and model is not None:
        from streamtrain.storage.parquet_writer import footer_entry_bytes

        entries = sum(map(footer_entry_bytes, _prediction_schema(model)))  # of each row group, held to the end
        groups = -(-source.table.total_rows // _chunk_rows(model))
        extra["outputs"] += 2 * _chunk_rows(model) * outputs + groups * entries
    if loading:
        extra["loading"] = loading
    return source.plan(
        memory=memory, batch_size=batch, workers=workers, shuffle=False, window_bytes=_WINDOW_BYTES, extra_terms=extra,
        scratch_bytes=scratch.predicting,
    )  # fmt: skip


def _plan_behind(source: Source, model: Model, memory: int | str | None, workers: int | None, *, written: bool) -> Plan:
    """The plan of a process that has loaded the model and looked at the data, which may have taken more than all the rest
    will."""
    plan = _plan(source, model, memory, workers, written=written)
    more = (peak_bytes() or 0) - plan.peak_bytes
    return _plan(source, model, memory, workers, written=written, loading=more) if more > 0 else plan


def _output_bytes(model: Model | None) -> int:
    """Bytes of the predictions for one row: margins, probabilities and what is written of them."""
    return 32 + (16 * max(len(model.classes), len(model.target.names)) if model else 0)


def _chunk_rows(model: Model | None) -> int:
    """Rows of a row group of predictions: about 8 MB of them."""
    return max(1024, min(65_536, _OUTPUT_BYTES // _output_bytes(model)))


def _check(memory: int | str | None, workers: int | None) -> None:
    """Settings first, before any I/O."""
    if memory is not None:
        parse_bytes(memory)
    if workers is not None and workers < 1:
        raise UsageError(f"--workers {workers}: must be at least 1")


def _predicted(
    source: Source, plan: Plan, model: Model, monitor: Monitor
) -> Iterator[tuple[Batch, NDArray[np.float32]]]:
    with threadpool_limits(1, "blas"), Loader(source, plan, epochs=1, monitor=monitor) as loader:
        for batch in loader:
            monitor.check()
            try:
                yield batch, model.predict(batch)
            except BadValueError as error:
                raise source.located(error, batch) from error


def evaluate(
    run: Model | str | Path, data: Any, *, memory: int | str | None = None, workers: int | None = None,
    missing_chunks: str = "error",
) -> dict[str, Any]:  # fmt: skip
    """Score a model, or the model of a run folder, on data with its target.

    Returns ``{"rows", "metrics", "per_class"}``, the last None for regression. Raises RunError for a folder that holds no
    model, and what `fit` raises for data.
    """
    _check(memory, workers)
    reset_peak()
    model = run if isinstance(run, Model) else load_model(run)
    source = open_for(model, data, with_target=True, missing_chunks=missing_chunks)
    plan = _plan_behind(source, model, memory, workers, written=False)
    plan.require_fits()
    with Monitor(plan.budget_bytes, plan.terms) as monitor:
        metrics = _score(source, plan, model, monitor)
        return {"rows": plan.rows, "metrics": scores(metrics), "per_class": per_class(metrics, model.target)}


def _score(source: Source, plan: Plan, model: Model, monitor: Monitor) -> Metrics:
    metrics = metrics_for(model.target)
    for batch, predictions in _predicted(source, plan, model, monitor):
        metrics.update(batch.targets, predictions, batch.weights)
    return metrics


_OWN_TERMS = ("footers", "order", "reads", "streams", "windows", "batches", "outputs")


@dataclass
class Scorer:
    """Validation data, scored again and again while a model is trained."""

    data: Any
    missing_chunks: str
    bytes: int

    @classmethod
    def planned(cls, data: Any, settings: Any) -> Scorer:
        """Open the data early, so that what is wrong with it is said before training, and what it takes is planned."""
        source = Source.open(
            data, target=settings.target, features=settings.features, exclude=settings.exclude,
            task=settings.task, roles=settings.roles, crosses=settings.crosses, missing_chunks=settings.missing_chunks,
        )  # fmt: skip
        plan = cls._least(source, None)
        return cls(data, settings.missing_chunks, sum(plan.terms[name] for name in _OWN_TERMS))

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
        return _score(source, self._least(source, model), model, monitor)


def predict(
    run: Model | str | Path, data: Any, *, out: str | Path, memory: int | str | None = None,
    workers: int | None = None, missing_chunks: str = "error",
) -> dict[str, Any]:  # fmt: skip
    """Write a prediction for each row of the data, in its order, to a Parquet file, in constant memory.

    Columns: ``prediction``, and for classes ``probability_<class>`` for each; of several targets ``prediction_<target>`` and
    ``probability_<target>_<class>``. Returns ``{"rows", "out"}``.
    """
    _check(memory, workers)
    reset_peak()
    model = run if isinstance(run, Model) else load_model(run)
    path = Path(out).resolve()
    if (path.exists() and not path.is_file()) or not path.parent.is_dir():
        raise UsageError(f"--out {out}: must be a file in a folder that exists")
    source = open_for(model, data, with_target=False, missing_chunks=missing_chunks)
    _require_apart(path, out, data, source)
    plan = _plan_behind(source, model, memory, workers, written=True)
    plan.require_fits()
    from streamtrain.storage.parquet_writer import ParquetTableWriter

    schema = _prediction_schema(model)
    try:
        with (
            Monitor(plan.budget_bytes, plan.terms) as monitor,
            ParquetTableWriter(path, schema, chunk_rows=_chunk_rows(model)) as writer,
        ):
            for _, predictions in _predicted(source, plan, model, monitor):
                writer.write(_table(model, predictions, schema))
    except OSError as error:
        if isinstance(error, StreamtrainError):
            raise
        raise RunError(f"--out {out}: cannot be written: {error}") from error
    return {"rows": plan.rows, "out": str(out)}


def _require_apart(path: Path, out: str | Path, data: Any, source: Source) -> None:
    """Predictions may neither replace the data nor lie among them, where the next one who reads them would find them."""
    if not isinstance(data, (str, Path)):
        return
    place, names = source.reader.located if isinstance(source.reader, Located) else (None, [])
    own = [Path(data), *(place.root / name for name in names if isinstance(place, LocalPlace))]
    if any(one.resolve() in (path, *path.parents) for one in own):
        raise UsageError(f"--out {out}: lies in the data that are read: name a file elsewhere")


def _prediction_schema(model: Model) -> pa.Schema:
    fields: list[tuple[str, pa.DataType]] = []
    for target in model.target.several:
        of = f"_{target.name}" if model.target.parts else ""
        if target.task == "regress":
            fields.append((f"prediction{of}", pa.float64() if target.origin else pa.float32()))
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


def _table(model: Model, predictions: NDArray[np.float32], schema: pa.Schema) -> pa.RecordBatch:
    columns: list[pa.Array] = []
    each = predictions.T if model.target.parts else [predictions]
    for target, found in zip(model.target.several, each, strict=True):
        if target.task == "regress":
            columns.append(pa.array(found + np.float64(target.origin) if target.origin else np.array(found)))
            continue
        if found.ndim == 1:  # two classes: the probability of the second
            found = np.stack([1 - found, found], axis=1)
        columns.append(target.labels.take(pa.array(np.argmax(found, axis=1))))
        columns += [pa.array(np.ascontiguousarray(found[:, i])) for i in range(found.shape[1])]
    return pa.record_batch(columns, schema=schema)

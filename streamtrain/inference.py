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
from streamtrain.errors import BadValueError, RunError, StreamtrainError, UsageError
from streamtrain.load import Loader, Source
from streamtrain.memory import parse_bytes
from streamtrain.metrics import make_metrics
from streamtrain.model import Model, load_model
from streamtrain.plan import Plan

__all__ = ["Scorer", "evaluate", "predict"]

_BATCH_ROWS = 8192
_WINDOW_BYTES = 32 * 10**6


def _open(data: Any, model: Model, *, with_target: bool, missing_chunks: str) -> Source:
    source = Source.open(
        data, target=model.target.name if with_target else None, features=model.layout.features,
        task=model.target.task if with_target else None, missing_chunks=missing_chunks,
    )  # fmt: skip
    return source.with_layout(model.layout_for(source.reader.schema, with_target=with_target))


def _plan(source: Source, memory: int | str | None, workers: int | None) -> Plan:
    """Rows in file order: the window is a matter of memory only, so it is small."""
    batch = max(1, min(_BATCH_ROWS, _WINDOW_BYTES // (16 * max(1, source.layout.row_bytes))))
    return source.plan(memory=memory, batch_size=batch, workers=workers, shuffle=False, window_bytes=_WINDOW_BYTES)


def _check(memory: int | str | None, workers: int | None) -> None:
    """Settings first, before any I/O."""
    if memory is not None:
        parse_bytes(memory)
    if workers is not None and workers < 1:
        raise UsageError(f"--workers {workers}: must be at least 1")


def _predicted(source: Source, plan: Plan, model: Model) -> Iterator[tuple[Batch, NDArray[np.float32]]]:
    with threadpool_limits(1, "blas"), Loader(source, plan, epochs=1) as loader:
        for batch in loader:
            try:
                yield batch, model.predict(batch)
            except BadValueError as error:
                raise source.located(error, batch) from error


def evaluate(
    run: Model | str | Path, data: Any, *, memory: int | str | None = None, workers: int | None = None,
    missing_chunks: str = "error",
) -> dict[str, Any]:  # fmt: skip
    """Score a model, or the model of a run folder, on data with its target.

    Returns ``{"rows", "metrics"}``. Raises RunError for a folder that holds no model, and what `fit` raises for data.
    """
    _check(memory, workers)
    model = run if isinstance(run, Model) else load_model(run)
    source = _open(data, model, with_target=True, missing_chunks=missing_chunks)
    plan = _plan(source, memory, workers)
    plan.require_fits()
    return {"rows": plan.rows, "metrics": _score(source, plan, model)}


def _score(source: Source, plan: Plan, model: Model) -> dict[str, Any]:
    metrics = make_metrics(model.task, len(model.classes))
    for batch, predictions in _predicted(source, plan, model):
        metrics.update(batch.targets, predictions)
    return metrics.result()


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
            task=settings.task, missing_chunks=settings.missing_chunks,
        )  # fmt: skip
        plan = _plan(source, None, 1)
        needed = sum(plan.terms[name] for name in ("footers", "order", "reads", "streams", "windows", "batches"))
        return cls(data, settings.missing_chunks, needed)

    def require_columns(self, model: Model) -> None:
        """Raise now what `score` would raise of columns after the first epoch. Reads metadata."""
        _open(self.data, model, with_target=True, missing_chunks=self.missing_chunks)

    def score(self, model: Model) -> dict[str, Any]:
        source = _open(self.data, model, with_target=True, missing_chunks=self.missing_chunks)
        return _score(source, _plan(source, None, 1), model)


def predict(
    run: Model | str | Path, data: Any, *, out: str | Path, memory: int | str | None = None,
    workers: int | None = None, missing_chunks: str = "error",
) -> dict[str, Any]:  # fmt: skip
    """Write a prediction for each row of the data, in its order, to a Parquet file, in constant memory.

    Columns: ``prediction``, and for classes ``probability_<class>`` for each. Returns ``{"rows", "out"}``.
    """
    _check(memory, workers)
    model = run if isinstance(run, Model) else load_model(run)
    path = Path(out)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise UsageError(f"--out {out}: must be a file in a folder that exists")
    source = _open(data, model, with_target=False, missing_chunks=missing_chunks)
    _require_apart(path, data, source)
    plan = _plan(source, memory, workers)
    plan.require_fits()
    from streamtrain.storage.parquet_writer import ParquetTableWriter

    schema = _prediction_schema(model)
    try:
        with ParquetTableWriter(path, schema, chunk_rows=65_536) as writer:
            for _, predictions in _predicted(source, plan, model):
                writer.write(_table(model, predictions, schema))
    except OSError as error:
        if isinstance(error, StreamtrainError):
            raise
        raise RunError(f"--out {out}: cannot be written: {error}") from error
    return {"rows": plan.rows, "out": str(out)}


def _require_apart(out: Path, data: Any, source: Source) -> None:
    """Predictions may neither replace the data nor lie among them, where the next one who reads them would find them."""
    if not isinstance(data, (str, Path)):
        return
    own = [Path(data), *getattr(source.reader, "paths", [])]
    if any(path.resolve() in (out.resolve(), *out.resolve().parents) for path in own):
        raise UsageError(f"--out {out}: lies in the data that are read: name a file elsewhere")


def _prediction_schema(model: Model) -> pa.Schema:
    if model.task == "regress":
        return pa.schema([("prediction", pa.float32())])
    kind = pa.array(list(model.classes)).type
    probabilities = [(f"probability_{c}", pa.float32()) for c in model.classes]
    return pa.schema([("prediction", kind), *probabilities])


def _table(model: Model, predictions: NDArray[np.float32], schema: pa.Schema) -> pa.RecordBatch:
    if model.task == "regress":
        return pa.record_batch([pa.array(predictions)], schema=schema)
    if predictions.ndim == 1:  # two classes: the probability of the second
        predictions = np.stack([1 - predictions, predictions], axis=1)
    best = np.argmax(predictions, axis=1)
    labels = pa.array(list(model.classes)).take(pa.array(best))
    columns = [pa.array(np.ascontiguousarray(predictions[:, i])) for i in range(predictions.shape[1])]
    return pa.record_batch([labels, *columns], schema=schema)

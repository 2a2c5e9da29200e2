"""``predict``: the predictions of a trained model, streamed to a file. Rows keep their order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.errors import RunError, StreamtrainError, UsageError
from streamtrain.load import Source
from streamtrain.memory.monitor import Monitor
from streamtrain.memory.process import reset_peak
from streamtrain.model import Model, load_model
from streamtrain.model.opening import open_for
from streamtrain.storage.files.place import LocalFileStore, Located
from streamtrain.train.validation import chunk_rows, plan_behind, predicted, prediction_schema, require_settings

__all__ = ["predict"]


def predict(
    run: Model | str | Path, data: Any, *, out: str | Path, learner: Any = None, memory: float | str | None = None,
    threads: int | None = None, missing_chunks: str = "error",
) -> dict[str, Any]:  # fmt: skip
    """Write a prediction for each row of the data, in its order, to a Parquet file, in constant memory.

    Columns: ``prediction``, and for classes ``probability_<class>`` for each; of several targets ``prediction_<target>`` and
    ``probability_<target>_<class>``. learner: of a run folder, see `load_model`. Returns ``{"rows", "out"}``.
    """
    require_settings(memory, threads)
    reset_peak()
    model = run if isinstance(run, Model) else load_model(run, learner=learner)
    path = Path(out).resolve()
    if (path.exists() and not path.is_file()) or not path.parent.is_dir():
        raise UsageError(f"--out {out}: must be a file in a folder that exists")
    source = open_for(model, data, with_target=False, missing_chunks=missing_chunks)
    _require_apart(path, out, data, source)
    plan = plan_behind(source, model, memory, threads, written=True)
    plan.require_fits()
    from streamtrain.storage.parquet.writer import ParquetTableWriter

    schema = prediction_schema(model)
    try:
        with (
            Monitor(plan.budget_bytes, plan.term_bytes) as monitor,
            ParquetTableWriter(path, schema, chunk_rows=chunk_rows(model)) as writer,
        ):
            for _, predictions in predicted(source, plan, model, monitor):
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
    own = [Path(data), *(place.root / name for name in names if isinstance(place, LocalFileStore))]
    if any(one.resolve() in (path, *path.parents) for one in own):
        raise UsageError(f"--out {out}: lies in the data that are read: name a file elsewhere")


def _table(model: Model, predictions: NDArray[np.float32], schema: pa.Schema) -> pa.RecordBatch:
    columns: list[pa.Array] = []
    each = predictions.T if model.target.parts else [predictions]
    for target, found in zip(model.target.several, each, strict=True):
        if target.task == "regress":
            columns.append(pa.array(found + np.float64(target.offset) if target.offset else np.array(found)))
            continue
        if found.ndim == 1:  # two classes: the probability of the second
            found = np.stack([1 - found, found], axis=1)
        columns.append(target.labels.take(pa.array(np.argmax(found, axis=1))))
        columns += [pa.array(np.ascontiguousarray(found[:, i])) for i in range(found.shape[1])]
    return pa.record_batch(columns, schema=schema)

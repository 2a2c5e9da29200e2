"""``predict``: the predictions of a trained model, streamed to a file. Rows keep their order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamtrain.batch import Batch
from streamtrain.errors import DataError, RunError, StreamtrainError, UsageError, data_name
from streamtrain.load import Source
from streamtrain.load.ledger import Ledger
from streamtrain.load.settings import SkipSettings
from streamtrain.memory.monitor import Monitor, within
from streamtrain.model import Model
from streamtrain.model.opening import open_for
from streamtrain.options import checked, given
from streamtrain.storage.files.apart import require_apart
from streamtrain.storage.settings import ReadSettings
from streamtrain.tools.copied_columns import CopiedColumns
from streamtrain.tools.prediction_file import format_of_output, prediction_file, require_types, written_bytes
from streamtrain.tools.settings import PredictSettings
from streamtrain.train.last_checkpoint import open_model
from streamtrain.train.validation import (
    RowProgress,
    output_row_bytes,
    plan_for_process,
    predictions,
    require_settings,
)

__all__ = ["predict"]

_GROUP_BYTES = 8 * 10**6  # of the row groups that are written


def predict(
    run: Model | str | Path, data: Any, *, out: str | Path, learner: Any = None, memory: float | str | None = None,
    threads: int | None = None, columns_out: Sequence[str] | None = None,
    # settings: ReadSettings SkipSettings
    missing_chunks: str = "error", sample_dim: str | None = None, input_format: str | None = None,
    delimiter: str | None = None, header: bool = True, na: Sequence[str] | None = None, decimal: str = ".",
    encoding: str | None = None, where: str | None = None, table_version: int | None = None, as_of: str | None = None,
    on_error: str = "raise", max_skipped: float = 0.01,
    # end of settings
    progress: RowProgress | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write a prediction for each row of the data, in its order, to a file, in constant memory.

    The columns are ``prediction`` and, for classes, ``probability_<class>`` for each; for several targets
    ``prediction_<target>`` and ``probability_<target>_<class>``.

    Parameters
    ----------
    run
        A model, or the folder of a run. Of one that has not finished the newest checkpoint is used, and ``warnings`` say so.
    data
        A path, glob, directory, Zarr store, URL or reader, arrays and tables in memory, or a list of these. It may lack
        the target.
    out
        The file to write, in a folder that exists and not among the data: ``.csv`` or ``.jsonl`` (also with ``.gz`` or
        ``.zst``), ``.arrow``, or Parquet. It appears when it is complete.
    learner
        The learner of the run, if it is your own code: see `load_model`.
    memory
        The budget for the whole process: bytes, or a size such as ``"512MB"``. By default half of what is available.
    threads
        Reads at the same time; 2 by default.
    columns_out
        Columns of the data to copy before the predictions. ``file`` and ``row`` say where a row comes from, in data without
        columns of these names.
    missing_chunks
        An absent Zarr chunk: an error, or filled with its fill value. One of error, fill. Default: error.
    sample_dim
        The dimension of a Zarr store along which the rows are. Default: that of the target.
    input_format
        The format of the files. One of parquet, csv, jsonl, arrow, npy, zarr. Default: by their names, or their first
        bytes.
    delimiter
        CSV: the character between fields, or tab. Default: a tab in .tsv and .tab, otherwise a comma.
    header
        CSV: whether the first line names the columns; otherwise they are f0, f1, ... Default: True.
    na
        CSV: what means missing, in all columns: a,b. Blanks do in columns of numbers. Default: NA, NaN, null, None, ?,
        -, . and the like, in columns of numbers.
    decimal
        CSV: the decimal point. One of ., ,. Default: ..
    encoding
        CSV and JSON: the encoding of the text, such as latin-1. Default: utf-8.
    where
        Only the rows for which this is true: ``age >= 18 and city in ('Rome', 'Oslo')``.
    table_version
        Of a Delta table the version, of an Iceberg table the snapshot; also DATA@N. Default: the current one.
    as_of
        A table as it was at this time, 2026-01-15T12:00:00+01:00; in UTC without a zone.
    progress
        Called with the rows done and the rows there are, after each batch.

    Returns
    -------
    dict
        ``rows``, ``out``, ``warnings``, and ``skipped``: rows that were skipped, whose predictions are null.

    Raises
    ------
    UsageError
        ``out`` is not a file in a folder that exists, or lies among the data.
    RunError
        The folder contains neither a model nor a checkpoint, or ``out`` cannot be written.
    DataError
        The data cannot be used, as in `fit`.
    BudgetRefused, BudgetExceeded
        The plan does not fit the budget, or the process went over it.

    Examples
    --------
    >>> import tempfile
    >>> from streamtrain import fit
    >>> data = {"x": np.arange(100.0), "y": np.arange(100) % 2}
    >>> done = predict(fit(data, target="y").model, data, out=tempfile.mkdtemp() + "/p.parquet")
    >>> done["rows"]
    100
    """
    require_settings(memory, threads)
    reading = ReadSettings(
        # passed: ReadSettings
        missing_chunks=missing_chunks, sample_dim=sample_dim, input_format=input_format, delimiter=delimiter,
        header=header, na=na, decimal=decimal, encoding=encoding, where=where, table_version=table_version, as_of=as_of,
        # end of passed
    )  # fmt: skip
    skipping = SkipSettings(
        # passed: SkipSettings
        on_error=on_error, max_skipped=max_skipped,
        # end of passed
    )  # fmt: skip
    names = checked(PredictSettings, given(columns_out=columns_out)).get("columns_out", [])
    format_of_output(out)
    require_apart(f"--out {out}", out, data)
    with within(memory):
        model, warnings = open_model(run, learner=learner, memory=memory)
        path = Path(out).resolve()
        if (path.exists() and not path.is_file()) or not path.parent.is_dir():
            raise UsageError(f"--out {out}: must be a file in a folder that exists")
        skips = skipping.on_error == "skip"
        source = open_for(model, data, with_target=False, reading=reading, skips=skips)
        ledger = Ledger.of(skipping, data_name(data), source.table, model.prepared.infinities, source.unread)
        copied = CopiedColumns(source.reader, source.table, names) if names else None
        schema = _schema(model) if copied is None else _together(copied.schema, _schema(model))
        plan = plan_for_process(
            source, model, memory, threads, written_bytes=_written_bytes(path, schema, source, model, copied)
        )
        plan.require_fits()
        held = model.preparation.ages.held.copy()
        try:
            with (
                Monitor(plan.budget_bytes, plan.term_bytes) as monitor,
                prediction_file(path, schema, group_rows=_group_rows(model), is_copy=copied is not None) as write,
            ):
                for batch, found in predictions(source, plan, model, monitor, progress, ledger):
                    for rows in _beside(copied, batch, _table(model, found, batch.weights), schema):
                        write(rows)
        except OSError as error:
            if isinstance(error, StreamtrainError):
                raise
            raise RunError(f"--out {out}: cannot be written: {error}") from error
        return {
            "rows": plan.rows,
            "out": str(out),
            "warnings": [*warnings, *plan.warnings, *model.preparation.ages.warnings(since=held)],
            "skipped": [] if ledger is None else ledger.entries(),
        }


def _group_rows(model: Model) -> int:
    """Rows of a row group of predictions: about 8 MB of them."""
    return max(1024, min(65_536, _GROUP_BYTES // output_row_bytes(model)))


def _written_bytes(path: Path, schema: pa.Schema, source: Source, model: Model, copied: CopiedColumns | None) -> int:
    """The bytes of writing, and of reading what is copied. Raises ColumnError for a column that the format cannot hold."""
    kind, row_bytes = format_of_output(path), output_row_bytes(model) + (0 if copied is None else copied.row_bytes)
    require_types(kind, schema)
    written = written_bytes(
        kind,
        schema,
        source.table.total_rows,
        group_rows=_group_rows(model),
        row_bytes=row_bytes,
        is_copy=copied is not None,
    )
    return written + (0 if copied is None else copied.held_bytes)


def _beside(
    copied: CopiedColumns | None, batch: Batch, predicted: pa.RecordBatch, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    """The predictions of a batch, after the columns that are copied."""
    if copied is None:
        yield predicted
        return
    done = 0
    for piece in copied.at(batch.rows):
        own = predicted.slice(done, piece.num_rows)
        yield pa.RecordBatch.from_arrays([*piece.columns, *own.columns], schema=schema)
        done += piece.num_rows


def _together(copied: pa.Schema, predicted: pa.Schema) -> pa.Schema:
    """The copied columns, then those of the predictions. Raises UsageError if two have the same name."""
    both = next((name for name in copied.names if name in predicted.names), None)
    if both is not None:
        raise UsageError(
            f"--columns-out {both}: the predictions have a column of this name: leave it out, or rename it"
        )
    return pa.schema([*copied, *predicted])


def _schema(model: Model) -> pa.Schema:
    """The columns of predictions. Raises DataError if two would have the same name."""
    fields: list[tuple[str, pa.DataType]] = []
    for target in model.target.several:
        suffix = f"_{target.name}" if model.target.parts else ""
        if target.task == "regress":
            fields.append((f"prediction{suffix}", pa.float64() if target.offset else pa.float32()))
        else:
            fields.append((f"prediction{suffix}", target.labels.type))
            fields += [(f"probability{suffix}_{name}", pa.float32()) for name in target.classes]
    names = [name for name, _ in fields]
    twice = [name for name in names if names.count(name) > 1] if model.target.parts else []
    if twice:
        raise DataError(
            f"two columns of predictions would be named {twice[0]!r}: rename a target, or train the targets one by one"
        )
    return pa.schema(fields)


def _table(model: Model, found: NDArray[np.float32], weights: NDArray[np.float32] | None) -> pa.RecordBatch:
    """The columns of predictions. weights: 0 for a row that is skipped: its predictions are null."""
    columns: list[pa.Array] = []
    each = found.T if model.target.parts else [found]
    null = None if weights is None else weights == 0
    for target, values in zip(model.target.several, each, strict=True):
        if target.task == "regress":
            numbers = values + float(target.offset) if target.offset else np.array(values)
            columns.append(pa.array(numbers, mask=null))
            continue
        shares = np.stack([1 - values, values], axis=1) if values.ndim == 1 else values  # one: that of the second class
        columns.append(target.labels.take(pa.array(np.argmax(shares, axis=1), mask=null)))
        columns += [pa.array(np.ascontiguousarray(shares[:, i]), mask=null) for i in range(shares.shape[1])]
    return pa.record_batch(columns, schema=_schema(model))

"""``evaluate``: the scores of a trained model on other data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streamtrain.errors import data_name
from streamtrain.load.ledger import Ledger
from streamtrain.load.settings import SkipSettings
from streamtrain.memory.monitor import Monitor, within
from streamtrain.metrics.scores import per_class, scores
from streamtrain.model import Model
from streamtrain.model.opening import open_for
from streamtrain.storage.settings import ReadSettings
from streamtrain.train.last_checkpoint import open_model
from streamtrain.train.validation import RowProgress, plan_for_process, require_settings, score

__all__ = ["evaluate"]


def evaluate(
    run: Model | str | Path, data: Any, *, learner: Any = None, memory: float | str | None = None, threads: int | None = None,
    # settings: ReadSettings SkipSettings
    missing_chunks: str = "error", sample_dim: str | None = None, input_format: str | None = None,
    delimiter: str | None = None, header: bool = True, na: Sequence[str] | None = None, decimal: str = ".",
    encoding: str | None = None, where: str | None = None, table_version: int | None = None, as_of: str | None = None,
    on_error: str = "raise", max_skipped: float = 0.01,
    # end of settings
    progress: RowProgress | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Score a model on data that have its target.

    Parameters
    ----------
    run
        A model, or the folder of a run. Of one that has not finished the newest checkpoint is used, and ``warnings`` say so.
    data
        A path, glob, directory, Zarr store, URL or reader, arrays and tables in memory, or a list of these.
    learner
        The learner of the run, if it is your own code: see `load_model`.
    memory
        The budget for the whole process: bytes, or a size such as ``"512MB"``. By default half of what is available.
    threads
        Reads at the same time; 2 by default.
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
        ``rows``; ``metrics``, the scores by name; ``per_class``, a list, or None for regression and several targets;
        ``warnings``; ``skipped``, what was skipped, as in the report of `fit`.

    Raises
    ------
    RunError
        The folder contains neither a model nor a checkpoint.
    DataError
        The data cannot be used, as in `fit`.
    BudgetRefused, BudgetExceeded
        The plan does not fit the budget, or the process went over it.

    Examples
    --------
    >>> import numpy as np
    >>> from streamtrain import fit
    >>> x = np.random.default_rng(0).normal(size=20_000)
    >>> data = {"x": x, "y": (x > 0).astype(int)}
    >>> evaluate(fit(data, target="y").model, data)["metrics"]["accuracy"] > 0.95
    True
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
    with within(memory):
        model, warnings = open_model(run, learner=learner, memory=memory)
        skips = skipping.on_error == "skip"
        source = open_for(model, data, with_target=True, reading=reading, skips=skips)
        ledger = Ledger.of(skipping, data_name(data), source.table, model.prepared.infinities, source.unread)
        plan = plan_for_process(source, model, memory, threads)
        plan.require_fits()
        with Monitor(plan.budget_bytes, plan.term_bytes) as monitor:
            held = model.preparation.ages.held.copy()
            metrics = score(source, plan, model, monitor, progress, ledger)
            return {
                "rows": plan.rows,
                "metrics": scores(metrics),
                "per_class": per_class(metrics, model.target),
                "warnings": [*warnings, *plan.warnings, *model.preparation.ages.warnings(since=held)],
                "skipped": [] if ledger is None else ledger.entries(),
            }

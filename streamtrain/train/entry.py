"""The functions that people call: `fit` and `make_plan`, with every setting as a parameter.

The parameters between the lines "settings:" and "end of settings" are written by scripts/write-settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from streamtrain.learn.family import learner_to_record
from streamtrain.load import connected, threads_of
from streamtrain.memory.monitor import is_below_process, within
from streamtrain.options import default, given
from streamtrain.plan import Plan
from streamtrain.train.fit import FitResult, run_fit
from streamtrain.train.job import Job
from streamtrain.train.resume import FitRequest
from streamtrain.train.settings import RunSettings, Settings
from streamtrain.train.trainer import Progress

__all__ = ["fit", "make_plan"]


def fit(
    data: Any,
    *,
    # settings: Settings RunSettings
    target: str | Sequence[str] | None = None, features: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] = default(()), weight: str | None = None, missing_chunks: str = default("error"),
    sample_dim: str | None = None, input_format: str | None = None, delimiter: str | None = None,
    header: bool = default(True), na: Sequence[str] | None = None, decimal: str = default("."),
    encoding: str | None = None, where: str | None = None, table_version: int | None = None, as_of: str | None = None,
    on_error: str = default("raise"), max_skipped: float = default(0.01), holdout: float = default(0.0),
    holdout_by: str | None = None, holdout_after: str | None = None,
    roles: Mapping[str, str] | Sequence[str] = default(()), crosses: str | Sequence[str | Sequence[str]] = default(()),
    hash_bits: int | None = None, infinities: str = default("error"), task: str | None = None,
    classes: str | Sequence[Any] | None = None, learner: Any = default("linear"), loss: str | None = None,
    optimizer: str = default("normalized"), learning_rate: float | None = None,
    learning_rate_schedule: str = default("sqrt"), l1: float = default(0.0), l2: float = default(0.0),
    average: bool = default(True), delta: float | None = None, quantile: float | None = None,
    batch_size: int | None = None, window_rows: int | None = None, shuffle: bool = default(True),
    seed: int = default(0), class_weight: str | Mapping[Any, Any] | None = None, epochs: int = default(1),
    patience: int | None = None, memory: float | str | None = None, threads: int | None = None,
    on_overrun: str = default("raise"), validate: Any = None, data_changed: str | None = None, cluster: Any = None,
    out: str | Path | None = None, resume: bool = False, verify: str = "times", continue_from: str | Path | None = None,
    checkpoint_seconds: float | None = None,
    # end of settings
    progress: Callable[[Progress], object] | None = None,
) -> FitResult:  # fmt: skip
    """Train on data of any size within a memory budget.

    Parameters
    ----------
    data : Any
        A path, glob, directory, Zarr store or URL; a reader; arrays and tables in memory; or a list of these.
    target : str | Sequence[str]
        The column to predict, or several: a,b. Required, unless a run says it.
    features : str | Sequence[str] | None
        Columns to learn from: a,b,"c,d". Default: all others.
    exclude : str | Sequence[str]
        Columns to leave out: a,b,"c,d".
    weight : str | None
        The column of sample weights.
    missing_chunks : str
        An absent Zarr chunk: an error, or filled with its fill value. One of error, fill. Default: error.
    sample_dim : str | None
        The dimension of a Zarr store along which the rows are. Default: that of the target.
    input_format : str | None
        The format of the files. One of parquet, csv, jsonl, arrow, npy, zarr. Default: by their names, or their first
        bytes.
    delimiter : str | None
        CSV: the character between fields, or tab. Default: a tab in .tsv and .tab, otherwise a comma.
    header : bool
        CSV: whether the first line names the columns; otherwise they are f0, f1, ... Default: True.
    na : Sequence[str] | None
        CSV: what means missing, in all columns: a,b. Blanks do in columns of numbers. Default: NA, NaN, null, None, ?,
        -, . and the like, in columns of numbers.
    decimal : str
        CSV: the decimal point. One of ., ,. Default: ..
    encoding : str | None
        CSV and JSON: the encoding of the text, such as latin-1. Default: utf-8.
    where : str | None
        Only the rows for which this is true: ``age >= 18 and city in ('Rome', 'Oslo')``.
    table_version : int | None
        Of a Delta table the version, of an Iceberg table the snapshot; also DATA@N. Default: the current one.
    as_of : str | None
        A table as it was at this time, 2026-01-15T12:00:00+01:00; in UTC without a zone.
    on_error : str
        A chunk that cannot be read, a row that cannot be used: raise, or skip. One of raise, skip. Default: raise.
    max_skipped : float
        With ``on_error`` skip: more than this share of the rows read so far stops the run. Default: 0.01.
    holdout : float
        Share of rows that are scored, never learned. Default: 0.0.
    holdout_by : str | None
        Hold out a share of the values of this column, each with all of its rows: .1, or ``holdout``.
    holdout_after : str | None
        Hold out the rows after a time: time=2026-01-15.
    roles : Mapping[str, str] | Sequence[str]
        What a column becomes, by its name. One of number, time, clock, category, text, bag, ignore.
    crosses : str | Sequence[str | Sequence[str]]
        Categories whose combinations are learned from too.
    hash_bits : int | None
        2^N slots for values of categories and text. Default: up to 18.
    infinities : str
        Infinite features: an error, clipped to 10 deviations from the mean, or missing. One of error, clip, missing.
        Default: error.
    task : str | None
        classify: tell classes apart; regress: predict a number. One of classify, regress. Default: by the target's
        type.
    classes : str | Sequence[Any] | None
        The target's classes, a,b,c: spares the pass over the target.
    learner : Any
        The learner: linear, an installed one, or one of your own as module:name. Default: linear.
    loss : str | None
        What is minimised: the loss of a prediction. One of squared, huber, quantile, poisson, logistic, hinge, softmax.
        Default: by the task.
    optimizer : str
        How a gradient changes the weights. One of normalized, sgd, momentum, adagrad, adam, ftrl. Default: normalized.
    learning_rate : float | None
        How far a gradient moves the weights. Default: by optimizer and loss.
    learning_rate_schedule : str
        How the learning rate of sgd and momentum falls with the rows seen. One of constant, sqrt, inverse. Default:
        sqrt.
    l1 : float
        L1 penalty on the weights: more of them are 0. Default: 0.0.
    l2 : float
        L2 penalty on the weights: they stay smaller. Default: 0.0.
    average : bool
        Predict with a running average of the weights. Default: True.
    delta : float | None
        Of the loss huber: where errors begin to count linearly, in deviations. Default: 1.345.
    quantile : float | None
        Of the loss quantile: which quantile. Default: 0.5.
    batch_size : int | None
        Rows a step. Default: by the number of rows, 16 to 1024.
    window_rows : int | None
        Rows shuffled together. Default: by the data and ``memory``.
    shuffle : bool
        Shuffle the rows, window by window. Default: True.
    seed : int
        Seed of the order. Default: 0.
    class_weight : str | Mapping[Any, Any] | None
        balanced, or a weight for classes: a=2,b=0.5.
    epochs : int
        Passes over the data. Default: 1.
    patience : int | None
        Stop after so many epochs without a better loss on held-out or validation rows, and keep the best.
    memory : float | str | None
        Budget for the whole process: 512MB, 2GiB. Default: half of what is available.
    threads : int | None
        Reads at the same time. Default: 2.
    on_overrun : str
        Over the budget while running: raise BudgetExceeded, or warn. One of raise, warn. Default: raise.
    validate : Any
        Other data, scored after each epoch.
    data_changed : str | None
        With ``resume``: accept data of the same chunks, rows and types whose values have changed. One of accept.
        Default: an error.
    cluster : Any
        A ``distributed.Client``, or the address of a dask scheduler, tcp://host:8786: its workers read.
    out : str | Path | None
        Folder for the run: scores, checkpoints, the model, the report.
    resume : bool
        Go on from the last checkpoint in ``out``, if there is one; by the run's settings.
    verify : str
        What ``resume`` compares first: the times of files; or, with full, all that was read before, which is read
        again. One of times, full. Default: times.
    continue_from : str | Path | None
        Start with the model of another run; there may be more classes.
    checkpoint_seconds : float | None
        Between two checkpoints, which take 2 % of the time at most. Default: 30, or the run's.
    progress : Callable[[Progress], object] | None
        Called a few times a second with a `Progress`: rows so far, speed, loss, memory.

    Returns
    -------
    FitResult
        ``model``, ready to predict, and ``report``: scores, memory planned and measured, time, settings.

    Raises
    ------
    UsageError
        For a setting that cannot be; nothing was opened.
    DataError
        For data that cannot be used.
    RunError
        Where a run cannot go on.
    BudgetRefused
        If the plan does not fit the budget; no feature was read.
    BudgetExceeded
        If the process went over its budget while running.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=20_000)
    >>> result = fit({"x": x, "y": (x > 0).astype(int)}, target="y", seed=1)
    >>> result.report.rows, result.report.metrics["progressive"]["accuracy"] > 0.95
    (20000, True)
    """
    settings = given(
        # given: Settings
        target=target, features=features, exclude=exclude, weight=weight, missing_chunks=missing_chunks,
        sample_dim=sample_dim, input_format=input_format, delimiter=delimiter, header=header, na=na, decimal=decimal,
        encoding=encoding, where=where, table_version=table_version, as_of=as_of, on_error=on_error,
        max_skipped=max_skipped, holdout=holdout, holdout_by=holdout_by, holdout_after=holdout_after, roles=roles,
        crosses=crosses, hash_bits=hash_bits, infinities=infinities, task=task, classes=classes, learner=learner,
        loss=loss, optimizer=optimizer, learning_rate=learning_rate, learning_rate_schedule=learning_rate_schedule,
        l1=l1, l2=l2, average=average, delta=delta, quantile=quantile, batch_size=batch_size, window_rows=window_rows,
        shuffle=shuffle, seed=seed, class_weight=class_weight, epochs=epochs, patience=patience, memory=memory,
        threads=threads, on_overrun=on_overrun,
        # end of given
    )  # fmt: skip
    if "learner" in settings:
        settings["learner"] = learner_to_record(settings["learner"])
    run = RunSettings(
        # passed: RunSettings
        validate=validate, data_changed=data_changed, cluster=cluster, out=out, resume=resume, verify=verify,
        continue_from=continue_from, checkpoint_seconds=checkpoint_seconds,
        # end of passed
    )  # fmt: skip
    with connected(run.cluster) as client:
        if (threads := threads_of(client)) is not None:
            settings.setdefault("threads", threads)
        request = FitRequest(
            data, settings, run.continue_from, run.checkpoint_seconds, run.validate, client, progress, run.verify == "full",
            run.data_changed == "accept",
        )  # fmt: skip
        return run_fit(request, run.out, run.resume)


def make_plan(
    data: Any,
    *,
    # settings: Settings
    target: str | Sequence[str], features: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] = default(()), weight: str | None = None, missing_chunks: str = default("error"),
    sample_dim: str | None = None, input_format: str | None = None, delimiter: str | None = None,
    header: bool = default(True), na: Sequence[str] | None = None, decimal: str = default("."),
    encoding: str | None = None, where: str | None = None, table_version: int | None = None, as_of: str | None = None,
    on_error: str = default("raise"), max_skipped: float = default(0.01), holdout: float = default(0.0),
    holdout_by: str | None = None, holdout_after: str | None = None,
    roles: Mapping[str, str] | Sequence[str] = default(()), crosses: str | Sequence[str | Sequence[str]] = default(()),
    hash_bits: int | None = None, infinities: str = default("error"), task: str | None = None,
    classes: str | Sequence[Any] | None = None, learner: Any = default("linear"), loss: str | None = None,
    optimizer: str = default("normalized"), learning_rate: float | None = None,
    learning_rate_schedule: str = default("sqrt"), l1: float = default(0.0), l2: float = default(0.0),
    average: bool = default(True), delta: float | None = None, quantile: float | None = None,
    batch_size: int | None = None, window_rows: int | None = None, shuffle: bool = default(True),
    seed: int = default(0), class_weight: str | Mapping[Any, Any] | None = None, epochs: int = default(1),
    patience: int | None = None, memory: float | str | None = None, threads: int | None = None,
    on_overrun: str = default("raise"),
    # end of settings
) -> Plan:  # fmt: skip
    """What `fit` with these settings would do and take. Reads metadata and the target.

    Parameters
    ----------
    data : Any
        As for `fit`, and so are the settings.

    Returns
    -------
    Plan
        The order of the data, the sizes, and the bytes of every term; ``fits`` says whether they are within the budget.

    Raises
    ------
    UsageError
        For a setting that cannot be; nothing was opened.
    DataError
        For data that cannot be used.

    Examples
    --------
    >>> import numpy as np
    >>> plan = make_plan({"x": np.arange(5000.0), "y": np.arange(5000) % 2}, target="y")
    >>> plan.rows, plan.windows, plan.window_rows, plan.batch_size, plan.fits
    (5000, 1, 5000, 16, True)
    """
    settings = given(
        # given: Settings
        target=target, features=features, exclude=exclude, weight=weight, missing_chunks=missing_chunks,
        sample_dim=sample_dim, input_format=input_format, delimiter=delimiter, header=header, na=na, decimal=decimal,
        encoding=encoding, where=where, table_version=table_version, as_of=as_of, on_error=on_error,
        max_skipped=max_skipped, holdout=holdout, holdout_by=holdout_by, holdout_after=holdout_after, roles=roles,
        crosses=crosses, hash_bits=hash_bits, infinities=infinities, task=task, classes=classes, learner=learner,
        loss=loss, optimizer=optimizer, learning_rate=learning_rate, learning_rate_schedule=learning_rate_schedule,
        l1=l1, l2=l2, average=average, delta=delta, quantile=quantile, batch_size=batch_size, window_rows=window_rows,
        shuffle=shuffle, seed=seed, class_weight=class_weight, epochs=epochs, patience=patience, memory=memory,
        threads=threads, on_overrun=on_overrun,
        # end of given
    )  # fmt: skip
    checked = Settings.of(settings)
    memory = None if is_below_process(checked.memory) else checked.memory  # then only to learn what would be enough
    with within(memory, stops=checked.on_overrun == "raise"):
        return Job.open(data, checked, asks=True).plan

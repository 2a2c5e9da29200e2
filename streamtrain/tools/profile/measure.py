"""The memory profile of a fit: each stage planned and measured, memory over time, and what to change."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamtrain.errors import data_name
from streamtrain.load import connected, threads_of
from streamtrain.load.demand import column_shares
from streamtrain.memory.monitor import within
from streamtrain.memory.sizes import format_bytes
from streamtrain.notebook import count, html_table, one_line
from streamtrain.options import default, given
from streamtrain.runs.report import Report, stages_dict
from streamtrain.tools.pages.output_file import PAGE_ENDINGS, require_file, written
from streamtrain.tools.profile.advice import advice
from streamtrain.tools.profile.recorder import Recorder
from streamtrain.tools.settings import ProfileSettings
from streamtrain.train.job import Job
from streamtrain.train.settings import Settings
from streamtrain.train.trainer import Progress, Trainer

__all__ = ["Profile", "profile"]


@dataclass(frozen=True, repr=False)
class Profile:
    """What `profile` returns.

    report: the report of the fit, which may have been stopped early. data_rows, decoded_bytes: of one epoch. timeline, stages,
    advice: see `as_dict`.
    """

    data: str
    data_rows: int
    decoded_bytes: int
    report: Report
    timeline: list[dict[str, Any]]
    stages: dict[str, dict[str, Any]]

    @property
    def advice(self) -> list[str]:
        """What to change, the most useful first."""
        known = {"data_rows": self.data_rows, "decoded_bytes": self.decoded_bytes}
        known["chunk_bytes"] = self.report.plan.chunk_bytes
        return advice(self.report.as_dict() | known)

    def as_dict(self) -> dict[str, Any]:
        """Return what ``streamtrain profile --json`` prints: the keys of the report of a fit, and these.

        ``timeline``: moments, each with ``seconds``, ``stage``, ``rows`` and sizes in bytes. ``stages``: by name,
        ``planned_bytes``, ``measured_bytes``, the ``share`` of what was measured, and the ``terms`` of the plan in it.
        ``advice``: sentences. ``data``, and ``data_rows`` and ``decoded_bytes`` of one epoch.
        """
        return self.report.as_dict() | {
            "data": self.data,
            "target": self.report.settings["target"],
            "data_rows": self.data_rows,
            "decoded_bytes": self.decoded_bytes,
            "stages": self.stages,
            "advice": self.advice,
            "timeline": self.timeline,
        }

    def __repr__(self) -> str:
        peak, budget = self.report.measured_peak_bytes, format_bytes(self.report.plan.budget_bytes)
        return one_line(
            self,
            f"{count(self.report.rows_seen, 'row')} learned in {self.report.seconds:.1f} s",
            None if peak is None else f"{format_bytes(peak)} of {budget}",
        )

    def _repr_html_(self) -> str:
        def shown(size: int | None) -> str:
            return "" if size is None else format_bytes(size)

        rows = [
            (name, shown(stage["planned_bytes"]), shown(stage["measured_bytes"]), share)
            for name, stage in self.stages.items()
            for share in ["" if stage["share"] is None else f"{stage['share']:.1%}"]
        ]
        return html_table(repr(self)[1:-1], ("memory", "planned", "measured", "share"), rows)

    def html(self, path: str | Path) -> None:
        """Write one self-contained HTML page. Raises UsageError where it cannot be written."""
        from streamtrain.tools.pages.page import page  # what draws is imported after what was measured

        text = page(self.as_dict())
        with written(require_file(path, PAGE_ENDINGS)) as beside:
            beside.write_text(text, encoding="utf-8")

    def plot(self, path: str | Path) -> None:
        """Draw the timeline and the stages as PNG, SVG or PDF, by the ending of the path.

        Raises UsageError for another ending, where it cannot be written, and without matplotlib."""
        from streamtrain.tools.profile.plot import plot

        plot(self.as_dict(), path)


def profile(
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
    max_seconds: float | None = 10.0,
    max_rows: int | None = None,
    cluster: Any = None,
    progress: Callable[[Progress], object] | None = None,
) -> Profile:  # fmt: skip
    """Train for a while, as `fit` would with these settings, and record what memory and time went into. The model is not kept.

    Parameters
    ----------
    data : Any
        As for `fit`, and so are the settings.
    max_seconds, max_rows : float | None, int | None
        When to stop, whichever comes first; None for no such limit. The end of the last epoch stops it too.
    cluster : Any
        A ``distributed.Client``, or the address of a dask scheduler: its workers read.
    progress : Callable[[Progress], object] | None
        Called a few times a second, as for `fit`.

    Returns
    -------
    Profile
        Memory by stage and over time, planned and measured, and what to change.

    Raises
    ------
    StreamtrainError
        What `fit` raises.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=20_000)
    >>> found = profile({"x": x, "y": (x > 0).astype(int)}, target="y")
    >>> found.report.rows_seen, list(found.stages)[:4]
    (20000, ['baseline', 'reading', 'windows', 'preparation'])
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
    ProfileSettings(max_seconds=max_seconds, max_rows=max_rows)
    with connected(cluster) as client:
        if (threads := threads_of(client)) is not None:
            settings.setdefault("threads", threads)
        return _profile(data, Settings.of(settings), max_seconds, max_rows, client, progress)


def _profile(
    data: Any, settings: Settings, max_seconds: float | None, max_rows: int | None, client: Any,
    progress: Callable[[Progress], object] | None,
) -> Profile:  # fmt: skip
    started = time.perf_counter()
    with within(settings.memory, stops=settings.on_overrun == "raise"), Recorder() as recorder:
        job = Job.open(data, settings)
        job.plan.require_fits()
        trainer = Trainer(job.ready(), None, progress, client)
        recorder.gauges, recorder.stage = trainer.now, "train"
        report = trainer.run(lambda seen, spent: _enough(seen, max_rows) or _enough(spent, max_seconds))
        recorder.gauges, recorder.stage = dict, "end"
    report.seconds = time.perf_counter() - started
    row_bytes = column_shares(job.source.reader, job.source.table, job.source.layout)[0]
    return Profile(
        data=data_name(data),
        data_rows=job.plan.rows,
        decoded_bytes=int(job.plan.rows * row_bytes),
        report=report,
        timeline=recorder.moments,
        stages=stages_dict(report.plan, report.measured_terms, report.measured_peak_bytes, recorder.arrow_bytes),
    )


def _enough(done: float, limit: float | None) -> bool:
    return limit is not None and done >= limit

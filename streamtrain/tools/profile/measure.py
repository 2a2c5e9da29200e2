"""The memory profile of a fit: what each stage was planned to take and took, moment by moment, and what to change."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamtrain.errors import UsageError, without_secrets
from streamtrain.load import for_scheduler
from streamtrain.memory.process import reset_peak
from streamtrain.memory.sizes import format_bytes
from streamtrain.notebook import count, html_table, one_line
from streamtrain.runs.report import Report, stages_dict
from streamtrain.tools.pages.place import PAGE_ENDINGS, require_file, written
from streamtrain.tools.profile.advice import advice
from streamtrain.tools.profile.recorder import Recorder
from streamtrain.train.job import Job
from streamtrain.train.settings import Settings
from streamtrain.train.trainer import Progress, Trainer

__all__ = ["Profile", "profile"]


@dataclass(frozen=True, repr=False)
class Profile:
    """What `profile` returns. report: of the fit, as far as it went. timeline, stages, advice: see `as_dict`."""

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
        """The report of the fit; ``data``, ``data_rows`` and ``decoded_bytes`` of an epoch; ``timeline``: moments with
        ``seconds``, ``stage``, ``rows`` and sizes in bytes; ``stages``: ``planned_bytes``, ``measured_bytes`` and the
        ``share`` of what was measured, by name, and the ``terms`` of the plan that it is made of; ``advice``."""
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
        """Write one self-contained page, ``.html``. Raises UsageError where it cannot be written."""
        from streamtrain.tools.pages.page import page  # what draws is imported after what was measured

        text = page(self.as_dict())
        with written(require_file(path, PAGE_ENDINGS)) as beside:
            beside.write_text(text, encoding="utf-8")

    def plot(self, path: str | Path) -> None:
        """Draw the timeline and the stages: PNG, SVG or PDF, by the extension. Needs matplotlib.

        Raises UsageError for another extension, where it cannot be written, and without matplotlib."""
        from streamtrain.tools.profile.plot import plot

        plot(self.as_dict(), path)


def profile(
    data: Any, *, target: str, seconds: float | None = 10.0, rows: int | None = None, scheduler: Any = None,
    progress: Callable[[Progress], object] | None = None, **settings: Any,
) -> Profile:  # fmt: skip
    """Train for a while, as `fit` would with these settings, and record what memory and time went into.

    seconds, rows: when to stop, whichever comes first; None for no such limit. The end of the last epoch stops it too.
    The model is not kept. Raises what `fit` raises.

    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=20_000)
    >>> found = profile({"x": x, "y": (x > 0).astype(int)}, target="y")
    >>> found.report.rows_seen, list(found.stages)[:4]
    (20000, ['baseline', 'reading', 'windows', 'preparation'])
    """
    for name, limit in (("seconds", seconds), ("rows", rows)):
        if limit is not None and not limit > 0:
            raise UsageError(f"--{name} {limit}: must be above 0")
    started = time.perf_counter()
    asked = Settings.of(target, for_scheduler(settings, scheduler))
    reset_peak()
    with Recorder() as recorder:
        job = Job.open(data, asked)
        job.plan.require_fits()
        trainer = Trainer(job.ready(), None, progress, scheduler)
        recorder.gauges, recorder.stage = trainer.now, "train"
        report = trainer.run(lambda seen, spent: _enough(seen, rows) or _enough(spent, seconds))
        recorder.gauges, recorder.stage = dict, "end"
    report.seconds = time.perf_counter() - started
    row_bytes = job.source.row_bytes
    return Profile(
        data=without_secrets(str(data)) if isinstance(data, (str, Path)) else type(data).__name__,
        data_rows=job.plan.rows,
        decoded_bytes=int(job.plan.rows * row_bytes),
        report=report,
        timeline=recorder.moments,
        stages=stages_dict(report.plan, report.measured_terms, report.measured_peak_bytes, recorder.arrow_bytes),
    )


def _enough(done: float, limit: float | None) -> bool:
    return limit is not None and done >= limit

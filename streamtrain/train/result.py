"""What `fit` returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from streamtrain.metrics.scores import SCORE_KINDS
from streamtrain.model import Model
from streamtrain.notebook import count, html_table, one_line
from streamtrain.runs.report import Report, StoredReport, memory_table

__all__ = ["FitResult"]


@dataclass(frozen=True, repr=False)
class FitResult:
    """What `fit` returns: the model, ready to predict, and the report. If the run was already finished, the report is the
    stored one."""

    model: Model
    report: Report | StoredReport

    def as_dict(self) -> dict[str, Any]:
        """The report as the command line prints it."""
        return self.report.as_dict()

    def __repr__(self) -> str:
        report = self.as_dict()
        metrics = report["metrics"]
        scores: dict[str, Any] = next((metrics[kind] for kind in reversed(SCORE_KINDS) if metrics[kind]), {})
        values = [f"{name} {value:.4g}" for name, value in scores.items() if isinstance(value, float)]
        return one_line(
            self,
            f"{report['learner']} with {report['loss']} loss",
            f"{count(report['rows'], 'row')} in {count(report['epochs'], 'epoch')}",
            *values[:2],  # the loss, and accuracy or rmse
        )

    def _repr_html_(self) -> str:
        report = self.as_dict()
        rows: list[tuple[Any, ...]] = [
            (f"{kind} {name}", f"{value:.4g}")
            for kind, scores in report["metrics"].items()
            for name, value in (scores or {}).items()
            if isinstance(value, float)
        ]
        rows += [(name, f"{report[name]:,}") for name in ("rows", "rows_seen", "epochs", "seconds", "rows_per_second")]
        rows += [(f"memory: {name}", measured or planned) for name, planned, measured in memory_table(report["memory"])]
        return html_table(repr(self)[1:-1], ("", ""), [*rows, ("run", report["run"])])

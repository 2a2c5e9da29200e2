"""The report of a run: rows per second, where the time went, memory planned and measured, scores. One object, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from streamtrain.memory.sizes import format_bytes, shares, sorted_terms
from streamtrain.notebook import count, one_line
from streamtrain.plan import Plan
from streamtrain.plan.term import STAGES, MemoryPlan

__all__ = ["Report", "StoredReport", "memory_dict", "memory_table", "stages_dict"]


@dataclass(repr=False)
class Report:
    """The report of a fit. ``as_dict`` has the keys that scripts rely on."""

    plan: Plan
    settings: dict[str, Any]
    learner: str
    loss: str
    task: str
    classes: list[Any] | None
    targets: list[str] = field(default_factory=list)
    per_class: list[dict[str, Any]] | None = None  # on validation data, held-out rows, or progressive
    best_epoch: int | None = None  # the epoch whose model was kept, where training may stop early
    preparation: dict[str, Any] = field(default_factory=dict)
    rows: int = 0
    rows_seen: int = 0
    batches: int = 0
    epochs: int = 0
    seconds: float = 0.0
    loop_seconds: float = 0.0
    metrics: dict[str, Any] = field(default_factory=dict)
    measured_terms: dict[str, int] = field(default_factory=dict)
    measured_peak_bytes: int | None = None
    time: dict[str, float] = field(default_factory=dict)
    skipped: list[dict[str, Any]] = field(default_factory=list)
    remote: dict[str, int] | None = None  # requests to a server
    warnings: list[str] = field(default_factory=list)  # of the run; the plan has its own
    run: str | None = None
    fingerprint: str | None = None  # of the data; only where a run folder is written
    lineage: list[dict[str, Any]] = field(default_factory=list)  # the runs that this one continues, the oldest first
    changes: list[dict[str, Any]] = field(default_factory=list)  # of settings when resumed, with the rows seen then
    resumes: int = 0  # how often the run was stopped and resumed
    started: str | None = None  # ISO 8601 in UTC, of the first process of the run
    finished: str | None = None
    versions: dict[str, str] = field(default_factory=dict)  # of the software that finished the run
    timeline: list[dict[str, Any]] = field(default_factory=list)  # memory over time (see `Timeline`)

    def __repr__(self) -> str:
        return one_line(self, f"{count(self.rows, 'row')} in {count(self.epochs, 'epoch')}", f"{self.seconds:.1f} s")

    @property
    def rows_per_second(self) -> float:
        return self.rows_seen / self.loop_seconds if self.loop_seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "rows_seen": self.rows_seen,
            "batches": self.batches,
            "epochs": self.epochs,
            "seconds": round(self.seconds, 4),
            "rows_per_second": round(self.rows_per_second, 1),
            "learner": self.learner,
            "loss": self.loss,
            "task": self.task,
            "classes": self.classes,
            "targets": self.targets,
            "batch_size": self.plan.batch_size,
            "metrics": self.metrics,
            "per_class": self.per_class,
            "best_epoch": self.best_epoch,
            "preparation": self.preparation,
            "memory": memory_dict(self.plan, self.measured_terms, self.measured_peak_bytes),
            "stages": stages_dict(self.plan, self.measured_terms, self.measured_peak_bytes),
            "plan": self.plan.as_dict(),
            "time": {name: round(seconds, 4) for name, seconds in self.time.items()},
            "warnings": [*self.plan.warnings, *self.warnings],
            "skipped": self.skipped,
            "remote": self.remote,
            "run": self.run,
            "settings": self.settings,
            "fingerprint": self.fingerprint,
            "lineage": self.lineage,
            "changes": self.changes,
            "resumes": self.resumes,
            "started": self.started,
            "finished": self.finished,
            "versions": self.versions,
            "timeline": self.timeline,
        }


class StoredReport:
    """The report of a run that finished earlier: the content of ``report.json``, as attributes too.

    >>> StoredReport({"rows": 3}).rows
    3
    """

    def __init__(self, content: dict[str, Any]) -> None:
        self._content = content

    def __repr__(self) -> str:
        return one_line(self, str(self._content.get("run")))

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_content"][name]
        except KeyError:
            raise AttributeError(f"the report has no {name!r}") from None

    def as_dict(self) -> dict[str, Any]:
        return self._content


def memory_dict(plan: MemoryPlan, measured: Mapping[str, int], peak_bytes: int | None) -> dict[str, Any]:
    """Return the ``memory`` object of the reports: planned beside measured.

    measured: the measured bytes of terms, by name, if known. Terms that were measured but not planned are included.
    """
    planned = plan.term_bytes
    return {
        "budget_bytes": plan.budget_bytes,
        "budget_given": plan.budget_given,
        "baseline_bytes": plan.baseline_bytes,
        "planned_peak_bytes": plan.peak_bytes,
        "measured_peak_bytes": peak_bytes,
        "terms": {
            name: {"planned_bytes": planned.get(name, 0), "measured_bytes": measured.get(name)}
            for name in dict.fromkeys([*planned, *measured])
        },
    }


def stages_dict(
    plan: MemoryPlan, measured: Mapping[str, int], peak_bytes: int | None, arrow_bytes: int | None = None
) -> dict[str, dict[str, Any]]:
    """Return the ``stages`` object of the reports: each stage planned and measured, its share of what was measured, and the
    terms that it is made of. "other" is the memory of the process beyond the other stages.

    measured: the measured bytes of terms, by name. arrow_bytes: the most that Arrow held, if recorded: this is what reading
    really took, while terms only have what reads declared.
    """
    planned = plan.stage_bytes
    names = {stage: dict.fromkeys(term.name for term in plan.terms if term.stage == stage) for stage in STAGES}
    took: dict[str, int | None] = {}
    for stage in STAGES:
        sizes = [measured[name] for name in names[stage] if name in measured]
        took[stage] = sum(sizes) if sizes else None
    took["reading"] = took["reading"] if arrow_bytes is None else arrow_bytes
    beside = sum(size for stage, size in took.items() if size is not None and stage != "other")
    took["other"] = None if peak_bytes is None else max(0, peak_bytes - beside)
    # Stages peak at different moments. If their sum is above the peak of the process, shares refer to their sum.
    parts = shares({stage: size for stage, size in took.items() if size is not None}) if peak_bytes else {}
    return {
        stage: {
            "planned_bytes": planned.get(stage, 0),
            "measured_bytes": took[stage],
            "share": parts.get(stage),
            "terms": [*names[stage]],
        }
        for stage in STAGES
        if planned.get(stage) or took[stage]
    }


def memory_table(memory: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return rows to print: (term, planned, measured), largest first; then the peak and the budget.

    >>> memory_table({"terms": {"windows": {"planned_bytes": 2000, "measured_bytes": None}}, "planned_peak_bytes": 2000,
    ...               "measured_peak_bytes": 1500, "budget_bytes": 3000})
    [('windows', '2 kB', ''), ('peak', '2 kB', '1.5 kB'), ('budget', '3 kB', '')]
    """

    def shown(size: int | None) -> str:
        return "" if size is None else format_bytes(size)

    planned = {name: term["planned_bytes"] for name, term in memory["terms"].items()}
    rows = [
        (name, shown(size), shown(memory["terms"][name]["measured_bytes"]))
        for name, size in sorted_terms(planned)
        if size or memory["terms"][name]["measured_bytes"]
    ]
    rows.append(("peak", shown(memory["planned_peak_bytes"]), shown(memory["measured_peak_bytes"])))
    return [*rows, ("budget", shown(memory["budget_bytes"]), "")]

"""``evaluate``: the scores of a trained model on other data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from streamtrain.memory.monitor import Monitor
from streamtrain.memory.process import reset_peak
from streamtrain.metrics.scores import per_class, scores
from streamtrain.model import Model, load_model
from streamtrain.model.opening import open_for
from streamtrain.train.validation import plan_behind, require_settings, score

__all__ = ["evaluate"]


def evaluate(
    run: Model | str | Path, data: Any, *, learner: Any = None, memory: float | str | None = None, threads: int | None = None,
    missing_chunks: str = "error",
) -> dict[str, Any]:  # fmt: skip
    """Score a model, or the model of a run folder, on data with its target.

    learner: of a run folder, see `load_model`.

    Returns ``{"rows", "metrics", "per_class"}``, the last None for regression. Raises RunError for a folder that holds no
    model, and what `fit` raises for data.
    """
    require_settings(memory, threads)
    reset_peak()
    model = run if isinstance(run, Model) else load_model(run, learner=learner)
    source = open_for(model, data, with_target=True, missing_chunks=missing_chunks)
    plan = plan_behind(source, model, memory, threads, written=False)
    plan.require_fits()
    with Monitor(plan.budget_bytes, plan.term_bytes) as monitor:
        metrics = score(source, plan, model, monitor)
        return {"rows": plan.rows, "metrics": scores(metrics), "per_class": per_class(metrics, model.target)}

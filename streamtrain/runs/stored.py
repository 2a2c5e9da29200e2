"""What the stored fields of several runs have in common: see `streamtrain.model.stored`."""

from __future__ import annotations

from typing import Any

from streamtrain.metrics.scores import SCORE_KINDS
from streamtrain.model.stored import StoredFields, is_kind

__all__ = ["changes_of", "lineage_of", "scores_of"]


def lineage_of(fields: StoredFields) -> list[dict[str, Any]]:
    """Return the runs that a run continues, the oldest first."""
    kinds = {"run": str, "rows_seen": int, "fingerprint": str}
    return [
        {name: run.get(name, kind, optional=name == "fingerprint") for name, kind in kinds.items()}
        for run in fields.objects("lineage")
    ]


def changes_of(fields: StoredFields) -> list[dict[str, Any]]:
    """Return the changes of settings when a run was resumed, the oldest first."""
    return [
        {"setting": change.get("setting", str), "was": change.content.get("was"), "is": change.content.get("is"),
         "rows_seen": change.get("rows_seen", int)}
        for change in fields.objects("changes")
    ]  # fmt: skip


def scores_of(fields: StoredFields) -> dict[str, Any]:
    """Return the scores of each kind, None if there are none; for several targets only the means."""
    found: dict[str, Any] = dict.fromkeys(SCORE_KINDS)
    for kind in SCORE_KINDS:
        if (scores := fields.get(kind, dict, optional=True)) is not None:
            found[kind] = {name: value for name, value in scores.items() if value is None or is_kind(value, float)}
    return found

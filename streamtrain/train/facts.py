"""What a fit checks, and writes down, about its settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streamtrain.errors import RunError, UsageError, without_secrets
from streamtrain.learn.learner import loss_name
from streamtrain.train.settings import Settings
from streamtrain.train.trainer import Trainer

__all__ = ["is_other_validation", "path_of", "require_epochs", "require_judge", "resolved"]


def is_other_validation(was: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> bool:
    """Whether the validation data are others than they were."""
    return now is not None and (was is None or was["fingerprint"] is None or was["fingerprint"] != now["fingerprint"])


def require_judge(settings: Settings, validate: Any) -> None:
    if settings.patience is not None and validate is None and not settings.holds_out:
        raise UsageError(f"--patience {settings.patience}: needs rows to judge by: give --holdout or --validate")


def require_epochs(settings: Settings, header: Mapping[str, Any]) -> None:
    """Raise RunError if the run has begun more epochs than ``--epochs``."""
    begun = len(header["history"]["ends"])
    if any(header["cursor"][name] for name in ("window", "row", "held_window", "held_row")):
        begun = header["cursor"]["epoch"] + 1
    if settings.epochs < begun:
        raise RunError(f"--epochs {settings.epochs}: the run is already in epoch {begun}: give {begun} or more")


def resolved(trainer: Trainer) -> dict[str, Any]:
    """The values of settings whose default depends on the data, if they affect what is learned."""
    model, plan = trainer.model, trainer.plan
    return {
        "batch_size": plan.batch_size,
        "window_rows": plan.window_rows,
        "hash_bits": model.preparation.vocabulary.bits,
        "task": model.task,
        "loss": loss_name(model.learner),
    }


def path_of(data: Any) -> str | list[str] | None:
    """The path of the data, or several; None for data without one, or if it contains a secret."""
    if isinstance(data, (list, tuple)):
        paths = [path_of(one) for one in data]
        return None if None in paths else [str(path) for path in paths]
    text = str(data) if isinstance(data, (str, Path)) else None
    return text if text is not None and without_secrets(text) == text else None

"""A model, ready to learn or to predict, and the files that hold one."""

from __future__ import annotations

from streamtrain.model.files import describe, load_model, model_of
from streamtrain.model.model import Model, diverged
from streamtrain.model.opening import open_for
from streamtrain.model.settings import LinearSettings, PreparationSettings

__all__ = [
    "LinearSettings", "Model", "PreparationSettings", "describe", "diverged", "load_model", "model_of", "open_for",
]  # fmt: skip

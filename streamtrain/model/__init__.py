"""A model, ready to learn or to predict, and the files that hold one."""

from __future__ import annotations

from streamtrain.model.model import Model, diverged, load_model
from streamtrain.model.settings import LinearSettings, PreparationSettings

__all__ = ["LinearSettings", "Model", "PreparationSettings", "diverged", "load_model"]

"""A model, ready to learn or to predict, and the files that hold one."""

from __future__ import annotations

from streamtrain.model.files import load_model
from streamtrain.model.model import Model, diverged
from streamtrain.model.settings import LinearSettings, PreparationSettings

__all__ = ["LinearSettings", "Model", "PreparationSettings", "diverged", "load_model"]

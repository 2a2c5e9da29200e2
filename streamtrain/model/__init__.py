"""A model, ready to learn or to predict, and the files that hold one."""

from __future__ import annotations

from streamtrain.model.loading import load_model
from streamtrain.model.model import Model, diverged

__all__ = ["Model", "diverged", "load_model"]

"""A model, ready to learn or to predict, and the files that hold one."""

from __future__ import annotations

from streamtrain.model.model import Model, diverged, load_model

__all__ = ["Model", "diverged", "load_model"]

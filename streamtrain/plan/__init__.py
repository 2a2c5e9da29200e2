"""The order of rows, the memory model and the plan: pure arithmetic, no I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamtrain.options import lazy_names

if TYPE_CHECKING:
    from streamtrain.plan.plan import Plan

__all__ = ["Plan"]

__getattr__ = lazy_names(__name__, {"plan": ("Plan",)})

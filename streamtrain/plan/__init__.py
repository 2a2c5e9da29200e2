"""The order of rows, the memory model and the plan: pure arithmetic, no I/O."""

from __future__ import annotations

from streamtrain.plan.plan import Plan

__all__ = ["Plan"]

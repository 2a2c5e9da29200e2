"""Columns -> numbers that a learner can use; what is learned from the stream is a state that can be kept."""

from __future__ import annotations

from streamtrain.prepare.numbers import Standardize
from streamtrain.prepare.target import TargetScale

__all__ = ["Standardize", "TargetScale"]

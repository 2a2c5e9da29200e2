"""Where a fit writes its scores and checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from streamtrain.train.history import ScoreLine

__all__ = ["RunSink"]


class RunSink(Protocol):
    """Where a fit writes its scores and checkpoints."""

    def record(self, scores: ScoreLine, /) -> None:
        """Write one line of scores."""

    def save(self, header: Mapping[str, Any], arrays: Mapping[str, Any], /) -> None:
        """Write a checkpoint. header: numbers and text, as JSON can hold them. arrays: by name."""

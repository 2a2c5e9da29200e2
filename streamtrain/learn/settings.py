"""What can be asked of the linear family."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from streamtrain.learn.fused import Linear

__all__ = ["LinearSettings"]


@dataclass(frozen=True)
class LinearSettings:
    """What was asked of the linear family; None means the default of loss and optimizer."""

    loss: str | None = None
    optimizer: str = "normalized"
    learning_rate: float | None = None
    learning_rate_schedule: str = "sqrt"
    l1: float = 0.0
    l2: float = 0.0
    average: bool = True
    delta: float | None = None
    quantile: float | None = None

    def make(self, features: int, kinds: int, slots: int = 0, targets: int = 1) -> Linear:
        """kinds: classes to tell apart, 0 for regression."""
        return Linear(features, kinds, slots=slots, targets=targets, **asdict(self))

"""What can be asked of the linear family."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LinearSettings"]


@dataclass(frozen=True)
class LinearSettings:
    """The settings of linear models; None means the default of loss and optimizer."""

    loss: str | None = None
    optimizer: str = "normalized"
    learning_rate: float | None = None
    learning_rate_schedule: str = "sqrt"
    l1: float = 0.0
    l2: float = 0.0
    average: bool = True
    delta: float | None = None
    quantile: float | None = None

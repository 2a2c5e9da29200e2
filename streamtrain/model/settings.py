"""What is asked of a model: all that is needed to make it again."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from streamtrain.learn import Linear

__all__ = ["LinearSettings", "PreparationSettings"]


@dataclass(frozen=True)
class LinearSettings:
    """What was asked of the linear family; None means the default of loss and rule."""

    loss: str | None = None
    rule: str = "nag"
    step: float | None = None
    schedule: str = "sqrt"
    l1: float = 0.0
    l2: float = 0.0
    average: bool = True
    delta: float | None = None
    level: float | None = None

    def make(self, features: int, kinds: int, slots: int = 0, targets: int = 1) -> Linear:
        """kinds: classes to tell apart, 0 for regression."""
        return Linear(features, kinds, slots=slots, targets=targets, **asdict(self))


@dataclass(frozen=True)
class PreparationSettings:
    """What was asked of the preparation. class_weights: of each class, in their order; empty for none."""

    hash_bits: int | None = None
    infinities: str = "error"
    class_weights: tuple[float, ...] = ()

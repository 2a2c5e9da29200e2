"""What can be asked of the preparation."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PreparationSettings"]


@dataclass(frozen=True)
class PreparationSettings:
    """What was asked of the preparation. class_weights: of each class, in their order; empty for none."""

    hash_bits: int | None = None
    infinities: str = "error"
    class_weights: tuple[float, ...] = ()

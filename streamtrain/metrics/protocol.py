"""What running metrics can do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Metrics"]


class Metrics(Protocol):
    """Running metrics of one kind of target."""

    def update(
        self, targets: NDArray[Any], predictions: NDArray[np.float32], weights: NDArray[Any] | None = None
    ) -> None:
        """Count rows: targets of shape (rows,), or (rows, targets) where there are several; predictions as of
        ``Learner.predict``; weights of shape (rows,), not negative."""

    def result(self) -> dict[str, float | None]:
        """The metrics of all rows so far; None where they are undefined (no rows, one class only)."""

    def loss(self) -> float | None:
        """``result()["loss"]``, at less cost: to be looked at again and again."""

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays; they never grow."""

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """The state; copies."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that ``state_dict`` returned."""

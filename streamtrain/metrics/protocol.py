"""The protocol of running metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamtrain.state import Form

__all__ = ["Metrics"]


class Metrics(Protocol):
    """Running metrics of one kind of target."""

    def update(
        self, targets: NDArray[Any], predictions: NDArray[np.float32], weights: NDArray[Any] | None = None
    ) -> None:
        """Add rows. targets: shape (rows,), or (rows, targets) where there are several. predictions: as
        ``Learner.predict`` returns them. weights: shape (rows,), not negative."""

    def result(self) -> dict[str, float | None]:
        """Return the metrics of all rows so far; None for those that are undefined (no rows, one class only)."""

    def loss(self) -> float | None:
        """Return ``result()["loss"]``, cheaply enough to ask often."""

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays; they never grow."""

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return the state; copies."""

    def forms(self) -> dict[str, Form]:
        """Return the forms of the state."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that ``state_dict`` returned."""

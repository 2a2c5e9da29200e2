"""Early stopping: when more epochs no longer help."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.errors import UsageError
from streamtrain.state import Form, require_sound

__all__ = ["Patience"]


class Patience:
    """Early stopping (Prechelt 1998): stop once a metric has not improved on its best for some epochs in a row.

    patience: epochs, at least 1. metric: its name, for messages. minimize: whether less is better. least: the smallest
    improvement that counts, relative to the best so far: with the default a loss of 0.5 must fall below 0.49995.

    >>> patience = Patience(2)
    >>> [patience.update(loss) for loss in (0.5, 0.4, 0.41, 0.39999)]
    [False, False, False, True]
    >>> patience.best
    (0.4, 1)
    """

    def __init__(self, patience: int, metric: str = "loss", minimize: bool = True, least: float = 1e-4) -> None:
        if patience < 1:
            raise UsageError(f"patience is {patience}; must be at least 1 epoch")
        if not 0 <= least < math.inf:
            raise UsageError(f"least is {least}; must be a finite number, 0 or more")
        self.patience, self.metric, self.minimize, self.least = patience, metric, minimize, least
        self.best: tuple[float, int] | None = None  # value and epoch (from 0); None before the first finite value
        self.epochs = 0

    def update(self, value: float | None) -> bool:
        """Take the metric after one more epoch; return whether to stop. A value that is not finite is no improvement.

        Raises UsageError for None: an undefined metric cannot be compared.
        """
        if value is None:
            raise UsageError(f"early stopping by {self.metric}: it is undefined on these rows: use the loss instead")
        if math.isfinite(value) and self._better(value):
            self.best = (value, self.epochs)
        self.epochs += 1
        return self.epochs - (0 if self.best is None else self.best[1] + 1) >= self.patience

    def _better(self, value: float) -> bool:
        if self.best is None:
            return True
        gain = self.best[0] - value if self.minimize else value - self.best[0]
        return gain > self.least * abs(self.best[0])

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return the epochs so far, and the best value and its epoch, shape (2,), or (0,) before the first."""
        return {"epochs": np.array(self.epochs), "best": np.array(self.best or (), np.float64)}

    @staticmethod
    def forms() -> dict[str, Form]:
        """Return the forms of the state."""
        return {"epochs": Form("<i8", ()), "best": Form("<f8", (2,), loose=0)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that ``state_dict`` returned. Raises ValueError for an epoch that was not there."""
        epochs, best = int(state["epochs"]), np.asarray(state["best"]).tolist()
        require_sound({"epochs": epochs, "best": best}, {"epochs": 0})
        if len(best) not in (0, 2) or (best and best[1] not in range(epochs)):
            raise ValueError(f"the state's best is {best} after {epochs:,} epochs")
        self.epochs, self.best = epochs, (best[0], int(best[1])) if best else None

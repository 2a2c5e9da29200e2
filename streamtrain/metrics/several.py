"""Metrics of several targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.errors import UsageError
from streamtrain.metrics.protocol import Metrics
from streamtrain.state import Form, part

__all__ = ["Several"]


class Several:
    """The metrics of each of several targets, and their means.

    names: of the targets. make: makes the metrics of one target. each: the metrics by name.

    >>> from streamtrain.metrics.regression import Regression
    >>> metrics = Several(["a", "b"], Regression)
    >>> metrics.update(np.array([[1, 5], [2, 9]]), np.array([[1, 5], [2, 5]], np.float32))
    >>> metrics.result()["mae"], {name: found["mae"] for name, found in metrics.per_target().items()}
    (1.0, {'a': 0.0, 'b': 2.0})
    """

    def __init__(self, names: Sequence[str], make: Callable[[], Metrics]) -> None:
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UsageError(f"targets: {twice[0]!r} is named twice")
        self.each: dict[str, Metrics] = {name: make() for name in names}

    def update(
        self, targets: NDArray[Any], predictions: NDArray[np.float32], weights: NDArray[Any] | None = None
    ) -> None:
        """Add rows. targets, predictions: shape (rows, targets). weights: shape (rows,)."""
        for j, metrics in enumerate(self.each.values()):
            metrics.update(targets[:, j], predictions[:, j], weights)

    def result(self) -> dict[str, float | None]:
        """Return the mean of each metric over the targets for which it is defined; None where there are none."""
        results = list(self.per_target().values())
        return {name: _mean([result[name] for result in results]) for name in results[0]}

    def loss(self) -> float | None:
        """Return ``result()["loss"]``, at less cost."""
        return _mean([metrics.loss() for metrics in self.each.values()])

    def per_target(self) -> dict[str, dict[str, float | None]]:
        """Return the metrics of each target, by its name."""
        return {name: metrics.result() for name, metrics in self.each.items()}

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays; they never grow."""
        return sum(metrics.nbytes for metrics in self.each.values())

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return the state of each target; names begin with the target's position and a dot."""
        states = [metrics.state_dict() for metrics in self.each.values()]
        return {f"{j}.{name}": value for j, state in enumerate(states) for name, value in state.items()}

    def forms(self) -> dict[str, Form]:
        """Return the forms of the state."""
        forms = [metrics.forms() for metrics in self.each.values()]
        return {f"{j}.{name}": form for j, own in enumerate(forms) for name, form in own.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that ``state_dict`` returned."""
        for j, metrics in enumerate(self.each.values()):
            metrics.load_state_dict(part(state, f"{j}."))


def _mean(values: list[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None

"""L1 and L2 as proximal steps: weights of useless features become exactly zero, and no step overshoots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.kernels.functions import exp, log1p

__all__ = ["Penalty", "shrink"]

Floats = NDArray[np.float32]

_ONCE = np.float32(1)


@dataclass(frozen=True, eq=False)
class Penalty:
    """``l1 * |w| + l2 / 2 * w^2``, added to the mean loss of a batch. on: 1 for weights that are penalised, 0 for
    those that are not; one number for all, or an array that broadcasts against the weights.

    >>> weights = np.array([2.0, 2.0], np.float32)
    >>> Penalty(l2=1.0, on=np.array([1, 0], np.float32)).apply(weights, np.float32(1), {}, np.float32(2))
    >>> weights.tolist()
    [0.5, 2.0]
    """

    l1: float = 0.0
    l2: float = 0.0
    on: Floats | np.float32 = _ONCE

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the arrays that `apply` keeps for each weight; zero before the first step."""
        return ("l1_total", "l1_applied") if self.l1 else ()

    @property
    def scratch_arrays(self) -> int:
        """How many arrays of the weights' shape `apply` allocates at most, the rate included."""
        return 7 if self.l1 else 3 if self.l2 else 0

    def apply(
        self,
        weights: Floats,
        rate: Floats | np.float32,
        state: Mapping[str, NDArray[Any]],
        times: Floats | np.float32 = _ONCE,
    ) -> None:
        """Take the proximal step of that learning rate, ``times`` times over: L1 by its cumulative penalty (see `shrink`), L2
        by ``w / (1 + rate * l2)``, which never crosses 0. Changes weights and state in place."""
        if self.l1:
            by: Any = np.float32(self.l1) * self.on * rate * times
            shrink(weights, by, state["l1_total"], state["l1_applied"])
        if self.l2:
            shrinks: Any = np.float32(self.l2) * self.on * rate
            if times is _ONCE:
                weights /= 1 + shrinks
            else:
                weights *= exp(-times * log1p(shrinks))


def shrink(weights: Floats, by: Floats | np.float32, total: Floats, applied: Floats) -> None:
    """Move weights towards 0, but not across it, by the part of the total penalty that was not applied yet. Changes all
    arrays in place.

    weights, total, applied: arrays of the same shape; total and applied start at 0 and are kept from step to step. by: l1
    times the rate of this step, one number or one for each weight.

    The plain proximal step lets the noise of a single gradient lift a useless weight off zero. With the cumulative
    penalty (Tsuruoka, Tsujii & Ananiadou 2009) a weight that leaves zero first gets the penalty that it avoided there.

    >>> weights, total, applied = (np.zeros(2, np.float32) for _ in range(3))
    >>> for _ in range(3):
    ...     weights += np.array([0.25, -1.0], np.float32)
    ...     shrink(weights, np.float32(0.5), total, applied)
    >>> weights.tolist()
    [0.0, -1.5]
    """
    total += by
    before = weights.copy()
    rest = np.where(before > 0, total + applied, total - applied)
    np.copysign(np.maximum(np.abs(before) - rest, 0), before, out=weights)
    weights[weights == 0] = 0  # no negative zeros: the same weights are the same bits
    applied += weights
    applied -= before

"""L1 by stochastic steps: weights of useless features become exactly zero."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["shrink"]

Floats = NDArray[np.float32]


def shrink(weights: Floats, by: Floats | np.float32, owed: Floats, paid: Floats) -> None:
    """Move weights towards 0, and no further, by the whole penalty that they owe so far. Changes all arrays in place.

    weights, owed, paid: of the same shape; owed and paid start at 0 and are kept from step to step. by: l1 times the
    rate of this step, for all or per weight.

    The plain proximal step lets the noise of a single gradient lift a useless weight off zero. With the cumulative
    penalty (Tsuruoka, Tsujii & Ananiadou 2009) a weight that rested at zero first pays what it was spared there.

    >>> weights, owed, paid = (np.zeros(2, np.float32) for _ in range(3))
    >>> for _ in range(3):
    ...     weights += np.array([0.25, -1.0], np.float32)
    ...     shrink(weights, np.float32(0.5), owed, paid)
    >>> weights.tolist()
    [0.0, -1.5]
    """
    owed += by
    before = weights.copy()
    rest = np.where(before > 0, owed + paid, owed - paid)
    np.copysign(np.maximum(np.abs(before) - rest, 0), before, out=weights)
    weights[weights == 0] = 0  # no negative zeros: the same weights are the same bits
    paid += weights
    paid -= before

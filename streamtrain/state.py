"""A state that is loaded: looked at whole before anything of it is taken over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["checked", "part"]


def checked(state: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The entries of a state as arrays of the dtypes and shapes of one's own. Raises ValueError for entries that are not
    there, or are of another shape.

    >>> checked({"mean": [1, 2]}, {"mean": np.zeros(2)})
    {'mean': array([1., 2.])}
    """
    missing = [name for name in own if name not in state]
    if missing:
        raise ValueError(f"the state has no {missing[0]!r}")
    found = {}
    for name, wanted in own.items():
        value, wanted = np.asarray(state[name]), np.asarray(wanted)
        if value.shape != wanted.shape:
            raise ValueError(f"the state's {name} has shape {value.shape}; wanted {wanted.shape}")
        found[name] = value.astype(wanted.dtype)
    return found


def part(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """What stands under names that begin so, without their beginning."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}

"""Arrays in a batch, in a state, in the output of a model: named, compared bit for bit, copied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Arrays", "arrays", "bits_differ", "copied", "distance", "overwrite", "stored"]

Arrays = dict[str, NDArray[Any]]


def arrays(value: Any, name: str = "") -> Arrays:
    """Every array in arrays, numbers, None, lists, mappings and dataclasses, by its path; not copied.

    Raises TypeError for anything else. Functions are passed over: a batch may have one for its positions.

    >>> arrays({"weights": np.zeros(2), "clock": {"rows": 3}}, "state")
    {'state.weights': array([0., 0.]), 'state.clock.rows': array(3)}
    """
    if isinstance(value, np.ndarray | np.generic | bool | int | float):
        return {name: np.asarray(value)}
    if value is None or callable(value):
        return {}
    if isinstance(value, Mapping):
        parts = {f"{name}.{key}" if name else str(key): inner for key, inner in value.items()}
    elif isinstance(value, list | tuple):
        parts = {f"{name}[{i}]": inner for i, inner in enumerate(value)}
    elif is_dataclass(value) and not isinstance(value, type):
        parts = {f"{name}.{field.name}": getattr(value, field.name) for field in fields(value)}
    else:
        raise TypeError(f"{name or 'it'} is a {type(value).__name__}, not arrays")
    return {place: array for key, inner in parts.items() for place, array in arrays(inner, key).items()}


def copied(value: Any) -> Any:
    """A batch, or another dataclass, with copies of its arrays.

    >>> from streamtrain.batch import Batch
    >>> batch = Batch(np.zeros((2, 3), np.float32), np.zeros(2, np.int32), None, np.arange(2))
    >>> copied(batch).features.base is None, copied(batch).features is batch.features
    (True, False)
    """
    if isinstance(value, np.ndarray):
        return value.copy()
    if value is not None and is_dataclass(value) and not isinstance(value, type):
        return type(value)(**{field.name: copied(getattr(value, field.name)) for field in fields(value)})
    return value


def bits_differ(found: Arrays, wanted: Arrays) -> str | None:
    """The first difference, in any bit, between arrays that should be the same; None if there is none.

    >>> bits_differ({"x": np.array([1.0, 0.5])}, {"x": np.array([1.0, 2.0])})
    'x[1] is 0.5 instead of 2.0 (1 of 2 differ)'
    """
    if found.keys() != wanted.keys():
        return f"there are {sorted(found)} instead of {sorted(wanted)}"
    for name, new in found.items():
        old = wanted[name]
        if (new.dtype, new.shape) != (old.dtype, old.shape):
            return f"{name} is {new.dtype} of shape {new.shape} instead of {old.dtype} of shape {old.shape}"
        if new.tobytes() != old.tobytes():
            unlike = _bits(new) != _bits(old)
            place = int(np.argmax(unlike.any(axis=1)))
            where = "" if not new.ndim else str([int(i) for i in np.unravel_index(place, new.shape)])
            count = f" ({int(unlike.any(axis=1).sum()):,} of {new.size:,} differ)" if new.ndim else ""
            return f"{name}{where} is {new.reshape(-1)[place]} instead of {old.reshape(-1)[place]}{count}"
    return None


def _bits(array: NDArray[Any]) -> NDArray[np.uint8]:
    flat = np.ascontiguousarray(array).reshape(-1)
    return np.frombuffer(flat.tobytes(), np.uint8).reshape(flat.size, -1 if flat.size else 1)


def distance(found: Arrays, wanted: Arrays) -> tuple[float, float]:
    """The largest difference of two outputs of the same shapes, and the largest value of the second.

    >>> distance({"x": np.array([1.0, 2.5])}, {"x": np.array([1.0, 2.0])})
    (0.5, 2.0)
    """
    pairs = [(found[name].astype(np.float64), array.astype(np.float64)) for name, array in wanted.items()]
    apart = max((float(np.abs(a - b).max()) for a, b in pairs if b.size), default=0.0)
    return apart, max((float(np.abs(b).max()) for _, b in pairs if b.size), default=0.0)


def overwrite(value: Any) -> None:
    """Write other values over every array, as a loader does that uses its memory again."""
    for array in arrays(value).values():
        if array.ndim:
            array[...] = 1 if array.dtype.kind in "biu" else 123.0


def stored(state: Mapping[str, Any]) -> Arrays:
    """The state as a file gives it back: arrays only, of memory that cannot be written, in another order.

    >>> stored({"weights": np.zeros(2), "rows": 3})
    {'rows': array(3), 'weights': array([0., 0.])}
    """
    return {
        name: np.frombuffer(np.ascontiguousarray(value).tobytes(), np.asarray(value).dtype).reshape(np.shape(value))
        for name, value in reversed(list(state.items()))
    }

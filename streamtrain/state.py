"""States of objects, and writing files that are either complete or absent.

Other modules than the standard library are imported when they are used.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "WRITING",
    "Form",
    "checked",
    "forms_of",
    "make_durable",
    "part",
    "prefixed",
    "remove_unfinished",
    "require_sound",
    "staging",
    "to_json",
    "utc_now",
    "write_beside",
]

_Value = TypeVar("_Value")

WRITING = ".writing-"  # how names of hidden folders with incomplete content begin
_REMOVAL_TRIES, _REMOVAL_SECONDS = 10, 0.2


# -- states of objects -------------------------------------------------------------------------------------------------


def checked(state: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Return the entries of ``state`` that ``own`` has, as arrays with the dtypes of ``own``.

    Raises ValueError for an entry that is missing or has another shape.

    >>> import numpy as np
    >>> checked({"mean": [1, 2]}, {"mean": np.zeros(2)})
    {'mean': array([1., 2.])}
    """
    import numpy as np

    arrays = {}
    for name, current in own.items():
        if name not in state:
            raise ValueError(f"the state has no {name!r}")
        value, current = np.asarray(state[name]), np.asarray(current)
        if value.shape != current.shape:
            raise ValueError(f"the state's {name} has shape {value.shape}; expected {current.shape}")
        arrays[name] = value.astype(current.dtype)
    return arrays


class Form(NamedTuple):
    """What an array of a state is, known before it is loaded. dtype: as numpy writes it, ``<f4``. loose: the axis that may be
    shorter."""

    dtype: str
    shape: tuple[int, ...]
    loose: int | None = None

    def fits(self, dtype: str, shape: tuple[int, ...]) -> bool:
        """Whether an array has this form.

        >>> Form("<f4", (8, 2), loose=0).fits("<f4", (5, 2)), Form("<f4", (8, 2)).fits("<f4", (5, 2))
        (True, False)
        """
        if (dtype, len(shape)) != (self.dtype, len(self.shape)):
            return False
        return all(
            n == own or (i == self.loose and n < own) for i, (n, own) in enumerate(zip(shape, self.shape, strict=True))
        )

    def __str__(self) -> str:
        return f"{self.dtype} of shape {self.shape}" + ("" if self.loose is None else " at most")


def forms_of(state: Mapping[str, Any]) -> dict[str, Form]:
    """Return the form of each array or number of a state.

    >>> forms_of({"rows": 3, "mean": [0.5, 1.0]})["mean"]
    Form(dtype='<f8', shape=(2,), loose=None)
    """
    import numpy as np

    arrays = {name: np.asarray(value) for name, value in state.items()}
    return {name: Form(f"<{array.dtype.kind}{array.dtype.itemsize}", array.shape) for name, array in arrays.items()}


def require_sound(state: Mapping[str, Any], least: Mapping[str, float] | None = None) -> None:
    """Raise ValueError for a number in a state that learning cannot have made: NaN, infinite, or less than ``least`` by name.

    >>> require_sound({"rows": -3}, {"rows": 0})
    Traceback (most recent call last):
    ValueError: the state's rows has -3: it must be at least 0
    """
    import numpy as np

    for name, value in state.items():
        array = np.asarray(value)
        if not array.size or array.dtype.kind not in "fiu":
            continue
        low, high = array.min(), array.max()  # without a temporary array; NaN is both
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ValueError(f"the state's {name} has {high if np.isfinite(low) else low}: it must be finite")
        if least is not None and low < least.get(name, low):
            raise ValueError(f"the state's {name} has {low}: it must be at least {least[name]:g}")


def prefixed(prefix: str, state: Mapping[str, _Value]) -> dict[str, _Value]:
    """Return the entries under longer names: the opposite of `part`.

    >>> prefixed("mean.", {"x": 1})
    {'mean.x': 1}
    """
    return {prefix + name: value for name, value in state.items()}


def part(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the entries whose names begin with ``prefix``, under their names without it.

    >>> part({"mean.x": 1, "mean.y": 2, "count": 3}, "mean.")
    {'x': 1, 'y': 2}
    """
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def to_json(value: Any, indent: int | None = None) -> str:
    """Return JSON that every parser accepts: NaN and infinities become null.

    >>> to_json({"loss": float("nan"), "rows": [1]})
    '{"loss": null, "rows": [1]}'
    """
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# -- files and folders that are complete or absent ---------------------------------------------------------------------


@contextmanager
def write_beside(path: Path) -> Iterator[Path]:
    """Yield a hidden path for a new file or folder, which is renamed to ``path`` when the block ends.

    Until then, and after an error, ``path`` stays as it was. A file replaces a file and is on the disk when it gets its
    name; a folder replaces nothing, or an empty folder. A killed process leaves a hidden folder ``.writing-*`` beside
    ``path``. Raises OSError as the file system does.

    >>> path = Path(tempfile.mkdtemp(), "a.txt")
    >>> with write_beside(path) as hidden:
    ...     size = hidden.write_text("abc")
    ...     path.exists()
    False
    >>> path.read_text(), [entry.name for entry in path.parent.iterdir()]
    ('abc', ['a.txt'])
    """
    with staging(path.parent) as folder:
        hidden = folder / path.name
        yield hidden
        if hidden.is_file():
            make_durable(hidden)
        hidden.replace(path)
    make_durable(path.parent)


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """Yield a new hidden folder inside ``folder``, to write files in and rename them from there. What is left in it is
    removed when the block ends."""
    hidden = Path(tempfile.mkdtemp(prefix=WRITING, dir=folder))
    try:
        yield hidden
    except BaseException:
        _remove_for_good(hidden)
        raise
    shutil.rmtree(hidden, ignore_errors=True)


def make_durable(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk, so that they survive a power failure."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_unfinished(folder: Path) -> None:
    """Remove from ``folder`` what `staging` left there when a process was killed."""
    for path in folder.glob(WRITING + "*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _remove_for_good(folder: Path) -> None:
    """Remove a folder that other threads may still write to: zarr's may make it again after an interrupt, to finish a
    chunk. It counts as gone once it has stayed away for 0.2 seconds."""
    for _ in range(_REMOVAL_TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(_REMOVAL_SECONDS)
        if not folder.exists():
            return


def utc_now() -> str:
    """The date and time in UTC, as ISO 8601: ``2026-01-31T12:00:00+00:00``."""
    return datetime.now(UTC).isoformat(timespec="seconds")

"""The files of a model.

``model.safetensors`` holds every array and number that learning changes, ``model.json`` all text and settings. Neither
contains code; identical weights give identical bytes; a flipped bit is noticed when the files are read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from streamtrain.errors import RunError
from streamtrain.model import tensors
from streamtrain.state import make_durable

__all__ = ["FORMAT", "naming_damage", "read_description", "read_state", "require_storable", "write_files"]

FORMAT = 3
_ARRAYS, _DESCRIPTION = "model.safetensors", "model.json"
_DAMAGES = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError, MemoryError, OSError)


def write_files(folder: Path, description: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Write both files to an existing folder; the description comes last, as it contains the checksums."""
    written = {**description, "sha256": tensors.save(folder / _ARRAYS, state)}
    written["checksum"] = _checksum(written)
    (folder / _DESCRIPTION).write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    make_durable(folder / _DESCRIPTION)


def require_storable(name: str, state: Mapping[str, Any]) -> None:
    """Raise RunError unless a learner's state consists of arrays and numbers, by name, which a file without pickle can hold."""
    for key, value in state.items():
        if not isinstance(key, str):
            raise RunError(f"--learner {name}: its state_dict() has the key {key!r}: keys must be text")
        try:
            dtype = np.asarray(value).dtype
        except ValueError:  # a list of lists of different lengths
            dtype = np.dtype(object)
        if isinstance(value, np.ma.MaskedArray) or not tensors.can_hold(dtype):
            what = type(value).__name__ + (f" of {dtype}" if isinstance(value, np.ndarray) else "")
            raise RunError(
                f"--learner {name}: its state_dict() has {key!r}, a {what}: a file can hold only arrays and numbers, of at "
                "most 64 bits"
            )


def read_description(folder: Path) -> dict[str, Any]:
    """The description in a run folder. Raises RunError if there is none; a damaged one can raise any error (see
    `naming_damage`)."""
    if not (folder / _DESCRIPTION).is_file():
        if (folder / "checkpoints").is_dir():
            raise RunError(
                f"{folder}: the model is not written yet: `streamtrain fit DATA --out {folder} --resume` writes it"
            )
        what = "has no model.json" if folder.is_dir() else "a file" if folder.exists() else "no such folder"
        raise RunError(f"{folder}: not a run ({what}): name the folder that `streamtrain fit --out` wrote")
    description: dict[str, Any] = json.loads((folder / _DESCRIPTION).read_text(encoding="utf-8"))
    if description["format"] != FORMAT:
        raise RunError(f"{folder}: model format {description['format']}; this version reads {FORMAT}")
    if description.pop("checksum") != _checksum(description):
        raise RunError(f"{folder}: model.json was changed or damaged since it was written: its checksum differs")
    return description


def read_state(folder: Path, description: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays beside a description. Raises RunError if their checksum is not the one in the description."""
    found = tensors.load(folder / _ARRAYS)
    if found.sha256 != description["sha256"]:
        raise RunError(
            f"{folder}: model.safetensors was changed or damaged since it was written: its checksum differs; where "
            "the run has its checkpoints, `streamtrain fit --resume` writes it again"
        )
    return found.arrays


@contextmanager
def naming_damage(folder: Path) -> Iterator[None]:
    """Turn every error of the block into a RunError that names the folder: files may come from anywhere and contain
    anything."""
    try:
        yield
    except _DAMAGES as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"{folder}: the model is damaged or incomplete: {error}") from error


def _checksum(description: dict[str, Any]) -> str:
    """The checksum of everything else in the description."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()

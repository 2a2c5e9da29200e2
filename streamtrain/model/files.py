"""The files of a model.

``model.safetensors`` holds every array and number that learning changes, ``model.json`` all text and settings. Neither
contains code; identical weights give identical bytes; a flipped bit is noticed when the files are read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from streamtrain.errors import RunError, WrongFile
from streamtrain.model import tensors
from streamtrain.model.room import Room, stored_bytes
from streamtrain.model.stored import StoredFields, read_json, shown_error, shown_value
from streamtrain.state import Form, make_durable

__all__ = [
    "FORMAT", "array_bytes_beside", "has_description", "naming_damage", "read_description", "read_state", "require_forms",
    "require_storable", "write_files",
]  # fmt: skip

FORMAT = 4
_ARRAYS, _DESCRIPTION = "model.safetensors", "model.json"
_DAMAGES = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError, OSError)


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


def has_description(folder: Path) -> bool:
    """Whether a folder has the description of a model."""
    with naming_damage(folder):
        return (folder / _DESCRIPTION).exists()


def read_description(folder: Path, room: Room) -> StoredFields:
    """The description in a run folder, whose checksum is right. Raises RunError if there is none, or if it is another one than
    was written; BudgetRefused as `Room` does."""
    path = folder / _DESCRIPTION
    if not path.exists():
        if (folder / "checkpoints").is_dir():
            raise RunError(
                f"{folder}: the model is not written yet: `streamtrain fit DATA --out {folder} --resume` writes it; once there "
                "is a checkpoint, `streamtrain evaluate`, `predict` and `fit --continue-from` use that"
            )
        what = "has no model.json" if folder.is_dir() else "a file" if folder.exists() else "no such folder"
        raise RunError(f"{folder}: not a run ({what}): name the folder that `streamtrain fit --out` wrote")
    content = read_json(path, room, array_bytes_beside(folder))
    description = StoredFields(path, content)
    found = description.get("format", int)
    if found != FORMAT:
        raise WrongFile(f"{path}: model format {found}; this version reads {FORMAT}")
    if description.get("checksum", str) != _checksum({k: v for k, v in content.items() if k != "checksum"}):
        raise WrongFile(f"{path}: was changed or damaged since it was written: its checksum differs")
    return description


def array_bytes_beside(folder: Path) -> int:
    """How many bytes of arrays are beside a description, for `Room.require_text`; 0 if that is not known."""
    try:
        status = (folder / _ARRAYS).stat()
    except OSError:
        return 0
    return stored_bytes(status, status.st_size)


def require_forms(
    path: Path, entries: Sequence[tensors.Entry], forms: Mapping[str, Form], free: Sequence[str] = ()
) -> None:
    """Raise WrongFile for an array of a file that is missing, has another dtype or shape, or is not one of these. Loads none.

    free: how the names of those arrays begin of which nothing is known.
    """
    found = {entry.name: entry for entry in entries}
    for name, form in forms.items():
        entry = found.pop(name, None)
        if entry is None:
            raise WrongFile(f"{path}: it has no array {name!r}, which the model that is described needs")
        if not form.fits(entry.dtype, entry.shape):
            raise WrongFile(
                f"{path}: its array {name!r} is {entry.dtype} of shape {shown_value(entry.shape)}; the model that is described "
                f"needs {form}"
            )
    for name in found:
        if not any(name.startswith(prefix) for prefix in free):
            raise WrongFile(f"{path}: its array {shown_value(name)} belongs to nothing that is described")


def read_state(
    folder: Path,
    description: StoredFields,
    forms: tuple[Mapping[str, Form], Sequence[str]],
    room: Room,
) -> dict[str, Any]:
    """The arrays beside a description. They are loaded one by one, after their names, dtypes, shapes and sizes and the checksum
    of the file were found to be right. forms: see `Described.forms`. Raises RunError if they are not, and BudgetRefused for
    arrays that do not fit."""
    path, sha256 = folder / _ARRAYS, description.get("sha256", str)
    try:
        entries = tensors.look(path, room=room)[1]
        require_forms(path, entries, *forms)
        room.require_arrays(path, sum(entry.stop - entry.start for entry in entries))
        tensors.verify(path, sha256, room=room)
        contents = tensors.load(path, room=room)
    except FileNotFoundError:
        raise WrongFile(f"{folder}: its model.safetensors is missing") from None
    except tensors.TensorFileError as error:
        remedy = "where the run has its checkpoints, `streamtrain fit --resume` writes it again"
        raise WrongFile(f"{path}: {error}; {remedy}") from error
    if contents.sha256 != sha256:
        raise WrongFile(f"{path}: was changed while it was read")
    return contents.arrays


@contextmanager
def naming_damage(path: Path) -> Iterator[None]:
    """Turn every error of the block into a RunError that names the folder or file: it may come from anywhere and contain
    anything."""
    try:
        yield
    except _DAMAGES as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"{path}: the model is damaged or incomplete: {shown_error(error)}") from error


def _checksum(description: Mapping[str, Any]) -> str:
    """The checksum of everything else in the description: of ``json.dumps(description, sort_keys=True)``, but piece by piece,
    as the whole text would take several times its bytes while it is made."""
    hasher = hashlib.sha256()
    for i, (name, value) in enumerate(sorted(description.items())):
        hasher.update(f"{', ' if i else '{'}{json.dumps(name)}: ".encode())
        for piece in _pieces(value) if isinstance(value, list) else [json.dumps(value, sort_keys=True)]:
            hasher.update(piece.encode())
    hasher.update(b"}")
    return hasher.hexdigest()


def _pieces(values: list[Any]) -> Iterator[str]:
    yield "["
    for i, value in enumerate(values):
        yield (", " if i else "") + json.dumps(value, sort_keys=True)
    yield "]"

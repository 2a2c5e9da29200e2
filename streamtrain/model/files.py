"""The files of a model.

``model.safetensors`` holds every array and number that learning changes, ``model.json`` everything that is text. Neither
can run code, identical weights give identical bytes, and a bit that flipped since is noticed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from streamtrain import tensors
from streamtrain.columns.match import family
from streamtrain.columns.roles import Column, parse_crosses, shape_of
from streamtrain.columns.times import is_time
from streamtrain.errors import RunError
from streamtrain.load import Layout
from streamtrain.model.model import Model
from streamtrain.model.settings import LinearSettings, PreparationSettings
from streamtrain.target import Target

__all__ = ["describe", "load_model", "model_of", "save_model"]

_FORMAT = 2
_DAMAGES = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError, MemoryError, OSError)
_TIMESTAMP = re.compile(r"timestamp\[(s|ms|us|ns)(?:, tz=(.+))?\]")


def save_model(model: Model, folder: Path) -> None:
    """Write ``model.safetensors`` and ``model.json`` to an existing folder. Raises RunError for a learner that was passed
    in: only its owner knows how to make it again."""
    description = describe(model)
    description["sha256"] = tensors.save(folder / "model.safetensors", model.state_dict())
    description["checksum"] = _checksum(description)
    with open(folder / "model.json", "w", encoding="utf-8") as file:
        file.write(json.dumps(description, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())


def load_model(run: str | Path) -> Model:
    """The model of a run folder. Raises RunError for a folder that holds none, or one that was damaged."""
    folder = Path(run)
    if not (folder / "model.json").is_file():
        if (folder / "checkpoints").is_dir():
            raise RunError(
                f"{run}: the model is not written yet: `streamtrain fit DATA --out {run} --resume` writes it"
            )
        what = "has no model.json" if folder.is_dir() else "no such folder"
        raise RunError(f"{run}: not a run ({what}): name the folder that `streamtrain fit --out` wrote")
    try:
        description = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        if description["format"] != _FORMAT:
            raise RunError(f"{run}: model format {description['format']}; this version reads {_FORMAT}")
        if description.pop("checksum") != _checksum(description):
            raise RunError(f"{run}: model.json is not what was written: its checksum differs")
        model = model_of(description)
        found = tensors.load(folder / "model.safetensors")
        if found.sha256 != description["sha256"]:
            raise RunError(
                f"{run}: model.safetensors is not the file that was written: its checksum differs; where the run has its "
                "checkpoints, `streamtrain fit --resume` writes it again"
            )
        model.load_state_dict(found.arrays)
    except _DAMAGES as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"{run}: the model is damaged or incomplete: {error}") from error
    return model


def describe(model: Model) -> dict[str, Any]:
    """All that is text or a setting of a model, for JSON. Raises RunError for a learner that was passed in."""
    if model.settings is None:
        raise RunError("a learner that was passed in cannot be saved: keep its state_dict() yourself")
    return {
        "format": _FORMAT,
        "learner": "linear",
        "settings": asdict(model.settings),
        "preparation": asdict(model.prepared) | {"hash_bits": model.preparation.slots.bits},
        "targets": [_target(target) for target in model.target.several],
        "weight": model.layout.weight,
        "features": [_column(column) for column in model.layout.columns],
        "crosses": [list(cross) for cross in model.layout.crosses],
    }


def model_of(description: Mapping[str, Any]) -> Model:
    """A fresh model as it was described. Raises errors of all kinds for what `describe` did not make."""
    several = [
        Target(**{**t, "classes": tuple(t["classes"]), "counts": tuple(t.get("counts", ()))})
        for t in description["targets"]
    ]
    columns = tuple(
        Column(f["name"], _type(f["type"], f["shape"]), f["role"], f["why"], f["origin"], f["text_bytes"])
        for f in description["features"]
    )
    crosses = parse_crosses(description["crosses"], columns)
    layout = Layout(columns, Target.of(several), description["weight"], crosses)
    asked = dict(description["preparation"])
    asked["class_weights"] = tuple(asked["class_weights"])
    return Model(layout, LinearSettings(**description["settings"]), PreparationSettings(**asked))


def _checksum(description: dict[str, Any]) -> str:
    """Of everything else that the file holds."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def _target(target: Target) -> dict[str, Any]:
    names = ("name", "task", "classes", "counts", "rows", "clustering", "origin")
    return {name: plain for name in names if (plain := _plain(getattr(target, name))) is not None}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _column(column: Column) -> dict[str, Any]:
    shape = shape_of(column.type)
    return {
        "name": column.name,
        "role": column.role,
        "type": _type_name(column.type),
        "shape": None if shape is None else list(shape),
        "why": column.why,
        "origin": column.origin,
        "text_bytes": column.text_bytes,
    }


def _type_name(kind: pa.DataType) -> str:
    """A type, as far as a model needs it: any number is as good as another, the data say which it is."""
    if isinstance(kind, (pa.DictionaryType, pa.RunEndEncodedType)):
        return _type_name(kind.value_type)
    if is_time(kind) or pa.types.is_duration(kind):
        return str(kind)
    return family(kind) if shape_of(kind) is None else "number"


_TYPES: dict[str, Any] = {
    "integer": pa.int64, "number": pa.float64, "text": pa.string, "null": pa.null, "date32[day]": pa.date32,
    "date64[ms]": pa.date64,
}  # fmt: skip


def _type(name: str, shape: list[int] | None) -> pa.DataType:
    """The type of that name. Raises ValueError for one that no model has."""
    if shape is not None:
        return pa.fixed_shape_tensor(pa.float32(), shape)
    if name in _TYPES:
        return _TYPES[name]()
    if stamp := _TIMESTAMP.fullmatch(name):
        return pa.timestamp(stamp[1], stamp[2])
    for make, units in ((pa.time32, ("s", "ms")), (pa.time64, ("us", "ns")), (pa.duration, ("s", "ms", "us", "ns"))):
        for unit in units:
            if name == str(make(unit)):
                return make(unit)
    raise ValueError(f"{name!r} is no type of a feature")

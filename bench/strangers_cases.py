"""Crafted model folders and checkpoints: good ones of several kinds, with one thing changed that no run writes, and every
checksum right again. So what is behind the checksums is reached."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import streamtrain
from streamtrain.model import tensors
from streamtrain.runs.checkpoint import Checkpoints, CheckpointSchedule

__all__ = ["FITS", "Crafted", "Good", "craft", "make", "seal_checkpoint", "seal_model"]

ROWS = 1200
SAVES = 3  # after which a copy is taken, as of a stopped run
OWN_LEARNER = """
import numpy as np
class Mean:
    def __init__(self, shape): self.rows, self.sum, self.width = 0, np.zeros(shape.features), shape.features
    def learn(self, batch): self.rows += len(batch); self.sum += batch.features.sum(axis=0, dtype=np.float64)
    def predict(self, X): return np.full(len(X), .5, np.float32)
    def state_dict(self): return {"rows": self.rows, "sum": self.sum.copy()}
    def load_state_dict(self, state):
        if np.shape(state["sum"]) != self.sum.shape: raise ValueError("another width")
        self.rows, self.sum = int(state["rows"]), np.array(state["sum"])
    state_bytes = 100
"""
#: how each kind of model is fitted
FITS: dict[str, dict[str, Any]] = {
    "binary": {"target": "y", "features": ["a", "b", "k"]},
    "softmax": {"target": "m", "features": ["a", "b", "k"], "holdout": 0.1, "patience": 5},
    "regression": {"target": "z", "features": ["a", "b", "k"], "optimizer": "adam", "l1": 1e-4, "l2": 1e-4},
    "several numbers": {"target": ["z", "b"], "features": ["a", "k"], "optimizer": "ftrl", "l1": 1e-4},
    "several classes": {"target": ["y", "n"], "features": ["a", "b"], "optimizer": "adagrad"},
    "text, times, crosses": {
        "target": "y", "features": ["a", "t", "when", "k", "c"], "roles": {"t": "text"}, "crosses": ["k:c"],
    },
    "tensor": {"target": "y", "features": ["X", "long"], "optimizer": "momentum", "average": False},
    "poisson": {"target": "p", "features": ["a", "b"], "loss": "poisson", "optimizer": "sgd", "task": "regress"},
    "weights": {"target": "m", "features": ["a", "k"], "weight": "w", "class_weight": "balanced"},
    "own learner": {"target": "y", "features": ["a", "b"], "learner": "strangers_own:Mean"},
}  # fmt: skip

Json = Any
Path_ = tuple[Any, ...]


@dataclass(frozen=True)
class Good:
    """A good run: what its files say, and where they are."""

    kind: str
    finished: Path
    stopped: Path
    description: dict[str, Any]
    arrays: dict[str, Any]
    header: dict[str, Any]
    checkpoint: dict[str, Any]

    @property
    def learner(self) -> str | None:
        """The learner that the user has to name."""
        name: str | None = FITS[self.kind].get("learner")
        return name


@dataclass(frozen=True)
class Crafted:
    """A case. file: ``model`` or ``checkpoint``. what: was changed. is_value: whether only a loaded array shows it. may_pass:
    whether a run could have written it."""

    good: Good
    file: str
    what: str
    folder: Path
    is_value: bool = False
    may_pass: bool = False


def make(folder: Path, kinds: Iterable[str] = FITS) -> list[Good]:
    """Fit each kind; of each, also a copy of what was there before it ended."""
    rng = np.random.default_rng(0)
    a, b, k = rng.normal(size=ROWS), rng.normal(size=ROWS), rng.integers(0, 7, ROWS)
    when = pa.array(rng.integers(0, 10**15, ROWS), pa.timestamp("us", "Europe/Berlin"))
    columns = {
        "a": a, "b": b + 1e9, "z": a * 3 + b, "p": rng.poisson(3, ROWS), "w": 1.0 + rng.random(ROWS), "when": when,
        "k": [f"k{v}" for v in k], "c": [f"c{v % 3}" for v in k], "t": [f"word{v} and word{v % 4}" for v in k],
        "X": pa.FixedSizeListArray.from_arrays(pa.array(rng.normal(size=3 * ROWS)), 3),
        "long": 2**60 + rng.integers(0, 99, ROWS),
        "y": (a > 0).astype(int), "n": (b > 0).astype(int), "m": [f"m{v}" for v in np.digitize(a, [-1, 1])],
    }  # fmt: skip
    pq.write_table(pa.table(columns), folder / "data.parquet", row_group_size=300)
    (folder / "strangers_own.py").write_text(OWN_LEARNER)
    return [_fitted(folder, kind) for kind in kinds]


def _fitted(folder: Path, kind: str) -> Good:
    finished, stopped = (
        folder / f"{kind.replace(' ', '-').replace(',', '')}-{state}" for state in ("finished", "stopped")
    )
    settings = FITS[kind] | {"epochs": 2, "batch_size": 64, "memory": "2GB"}
    due, save, left = CheckpointSchedule.due, Checkpoints.save, [None] * SAVES

    def saved(self: Checkpoints, *what: Any) -> None:
        save(self, *what)
        if left and not left[1:]:  # as if the process were killed now
            shutil.copytree(finished, stopped)
        del left[:1]

    CheckpointSchedule.due, Checkpoints.save = lambda *_, **__: bool(left), saved  # type: ignore[method-assign, assignment]
    try:
        streamtrain.fit(folder / "data.parquet", out=finished, **settings)
    finally:
        CheckpointSchedule.due, Checkpoints.save = due, save  # type: ignore[method-assign]
    *_, newest = sorted((stopped / "checkpoints").iterdir())
    found = tensors.load(newest, sealed=True)
    header = json.loads(found.metadata["streamtrain"])
    description = json.loads((finished / "model.json").read_text())
    return Good(
        kind, finished, stopped, description, tensors.load(finished / "model.safetensors").arrays,
        header.pop("run") | header, found.arrays,
    )  # fmt: skip


# -- writing ---------------------------------------------------------------------------------------------------------------


def seal_model(folder: Path, description: Json, arrays: dict[str, Any] | None = None) -> None:
    """Write a model whose checksums are right."""
    if arrays is not None:
        tensors.save(folder / "model.safetensors", arrays)
    if isinstance(description, dict):
        sha256 = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
        description = {name: value for name, value in description.items() if name != "checksum"}
        if arrays is not None:
            description["sha256"] = sha256
        description["checksum"] = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()
    (folder / "model.json").write_text(json.dumps(description, indent=1), encoding="utf-8", errors="surrogatepass")


def seal_checkpoint(folder: Path, header: Json, arrays: dict[str, Any]) -> None:
    """Write a checkpoint with a right checksum in the place of all others."""
    for other in (folder / "checkpoints").iterdir():
        other.unlink()
    path = folder / "checkpoints/checkpoint-00000009.safetensors"
    tensors.save(path, arrays, metadata={"streamtrain": json.dumps(header)}, sealed=True)


# -- changing --------------------------------------------------------------------------------------------------------------

WRONG: list[tuple[str, Json]] = [
    ("text", "x"), ("half a character", "\ud800"), ("a terminal", "\x1b[2J"), ("null", None), ("true", True),
    ("a list", [1, [2]]), ("an object", {"a": 1}), ("-1", -1), ("1.5", 1.5), ("10^30", 10**30), ("4,000 digits", 10**4000),
    ("NaN", float("nan")), ("infinity", float("inf")), ("a long list", [0] * 100_000), ("a deep list", "DEEP"),
    ("an empty list", []),
]  # fmt: skip
ANY_NUMBER = {
    "clustering", "offset", "text_bytes", "rows", "learning_rate", "l1", "l2", "counts", "seconds", "row", "held", "lines",
    "memory",
}  # fmt: skip
"""Parts of the names of fields that may have other numbers than they have."""
OPEN = ("history", "seconds", "environment", "data", "resolved", "versions", "lineage", "changes")
"""Fields of a checkpoint that may have fields of later versions."""


def _deep() -> Json:
    value: Json = []
    for _ in range(900):  # json.dumps refuses more
        value = [value]
    return value


def _places(value: Json, at: Path_ = ()) -> list[Path_]:
    found = [at] if at else []
    inner = value.items() if isinstance(value, dict) else enumerate(value[:5]) if isinstance(value, list) else ()
    return found + [place for name, each in inner for place in _places(each, (*at, name))]


def _kind(value: Json) -> str:
    return "number" if type(value) in (int, float) else type(value).__name__


def change_json(rng: np.random.Generator, value: Json) -> tuple[Json, str, bool]:
    """A copy with one thing changed; what; and whether a run could have written it."""
    value = copy.deepcopy(value)
    places = [place for place in _places(value) if place[0] not in ("checksum", "sha256")]
    place = places[int(rng.integers(len(places)))]
    *before, last = place
    holder = value
    for name in before:
        holder = holder[name]
    title, names = ".".join(map(str, place)), [each for each in place if isinstance(each, str)]
    how = int(rng.integers(10))
    if how == 0:
        del holder[last]
        return value, f"{title} is gone", True  # a default may take its place
    if how == 1:
        where, of = (holder[last], place[0]) if isinstance(holder[last], dict) else (value, None)
        where["evil"] = 1
        return value, f"{of or 'it'} has a field more ({title})", of in OPEN if of else "cursor" in value
    if how == 2 and isinstance(holder[last], list) and holder[last]:
        holder[last] = holder[last] + holder[last][:1]
        return value, f"{title} has its first twice", True
    wrong = [pair for pair in WRONG if _kind(pair[1]) != _kind(holder[last]) or _kind(pair[1]) == "number"]
    label, new = wrong[int(rng.integers(len(wrong)))]
    old, holder[last] = holder[last], _deep() if new == "DEEP" else new
    number = bool(ANY_NUMBER.intersection(names)) and _kind(old) == _kind(new) == "number"
    setting = place[0] == "settings" and old in (None, [])  # many kinds are allowed there
    name = old is None and isinstance(new, str)  # of a column of weights, of a path
    return value, f"{title} is {label}", number or setting or name or new is None or new == []


def change_arrays(rng: np.random.Generator, arrays: dict[str, Any]) -> tuple[str, bool]:
    """Change one array in place; what; and whether only its values are wrong."""
    names = sorted(arrays)
    name = names[int(rng.integers(len(names)))]
    array = np.array(arrays[name])
    number = array.dtype.kind in "fiu" and array.size > 0
    changes: list[tuple[str, Callable[[], Any], bool]] = [
        ("is gone", lambda: None, False),
        ("is float16", lambda: array.astype(np.float16), False),
        ("is another width", lambda: array.astype(np.float64 if array.dtype != np.float64 else np.int32), False),
        ("has an axis more", lambda: array[None], False),
        (
            "is a scalar" if array.ndim else "is a list",
            lambda: np.zeros(() if array.ndim else (1,), array.dtype),
            False,
        ),
        (
            "has a row more",
            lambda: np.concatenate([np.atleast_1d(array)] * 2)[: array.shape[0] + 1] if array.ndim else array[None],
            False,
        ),
    ]
    if number and array.dtype.kind == "f":
        changes += [(f"has {v}", lambda v=v: _with(array, v), True) for v in (np.nan, np.inf, -np.inf)]
    if number and array.dtype.kind == "i":
        changes += [("has a negative number", lambda: _with(array, -3), True)]
    if array.dtype.kind == "u" and array.size > 1:
        changes += [
            ("has equal values", lambda: np.full_like(array, 5), True),
            ("has 0", lambda: _with(array, 0), True),
        ]
    if array.dtype.kind == "b" and array.size:
        changes += [("has a byte of 7", lambda: np.full(array.shape, 7, np.uint8).view(np.bool_), True)]
    what, changed, is_value = changes[int(rng.integers(len(changes)))]
    with np.errstate(all="ignore"):
        new = changed()
    arrays.pop(name)
    if new is not None:
        arrays[name] = new
    if rng.random() < 0.05:
        arrays["evil"] = np.zeros(3)
        return f"{name} {what}, and there is another", False
    return f"{name} {what}", is_value


def _with(array: Any, value: Any) -> Any:
    flat = array.copy().reshape(-1)
    flat[len(flat) // 2] = value
    return flat.reshape(array.shape)


def craft(rng: np.random.Generator, good: Good, folder: Path) -> Crafted:
    """Change one thing of a copy of a good run, which is made in ``folder``, and seal it."""
    file = ("model", "checkpoint")[int(rng.integers(2))]
    document, arrays = (good.description, good.arrays) if file == "model" else (good.header, good.checkpoint)
    arrays, is_value = dict(arrays), False
    if rng.random() < 0.6:
        document, what, may_pass = change_json(rng, document)
    else:
        what, is_value = change_arrays(rng, arrays)
        may_pass = "learner." in what and good.learner is not None  # nothing is known of these
        free = ("low has", "high has", "moments has", "digests")  # anything, or no value yet
        may_pass |= any(part in what for part in free)
        loose = "has a row more" in what and any(
            part in what for part in ("hashes", "learner.sparse", "moments", "digests", "patience.best")
        )
        is_value, may_pass = is_value or loose, may_pass or loose  # these may have any number of rows
    shutil.copytree(good.finished if file == "model" else good.stopped, folder)
    if file == "model":
        seal_model(folder, document, arrays)
    else:
        seal_checkpoint(folder, document, arrays)
    return Crafted(good, file, what, folder, is_value, may_pass)

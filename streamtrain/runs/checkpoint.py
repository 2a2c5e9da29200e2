"""Checkpoints: where a fit stands, in one file, from which it goes on to the same bits.

A file is in the safetensors format, so that it can be looked at and can run no code: the arrays are the state of the
model, of the metrics and of the best model so far. The header, JSON in the file's metadata, is all that is text or a number:
under ``streamtrain`` cursor and scores, under ``run`` the settings, the columns and what the data were. The last array is the
SHA-256 of everything before it. A file is written beside its place, made durable, and then moved there: one of that name is
whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from streamtrain.errors import RunError
from streamtrain.model import tensors
from streamtrain.plan.term import Term
from streamtrain.state import WRITING, make_durable, remove_unfinished, write_beside

__all__ = ["CheckpointSchedule", "Checkpoints", "checkpoint_term"]

_FORMAT = 1
#: of the header of this format, as far as it is looked at before it is used
_FORM: dict[str, Any] = {
    "settings": dict, "resolved": dict, "validate": str | None, "validation": dict | None, "versions": dict,
    "data": {"fingerprint": str | None, "rows": int, "chunks": int, "schema": dict, "files": dict | None},
    "environment": dict.fromkeys(("streamtrain", "numpy", "blas", "kernels", "processor"), str),
    "lineage": list, "changes": list, "resumes": int, "started": str, "warnings": list,
    "checkpoint_seconds": int | float, "model": dict, "cursor": dict, "ledger": dict | None,
    "history": dict.fromkeys(("rows", "held", "batches", "next_record"), int)
    | {"lines": list, "ends": list, "is_over": bool, "best_epoch": int | None, "judge": str},
    "seconds": dict.fromkeys(("loop", "read", "wait", "learn", "validation", "checkpoint"), float),
}  # fmt: skip
_KEPT = 2
_KEY, _RUN = "streamtrain", "run"
_NAME = re.compile(r"checkpoint-([0-9]{8,})\.safetensors")
_HEADER_BYTES = 2000  # of the header, for each column, while it is written
_TIMES_COST = 50  # between two checkpoints, of what the last one took: they take at most 2 % of the time
_NOMINAL_SECONDS, _NOMINAL_BYTES_PER_SECOND = 0.02, 200e6  # what the first one is expected to take


class Checkpoints:
    """The folder of a run's checkpoints: ``checkpoint-00000001.safetensors`` and so on, of which the last two are kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.damaged: list[str] = []  # what was found when the newest valid one was looked for
        self._good: list[Path] = []

    def newest(self) -> dict[str, Any] | None:
        """The header of the newest one that is whole; None where there are none. ``damaged`` says which are not.

        Raises RunError where there are some but none is whole, or where a later version wrote it.
        """
        self.damaged, self._good = [], []
        for _, path in reversed(self._files()):
            try:
                known = _known(path)
                tensors.verify(path)
            except (ValueError, OSError) as error:
                self.damaged.append(f"{path}: {error}")
                continue
            self._good = [path]
            return _of_this_format(known, path)
        if self.damaged:
            raise RunError(
                f"no checkpoint can be read ({'; '.join(self.damaged)}): restore one from a copy, or start over in another "
                "folder"
            )
        return None

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays of the one that `newest` found. Raises RunError where it cannot be read any more."""
        path = self._good[-1]
        try:
            return tensors.load(path, sealed=True).arrays
        except (ValueError, OSError) as error:
            raise RunError(f"{path}: {error}") from error

    def exist(self) -> bool:
        """Whether there is any, whole or not."""
        return bool(self._files())

    def is_left_over(self) -> bool:
        """Whether nothing is there but what was being written when a process was killed."""
        return self.folder.is_dir() and all(path.name.startswith(WRITING) for path in self.folder.iterdir())

    def look(self) -> dict[str, Any] | None:
        """The header of the newest one, without its arrays, and without a look at its checksum. Raises RunError where it
        cannot be read."""
        files = self._files()
        if not files:
            return None
        path = files[-1][1]
        try:
            known = _known(path)
        except (ValueError, OSError) as error:
            raise RunError(f"{path}: {error}") from error
        return _of_this_format(known, path)

    def save(self, stands: Mapping[str, Any], arrays: Mapping[str, Any], run: str = "{}") -> None:
        """Write the next one; all but it and the last good one before it are removed. stands: of the header what is another
        each time; run: what stays the same, as JSON. Raises OSError, and leaves what was there, where it cannot be written."""
        if not self.folder.is_dir():
            self.folder.mkdir()
            for parent in list(self.folder.parents)[:2]:
                make_durable(parent)
        number = max((number for number, _ in self._files()), default=0) + 1
        path = self.folder / f"checkpoint-{number:08}.safetensors"
        text = json.dumps({"format": _FORMAT, **stands})[:-1] + f', "{_RUN}": {run}}}'
        with write_beside(path) as hidden:
            tensors.save(hidden, arrays, metadata={_KEY: text}, sealed=True)
        self._good = [*self._good, path][-_KEPT:]
        for _, other in self._files():
            if other not in self._good and not other.is_dir():
                other.unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove what was being written when a process was killed."""
        remove_unfinished(self.folder)

    def _files(self) -> list[tuple[int, Path]]:
        """Ascending."""
        if not self.folder.is_dir():
            return []
        found = ((_NAME.fullmatch(path.name), path) for path in self.folder.iterdir())
        return sorted((int(match[1]), path) for match, path in found if match)


def _known(path: Path) -> dict[str, Any]:
    """The header. Raises ValueError where there is none; OSError as the file system does."""
    if not path.is_file():  # who opens a pipe waits
        raise ValueError("is no file")
    metadata = tensors.load_metadata(path)
    try:
        known = json.loads(metadata[_KEY])
        known = known.pop(_RUN, {}) | known
        fits = known["format"] != _FORMAT or _fits(known, _FORM)
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise ValueError("is no checkpoint of streamtrain") from error
    if not fits:
        raise ValueError("is no checkpoint of streamtrain")
    return dict(known)


def _fits(found: Any, form: Any) -> bool:
    """Whether a value is of a type; or a dict, of this form. Raises LookupError for a name that is not there."""
    if not isinstance(form, dict):
        return isinstance(found, form)
    return isinstance(found, dict) and all(_fits(found[name], kind) for name, kind in form.items())


def _of_this_format(known: dict[str, Any], path: Path) -> dict[str, Any]:
    if known["format"] != _FORMAT:
        raise RunError(f"{path}: checkpoint format {known['format']}; this version reads {_FORMAT}")
    return known


def checkpoint_term(arrays_bytes: int, columns: int = 0) -> Term:
    """What the memory plan counts for a checkpoint while it is written, or loaded.

    arrays_bytes: of all arrays, copied. columns: that the header describes.
    """
    return Term("checkpoint", arrays_bytes + _HEADER_BYTES * columns, "checkpoint")


class CheckpointSchedule:
    """When the next checkpoint is due: after so many seconds, but not before 50 times as long as the last one took.

    seconds: between two, at least 0. state_bytes: of one, from which the time of the first is guessed.

    >>> pace = CheckpointSchedule(30.0, 10**6)
    >>> pace.due(0.1), pace.due(2.0, at_end=True), pace.due(30.0)
    (False, True, True)
    >>> pace.took(30.0, 31.0)
    >>> pace.due(70.0), pace.due(81.0)
    (False, True)
    """

    def __init__(self, seconds: float, state_bytes: int) -> None:
        self._seconds = seconds
        self._cost = _NOMINAL_SECONDS + state_bytes / _NOMINAL_BYTES_PER_SECOND
        self._last = 0.0
        self.count, self.spent = 0, 0.0

    def due(self, now: float, *, at_end: bool = False) -> bool:
        """Whether it is time for one. now: seconds since the start. at_end: of an epoch, where only the cost counts."""
        since = now - self._last
        return since >= _TIMES_COST * self._cost and (at_end or since >= self._seconds)

    def took(self, started: float, ended: float) -> None:
        """One was written."""
        self._cost, self._last = ended - started, ended
        self.count, self.spent = self.count + 1, self.spent + self._cost

"""Checkpoints: the whole state of a fit in one file, from which training continues to the same bits.

A file is in the safetensors format: other programs can read it, and it cannot run code. Its arrays are the state of the
model, of the metrics and of the best model so far; the array ``sha256`` is the checksum of the file. Text and numbers are
in the header, JSON in the metadata ``streamtrain``: cursor and scores, and under ``run`` the part that is the same in every
checkpoint of the run (settings, columns, a description of the data). A file is written in a hidden folder, flushed to the
disk and then renamed: a file with the name of a checkpoint is complete.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from streamtrain.errors import RunError, WrongFile
from streamtrain.model import tensors
from streamtrain.model.room import Room
from streamtrain.model.stored import parse_json, shown_value
from streamtrain.plan.term import Term
from streamtrain.state import WRITING, make_durable, part, remove_unfinished, write_beside

__all__ = ["CheckpointSchedule", "Checkpoints", "checkpoint_term"]

_FORMAT = 1
#: the types of the header's fields, which are checked before any is used
_HEADER: dict[str, Any] = {
    "settings": dict, "resolved": dict, "validate": str | list | None, "validation": dict | None, "versions": dict,
    "data": {"fingerprint": str | None, "rows": int, "chunks": int, "schema": dict, "files": dict | None},
    "environment": dict.fromkeys(("streamtrain", "numpy", "blas", "kernels", "processor"), str),
    "lineage": list, "changes": list, "resumes": int, "started": str, "warnings": list,
    "checkpoint_seconds": int | float, "model": dict, "cursor": dict, "ledger": dict | None,
    "history": dict.fromkeys(("rows", "held", "batches", "next_record"), int)
    | {"lines": list, "ends": list, "is_over": bool, "best_epoch": int | None, "judge": str},
    "seconds": dict.fromkeys(("loop", "read", "wait", "learn", "validation", "checkpoint"), float),
}  # fmt: skip
Check = Callable[[Path, dict[str, Any], Sequence[tensors.Entry]], object]

_KEPT = 2
_KEY, _RUN = "streamtrain", "run"
_NAME = re.compile(r"checkpoint-([0-9]{8,})\.safetensors")
_HEADER_BYTES = 2000  # of the header, for each column, while it is written
_COST_MULTIPLE = (
    50  # the shortest time between two, in units of the time of the last one: checkpoints take at most 2 % of the time
)
_NOMINAL_SECONDS, _NOMINAL_BYTES_PER_SECOND = 0.02, 200e6  # the speed that is assumed for the first one


class Checkpoints:
    """The folder of a run's checkpoints, ``checkpoint-00000001.safetensors`` and so on. The last two are kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.damaged: list[str] = []  # checkpoints that `newest` found damaged, a line each
        self._good: list[Path] = []
        self._room = Room()

    def newest(self, check: Check | None = None, room: Room | None = None) -> dict[str, Any] | None:
        """Return the header of the newest checkpoint that is whole; None if there are no checkpoints. ``damaged`` then lists
        those that are not.

        check: looks at the path, the header and the arrays of a checkpoint before its checksum is computed; a WrongFile that it
        raises counts as damage. room: the memory that this may take. Raises RunError if all are damaged, for another version of
        the format, and what ``check`` raises otherwise; BudgetRefused as `Room` does.
        """
        self._room = room or Room()
        self.damaged, self._good = [], []
        for _, path in reversed(self._files()):
            try:
                header = self._checked(path, check)
            except (WrongFile, tensors.TensorFileError, OSError) as error:
                self.damaged.append(str(error) if isinstance(error, WrongFile) else f"{path}: {error}")
                continue
            self._good = [path]
            return header
        if self.damaged:
            raise RunError(
                f"no checkpoint can be read ({'; '.join(self.damaged)}): restore one from a copy, or start over in another "
                "folder"
            )
        return None

    def _checked(self, path: Path, check: Check | None) -> dict[str, Any]:
        header, entries = _read_header(path, self._room)
        try:
            _require_format(header, path)
            if check is not None:
                check(path, header, entries)
        except WrongFile:
            raise
        except RunError:  # unless the file is damaged, this is what the user has to know
            tensors.verify(path, room=self._room)
            raise
        tensors.verify(path, room=self._room)
        return header

    def arrays(self, prefix: str = "") -> dict[str, NDArray[Any]]:
        """Load those arrays of the checkpoint that `newest` returned whose names begin so, and return them without the
        beginning. Raises RunError if it can no longer be read."""
        path = self._good[-1]
        try:
            return part(tensors.load(path, sealed=True, room=self._room, prefix=prefix).arrays, prefix)
        except (tensors.TensorFileError, OSError) as error:
            raise RunError(f"{path}: {error}") from error

    def exist(self) -> bool:
        """Whether there is any checkpoint, damaged or not."""
        return bool(self._files())

    def names(self) -> list[str]:
        """The names of the files, the oldest first."""
        return [path.name for _, path in self._files()]

    def is_left_over(self) -> bool:
        """Whether the folder contains only files that a killed process was writing."""
        return self.folder.is_dir() and all(path.name.startswith(WRITING) for path in self.folder.iterdir())

    def look(self) -> dict[str, Any] | None:
        """Return the header of the newest checkpoint without comparing its checksum; None if there are no checkpoints.
        Raises RunError if it cannot be read."""
        files = self._files()
        if not files:
            return None
        path = files[-1][1]
        try:
            header, _ = _read_header(path, Room())
        except (tensors.TensorFileError, OSError) as error:
            raise RunError(f"{path}: {error}") from error
        _require_format(header, path)
        return header

    def save(self, header: Mapping[str, Any], arrays: Mapping[str, Any], run: str = "{}") -> None:
        """Write the next checkpoint, then remove all except this one and the last good one before it.

        header: the fields that change between checkpoints. run: those that do not, as JSON. Raises OSError if it cannot be
        written; then the older checkpoints stay.
        """
        if not self.folder.is_dir():
            self.folder.mkdir()
            for parent in list(self.folder.parents)[:2]:
                make_durable(parent)
        number = max((number for number, _ in self._files()), default=0) + 1
        path = self.folder / f"checkpoint-{number:08}.safetensors"
        text = json.dumps({"format": _FORMAT, **header})[:-1] + f', "{_RUN}": {run}}}'
        with write_beside(path) as hidden:
            tensors.save(hidden, arrays, metadata={_KEY: text}, sealed=True)
        self._good = [*self._good, path][-_KEPT:]
        for _, other in self._files():
            if other not in self._good and not other.is_dir():
                other.unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove files that a killed process was writing."""
        remove_unfinished(self.folder)

    def _files(self) -> list[tuple[int, Path]]:
        """Numbers and files of the checkpoints, ascending."""
        if not self.folder.is_dir():
            return []
        names = ((_NAME.fullmatch(path.name), path) for path in self.folder.iterdir())
        return sorted((int(match[1]), path) for match, path in names if match)


def _read_header(path: Path, room: Room) -> tuple[dict[str, Any], list[tensors.Entry]]:
    """The header of a file, and what arrays it has. Raises TensorFileError if it has none; RunError and BudgetRefused as `Room`
    does; OSError as the file system does."""
    metadata, entries = tensors.look(path, room=room)
    try:
        header = parse_json(metadata[_KEY])
        header = header.pop(_RUN, {}) | header
        fits = header["format"] != _FORMAT or _fits(header, _HEADER)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise tensors.TensorFileError("is not a checkpoint of streamtrain") from error
    if not fits:
        raise tensors.TensorFileError("is not a checkpoint of streamtrain")
    return dict(header), entries


def _fits(value: Any, types: Any) -> bool:
    """Whether a value is of a type, or a dict whose fields are of theirs. Raises LookupError for a missing field."""
    if not isinstance(types, dict):
        return isinstance(value, types)
    return isinstance(value, dict) and all(_fits(value[name], inner) for name, inner in types.items())


def _require_format(header: dict[str, Any], path: Path) -> None:
    if header["format"] != _FORMAT:
        raise RunError(f"{path}: checkpoint format {shown_value(header['format'])}; this version reads {_FORMAT}")


def checkpoint_term(arrays_bytes: int, columns: int = 0) -> Term:
    """The term of the memory plan for a checkpoint that is being written or loaded.

    arrays_bytes: the size of the copy of all arrays. columns: how many columns the header describes.
    """
    return Term("checkpoint", arrays_bytes + _HEADER_BYTES * columns, "checkpoint")


class CheckpointSchedule:
    """Decides when to write the next checkpoint: when ``seconds`` have passed since the last one, and 50 times the duration
    of the last one, so that checkpoints take at most 2 % of the time.

    seconds: the shortest time between two checkpoints. state_bytes: the size of a checkpoint, from which the duration of the
    first one is estimated.

    Times are seconds since the start of the run. The checkpoint of this example takes one second and ends at 31:

    >>> schedule = CheckpointSchedule(30.0, 10**6)
    >>> schedule.due(0.1), schedule.due(2.0, at_end=True), schedule.due(30.0)
    (False, True, True)
    >>> schedule.took(30.0, 31.0)
    >>> schedule.due(70.0), schedule.due(81.0)
    (False, True)
    """

    def __init__(self, seconds: float, state_bytes: int) -> None:
        self._seconds = seconds
        self._cost = _NOMINAL_SECONDS + state_bytes / _NOMINAL_BYTES_PER_SECOND
        self._last = 0.0
        self.count, self.spent = 0, 0.0

    def due(self, now: float, *, at_end: bool = False) -> bool:
        """Whether a checkpoint is due. now: seconds since the start. at_end: at the end of an epoch, where only the cost
        of the last one counts."""
        since = now - self._last
        return since >= _COST_MULTIPLE * self._cost and (at_end or since >= self._seconds)

    def took(self, started: float, ended: float) -> None:
        """Note that a checkpoint was written. started, ended: seconds since the start."""
        self._cost, self._last = ended - started, ended
        self.count, self.spent = self.count + 1, self.spent + self._cost

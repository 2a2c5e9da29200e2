"""The model of a run that has not finished: what its newest checkpoint holds. The run may be going on meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from streamtrain.errors import RunError
from streamtrain.memory.monitor import opening
from streamtrain.memory.process import release_freed_memory
from streamtrain.model import Model, load_model
from streamtrain.model.files import has_description, naming_damage
from streamtrain.model.loading import Described
from streamtrain.model.room import Room
from streamtrain.model.stored import StoredFields
from streamtrain.model.tensors import Entry
from streamtrain.runs.checkpoint import Checkpoints
from streamtrain.runs.folder import CHECKPOINTS, REPORT
from streamtrain.train.stored import checked_checkpoint

__all__ = ["LastCheckpoint", "open_model"]

_MODEL = "model."  # how the names of the model's arrays begin


@dataclass(frozen=True)
class LastCheckpoint:
    """The newest checkpoint of a run that has not finished. header: all but the description of the model. warnings: which
    checkpoint it is; and which are damaged."""

    model: Model
    header: StoredFields
    warnings: list[str]

    @classmethod
    def of(cls, run: str | Path, learner: Any = None, memory: Any = None) -> Self | None:
        """The newest checkpoint of a run that has not finished; None for a run that has, and where there is no checkpoint.
        learner, memory: see `load_model`, which this raises as, too; and as `Checkpoints.newest`."""
        folder, room = Path(run), Room.of(memory)
        checkpoints = Checkpoints(folder / CHECKPOINTS)
        with naming_damage(folder):
            if (folder / REPORT).exists() or not (names := checkpoints.names()):
                return None
            while True:
                try:
                    return cls._read(run, checkpoints, learner, room)
                except RunError:  # a run that goes on may have removed it for a newer one
                    before, names = names, checkpoints.names()
                    if names == before:
                        raise

    @classmethod
    def _read(cls, run: str | Path, checkpoints: Checkpoints, learner: Any, room: Room) -> Self:
        found: list[Described] = []

        def check(path: Path, header: dict[str, Any], entries: Sequence[Entry]) -> None:
            found[:] = [checked_checkpoint(path, header, entries, learner, room, needs=_MODEL, what=str(run))]

        with opening(f"the model in {checkpoints.folder}"):
            header = checkpoints.newest(check, room)
            if header is None:
                raise RunError(f"{run}: its checkpoints were removed while they were read")
            del header["model"]
            release_freed_memory()  # most of the header was the description of the model
            model = found[0].make()
            model.load_state_dict(checkpoints.arrays(_MODEL))
        warnings = [f"{damage}: the checkpoint before it is used" for damage in checkpoints.damaged]
        rows = header["cursor"]["rows_seen"]
        used = f"{run}: the run has not finished: its checkpoint after {rows:,} rows is used"
        return cls(model, StoredFields(checkpoints.folder, header), [*warnings, used])


def open_model(run: Model | str | Path, *, learner: Any = None, memory: Any = None) -> tuple[Model, list[str]]:
    """The model of a run folder, and warnings: that of its newest checkpoint if none is written yet. run: a model is returned
    itself. Raises as `load_model`."""
    if isinstance(run, Model):
        return run, []
    stopped = None if has_description(Path(run)) else LastCheckpoint.of(run, learner, memory)
    if stopped is None:
        return load_model(run, learner=learner, memory=memory), []
    return stopped.model, stopped.warnings

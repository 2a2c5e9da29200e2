"""The folder of a run: one writer; scores as they come, checkpoints, and at the end the model and the report."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from streamtrain.errors import RunError, StreamtrainError, WrongFile
from streamtrain.model import Model, load_model
from streamtrain.model.room import Room
from streamtrain.model.stored import StoredFields, read_json
from streamtrain.runs.checkpoint import Checkpoints
from streamtrain.runs.lock import LOCK, FolderLock
from streamtrain.runs.report import Report
from streamtrain.state import WRITING, make_durable, remove_unfinished, staging, to_json, write_beside

__all__ = ["CHECKPOINTS", "REPORT", "SCORES", "RunFolder", "read_report"]

SCORES, REPORT, CHECKPOINTS = "metrics.jsonl", "report.json", "checkpoints"


class RunFolder:
    """The folder of a run, as a context: one process at a time may write to it.

    Scores are written as they come (`record`), checkpoints when they are due (`save`); model and report appear together
    at the end (`write`). If nothing was written, the folder stays as it was.

    resume: whether to continue the run that is in the folder.

    Raises RunError, before anything is written: for a folder that cannot be written, that another process writes to, or
    that contains anything but a run; and for a run without ``resume``.
    """

    def __init__(self, path: str | Path, *, resume: bool = False) -> None:
        self.path = Path(path).resolve()
        self.given_path = path
        self.checkpoints = Checkpoints(self.path / CHECKPOINTS)
        self.warnings: list[str] = []
        self._has_scores = False
        self._run = "{}"  # the part of the header that is the same in every checkpoint
        if _exists(self.path, path) and not (self.path.is_dir() and (self.is_run or self._is_left_over())):
            raise RunError(f"--out {path}: exists and is not a run of streamtrain: name a new or an empty folder")
        try:
            self._lock = FolderLock(self.path)
        except OSError as error:
            if isinstance(error, StreamtrainError):
                raise
            existing = next(p for p in (self.path, *self.path.parents) if p.exists())
            raise RunError(
                f"--out {path}: {existing} cannot be written ({error.strerror}): name a folder elsewhere"
            ) from error
        try:
            self._prepare(resume)
        except BaseException:
            self._lock.release()
            raise

    def _prepare(self, resume: bool) -> None:
        if not resume and self.is_run:
            raise RunError(
                f"--out {self.given_path}: already contains a run: add --resume to continue it, or name another folder"
            )
        if not self.checkpoints.exist() and self.has_report:
            raise RunError(
                f"--out {self.given_path}: contains a finished run without a checkpoint, which cannot be resumed: name another "
                "folder"
            )
        if not self._lock.works:
            self.warnings.append(f"{self.path} cannot be locked: make sure that no other run writes there")
        with self._writing():
            for folder in (self.path, self.checkpoints.folder):
                if folder.is_dir():  # permission bits are not reliable on every file system and for every user
                    tempfile.TemporaryFile(dir=folder).close()
            self.checkpoints.tidy()
            remove_unfinished(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self._require_held()
        try:
            yield
        except OSError as error:
            if isinstance(error, StreamtrainError):
                raise
            self._require_held()
            raise RunError(f"--out {self.given_path}: cannot be written: {error}") from error

    def _require_held(self) -> None:
        if not self._lock.is_held:
            raise RunError(
                f"--out {self.given_path}: the folder was moved or removed during the run: if it was moved, --resume continues "
                "the run where it is now; if it was removed, start the run again"
            )

    @property
    def is_run(self) -> bool:
        """Whether the folder contains a run that is finished or can be resumed."""
        return self.checkpoints.exist() or self.has_report

    def _is_left_over(self) -> bool:
        """Whether the folder contains only the files of a run that ended before its first checkpoint."""
        others = [p for p in self.path.iterdir() if p.name not in (SCORES, LOCK) and not p.name.startswith(WRITING)]
        return not others or (others == [self.checkpoints.folder] and self.checkpoints.is_left_over())

    @property
    def has_report(self) -> bool:
        """Whether the run in the folder was finished."""
        return (self.path / REPORT).is_file()

    def report(self) -> StoredFields:
        """Read the report of the finished run. Raises RunError where it cannot be read."""
        return read_report(self.path)

    def model(self, learner: Any = None) -> Model:
        """Load the model of the finished run. learner: see `load_model`. Raises RunError where it is missing or damaged."""
        return load_model(self.path, learner=learner)

    def begin(self, run: Mapping[str, Any], lines: Sequence[dict[str, Any]] = ()) -> None:
        """Prepare the folder for training. run: the part of the header that is the same in every checkpoint. lines: the
        scores recorded up to the checkpoint that the run continues from; ``metrics.jsonl`` then contains exactly these."""
        self._run = json.dumps(run)
        with self._writing():
            scores = self.path / SCORES
            if lines:
                with write_beside(scores) as hidden:
                    hidden.write_text("".join(to_json(line) + "\n" for line in lines), encoding="utf-8")
            else:
                scores.unlink(missing_ok=True)
        self._has_scores = bool(lines)

    def record(self, scores: dict[str, Any]) -> None:
        """Append a line to ``metrics.jsonl``, readable at once."""
        with self._writing():
            line = to_json(scores) + "\n"
            creates = 0 if self._has_scores else os.O_CREAT  # a file that was removed does not come back
            handle = os.open(self.path / SCORES, os.O_WRONLY | os.O_APPEND | creates, 0o666)
            with open(handle, "a", encoding="utf-8") as file:
                file.write(line)
        self._has_scores = True

    def save(self, header: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
        """Write a checkpoint (see `Checkpoints.save`)."""
        with self._writing():
            try:
                self.checkpoints.save(header, arrays, self._run)
            except ValueError as error:  # its size has no bound: scores of every epoch, names of columns
                if isinstance(error, StreamtrainError):
                    raise
                raise RunError(f"--out {self.given_path}: a checkpoint cannot be written: {error}") from error

    def write(self, model: Model, report: Report) -> None:
        """Write model and report to a hidden folder, then rename them into the run's folder, the report last."""
        with self._writing():
            with staging(self.path) as folder:
                model.save(folder)
                (folder / REPORT).write_text(to_json(report.as_dict(), indent=1) + "\n", encoding="utf-8")
                make_durable(folder / REPORT)
                for name in ("model.safetensors", "model.json", REPORT):
                    (folder / name).replace(self.path / name)
            make_durable(self.path)


def _exists(path: Path, given_path: str | Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # a name that is too long
        raise RunError(f"--out {given_path}: cannot be written ({error.strerror}): name a folder elsewhere") from error


def read_report(run: Path, room: Room | None = None) -> StoredFields:
    """Read the report of a run folder. room: the memory that this may take. Raises RunError where there is none, or where it
    cannot be read."""
    path = run / REPORT
    try:
        fields = StoredFields(path, read_json(path, room or Room()))
    except FileNotFoundError:
        raise RunError(f"{run}: has no {REPORT}: not the folder of a run, or the run did not finish") from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error}") from error
    if not isinstance(fields.content, dict):
        raise WrongFile(f"{path}: is not the report of a run")
    return fields

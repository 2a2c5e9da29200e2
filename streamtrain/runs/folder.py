"""A run folder: one writer, the scores as they come, checkpoints, then the model and the report."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from streamtrain.errors import RunError, StreamtrainError
from streamtrain.model import Model, load_model
from streamtrain.runs.checkpoint import Checkpoints
from streamtrain.runs.lock import LOCK, FolderLock
from streamtrain.runs.report import Report
from streamtrain.state import WRITING, make_durable, remove_unfinished, staging, to_json, write_beside

__all__ = ["CHECKPOINTS", "REPORT", "SCORES", "RunFolder", "read_report"]

SCORES, REPORT, CHECKPOINTS = "metrics.jsonl", "report.json", "checkpoints"


class RunFolder:
    """The folder of a run, which one process at a time may write; a context. resume: whether a run that is there already
    is to go on.

    Scores are written as they come (`record`), checkpoints when they are due (`save`); model and report appear together,
    when the run is over (`write`). A folder into which nothing was written is as it was before.

    Raises RunError, before anything is done, where it cannot be written, where somebody else writes, and where it holds
    something that is no run, or a run while none is to be resumed.
    """

    def __init__(self, path: str | Path, *, resume: bool = False) -> None:
        self.path = Path(path).resolve()
        self.asked = path
        self.checkpoints = Checkpoints(self.path / CHECKPOINTS)
        self.warnings: list[str] = []
        self._run = "{}"  # what every checkpoint says of the run
        if _exists(self.path, path) and not (self.path.is_dir() and (self.is_run or self._is_left_over())):
            raise RunError(f"--out {path}: exists and is not a run of streamtrain: name a new or an empty folder")
        try:
            self._lock = FolderLock(self.path)
        except OSError as error:
            if isinstance(error, StreamtrainError):
                raise
            there = next(p for p in (self.path, *self.path.parents) if p.exists())
            raise RunError(
                f"--out {path}: {there} cannot be written ({error.strerror}): name a folder elsewhere"
            ) from error
        try:
            self._look(resume)
        except BaseException:
            self._lock.release()
            raise

    def _look(self, resume: bool) -> None:
        if not resume and self.is_run:
            raise RunError(f"--out {self.asked}: holds a run already: --resume goes on with it; or name another folder")
        if not self.checkpoints.exist() and self.has_report:
            raise RunError(f"--out {self.asked}: holds a finished run without a checkpoint: it cannot go on")
        if not self._lock.works:
            self.warnings.append(f"{self.path} cannot be locked: see to it that no other run writes there")
        with self._writing():
            for folder in (self.path, self.checkpoints.folder):
                if folder.is_dir():  # nothing else tells for every file system and every user
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
        if not self._lock.is_held:
            raise RunError(
                f"--out {self.asked}: the folder was moved or removed while the run was under way: --resume goes on with it, "
                "where it is now"
            )
        try:
            yield
        except OSError as error:
            if isinstance(error, StreamtrainError):
                raise
            raise RunError(f"--out {self.asked}: cannot be written: {error}") from error

    @property
    def is_run(self) -> bool:
        """Whether there is one that can go on, or is finished."""
        return self.checkpoints.exist() or self.has_report

    def _is_left_over(self) -> bool:
        """Whether nothing is here but what a run may have left that came to nothing."""
        others = [p for p in self.path.iterdir() if p.name not in (SCORES, LOCK) and not p.name.startswith(WRITING)]
        return not others or (others == [self.checkpoints.folder] and self.checkpoints.is_left_over())

    @property
    def has_report(self) -> bool:
        """Whether a run was finished here."""
        return (self.path / REPORT).is_file()

    def report(self) -> dict[str, Any]:
        """The report of the run that was finished here. Raises RunError where it cannot be read."""
        return read_report(self.path)

    def model(self) -> Model:
        """The model that was written here."""
        return load_model(self.path)

    def begin(self, run: Mapping[str, Any], lines: Sequence[dict[str, Any]] = ()) -> None:
        """Make ready for what follows. run: what every checkpoint says of the run. lines: the scores that ``metrics.jsonl`` is
        to hold, which are those of the checkpoint that the run goes on from."""
        self._run = json.dumps(run)
        with self._writing():
            scores = self.path / SCORES
            if lines:
                with write_beside(scores) as hidden:
                    hidden.write_text("".join(to_json(line) + "\n" for line in lines), encoding="utf-8")
            else:
                scores.unlink(missing_ok=True)

    def record(self, scores: dict[str, Any]) -> None:
        """Add a line to ``metrics.jsonl``, where it can be read at once."""
        with self._writing():
            line = to_json(scores) + "\n"
            with open(self.path / SCORES, "a", encoding="utf-8") as file:
                file.write(line)

    def save(self, stands: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
        """Write a checkpoint (see `Checkpoints.save`)."""
        with self._writing():
            try:
                self.checkpoints.save(stands, arrays, self._run)
            except ValueError as error:  # what is written has no bounds: scores of each epoch, names of columns
                if isinstance(error, StreamtrainError):
                    raise
                raise RunError(f"--out {self.asked}: a checkpoint cannot hold it: {error}") from error

    def write(self, model: Model, report: Report) -> None:
        """Write model and report to a folder inside, then move them out of it, the report last."""
        with self._writing():
            with staging(self.path) as folder:
                model.save(folder)
                (folder / REPORT).write_text(to_json(report.as_dict(), indent=1) + "\n", encoding="utf-8")
                make_durable(folder / REPORT)
                for name in ("model.safetensors", "model.json", REPORT):
                    (folder / name).replace(self.path / name)
            make_durable(self.path)


def _exists(path: Path, asked: str | Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # a name that is too long
        raise RunError(f"--out {asked}: cannot be written ({error.strerror}): name a folder elsewhere") from error


def read_report(run: Path) -> dict[str, Any]:
    """The report of a run folder. Raises RunError where there is none, or where it cannot be read."""
    try:
        found = json.loads((run / REPORT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{run}: has no {REPORT}: not a run, or one that was not finished") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{run / REPORT}: cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise RunError(f"{run / REPORT}: is not the report of a run")
    return found
